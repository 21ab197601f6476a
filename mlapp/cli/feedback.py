"""`mlapp feedback`: outcomes that arrive later, as a file.

Exit status: 0 every row is recorded, 3 some are not (the others are), 1 none is, 2 the command line
is wrong.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from mlapp.cli.score import LISTED, REFUSED
from mlapp.errors import (
    AnswerNotFound,
    InvalidInput,
    InvalidTable,
    MlappError,
    ModelNotFound,
    RecordsUnavailable,
    quote,
)
from mlapp.schema import Category, Input, parse_text, settle_marks
from mlapp.settings import Settings, read_settings
from mlapp.store import artifacts
from mlapp.tables.formats import format_of
from mlapp.tables.numbers import decimal_of, find_unit, parse_number, strip_unit
from mlapp.tables.options import add_reading_options
from mlapp.tables.reading import open_table
from mlapp.tables.values import to_values

if TYPE_CHECKING:  # take longer to import than other commands run
    import pyarrow as pa

    from mlapp.records.database import Database

    # Returns the identifiers of answers by a column of ids or keys, given its field.
    Finder: TypeAlias = Callable[[pa.Array, pa.Field], list[list[str]]]

AT_ONCE = 500  # rows that are kept in one transaction


class _Outcome(NamedTuple):
    """A row: its number, from 1, an answer's id or key, and what is said of the answers it names.

    The truth is a number, too, if it has a unit, a decimal comma or thousands marks.
    """

    number: int
    name: str
    answers: list[str]
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
        epilog="exit status: 0 every row is recorded; 3 some are not, the others are; 1 none is;"
        " 2 usage error",
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
    parser.set_defaults(run=partial(give_feedback, parser))


def give_feedback(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Record the feedback of a file, row by row, and return the exit status.

    Raises:
        InvalidTable: the file cannot be read, or lacks a column.
        ModelNotFound: `--model` is neither published nor in the records.
        RecordsUnavailable: the database cannot be used.
        SystemExit: with 2 if `--model` is given without `--key`.
    """
    if options.model and not options.key:
        parser.error("--model goes with --key")
    from mlapp.records.database import Database
    from mlapp.records.feedback import Given, give

    settings = read_settings()
    database = Database(settings)
    find = _finder(database, settings, options)
    recorded = known = 0
    refused: list[str] = []

    def keep(rows: Sequence[_Outcome]) -> None:
        """Keep rows at once; where one is at fault, each by itself."""
        nonlocal recorded, known
        try:
            for row in rows:
                if not row.answers:
                    raise AnswerNotFound(f"No answer with the key {row.name!r} is recorded")
            given = [
                Given(each, row.truth, row.note, row.as_number)
                for row in rows
                for each in row.answers
            ]
            new = iter(give(database, settings.artifacts, given, "file", as_text=True))
        except RecordsUnavailable:
            raise
        except MlappError as error:
            if len(rows) > 1:
                for row in rows:
                    keep([row])
            else:
                refused.append(f"row {rows[0].number:,}, {_reason(error)}")
            return
        for row in rows:
            is_new = any(list(islice(new, len(row.answers))))
            recorded, known = recorded + is_new, known + (not is_new)

    outcomes = _rows(options, find)
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
    if not refused:
        return 0
    return REFUSED if recorded or known else 1


def _reason(error: MlappError) -> str:
    """Return what is wrong with a row of the file, which may be about several answers."""
    if not isinstance(error, InvalidInput):
        return str(error)
    # The faults are numbered by answer, which would be another row to the reader.
    return "; ".join(dict.fromkeys(fault.message for fault in error.faults))


def _rows(options: argparse.Namespace, find: "Finder") -> Iterator[_Outcome]:
    """Yield the rows of the file.

    Raises:
        InvalidTable: the file cannot be read, or lacks a column.
        RecordsUnavailable: the database cannot be read.
    """
    path = Path(options.file)
    file_format = format_of(options.file).reading(options.encoding, options.decimal, options.sheet)
    with open_table(path, file_format) as table:
        names, first = table.schema.names, options.key or options.id
        note_column = options.note or "note"
        wanted = {"--key" if options.key else "--id": first, "--truth": options.truth}
        wanted |= {"--note": options.note} if options.note else {}
        for option, name in wanted.items():
            if name not in names:
                allowed = f"expected it among {quote(names)}"
                raise InvalidTable(f"{option}: got no column {name!r}, {allowed}")
        mark = decimal_of(table.schema.field(options.truth))
        number = 0
        for chunk in table.chunks():
            called = chunk.batch.column(first)
            found = find(called, table.schema.field(first))
            columns = [to_values(called), to_values(chunk.batch.column(options.truth))]
            if note_column in names:
                columns.append(to_values(chunk.batch.column(note_column)))
            for place, (name, cell, *notes) in enumerate(zip(*columns, strict=True)):
                number += 1
                note = _text(notes[0]) if notes else None
                as_number = _as_number(cell, mark)
                yield _Outcome(number, _text(name), found[place], cell, as_number, note or None)


def _as_number(cell: Any, mark: str | None) -> float | None:
    """Return the number of a cell that has a unit, a decimal comma or thousands marks."""
    if mark != "," and parse_number(cell) is not None:
        return None
    number = parse_number(cell, mark)
    if number is not None and not math.isnan(number):
        return number
    unit = find_unit(cell.strip()) if isinstance(cell, str) else None
    return parse_number(strip_unit(cell, unit), mark or ".") if unit else None


def _finder(database: "Database", settings: Settings, options: argparse.Namespace) -> "Finder":
    """Return what finds the identifiers of the answers that ids or keys are about.

    Raises:
        ModelNotFound: the model is neither published nor in the records.
        RecordsUnavailable: the database cannot be read; so does what is returned.
    """
    from mlapp.records.feedback import find_by_input, find_by_key
    from mlapp.records.queries import latest

    key, model = options.key, options.model
    if key is None:
        return lambda column, _: [[_text(cell)] for cell in to_values(column)]
    root = settings.artifacts
    if model and not artifacts.versions(root, model) and not latest(database, model, 1):
        raise ModelNotFound(f"--model: {model!r} is neither published in {root} nor recorded")
    asked = find_by_input(database, root, model, key) if model else []

    def find(column: "pa.Array", field: "pa.Field") -> list[list[str]]:
        found: list[list[str]] = [[] for _ in range(len(column))]
        for each in asked:
            for names, value in zip(found, _read_input(each.spec, column, field), strict=True):
                names += each.answers.get(value, [])
        called = [find_by_key(database, _text(cell), model) for cell in to_values(column)]
        return [by_key or by_input for by_key, by_input in zip(called, found, strict=True)]

    return find


def _read_input(spec: Input | None, column: "pa.Array", field: "pa.Field") -> list[float | str]:
    """Return a column's values as answers to them have them, read as files to score are."""
    import pyarrow as pa

    from mlapp.scoring.batch import parse_column

    values: list[float | str] = [_text(cell) for cell in to_values(column)]
    if spec is None:
        return values
    if isinstance(spec, Category):
        # Categories that are not listed must not be taken for each other.
        spec = spec.model_copy(update={"other": None})
    schema = settle_marks({field.name: spec}, pa.schema([field]))
    parsed, wrong = parse_column(spec, column, decimal_of(schema.field(0)))
    refused = set(wrong)
    for place, number in enumerate(parsed.tolist()):
        value = None if place in refused else spec.plain(number)
        if value is not None:
            values[place] = value
    return values


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else parse_text(value) or ""
