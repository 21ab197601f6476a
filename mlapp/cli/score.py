"""`mlapp score`: score a whole file of rows or texts.

Exit status: 0 all rows scored, 3 some refused (the others are scored), 1 nothing done, 2 the
command line is wrong, 130 interrupted.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from mlapp import answering, families
from mlapp.errors import InvalidSettings
from mlapp.loaders import USUAL
from mlapp.manifest import Artifact
from mlapp.records import writer as records
from mlapp.scoring import files
from mlapp.scoring.batch import Options, Origin, Scorer, parse_columns
from mlapp.scoring.outputs import is_unfinished
from mlapp.scoring.summary import RefusedRow, RefusedRowOfFile, Summary, describe_refused
from mlapp.settings import read_settings
from mlapp.store import artifacts
from mlapp.tables.formats import (
    READABLE,
    TEXT_FORMATS,
    WRITABLE,
    FileFormat,
    TableFormat,
    format_of,
)
from mlapp.tables.options import add_reading_options

REFUSED, INTERRUPTED = 3, 130
LISTED = 10  # refused rows that are listed
HELPED_BYTES = 1_000_000  # smaller files of texts are scored before a process has started
SWITCH_SECONDS = 0.0002  # with the default, 5 ms, cores are idle for longer
DESCRIPTION = """\
Score every row of a file, in order. FILE and OUT are CSV, TSV or JSON lines (also .gz, and .zip to
read), Parquet, Excel (.xlsx, to read), or - for standard input and output. All columns are kept,
followed by the prediction's; if the model refuses a row, its column `error` says why. OUT appears
when it is complete. """
STATUSES = """\
exit status: 0 all rows scored; 3 some rows refused, the others scored; 1 nothing done; 2 the
command line is wrong; 130 interrupted, --resume continues"""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "score",
        help="score a whole file of rows or texts",
        description=DESCRIPTION,
        epilog=STATUSES,
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="the table; - is standard input")
    add("-o", "--output", metavar="OUT", required=True, help="- is standard output")
    add("--model", metavar="NAME", help="(default: sentiment with --text-column, else regression)")
    add(
        "--text-column", metavar="C", help="the column of texts (default: text, review or the only)"
    )
    add(
        "--columns",
        metavar="THEIRS=OURS,...",
        default="",
        help="columns whose names differ from the model's inputs",
    )
    add("--explain", action="store_true", help="add the contribution of each input or word")
    add("--strict", action="store_true", help="stop at the first refused row; write nothing")
    add("--resume", action="store_true", help="continue a run into OUT that was cut off")
    add(
        "--workers",
        type=parse_count,
        metavar="N",
        help="threads, and for large files of texts processes (default: one for each core)",
    )
    add("--prefix", default="", help="what the names of the prediction's columns begin with")
    add(
        "--raw",
        action="store_true",
        help="write texts to CSV unchanged, though a spreadsheet may run them as formulas",
    )
    add(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: FILE may be a folder, a pattern or s3://..., and OUT is a folder of Parquet",
    )
    add("--address", help="a Ray cluster to use: auto, HOST:PORT or ray://HOST:PORT")
    add_reading_options(parser)
    add("--from", dest="source_format", choices=READABLE, help="what FILE is (default: by suffix)")
    add("--to", dest="target_format", choices=WRITABLE, help="what OUT is (default: by suffix)")


def score_file(options: argparse.Namespace) -> int:
    """Score a file as the options say, and return the exit status.

    Raises:
        MlappError: nothing was done; the message says why.
    """
    # Arrow's own allocator keeps what was freed, four times as much as is in use here.
    pa.set_memory_pool(pa.system_memory_pool())
    # A thread that a library in C returns to waits so long at most for one that runs Python.
    sys.setswitchinterval(SWITCH_SECONDS)
    name = options.model or USUAL["text" if options.text_column else "row"]
    artifact = artifacts.open(read_settings().artifacts, name)
    if options.engine == "ray":
        return _score_on_ray(artifact, options)
    if options.address:
        raise InvalidSettings("--address goes with --engine ray")
    source: Path | BinaryIO = sys.stdin.buffer if options.file == "-" else Path(options.file)
    target: Path | BinaryIO = sys.stdout.buffer if options.output == "-" else Path(options.output)
    records.start(elsewhere=True)  # in this process its libraries would delay the rows
    meter = Meter()
    try:
        with _helping(artifact, source, options.workers) as scorer:
            summary = files.score(
                families.from_artifact(artifact),
                source,
                target,
                _choose(options),
                source_format=_source_format(source, options),
                target_format=choose_format(target, options.target_format, write=True),
                workers=options.workers,
                strict=options.strict,
                resume=options.resume,
                progress=meter.show,
                origin=Origin(answering.new_id(), "command"),
                scorer=scorer,
                report=lambda line: print(line, file=sys.stderr),
            )
    except KeyboardInterrupt:
        meter.clear()
        kept = isinstance(target, Path) and is_unfinished(target)
        hint = "the same command with --resume continues" if kept else "nothing is written"
        print(f"interrupted after {meter.rows:,} rows; {hint}", file=sys.stderr)
        return INTERRUPTED
    finally:
        meter.clear()
    print_summary(summary, options.output)
    return REFUSED if summary.counts.refused else 0


@contextmanager
def _helping(
    artifact: Artifact, source: Path | BinaryIO, workers: int | None
) -> Iterator[Scorer | None]:
    """Yield a function that scores batches in other processes; None where threads do as well."""
    count = (workers or os.cpu_count() or 1) - 1
    small = isinstance(source, Path) and source.is_file() and source.stat().st_size < HELPED_BYTES
    if artifact.manifest.kind.takes != "text" or small or not count:
        yield None
        return
    from mlapp.scoring.processes import Processes

    with Processes(artifact, count) as processes:
        yield processes.score


def _score_on_ray(artifact: Artifact, options: argparse.Namespace) -> int:
    from mlapp.scoring import cluster

    if options.resume or options.target_format not in (None, "parquet"):
        raise InvalidSettings("--engine ray writes a folder of Parquet, and starts again each time")
    meter = Meter()
    try:
        summary = cluster.score(
            artifact,
            options.file,
            options.output,
            _choose(options),
            address=options.address,
            workers=options.workers,
            choose_format=lambda path: _source_format(Path(path), options),
            strict=options.strict,
            progress=meter.show,
        )
    except KeyboardInterrupt:
        meter.clear()
        print(f"interrupted after {meter.rows:,} rows; nothing is written", file=sys.stderr)
        return INTERRUPTED
    finally:
        meter.clear()
    seconds = summary.starting + summary.seconds
    name = answering.new_id()
    answering.note_run(name, artifact.manifest, "command", seconds, summary.counts, True)
    print_summary(summary, options.output)
    return REFUSED if summary.counts.refused else 0


def _choose(options: argparse.Namespace) -> Options:
    return Options(
        options.text_column,
        parse_columns(options.columns),
        options.explain,
        options.prefix,
        options.raw,
    )


def choose_format(
    file: Path | BinaryIO, given: TableFormat | None, write: bool = False
) -> FileFormat:
    """Return a file's format: the one given, or by its name; a stream is CSV.

    Raises:
        InvalidTable: none is given, and the name's suffix is not known.
    """
    if not isinstance(file, Path):
        return FileFormat(given or "csv")
    compressed = given in TEXT_FORMATS and file.suffix.lower() == ".gz"
    return FileFormat(given, compressed) if given else format_of(str(file), write)


def _source_format(file: Path | BinaryIO, options: argparse.Namespace) -> FileFormat:
    found = choose_format(file, options.source_format)
    return found.reading(options.encoding, options.decimal, options.sheet)


def parse_count(text: str) -> int:
    """Read a whole number from 1.

    Raises:
        ArgumentTypeError: the text is something else.
    """
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1")
    return int(text)


def print_summary(summary: Summary[RefusedRow] | Summary[RefusedRowOfFile], output: str) -> None:
    """Print on standard error what became of the rows."""
    counts, rows = summary.counts, summary.counts.rows - summary.earlier
    print(
        f"{output}: {counts.rows:,} rows, {counts.scored:,} scored ({counts.noticed:,} of them with"
        f" a notice), {counts.refused:,} refused; {summary.seconds:.1f} s,"
        f" {rows / max(summary.seconds, 1e-9):,.0f} rows/s",
        file=sys.stderr,
    )
    for row in summary.refused[:LISTED]:
        print(describe_refused(row), file=sys.stderr)
    if counts.refused > LISTED:
        print(f"... and {counts.refused - LISTED:,} more", file=sys.stderr)


class Meter:
    """Progress on standard error: a bar on a terminal, otherwise a line every ten seconds."""

    def __init__(self) -> None:
        self.rows = 0
        self._terminal = sys.stderr.isatty()
        self._every = 0.1 if self._terminal else 10.0
        self._began = self._shown = time.monotonic()
        self._first: tuple[int, float] | None = None

    def show(self, rows: int, share: float | None) -> None:
        """Show how many rows are done, and the share of the input, where that is known."""
        self.rows = rows
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = (rows, share or 0.0), now
        if now < self._shown + self._every:
            return
        self._shown, seconds = now, max(now - self._began, 1e-9)
        rate = (rows - self._first[0]) / seconds
        line = f"{rows:,} rows, {rate:,.0f} rows/s"
        if share:
            gained = share - self._first[1]
            left = int(seconds * (1 - share) / gained) if gained > 0 else 0
            line = f"{share:4.0%}  {line}, {left // 60}:{left % 60:02} left"
        if not self._terminal:
            print(line, file=sys.stderr)
            return
        width = shutil.get_terminal_size().columns
        length = min(30, width - len(line) - 5)
        if share and length >= 10:
            done = round(share * length)
            line = f"[{'#' * done}{'-' * (length - done)}] {line}"
        print(f"\r\x1b[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the bar."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
