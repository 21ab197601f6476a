"""What `mlapp score` does after its processes have started: a file here, or files on Ray."""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

import pyarrow as pa

from mlapp import answering, families, store
from mlapp.cli.score import INTERRUPTED, LISTED, REFUSED
from mlapp.errors import InvalidSettings, InvalidTable, MlappError, OutputError
from mlapp.loaders import USUAL
from mlapp.manifest import Artifact
from mlapp.records import writer as records
from mlapp.records.process import WritingProcess
from mlapp.scoring import files
from mlapp.scoring.batch import Options, Origin, parse_columns
from mlapp.scoring.outputs import is_unfinished
from mlapp.scoring.processes import Processes
from mlapp.scoring.summary import RefusedRow, RefusedRowOfFile, Summary, describe_refused
from mlapp.settings import read_settings
from mlapp.store import artifacts
from mlapp.tables.formats import TEXT_FORMATS, WRITTEN, FileFormat, TableFormat, format_of

SWITCH_SECONDS = 0.0002  # with the default, 5 ms, cores are idle for longer


def score_here(
    options: argparse.Namespace, writing: WritingProcess, helping: Processes, helpers: int
) -> int:
    """Score a file, and return the exit status.

    Args:
        options: those of the command.
        writing: what writes the record of the run.
        helping: processes that score texts beside this one, started or not.
        helpers: how many of them are of use if the model takes texts.

    Raises:
        MlappError: nothing was done; the message says why.
    """
    records.start(writing)
    unreadable = InvalidTable("standard input cannot be read: it is closed")
    source = _path_or_stream(options.file, sys.stdin, unreadable)
    unwritable = OutputError("standard output cannot be written: it is closed")
    target = _path_or_stream(options.output, sys.stdout, unwritable)
    # A thread that a library in C returns to waits so long at most for one that runs Python.
    sys.setswitchinterval(SWITCH_SECONDS)
    artifact = _open(options)
    scorer = None
    if helpers and artifact.manifest.kind.takes == "text":
        helping.start(helpers)
        helping.open(artifact)
        scorer = helping.score
    meter = Meter()
    try:
        source_format = _source_format(source, options)
        if source_format.format in TEXT_FORMATS:
            _keep_arrow_from_pandas()
        model = families.from_artifact(artifact)
        summary = files.score(
            model,
            source,
            target,
            _choose(options, model.takes.names),
            source_format=source_format,
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


def _path_or_stream(name: str, stream: TextIO | None, closed: MlappError) -> Path | BinaryIO:
    """Return the file of a name, or for `-` the bytes of a stream, unless it is closed."""
    if name != "-":
        return Path(name)
    if stream is None:
        raise closed
    return stream.buffer


def _open(options: argparse.Namespace) -> Artifact:
    """Open the model, and prepare this process for a file."""
    # Arrow's own allocator keeps what was freed, four times as much as is in use here.
    pa.set_memory_pool(pa.system_memory_pool())
    name = options.model or USUAL["text" if options.text_column else "row"]
    root = read_settings().artifacts
    wanted = artifacts.servable(root, name)
    artifact, refused = store.open_first(wanted, lambda each: artifacts.open(root, name, each))
    if refused:
        print(f"version {artifact.manifest.version} is used: {refused}", file=sys.stderr)
    return artifact


class _NoPandas:
    """A finder for `sys.meta_path` that makes importing pandas fail."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name=name)


def _keep_arrow_from_pandas() -> None:
    """Let Arrow not import pandas, which takes longer than scoring a small file.

    Arrow looks for it once, to recognize its objects. None of them comes from a file of texts.
    """
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array(())
    finally:
        sys.meta_path.remove(_NoPandas)


def score_on_ray(options: argparse.Namespace) -> int:
    """Score files on a cluster of Ray, and return the exit status.

    Raises:
        MlappError: nothing was done; the message says why.
    """
    from mlapp.scoring import cluster

    artifact = _open(options)
    if options.resume or options.target_format not in (None, "parquet"):
        raise InvalidSettings(
            "--engine ray writes a folder of Parquet and cannot resume: remove --resume and --to"
        )
    names = families.from_artifact(artifact).takes.names if options.columns else ()
    meter = Meter()
    try:
        summary = cluster.score(
            artifact,
            options.file,
            options.output,
            _choose(options, names),
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


def _choose(options: argparse.Namespace, names: Sequence[str]) -> Options:
    return Options(
        options.text_column,
        parse_columns(options.columns, names),
        options.explain,
        options.prefix,
        options.raw,
    )


def choose_format(
    file: Path | BinaryIO, given: TableFormat | None, write: bool = False
) -> FileFormat:
    """Return a file's format: the one given, or by its name; a stream is CSV.

    Raises:
        InvalidTable: none is given, and the name's suffix is not known; or it is that of a zip
            archive, and will be written.
    """
    if not isinstance(file, Path):
        return FileFormat(given or "csv")
    if given is None:
        return format_of(str(file), write)
    suffix = file.suffix.lower()
    if write and suffix == ".zip":
        raise InvalidTable(f"{file}: got '.zip', expected {WRITTEN}")
    return FileFormat(given, given in TEXT_FORMATS and suffix == ".gz")


def _source_format(file: Path | BinaryIO, options: argparse.Namespace) -> FileFormat:
    found = choose_format(file, options.source_format)
    return found.reading(options.encoding, options.decimal, options.sheet)


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
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
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
