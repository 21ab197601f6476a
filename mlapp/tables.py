"""Tables as streams of Arrow record batches: CSV and the like, JSON lines, Parquet.

    file -> unpacked -> UTF-8 -> chunks of rows, in order -> the bytes of another table

Cells of CSV and JSON lines stay the text that they are, so that what goes in comes out, and a
number column that turns into text in row 900,000 is one bad row. Parquet keeps its types. Memory
holds a few chunks, however long the table is.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mlapp.errors import Fault, InvalidTable
from mlapp.schema import describe
from mlapp.streams import BLOCK, Text, told

Format: TypeAlias = Literal["csv", "tsv", "jsonl", "parquet"]

LONGEST_ROW = 1 << 25  # bytes; the longest text that a model reads has 8 MB at most
PARQUET_ROWS, PARQUET_BYTES = 1 << 15, 1 << 22  # of Parquet that are read at once, at most
GROUP_ROWS = 1 << 17  # rows of a row group that is written

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
ALLOWED = ".csv, .tsv or .jsonl, also with .gz (and .zip to read), or .parquet"
_HEAD = 1 << 20  # bytes in which the header must end
_LINES: dict[str, Format] = {",": "csv", "\t": "tsv"}
_LONE = "\x1f"  # the separator where a header has none, so that texts may hold commas


@dataclass(frozen=True)
class Form:
    """How a table is written down.

    Attributes:
        format: CSV, TSV, JSON lines or Parquet.
        packed: whether it is gzipped (or zipped, where it is read).
        encoding: of a text that is read; by default UTF-8, or what its byte-order mark says.
    """

    format: Format
    packed: bool = False
    encoding: str | None = None


def form_of(name: str, write: bool = False) -> Form:
    """Return the form that a file's name says.

    Args:
        name: the file's name, or its path.
        write: whether it is to be written, and so may not be zipped.

    Raises:
        InvalidTable: its suffix says none.
    """
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    packed = suffixes[-1:] in ([".gz"], [".zip"])
    form = _SUFFIXES.get("".join(suffixes[-2:-1] if packed else suffixes[-1:]))
    if form is None or (packed and (form == "parquet" or (write and suffixes[-1] == ".zip"))):
        got = repr("".join(suffixes[-2:] if packed else suffixes[-1:])) if suffixes else "no suffix"
        raise InvalidTable(f"{name}: got {got}, expected {ALLOWED}")
    return Form(form, packed)


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table, in order.

    Attributes:
        batch: the rows; one that could not be read has the cells that it has, else nulls.
        faults: why a row could not be read, by its place in the batch.
        lines: each row as it is in the file, up to where more can be added, if that can be had.
        line_format: what the lines are.
    """

    batch: pa.RecordBatch
    faults: dict[int, Fault] = field(default_factory=dict)
    lines: pa.Array | None = None
    line_format: Format | None = None

    def slice(self, start: int, count: int) -> "Chunk":
        """Return `count` rows from `start` on, or as many as there are."""
        lines = None if self.lines is None else self.lines.slice(start, count)
        span = range(start, start + count)
        faults = {place - start: fault for place, fault in self.faults.items() if place in span}
        return Chunk(self.batch.slice(start, count), faults, lines, self.line_format)


@dataclass
class Table:
    """An opened table.

    Attributes:
        name: the file's name, for messages.
        form: how it is written down.
        schema: its columns; those of CSV and JSON lines are text.
        size: its bytes as they lie in the file, if that is known.
        position: returns how many of them were read.
    """

    name: str
    form: Form
    schema: pa.Schema
    size: int | None
    position: Callable[[], int]
    _chunks: Iterator[Chunk]

    def chunks(self, rows: int | None = None) -> Iterator[Chunk]:
        """Yield the rows in order, once; the same file is always cut into the same chunks.

        Args:
            rows: how many a chunk may hold.

        Raises:
            InvalidTable: the file is damaged, or a row longer than `LONGEST_ROW` bytes.
        """
        while True:
            with told(self.name):
                chunk = next(self._chunks, None)
            if chunk is None:
                return
            count = chunk.batch.num_rows
            for start in range(0, count, rows or count):
                yield chunk.slice(start, rows or count)


