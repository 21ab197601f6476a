"""`mlapp feedback`: outcomes that arrive later, as a file.

Exit status: 0 every row is kept, 3 some are not (the others are), 1 nothing done, 2 the command
line is wrong.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlapp.cli.score import LISTED, REFUSED
from mlapp.errors import InvalidTable, MlappError, RecordsUnavailable, quote
from mlapp.settings import read_settings
from mlapp.tables.formats import format_of
from mlapp.tables.numbers import decimal_of, find_unit, parse_number, strip_unit
from mlapp.tables.options import add_reading_options
from mlapp.tables.reading import open_table

if TYPE_CHECKING:
    from mlapp.records.database import Database


AT_ONCE = 500  # rows that are kept in one transaction


class _Outcome(NamedTuple):
    """A row: its number, from 1, an answer's id or key, and what is said of that answer.

    The truth is a number, too, if it has a unit, a decimal comma or thousands marks.
    """

    number: int
    name: str
    truth: Any
    as_number: float | None
    note: str | None


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "feedback",
        help="record actual outcomes from a file",
        description="Record actual outcomes. FILE is a table in any format that `mlapp score`"
        " reads, with a row for each answer: its id and the actual outcome.",
        epilog="exit status: 0 every row is recorded; 3 some are not, the others are; 1 nothing"
        " done; 2 usage error",
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="the table")
    add("--id", metavar="C", default="id", help="the column of answers' ids (default: %(default)s)")
    add(
        "--key",
        metavar="C",
        help="match by this column instead of --id: the client's own request keys or, where inputs"
        " are recorded, the values of an input; with --model",
    )
    add("--model", metavar="NAME", help="whose answers are matched by --key")
    add("--truth", metavar="C", default="truth", help="that of outcomes (default: %(default)s)")
    add("--note", metavar="C", help="a column of notes (default: note, if any)")
    add_reading_options(parser)
    parser.set_defaults(run=give_feedback)


def give_feedback(options: argparse.Namespace) -> int:
    """Record the feedback of a file, row by row, and return the exit status.

    Raises:
        InvalidTable: the file cannot be read, or lacks a column.
        RecordsUnavailable: the database cannot be used.
    """
    from mlapp.records.database import Database
    from mlapp.records.feedback import Given, give

    settings = read_settings()
    database = Database(settings)
    find = _finder(database, options)
    recorded = known = 0
    refused: list[str] = []

    def keep(rows: Sequence[_Outcome]) -> None:
        """Keep rows at once; where one is at fault, each by itself."""
        nonlocal recorded, known
        try:
            found = [find(row.name) for row in rows]
            given = [
                Given(each, row.truth, row.note, row.as_number)
                for row, names in zip(rows, found, strict=True)
                for each in names
            ]
            new = iter(give(database, settings.artifacts, given, "file", as_text=True))
        except RecordsUnavailable:
            raise
        except MlappError as error:
            if len(rows) > 1:
                for row in rows:
                    keep([row])
            else:
                refused.append(f"row {rows[0].number:,}, {error}")
            return
        for names in found:
            is_new = any(list(islice(new, len(names))))
            recorded, known = recorded + is_new, known + (not is_new)

    outcomes = _rows(options)
    while some := list(islice(outcomes, AT_ONCE)):
        keep(some)
    print(
        f"{options.file}: {recorded:,} rows recorded, {known:,} already recorded,"
        f" {len(refused):,} refused",
        file=sys.stderr,
    )
    print(*refused[:LISTED], sep="\n", end="\n" if refused else "", file=sys.stderr)
    if len(refused) > LISTED:
        print(f"... and {len(refused) - LISTED:,} more", file=sys.stderr)
    return REFUSED if refused else 0


def _rows(options: argparse.Namespace) -> Iterator[_Outcome]:
    """Yield the rows of the file.

    Raises:
        InvalidTable: the file cannot be read, or lacks a column.
    """
    path = Path(options.file)
    file_format = format_of(options.file).reading(options.encoding, options.decimal, options.sheet)
    with open_table(path, file_format) as table:
        names, first = table.schema.names, options.key or options.id
        note_column = options.note or "note"
        for name in (first, options.truth, *([options.note] if options.note else [])):
            if name not in names:
                raise InvalidTable(f"got no column {name!r}, expected it among {quote(names)}")
        mark = decimal_of(table.schema.field(options.truth))
        number = 0
        for chunk in table.chunks():
            called, truths = (chunk.batch.column(name) for name in (first, options.truth))
            notes = chunk.batch.column(note_column) if note_column in names else None
            for place in range(chunk.batch.num_rows):
                number += 1
                cell, name = truths[place].as_py(), _text(called[place].as_py())
                note = _text(notes[place].as_py()) if notes is not None else None
                yield _Outcome(number, name, cell, _as_number(cell, mark), note or None)


def _as_number(cell: Any, mark: str | None) -> float | None:
    """Return the number of a cell that has a unit, a decimal comma or thousands marks."""
    if mark != "," and parse_number(cell) is not None:
        return None
    number = parse_number(cell, mark)
    if number is not None and not math.isnan(number):
        return number
    unit = find_unit(cell.strip()) if isinstance(cell, str) else None
    return parse_number(strip_unit(cell, unit), mark or ".") if unit else None


def _finder(database: "Database", options: argparse.Namespace) -> Callable[[str], list[str]]:
    """Return what finds the identifiers of answers by an id or a key."""
    from mlapp.errors import AnswerNotFound
    from mlapp.records.feedback import find_by_input, find_by_key, plain

    if options.key is None:
        return lambda name: [name]
    by_input = find_by_input(database, options.model, options.key) if options.model else {}

    def find(key: str) -> list[str]:
        found = find_by_key(database, key, options.model) or by_input.get(plain(key), [])
        if not found:
            raise AnswerNotFound(f"No answer with the key {key!r} is recorded")
        return found

    return find


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()
