"""`mlapp score`: score a whole file of rows or texts.

Exit status: 0 all rows scored, 3 some or all rows refused (any others are scored), 1 nothing done,
2 usage error, 130 interrupted.
"""

import argparse
import gc
import os
from pathlib import Path
from typing import Any

from mlapp.errors import InvalidSettings
from mlapp.records.process import start_early
from mlapp.scoring.processes import Processes
from mlapp.settings import read_settings
from mlapp.tables.formats import READABLE, WRITABLE
from mlapp.tables.options import add_reading_options

REFUSED, INTERRUPTED = 3, 130
LISTED = 10  # refused rows that are listed
HELPED_BYTES = 1_000_000  # smaller files of texts are scored before a process has started
DESCRIPTION = """\
Score every row of a file, in order. FILE and OUT are CSV, TSV or JSON lines (also .gz, and .zip to
read), Parquet, Excel (.xlsx, to read), or - for standard input and output. All columns are kept,
followed by those of the prediction; if the model refuses a row, its column `error` says why. OUT
appears when it is complete. """
STATUSES = """\
exit status: 0 all rows scored; 3 some or all rows refused, any others scored; 1 nothing done; 2
usage error; 130 interrupted, --resume continues"""


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
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
        "--text-column",
        metavar="C",
        help="the column of texts (default: the one that the model was trained on, text, review, or"
        " the only column of texts)",
    )
    add(
        "--columns",
        metavar="THEIRS=OURS,...",
        default="",
        help="columns whose names differ from the model's inputs",
    )
    add("--explain", action="store_true", help="add the contribution of each input or word")
    add("--strict", action="store_true", help="stop at the first refused row; write nothing")
    add("--resume", action="store_true", help="resume an interrupted run of a file into OUT")
    add(
        "--workers",
        type=parse_count,
        metavar="N",
        help="threads, or processes for large files of texts (default: one for each core)",
    )
    add(
        "--prefix",
        type=parse_prefix,
        default="",
        help="prefix of the names of the prediction columns",
    )
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
    add(
        "--from", dest="source_format", choices=READABLE, help="format of FILE (default: by suffix)"
    )
    add("--to", dest="target_format", choices=WRITABLE, help="format of OUT (default: by suffix)")
    parser.set_defaults(run=score_file)


def score_file(options: argparse.Namespace) -> int:
    """Score a file as the options say, and return the exit status.

    Raises:
        MlappError: nothing was done; the message says why.
    """
    if options.engine == "ray":
        from mlapp.cli import scoring

        return scoring.score_on_ray(options)
    if options.address:
        raise InvalidSettings("--address requires --engine ray")
    writing = start_early(read_settings())
    helpers = _count_helpers(options.file, options.workers)
    with Processes() as helping:
        if options.text_column is not None:
            helping.start(helpers)
        gc.disable()  # looking for garbage takes a twentieth of the imports, which leave none
        from mlapp.cli import scoring

        gc.enable()
        return scoring.score_here(options, writing, helping, helpers)


def _count_helpers(file: str, workers: int | None) -> int:
    """Return how many processes may help to score a file, if it is of texts."""
    path = Path(file)
    small = file != "-" and path.is_file() and path.stat().st_size < HELPED_BYTES
    return 0 if small else (workers or os.cpu_count() or 1) - 1


def parse_prefix(text: str) -> str:
    """Return the beginning of columns' names, which must be text that a file can hold.

    Raises:
        ArgumentTypeError: it has bytes that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected UTF-8") from error
    return text


def parse_count(text: str) -> int:
    """Read a whole number from 1.

    Raises:
        ArgumentTypeError: the text is something else.
    """
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1")
    return int(text)
