"""Writing tables: CSV, TSV, JSON lines, Parquet.

Each chunk is converted to bytes on its own, so that chunks are converted in parallel and then
concatenated. Parquet does not allow that: its chunks are collected as an Arrow stream, which
`finish_parquet` converts.
"""

import gzip
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from mlapp.tables.chunks import Chunk
from mlapp.tables.formats import FileFormat
from mlapp.tables.numbers import number_pattern
from mlapp.tables.values import to_values, write_out

Bytes: TypeAlias = bytes | memoryview

GROUP_ROWS, GROUP_BYTES = 1 << 17, 1 << 25  # the limits of a row group of Parquet

SEPARATORS = {"csv": ",", "tsv": "\t"}
# Spreadsheets run a cell that begins like this, also in full width, unless it is a number.
_FORMULA = "^[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
_NUMBER = f"^(?:[+-]|(?:{number_pattern('.')}|{number_pattern(',')})%?)$"
_FIRST = np.zeros(256, dtype=bool)  # the bytes that a formula may begin with
_FIRST[list(b"=+-@\t\r\n\xef")] = True


def write_head(file_format: FileFormat, schema: pa.Schema, raw: bool = False) -> Bytes:
    """Return the bytes before the first chunk: for CSV, the header row.

    Args:
        file_format: that of the file.
        schema: its columns.
        raw: whether texts that a spreadsheet would run as formulas are written unchanged to CSV.
    """
    if file_format.format == "parquet":
        return memoryview(schema.serialize())
    if file_format.format == "jsonl":
        return b""
    names = [pa.array([name], pa.string()) for name in schema.names]
    return _pack(file_format, _join([*_cells(names, SEPARATORS[file_format.format], raw), "\n"]))


def write_chunk(file_format: FileFormat, chunk: Chunk, own: int, raw: bool = False) -> Bytes:
    """Return the bytes of a chunk.

    Args:
        file_format: that of the file.
        chunk: the rows. If it has lines of the same format, the new cells are appended to these.
        own: how many of the columns these lines already have.
        raw: as for `write_head`.
    """
    if file_format.format == "parquet":
        return memoryview(chunk.batch.serialize())
    parts: list[pa.Array | str] = []
    columns = chunk.batch.columns
    stays = chunk.line_format == file_format.format
    if stays and file_format.format != "jsonl" and not raw:
        stays = not any(len(_risky(column)) for column in columns[:own])
    if stays:
        parts, columns = [chunk.lines], columns[own:]
    if file_format.format == "jsonl":
        parts += _json_cells(columns, chunk.batch.schema.names[-len(columns) :], not parts)
    else:
        separator = SEPARATORS[file_format.format]
        parts += [separator] if parts else []
        parts += _cells(columns, separator, raw)
    return _pack(file_format, _join([*parts, "}\n" if file_format.format == "jsonl" else "\n"]))


def finish_parquet(source: BinaryIO, target: BinaryIO) -> None:
    """Convert an Arrow stream to a Parquet file.

    The result does not depend on the stream's batches, unless a row group reaches `GROUP_BYTES`.
    """
    import pyarrow.parquet as pq

    with pa.ipc.open_stream(source) as stream, pq.ParquetWriter(target, stream.schema) as writer:
        held: list[pa.RecordBatch] = []
        rows = 0

        def write_group() -> None:
            group = pa.Table.from_batches(held, stream.schema).combine_chunks()
            writer.write_table(group, row_group_size=GROUP_ROWS)
            held.clear()

        for batch in stream:
            start = 0
            while rows + batch.num_rows - start >= GROUP_ROWS:
                held.append(batch.slice(start, GROUP_ROWS - rows))
                start += GROUP_ROWS - rows
                write_group()
                rows = 0
            held.append(batch.slice(start))
            rows += batch.num_rows - start
            if sum(each.nbytes for each in held) > GROUP_BYTES:
                write_group()
                rows = 0
        if rows:
            write_group()


def guard(texts: pa.Array) -> pa.Array:
    """Put an apostrophe before the texts that a spreadsheet would run as a formula."""
    places = _risky(texts)
    if not len(places):
        return texts
    risky = np.zeros(len(texts), dtype=bool)
    risky[places] = True
    return pc.if_else(pa.array(risky), pc.binary_join_element_wise("'", texts, ""), texts)


def _risky(texts: pa.Array) -> Any:
    """Return the places of the texts that a spreadsheet would run as a formula."""
    if not pa.types.is_string(texts.type):
        return ()
    data, offsets = _bytes(texts)
    filled = np.flatnonzero(offsets[1:] > offsets[:-1])
    places = filled[_FIRST[data[offsets[filled]]]]
    if not len(places):
        return ()
    suspects = texts.take(pa.array(places))
    try:  # a column of negative numbers, most often
        if np.isfinite(suspects.cast(pa.float64()).to_numpy(zero_copy_only=False)).all():
            return ()
    except pa.ArrowInvalid:
        pass
    runs = pc.and_not(
        pc.match_substring_regex(suspects, _FORMULA), pc.match_substring_regex(suspects, _NUMBER)
    )
    return places[runs.to_numpy(zero_copy_only=False)]


