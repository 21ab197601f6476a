"""A sheet of an Excel workbook as chunks of rows.

Cells become text: a number in its shortest form, a date in ISO 8601, true or false. The saved
results of formulas are read; the error values among them are missing values.
"""

import datetime
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, BinaryIO

import pyarrow as pa

from mlapp.errors import ROW, Fault, InvalidTable, quote
from mlapp.tables.chunks import MOST_CELLS, Chunk, check_columns
from mlapp.tables.decoding import refuse_bomb
from mlapp.tables.formats import FileFormat
from mlapp.tables.numbers import NUMBERS_ALONE, holds_digits, mark_decimals

ROWS, BYTES = 1 << 12, 1 << 22  # the most that are read at once
FIRST = 1 << 8  # rows that say whether the numbers of a column are in texts
LONGEST_ROW = 1 << 25  # characters
# A workbook may unpack to RATIO times its size, or to FREE bytes; parsed XML takes far more memory.
RATIO, FREE, LARGEST = 50, 1 << 22, 1 << 30

_FAILED = frozenset(
    ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#SPILL!", "#CALC!")
)


def open_excel(
    name: str, stream: BinaryIO, file_format: FileFormat
) -> tuple[pa.Schema, Generator[Chunk], Callable[[], int]]:
    """Return the columns, the chunks, and how many bytes were read; see `reading.open_table`."""
    if not stream.seekable():
        raise InvalidTable(f"{name} is a stream, and .xlsx can be read from files only")
    from openpyxl import load_workbook  # takes 0.3 s, and other formats do not need it

    with _workbook(name):
        _check_size(name, stream)
        book = load_workbook(stream, read_only=True, data_only=True, keep_links=False)
        rows = _rows(_choose(name, book, file_format.sheet))
        header = next(rows, None)
        first = list(islice(rows, min(FIRST, MOST_CELLS // len(header or [0]))))
    if header is None:
        raise InvalidTable(f"{name} is empty")
    names = [(_text(cell) or "").strip() for cell in header]
    schema = check_columns(name, pa.schema([(each, pa.string()) for each in names]))
    in_texts = {place for row in first for place, cell in enumerate(row) if holds_digits(cell)}
    marks = [None if place in in_texts else NUMBERS_ALONE for place in range(len(names))]
    schema = mark_decimals(schema, marks)

    def read() -> Generator[Chunk]:
        try:
            yield from _chunks(name, chain(first, rows), schema)
        finally:
            book.close()

    return schema, read(), stream.tell


@contextmanager
def _workbook(name: str) -> Iterator[None]:
    """Turn whatever a damaged workbook raises, which may be anything, into an InvalidTable."""
    try:
        yield
    except InvalidTable:
        raise
    except Exception as error:
        raise InvalidTable(f"{name} is not an .xlsx workbook, or is damaged: {error}") from error


def _check_size(name: str, stream: BinaryIO) -> None:
    size = stream.seek(0, 2)
    with zipfile.ZipFile(stream) as archive:
        unpacked = sum(each.file_size for each in archive.infolist())
    if unpacked > (most := max(FREE, min(RATIO * size, LARGEST))):
        raise refuse_bomb(name, f"{most:,} bytes")


def _choose(name: str, book: Any, sheet: str | None) -> Any:
    """Return a sheet by its name, or its number from 1."""
    sheets = {each.title: each for each in book.worksheets}
    chosen = next(iter(sheets.values()), None) if sheet is None else sheets.get(sheet)
    if chosen is None and sheet is not None and sheet.isdecimal() and 0 < int(sheet) <= len(sheets):
        chosen = book.worksheets[int(sheet) - 1]
    if chosen is None:
        got = "no sheet" if sheet is None else f"the sheet {sheet!r}"
        raise InvalidTable(f"{name}: got {got}, expected one of {quote(sheets)}")
    chosen.reset_dimensions()  # those that the file states may be wrong
    return chosen


def _rows(sheet: Any) -> Iterator[list[Any]]:
    """Yield the rows that are not blank, without the empty cells at their ends."""
    for row in sheet.iter_rows(values_only=True):
        count = len(row)
        while count and (row[count - 1] is None or row[count - 1] == ""):
            count -= 1
        if count:
            yield list(row[:count])


def _chunks(name: str, rows: Iterator[list[Any]], schema: pa.Schema) -> Generator[Chunk]:
    columns = len(schema)
    most = max(1, min(ROWS, MOST_CELLS // columns))
    held: list[list[str | None]] = []
    faults: dict[int, Fault] = {}
    size = 0
    while True:
        with _workbook(name):
            row = next(rows, None)
        if row is None or len(held) == most or size > BYTES:
            if held:
                yield _chunk(held, faults, schema)
            held, faults, size = [], {}, 0
        if row is None:
            return
        cells = [_text(cell) for cell in row[:columns]]
        if len(row) > columns:
            faults[len(held)] = Fault(ROW, f"{len(row)} cells", f"{columns} cells")
        length = sum(len(cell) for cell in cells if cell)
        if length > LONGEST_ROW:
            raise InvalidTable(
                f"{name}: got a row of {length:,} characters, expected at most {LONGEST_ROW:,}"
            )
        size += length
        held.append(cells + [None] * (columns - len(cells)))


def _chunk(rows: list[list[str | None]], faults: dict[int, Fault], schema: pa.Schema) -> Chunk:
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    return Chunk(pa.RecordBatch.from_arrays(columns, schema=schema), faults)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return None if value in _FAILED else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
