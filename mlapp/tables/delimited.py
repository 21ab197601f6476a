"""CSV and TSV as chunks of rows. Cells stay text."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mlapp.errors import ROW, Fault, InvalidTable, describe
from mlapp.tables.chunks import MOST_CELLS, Chunk, check_columns
from mlapp.tables.decoding import BLOCK, Text, open_text
from mlapp.tables.dialects import HEAD, LOOKED_AT, Dialect, Marks, recognise, said_separator
from mlapp.tables.formats import FileFormat, TableFormat
from mlapp.tables.numbers import DecimalVotes, Mark, mark_decimals

LONGEST_ROW = 1 << 25  # bytes; the longest text that a model reads has at most 8 MB
MOST_VOTING = 256  # chunks that are examined for decimal commas
POINTS_IN = 2_000  # rows that are examined for decimal points where no cell may have a comma

_WIDE = 1000  # tables with more columns are read in larger blocks
_WIDEST_RAGGED = 1000  # cells of a ragged row that are kept, unless the table is wider
_LINES: dict[str, TableFormat] = {",": "csv", "\t": "tsv"}

# A cell that begins like a number with a comma, perhaps behind a unit; in quotation marks if commas
# separate cells. A unit behind it has at most twelve characters, of four bytes each.
_UNIT = rb"(?:[A-Za-z$~\x80-\xff]{1,8}+\.?+[ ]*+[+-]?+)?+"
_NUMBER_START = rb"[ ]*+[+-]?+" + _UNIT + rb"[0-9. '\xa0\xc2\xe2\x80\xaf\x89\x99]*+"
_COMMA_IN_QUOTES = re.compile(rb'"' + _NUMBER_START + rb'(?:,[0-9]++)++[^",\r\n]{0,64}"')
_POINT_GROUPS = re.compile(rb"[0-9]\.[0-9]{3}\.[0-9]{3}(?![0-9.])")
_COMMA_AND_DIGIT = re.compile(rb",[0-9]")
_COMMA = re.compile(rb'(?:^|[;\t|\r\n"])' + _NUMBER_START + rb",[0-9]")


def open_delimited(
    name: str, stream: BinaryIO, file_format: FileFormat
) -> tuple[pa.Schema, Generator[Chunk], Callable[[], int]]:
    """Return the columns, the chunks, and how many bytes were read; see `reading.open_table`."""
    start = partial(_start, name, stream, file_format)
    text, separators = start()
    head = text.peek(HEAD)
    if not head.strip():
        raise InvalidTable(f"{name} is empty")
    if csv.field_size_limit() < LONGEST_ROW:  # the csv module's own limit is 128 KB
        csv.field_size_limit(LONGEST_ROW)
    dialect = recognise(name, head, separators)
    is_tsv = "\t" in (separators, dialect.separator)
    marks = Marks() if is_tsv and dialect.quoted and not dialect.spaced else None
    may_comma = True
    if stream.seekable():
        may_comma = _look_through(start()[0], dialect, file_format.decimal, marks)
    elif marks:
        marks.add(head if len(head) < HEAD else head[: head.rfind(b"\n") + 1])
    if marks and not marks.enclose():
        dialect = recognise(name, head, "\t", enclosing=False)
    schema = check_columns(name, pa.schema([(each, pa.string()) for each in dialect.names]))
    voting = start()[0] if stream.seekable() else _open_lines(head)
    decimals = _find_decimals(voting, schema, dialect, file_format.decimal, may_comma)
    schema = mark_decimals(schema, decimals)
    if stream.seekable():
        text, marks = start()[0], None
    is_open = marks is not None and not marks.decided
    return schema, _read(text, schema, dialect, is_open), text.position


def _start(name: str, stream: BinaryIO, file_format: FileFormat) -> tuple[Text, str]:
    """Open a text behind Excel's own first line, and return what may separate its cells."""
    text = open_text(name, stream, file_format.compressed, file_format.encoding)
    separator, length = said_separator(text.peek(16))
    if separator:
        text.read(length)
    return text, separator or ("\t" if file_format.format == "tsv" else ",|;\t")