def _cells(columns: list[pa.Array], separator: str, raw: bool) -> list[pa.Array | str]:
    """Return the cells of CSV with the separators between them."""
    parts: list[pa.Array | str] = []
    for column in columns:
        texts = as_text(column)
        if not raw and _is_text(column.type):
            texts = guard(texts)
        parts += [separator, _quote(texts, separator)]
    return parts[1:]


def _quote(texts: pa.Array, separator: str) -> pa.Array:
    """Put quotation marks around the texts that need them."""
    held = bytes(_bytes(texts)[0])
    if not any(mark in held for mark in (b'"', b"\n", b"\r", separator.encode())):
        return texts
    needed = pc.match_substring_regex(texts, f'["\n\r{separator}]')
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', "")
    return pc.if_else(needed, quoted, texts)


def _json_cells(columns: list[pa.Array], names: list[str], first: bool) -> list[pa.Array | str]:
    """Return the keys and values of JSON objects, with the opening brace of the `first` ones."""
    parts: list[pa.Array | str] = ["{"] if first else []
    for place, (name, column) in enumerate(zip(names, columns, strict=True)):
        key = orjson.dumps(name).decode()
        parts += [f"{',' if place else ''}{key}:", _json_values(column)]
    return parts


def _json_values(column: pa.Array) -> pa.Array:
    """Return a column's values as JSON."""
    kind = column.type
    if pa.types.is_string(kind):
        data = _bytes(column)[0]
        if not ((data < 32) | (data == ord('"')) | (data == ord("\\"))).any():
            return pc.fill_null(pc.binary_join_element_wise('"', column, '"', ""), "null")
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return pc.fill_null(column.cast(pa.string()), "null")
    elif pa.types.is_float64(kind):
        return pc.fill_null(pc.if_else(pc.is_finite(column), _numbers(column), "null"), "null")
    return pa.array(map(_dumps, to_values(column)), pa.string())


def as_text(column: pa.Array) -> pa.Array:
    """Return a column as text; values of types without a text form become JSON."""
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_float64(column.type):
        return _numbers(column)
    try:
        if not (pa.types.is_nested(column.type) or _is_bytes(column.type)):
            return write_out(column)
    except pa.ArrowNotImplementedError:
        pass  # a type without a text form
    dump = _plain if _is_bytes(column.type) else _dumps
    values = (None if value is None else dump(value) for value in to_values(column))
    return pa.array(values, pa.string())


def _is_bytes(kind: pa.DataType) -> bool:
    """Return whether a type holds bytes, or a UUID, which has a text form of its own."""
    types = pa.types
    checks = (types.is_binary, types.is_large_binary, types.is_binary_view)
    is_bytes = any(check(kind) for check in checks) or types.is_fixed_size_binary(kind)
    return is_bytes or isinstance(kind, pa.UuidType)


def _numbers(column: pa.Array) -> pa.Array:
    """Return numbers as the shortest texts that parse to the same value; orjson is the fastest."""
    if column.null_count:
        return pc.if_else(pc.is_valid(column), _numbers(pc.fill_null(column, 0.0)), None)
    values = column.to_numpy()
    finite = np.isfinite(values)
    if not finite.all():
        plain = _numbers(pa.array(np.where(finite, values, 0.0)))
        return pc.if_else(pa.array(finite), plain, column.cast(pa.string()))
    if not len(values):
        return pa.array([], pa.string())
    listed = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    commas = np.flatnonzero(np.frombuffer(listed, np.uint8) == ord(","))
    offsets = np.concatenate([[1], commas + 1, [len(listed)]]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(listed)]
    return pc.ascii_rtrim(pa.Array.from_buffers(pa.string(), len(values), buffers), ",]")


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    checks = (types.is_string, types.is_large_string, types.is_string_view)
    return any(check(kind) for check in checks)


def _dumps(value: Any) -> str:
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _join(parts: list[pa.Array | str]) -> memoryview:
    """Return the bytes of texts joined row by row; nulls are empty."""
    fewer: list[pa.Array | str] = []
    one = next(part for part in parts if not isinstance(part, str))
    for part in parts:
        if isinstance(part, str) and fewer and isinstance(fewer[-1], str):
            fewer[-1] += part
        elif isinstance(part, str) or part is one or part.null_count < len(part):
            fewer.append(part)
    joined = pc.binary_join_element_wise(*fewer, "", null_handling="replace", null_replacement="")
    return memoryview(_bytes(joined)[0])


def _bytes(texts: pa.Array) -> tuple[Any, Any]:
    """Return the concatenated bytes of texts, and the offsets of their beginnings and the end."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)
    offsets = offsets[texts.offset : texts.offset + len(texts) + 1]
    data = texts.buffers()[2]
    if data is None:
        return np.empty(0, np.uint8), np.zeros_like(offsets)
    return np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]], offsets - offsets[0]


def _pack(file_format: FileFormat, data: memoryview) -> Bytes:
    return gzip.compress(data, 6, mtime=0) if file_format.compressed else data