@contextmanager
def open_table(
    source: Path | BinaryIO, form: Form | None = None, name: str | None = None
) -> Iterator[Table]:
    """Open a table with named columns and at least one row.

    A separator (comma, semicolon, tab or bar), a byte-order mark, gzip and zip are recognised. A
    file is read through once before, so that a broken archive or a wrong encoding in its last row
    is told at once; a stream that cannot be read twice tells it on the way.

    Args:
        source: a file, or an open stream of bytes, which stays open.
        form: how it is written down; by default what the file's name says.
        name: what it is called in messages; by default the file's name.

    Raises:
        InvalidTable: it cannot be read; the message says why, and what is allowed.
    """
    if name is None:
        name = str(source if isinstance(source, Path) else getattr(source, "name", source))
    form = form or form_of(name)
    with ExitStack() as stack:
        if isinstance(source, Path):
            with told(name):
                stream: BinaryIO = stack.enter_context(source.open("rb"))
        else:
            stream = source
        size = None
        if stream.seekable():
            size = stream.seek(0, io.SEEK_END)
            stream.seek(0)
        opened = _open_parquet if form.format == "parquet" else _open_text
        schema, chunks, position = opened(name, stream, form)
        stack.callback(chunks.close)
        filled = filter(lambda chunk: chunk.batch.num_rows, chunks)
        with told(name):
            first = next(filled, None)
        if first is None:
            raise InvalidTable(f"{name} has a header but no rows")
        yield Table(name, form, schema, size, position, chain([first], filled))


Opened: TypeAlias = tuple[pa.Schema, Generator[Chunk], Callable[[], int]]