def _look_through(text: Text, dialect: Dialect, decimal: str | None, marks: Marks | None) -> bool:
    """Read a file to its end, add its lines to `marks`, and return whether commas may be decimal.

    Raises:
        InvalidTable: the file is damaged, or is not valid in its encoding.
    """
    suspect = bool(_POINT_GROUPS.search(text.peek(HEAD)[:LOOKED_AT]))
    may_comma = _may_comma_in_quotes if dialect.separator == "," else _may_comma

    def see(lines: bytes) -> None:
        nonlocal suspect
        if not decimal:
            suspect = suspect or may_comma(lines)
        if marks:
            marks.add(lines)

    text.check(see)
    return suspect


def _may_comma_in_quotes(lines: bytes) -> bool:
    return b'"' in lines and bool(_COMMA_IN_QUOTES.search(lines))


def _may_comma(lines: bytes) -> bool:
    # The first search is many times faster, and often finds nothing.
    return bool(_COMMA_AND_DIGIT.search(lines) and _COMMA.search(lines))


def _find_decimals(
    text: Text, schema: pa.Schema, dialect: Dialect, decimal: str | None, may_comma: bool
) -> list[Mark]:
    """Return the decimal mark of each column, from the first chunks of a text."""
    if decimal:
        return [Mark("," if decimal == "," else ".", said=True)] * len(schema)
    votes = DecimalVotes(len(schema), dialect.separator)
    if may_comma:
        for chunk in islice(_read(text, schema, dialect), MOST_VOTING):
            votes.add(chunk.batch.columns)
    else:  # points are all that is left to find
        for chunk in islice(_read(text, schema, dialect), 1):
            votes.add([column.slice(0, POINTS_IN) for column in chunk.batch.columns])
    return votes.marks()


def _open_lines(head: bytes) -> Text:
    """Return the whole lines in the first bytes of a stream, or all of these if there are none."""
    return Text("its first bytes", io.BytesIO(head[: head.rfind(b"\n") + 1] or head))


def _read(
    source: Text, schema: pa.Schema, dialect: Dialect, is_open: bool = False
) -> Generator[Chunk]:
    """Yield the rows after the header; a row with too few or too many cells is a fault.

    Args:
        source: the text.
        schema: its columns.
        dialect: how it is written.
        is_open: whether the first quoted cell decides if quotation marks enclose cells of TSV.
    """
    text = _Respaced(source, dialect.separator) if dialect.spaced else source
    separator = dialect.separator.encode()
    newline = _newline(text)
    # Arrow's parser has a fixed cost per column and block.
    size = BLOCK if len(schema) < _WIDE else max(BLOCK, 256 * len(schema))
    rest, header = b"", 1
    while data := text.read(size):
        rest += data
        if is_open:
            dialect, is_open = _decide_quoted(dialect, rest[: rest.rfind(newline) + 1])
        end = rest.rfind(newline) + 1
        if dialect.quoted:
            end, _ = find_row_end(rest, separator, newline)
        if end:
            for piece in _pieces(rest[:end], dialect, newline, len(schema)):
                yield _parse_rows(piece, schema, dialect, header)
                header = 0
            rest = rest[end:]
        elif len(rest) > LONGEST_ROW:
            start = describe(rest[:80].decode(errors="replace"))
            raise InvalidTable(
                f"{text.name}: got a row of more than {LONGEST_ROW:,} bytes; is there a quotation"
                f" mark that is never closed? The row begins with {start}"
            )
    if rest:
        if is_open:
            dialect, _ = _decide_quoted(dialect, rest, is_last=True)
        is_unclosed = dialect.quoted and find_row_end(rest, separator, newline)[1]
        for piece in _pieces(rest + newline, dialect, newline, len(schema)):
            chunk = _parse_rows(piece, schema, dialect, header)
            header = 0
            if is_unclosed:  # then there is one piece
                fault = Fault(ROW, "a quotation mark that is never closed", "one that is")
                chunk.faults[chunk.batch.num_rows - 1] = fault
            yield chunk


def _decide_quoted(dialect: Dialect, rows: bytes, is_last: bool = False) -> tuple[Dialect, bool]:
    """Return the dialect of TSV, and whether later rows decide if marks enclose its cells."""
    marks = Marks()
    marks.add(rows)
    if marks.decided or is_last:
        return replace(dialect, quoted=marks.enclose()), False
    return dialect, True


