"""JSON lines as chunks of rows. Cells are text: strings unchanged, other values as JSON."""

import json
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from mlapp.errors import ROW, Fault, InvalidTable, describe, quote, without_surrogates
from mlapp.tables.chunks import MOST_CELLS, Chunk, check_columns, check_count
from mlapp.tables.decoding import BLOCK, Text, open_text
from mlapp.tables.formats import FileFormat
from mlapp.tables.numbers import NUMBERS_ALONE, holds_digits, mark_decimals

HEAD = 1 << 20  # bytes of a stream whose keys become columns
LONGEST_LINE = 1 << 25  # bytes
MOST_VALUES = 500_000  # in a line, since parsed values take many times their size
MOST_DIGITS = 4000  # of a whole number; Python reads a few more


def open_json_lines(
    name: str, stream: BinaryIO, file_format: FileFormat
) -> tuple[pa.Schema, Generator[Chunk], Callable[[], int]]:
    """Return the columns, the chunks, and how many bytes were read; see `reading.open_table`."""
    start = partial(open_text, name, stream, file_format.compressed, file_format.encoding)
    text, keys = start(), dict[str, bool]()
    if stream.seekable():
        text.check(lambda lines: _add_keys(name, keys, lines))
        text = start()
    if not (head := text.peek(HEAD)).strip():
        raise InvalidTable(f"{name} is empty")
    if not keys:
        _add_keys(name, keys, head[: head.rfind(b"\n") + 1] or head)
    if not keys:
        raise InvalidTable(f"{name}: expected a JSON object in each line, got none")
    schema = check_columns(name, pa.schema([(key.strip(), pa.string()) for key in keys]))
    marks = [None if in_texts else NUMBERS_ALONE for in_texts in keys.values()]
    schema = mark_decimals(schema, marks)
    return schema, _read(text, schema, list(keys)), text.position


def _add_keys(name: str, keys: dict[str, bool], lines: bytes) -> None:
    """Add the keys of all JSON objects, in order, and whether a text of the key holds digits.

    Raises:
        InvalidTable: they are more than a table may have columns.
    """
    for line in lines.split(b"\n"):
        value = load_json(line)
        if isinstance(value, dict):
            for key, each in value.items():
                if not keys.setdefault(key, False) and holds_digits(each):
                    keys[key] = True
            check_count(name, len(keys))


def load_json(line: bytes) -> Any:
    """Return the JSON value in a line, None if it is not valid JSON or has too many values.

    A number beyond all floats is infinite, and NaN and Infinity are read, as Python writes them.
    Half of a surrogate pair, as where a text was cut, is U+FFFD.
    """
    if len(line) > MOST_VALUES and line.count(b",") + line.count(b":") > MOST_VALUES:
        return None
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return _load_exactly(line)


def _load_exactly(line: bytes) -> Any:
    """Return what `load_json` does, with whole numbers of any length; it is slower."""
    try:
        value = json.loads(line.decode(), parse_int=_read_whole)
        if b"\\ud" in line.lower():
            whole = without_surrogates(json.dumps(value, ensure_ascii=False))
            value = json.loads(whole, parse_int=_read_whole)
    except (ValueError, RecursionError):
        return None
    return value


def _read_whole(digits: str) -> float:
    """Return a whole number, but infinity for one with more digits than Python reads."""
    return int(digits) if len(digits) < MOST_DIGITS else float(digits)


def _read(text: Text, schema: pa.Schema, keys: list[str]) -> Generator[Chunk]:
    """Yield the lines that are not blank; other values than objects of known keys are faults."""
    rest: list[bytes] = []
    while data := text.read(BLOCK):
        whole, found, after = data.rpartition(b"\n")
        if found:
            yield from _parse_lines(b"".join([*rest, whole]), schema, keys)
            rest = []
        rest.append(after)
        if sum(map(len, rest)) > LONGEST_LINE:
            raise InvalidTable(f"{text.name}: got a line of more than {LONGEST_LINE:,} bytes")
    yield from _parse_lines(b"".join(rest), schema, keys)


def _parse_lines(data: bytes, schema: pa.Schema, keys: list[str]) -> Generator[Chunk]:
    lines = [stripped for line in data.split(b"\n") if (stripped := line.strip())]
    most = max(1, MOST_CELLS // len(keys))
    for start in range(0, len(lines), most):
        yield _parse_some(lines[start : start + most], schema, keys)


def _parse_some(lines: list[bytes], schema: pa.Schema, keys: list[str]) -> Chunk:
    known = frozenset(keys)
    cells: dict[str, list[str | None]] = {}  # by key, of the keys that occur
    faults: dict[int, Fault] = {}
    for place, line in enumerate(lines):
        value = load_json(line)
        if not isinstance(value, dict):
            allowed = "one JSON object"
            if len(line) > MOST_VALUES:
                allowed += f" of at most {MOST_VALUES:,} values"
            faults[place] = Fault(ROW, describe(line[:400].decode(errors="replace")), allowed)
            value = {}
        elif not known >= value.keys():
            others = quote([key for key in value if key not in known])
            faults[place] = Fault(ROW, f"the key {others}", "only keys of the first rows")
        lines[place] = line[:-1] + b"," if value else b"{"
        exact: dict[str, Any] = {}
        for key in known & value.keys():
            if key not in cells:
                cells[key] = [None] * len(lines)
            try:
                cells[key][place] = _cell(value[key], key, line, exact)
            except RecursionError:
                faults[place] = Fault(key, "a value of too many levels", "one of fewer")
    empty = pa.nulls(len(lines), pa.string())
    columns = [pa.array(cells[key], pa.string()) if key in cells else empty for key in keys]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    return Chunk(batch, faults, pa.array(lines, pa.string()), "jsonl")


def _cell(value: Any, key: str, line: bytes, exact: dict[str, Any]) -> str | None:
    """Return a value as text; `exact` is filled with the line's unrounded values if needed."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and not abs(value) < 2**63:
        if not exact:  # orjson has rounded a whole number
            exact.update(_load_exactly(line))
        return json.dumps(exact[key])
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a whole number that is longer, or many levels
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