def _open_parquet(name: str, stream: BinaryIO, _form: Form) -> Opened:
    if not stream.seekable():
        raise InvalidTable(f"{name} is a stream, and Parquet can be read from files only")
    import pyarrow.parquet as pq  # 6 MB that tables of text do without

    with told(name):
        file = pq.ParquetFile(stream, buffer_size=BLOCK, pre_buffer=False)
    plain = [(each.name, _plain(each.type)) for each in file.schema_arrow]
    schema = _checked(name, pa.schema(plain))
    # Long texts are read a few rows at a time.
    groups = [file.metadata.row_group(place) for place in range(file.num_row_groups)]
    widest = max((group.total_byte_size // (group.num_rows or 1) for group in groups), default=0)
    rows = max(1, min(PARQUET_ROWS, PARQUET_BYTES // (widest + 1)))

    size, done = stream.seek(0, io.SEEK_END), 0

    def read() -> Generator[Chunk]:
        nonlocal done
        for batch in file.iter_batches(rows, use_threads=False):
            done += batch.num_rows
            yield Chunk(pa.RecordBatch.from_arrays(batch.columns, schema=schema))  # casts, too

    return schema, read(), lambda: size * done // file.metadata.num_rows


def _open_text(name: str, stream: BinaryIO, form: Form) -> Opened:
    def start() -> Text:
        if stream.seekable():
            stream.seek(0)
        return Text(name, stream, form.packed, form.encoding)

    text, keys = start(), dict[str, None]()
    if stream.seekable():
        text.check(lambda lines: keys.update(_keys(lines)) if form.format == "jsonl" else None)
        text = start()
    if not (head := text.peek(_HEAD)).strip():
        raise InvalidTable(f"{name} is empty")
    if form.format == "jsonl":
        if not keys:
            keys = _keys(head[: head.rfind(b"\n") + 1] or head)
        if not keys:
            raise InvalidTable(f"{name}: expected a JSON object in each line, got none")
        schema = _checked(name, pa.schema([(key, pa.string()) for key in keys]))
        return schema, _read_json(text, schema), text.position
    names, separator = _header(name, head, "\t" if form.format == "tsv" else ",;\t|")
    schema = _checked(name, pa.schema([(each, pa.string()) for each in names]))
    return schema, _read_csv(text, schema, separator), text.position


def _read_csv(text: Text, schema: pa.Schema, separator: str) -> Generator[Chunk]:
    """Yield the rows behind the header; a row with too few or too many cells is a fault."""
    newline = b"\n" if b"\n" in text.peek(_HEAD) else b"\r"
    rest, header = b"", 1
    while data := text.read(BLOCK):
        rest += data
        end, _ = find_row_end(rest, separator.encode(), newline)
        if end:
            yield _parse_csv(rest[:end], schema, separator, header)
            rest, header = rest[end:], 0
        elif len(rest) > LONGEST_ROW:
            start = describe(rest[:80].decode(errors="replace"))
            raise InvalidTable(
                f"{text.name}: got a row of more than {LONGEST_ROW:,} bytes; is there a quotation"
                f" mark that is never closed? The row begins with {start}"
            )
    if rest:
        _, is_open = find_row_end(rest, separator.encode(), newline)
        chunk = _parse_csv(rest + newline, schema, separator, header)
        if is_open:
            fault = Fault("row", "a quotation mark that is never closed", "one that is")
            chunk.faults[chunk.batch.num_rows - 1] = fault
        yield chunk


def find_row_end(data: bytes, separator: bytes, newline: bytes) -> tuple[int, bool]:
    """Find the end of the last whole row of CSV that begins with a row.

    Returns:
        The place behind its line break, 0 if there is none; and whether a quotation mark is open
        at the end of the data.
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
    # A mark opens a cell at its start only; within a cell without quotes it is a character. Where
    # every second one is at a start, or is the other half of a double one, marks just alternate.
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


def _parse_csv(data: bytes, schema: pa.Schema, separator: str, header: int) -> Chunk:
    """Parse whole rows, of which the first `header` are left out."""
    bad: list[Any] = []

    def hold(row: Any) -> str:
        bad.append(row)
        return "skip"

    table = _parse(data, len(schema), separator, header, hold)
    batches = table.to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
    columns = batches[0].columns  # one, as all was one block
    if bad:
        return _merge(columns, schema, bad, header + 1, separator)
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    if header or b'"' in data or separator not in _LINES:
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
    return Chunk(batch, {}, pc.ascii_rtrim(lines, "\r\n"), _LINES[separator])


def _parse(
    data: bytes, columns: int, separator: str, header: int, bad: Callable[[Any], str] | None = None
) -> pa.Table:
    names = [str(place) for place in range(columns)]
    return pa.csv.read_csv(
        pa.BufferReader(data),
        pa.csv.ReadOptions(
            use_threads=False,
            block_size=len(data) + 1,
            column_names=names,
            skip_rows_after_names=header,
        ),
        pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=bad),
        pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )


def _merge(
    columns: list[pa.Array], schema: pa.Schema, bad: list[Any], number: int, separator: str
) -> Chunk:
    """Put bad rows among the good ones; the first of all has Arrow's row number `number`."""
    rows, faults = [], {}
    for row in bad:
        count = row.actual_columns
        read = _parse(row.text.encode() + b"\n", count, separator, 0)
        cells = [column[0].as_py() for column in read.columns]
        got = f"{count} cell{'s' if count > 1 else ''}"
        if surplus := cells[len(schema) :]:
            got += f" ({', '.join(map(describe, surplus[:5]))} too many)"
        faults[row.number - number] = Fault("row", got, f"{len(schema)} cells")
        rows.append((cells + [""] * len(schema))[: len(schema)])
    good, places = len(columns[0]), np.fromiter(faults, dtype=np.int64)
    order = np.empty(good + len(bad), dtype=np.int64)
    order[places] = np.arange(good, len(order))
    order[np.setdiff1d(np.arange(len(order)), places, assume_unique=True)] = np.arange(good)
    merged = [
        pa.concat_arrays([column, pa.array(cells, pa.string())]).take(pa.array(order))
        for column, cells in zip(columns, zip(*rows, strict=True), strict=True)
    ]
    return Chunk(pa.RecordBatch.from_arrays(merged, schema=schema), faults)


def _header(name: str, head: bytes, separators: str) -> tuple[list[str], str]:
    """Return the names in the first row, and the separator that makes most of them."""
    found: list[tuple[list[str], str]] = []
    for separator in separators:
        lines = io.StringIO(head.decode(errors="ignore"), newline="")
        try:
            names = next(filter(None, csv.reader(lines, delimiter=separator)))
        except csv.Error as error:
            raise InvalidTable(f"{name}: its first row cannot be read: {error}") from error
        found.append((names, separator))
        if len(head) >= _HEAD and not lines.read(1):
            raise InvalidTable(f"{name}: its first row has more than {_HEAD:,} bytes")
    names, separator = max(found, key=lambda pair: len(pair[0]))
    return (names, separator) if len(names) > 1 else ([names[0]], _LONE)


def _checked(name: str, schema: pa.Schema) -> pa.Schema:
    """Return a schema whose columns can be told apart.

    Raises:
        InvalidTable: there are none, some have no name, or two the same.
    """
    names = schema.names
    if not names:
        raise InvalidTable(f"{name} has no columns")
    if empty := [place for place, each in enumerate(names, 1) if not each.strip()]:
        places = ", ".join(map(str, empty[:10]))
        raise InvalidTable(f"{name}: got no name for column {places}, expected one for each")
    if twice := sorted({each for each in names if names.count(each) > 1}):
        listed = ", ".join(map(repr, twice[:10]))
        raise InvalidTable(f"{name}: got several columns named {listed}, expected one of each name")
    return schema


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that a column is read as: texts and categories have several in Arrow."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pa.string() if is_text else kind


def _keys(lines: bytes) -> dict[str, None]:
    """Return the keys of all JSON objects, in order."""
    keys: dict[str, None] = {}
    for line in lines.split(b"\n"):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict) and not keys.keys() >= value.keys():
            keys |= dict.fromkeys(value)
    return keys


def _read_json(text: Text, schema: pa.Schema) -> Generator[Chunk]:
    """Yield the lines that are not blank; one that is no object of known keys is a fault."""
    rest = b""
    while data := text.read(BLOCK):
        whole, _, rest = (rest + data).rpartition(b"\n")
        if len(rest) > LONGEST_ROW:
            raise InvalidTable(f"{text.name}: got a line of more than {LONGEST_ROW:,} bytes")
        if chunk := _parse_lines(whole, schema):
            yield chunk
    if chunk := _parse_lines(rest, schema):
        yield chunk


def _parse_lines(data: bytes, schema: pa.Schema) -> Chunk | None:
    lines = [stripped for line in data.split(b"\n") if (stripped := line.strip())]
    if not lines:
        return None
    names, known = schema.names, set(schema.names)
    rows: list[list[str | None]] = []
    faults: dict[int, Fault] = {}
    for place, line in enumerate(lines):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            faults[place] = Fault("row", describe(line.decode()), "one JSON object")
            value = {}
        elif not known >= value.keys():
            keys = ", ".join(repr(key) for key in value if key not in known)
            faults[place] = Fault("row", f"the key {keys}", "only keys of the first rows")
        lines[place] = line[:-1] + b"," if value else b"{"
        rows.append([_cell(value.get(name), name, line) for name in names])
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    return Chunk(batch, faults, pa.array(lines, pa.string()), "jsonl")


def _cell(value: Any, name: str, line: bytes) -> str | None:
    """Return a JSON value as text: a text as it is, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and abs(value) >= 2**63:
        return json.dumps(json.loads(line)[name])  # a whole number that orjson has rounded
    return orjson.dumps(value).decode()