def _newline(text: "Text | _Respaced") -> bytes:
    return b"\n" if b"\n" in text.peek(HEAD) else b"\r"


def _pieces(data: bytes, dialect: Dialect, newline: bytes, columns: int) -> Generator[bytes]:
    """Split rows of a wide table into pieces, since a few bytes may expand to many cells."""
    while (rows := data.count(newline)) > 1 and rows * columns > MOST_CELLS:
        size = max(1, len(data) * MOST_CELLS // (rows * columns))
        end = data.find(newline, size) + 1
        if dialect.quoted:
            found, _ = find_row_end(data[:end], dialect.separator.encode(), newline)
            end = found or len(data)
        yield data[:end]
        data = data[end:]
    if data:
        yield data


def find_row_end(data: bytes, separator: bytes, newline: bytes) -> tuple[int, bool]:
    """Find the end of the last whole row of CSV that begins with a row.

    Returns:
        The place after its line break, 0 if there is none; and whether a quotation mark is open at
        the end of the data.
    """
    spans = _quoted(data, separator)
    right = len(data)
    for place in range(len(spans) - 1, -1, -1):
        if (end := data.rfind(newline, spans[place][1], right)) >= 0:
            break
        right = int(spans[place][0])
    else:
        end = data.rfind(newline, 0, right)
    return end + 1, len(spans) > 0 and spans[-1][1] == len(data)


def _quoted(data: bytes, separator: bytes) -> Any:
    """Return where quoted parts begin and end, (n, 2); one that is open ends with the data."""
    if b'"' not in data:
        return ()
    held = np.frombuffer(data, np.uint8)
    marks = np.flatnonzero(held == ord('"'))
    # A mark only opens a cell at its start; elsewhere in an unquoted cell it is a character. If
    # every second mark is at a start, or the second half of a double mark, they simply alternate.
    before = held[marks[::2] - 1]
    opens = np.isin(before, np.frombuffer(b'"\r\n' + separator, np.uint8))
    opens[0] = opens[0] or marks[0] == 0
    if opens.all():
        ends = marks if len(marks) % 2 == 0 else np.append(marks, len(data))
        return ends.reshape(-1, 2)
    pattern = rb'(?:(?<=[\r\n%b])|\A)"[^"]*+(?:""[^"]*+)*+("|\Z)' % re.escape(separator)
    return [
        (found.start(), found.end() - 1 if found[1] else len(data))
        for found in re.finditer(pattern, data)
    ]


def _parse_rows(data: bytes, schema: pa.Schema, dialect: Dialect, header: int) -> Chunk:
    """Parse complete rows, and skip the first `header` of them."""
    bad: list[Any] = []

    def hold(row: Any) -> str:
        bad.append(row)
        return "skip"

    table = _parse(data, len(schema), dialect, hold)
    batches = table.to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
    columns = batches[0].columns  # one, as all was one block
    if header and bad and bad[0].number == 1:
        del bad[0]  # a header with fewer cells than the rows
    elif header:
        columns = [column.slice(1) for column in columns]
    if bad:
        return _merge(columns, schema, bad, header + 1, dialect)
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    # Lines of unquoted TSV with marks are rewritten too: a file has one convention throughout.
    if header or b'"' in data or dialect.separator not in _LINES:
        return Chunk(batch)
    # Without quotes, blank lines and lone returns, a line is a row.
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return Chunk(batch)
    breaks = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    if len(breaks) != batch.num_rows:
        return Chunk(batch)
    offsets = np.concatenate([[0], breaks + 1]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    lines = pa.Array.from_buffers(pa.string(), len(breaks), buffers)
    return Chunk(batch, {}, pc.ascii_rtrim(lines, "\r\n"), _LINES[dialect.separator])


def _parse(
    data: bytes,
    columns: int,
    dialect: Dialect,
    bad: Callable[[Any], str] | None = None,
) -> pa.Table:
    names = [str(place) for place in range(columns)]
    if data.startswith(codecs.BOM_UTF8):  # Arrow drops one, though here it is part of a cell
        data = codecs.BOM_UTF8 + data
    return pa.csv.read_csv(
        pa.BufferReader(data),
        pa.csv.ReadOptions(
            use_threads=False,
            block_size=len(data) + 1,
            column_names=names,
        ),
        pa.csv.ParseOptions(
            delimiter=dialect.separator,
            quote_char='"' if dialect.quoted else False,
            newlines_in_values=dialect.quoted,
            invalid_row_handler=bad,
        ),
        pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )


def _merge(
    columns: list[pa.Array], schema: pa.Schema, bad: list[Any], number: int, dialect: Dialect
) -> Chunk:
    """Merge bad rows into the good ones; the first row has Arrow's row number `number`."""
    faults: dict[int, Fault] = {}
    held: dict[int, list[str]] = {}  # of the columns in which a bad row has a cell
    for nth, (row, cells) in enumerate(
        zip(bad, _bad_cells(bad, len(schema), dialect), strict=True)
    ):
        count = row.actual_columns
        got = f"{count} cell{'s' if count > 1 else ''}"
        if surplus := cells[len(schema) :]:
            got += f" ({', '.join(map(describe, surplus[:5]))} too many)"
        faults[row.number - number] = Fault(ROW, got, f"{len(schema)} cells")
        for place, cell in enumerate(cells[: len(schema)]):
            if cell and place not in held:
                held[place] = [""] * len(bad)
            if cell:
                held[place][nth] = cell
    good, places = len(columns[0]), np.fromiter(faults, dtype=np.int64)
    order = np.empty(good + len(bad), dtype=np.int64)
    order[places] = np.arange(good, len(order))
    order[np.setdiff1d(np.arange(len(order)), places, assume_unique=True)] = np.arange(good)
    empty = pa.array([""] * len(bad), pa.string())
    merged = []
    for place, column in enumerate(columns):
        added = pa.array(held[place], pa.string()) if place in held else empty
        if good:
            added = pa.concat_arrays([column, added])
        merged.append(added.take(pa.array(order)) if good or place in held else added)
    return Chunk(pa.RecordBatch.from_arrays(merged, schema=schema), faults)


def _bad_cells(bad: list[Any], columns: int, dialect: Dialect) -> list[tuple[str, ...]]:
    """Return the cells of each bad row, none if they are very many."""
    cells: list[tuple[str, ...]] = [()] * len(bad)
    places: dict[int, list[int]] = {}  # by the number of cells, since each parse has a fixed cost
    for place, row in enumerate(bad):
        if row.actual_columns <= max(_WIDEST_RAGGED, columns):
            places.setdefault(row.actual_columns, []).append(place)
    for count, same in places.items():
        data = b"".join(bad[place].text.encode() + b"\n" for place in same)
        read = _parse(data, count, dialect)
        rows = zip(*(column.to_pylist() for column in read.columns), strict=True)
        for place, row_cells in zip(same, rows, strict=True):
            cells[place] = row_cells
    return cells


class _Respaced:
    """A text like `Text`, without the spaces between separators and quotation marks."""

    def __init__(self, text: Text, separator: str) -> None:
        self.name, self._made, self._left = text.name, io.StringIO(newline=""), b""
        self._writer = csv.writer(self._made, delimiter=separator, lineterminator="\r\n")
        lines = self._lines(text)
        self._rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)

    def _lines(self, text: Text) -> Generator[str]:
        rest = b""
        while data := text.read(BLOCK):
            *lines, rest = (rest + data).splitlines(keepends=True)
            if rest.endswith(b"\n"):  # after a carriage return there may be one
                lines, rest = [*lines, rest], b""
            yield from map(bytes.decode, lines)
            if len(rest) > LONGEST_ROW:
                raise InvalidTable(f"{self.name}: got a row of more than {LONGEST_ROW:,} bytes")
        if rest:
            yield rest.decode()

    def read(self, size: int) -> bytes:
        """Return about so many bytes; nothing at the end."""
        self.peek(size)
        data, self._left = self._left[:size], self._left[size:]
        return data

    def peek(self, size: int) -> bytes:
        """Return the first bytes, about `size`, which `read` then returns again."""
        if len(self._left) >= size:
            return self._left
        self._made.seek(0)
        self._made.truncate()
        held = len(self._left)
        while held + self._made.tell() < size:
            try:
                row = next(self._rows, None)
            except csv.Error as error:
                raise InvalidTable(f"{self.name} cannot be read: {error}") from error
            if row is None:
                break
            if row:
                self._writer.writerow(row)
        self._left += self._made.getvalue().encode()
        return self._left
