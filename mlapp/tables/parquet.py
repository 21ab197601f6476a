"""Parquet as chunks of rows, which keep their types.

A few bytes of Parquet can expand to gigabytes: repeated values, compressed pages, lists of any
length. So the headers of the pages of a row group are read first, since the footer may be wrong.
They state the size of the pages and bound the width of a row. Texts stay dictionary-encoded until
it is known how many rows can be decoded at once.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlapp.errors import InvalidTable
from mlapp.tables.chunks import Chunk, check_columns, check_count
from mlapp.tables.decoding import BLOCK, FREE, RATIO, readable, refuse_bomb
from mlapp.tables.formats import FileFormat
from mlapp.tables.thrift import read_struct

ROWS, BYTES = 1 << 15, 1 << 22  # the most that are read at once
WIDEST_ROW = 1 << 25  # bytes of a row
LARGEST_PAGES = 1 << 29  # bytes of the pages, one for each column, that are unpacked at once
MOST_PAGES = 1 << 20  # of a row group
FREE_TEXT = 1 << 30  # bytes to which the dictionaries of a small file may expand

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_DICTIONARY_PAGE, _DATA_PAGE, _DATA_PAGE_V2 = 2, 0, 3
_DICTIONARY_CODINGS = (2, 8)
_DICTIONARY_OR_PLAIN = frozenset((0, *_DICTIONARY_CODINGS))
_PREFIX_CODING = 7  # DELTA_BYTE_ARRAY: each value may repeat the whole previous one


def open_parquet(
    name: str, stream: BinaryIO, _format: FileFormat
) -> tuple[pa.Schema, Generator[Chunk], Callable[[], int]]:
    """Return the columns, the chunks, and how many bytes were read; see `reading.open_table`."""
    if not stream.seekable():
        raise InvalidTable(f"{name} is a stream, and Parquet can be read from files only")
    with readable(name):
        file = pq.ParquetFile(stream, buffer_size=BLOCK, pre_buffer=False)
        check_count(name, max(file.metadata.num_columns, len(file.schema_arrow)))
        plain = [(each.name.strip(), _plain(each.type)) for each in file.schema_arrow]
        schema = check_columns(name, pa.schema(plain))
        texts = _text_leaves(file)
    size, done, decoded = stream.seek(0, 2), 0, 0

    def read() -> Generator[Chunk]:
        nonlocal done, decoded
        for group in range(file.num_row_groups):
            rows, coded = _plan_group(name, stream, file.metadata, group, texts)
            opened = pq.ParquetFile(
                stream,
                metadata=file.metadata,
                read_dictionary=coded,
                buffer_size=BLOCK,
                pre_buffer=False,
            )
            for batch in opened.iter_batches(rows, row_groups=[group], use_threads=False):
                for part in _bounded(name, batch):
                    done += part.num_rows
                    decoded += sum(map(_text_size, part.columns))
                    if decoded > max(FREE_TEXT, RATIO * size):
                        raise refuse_bomb(name)
                    yield Chunk(_decode(name, part, schema))

    return schema, read(), lambda: min(size, size * done // (file.metadata.num_rows or 1))


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that a column is read as: Arrow has several types of text and category."""
    types = pa.types
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    if types.is_struct(kind):
        return pa.struct([each.with_type(_plain(each.type)) for each in kind])
    return kind


def _text_leaves(file: pq.ParquetFile) -> frozenset[str]:
    """Return the paths of the columns, also nested ones, that Arrow can read as dictionaries."""
    leaves = (file.schema.column(place) for place in range(file.metadata.num_columns))
    return frozenset(
        leaf.path
        for leaf in leaves
        if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type in ("STRING", "NONE")
    )


# --- before anything is decoded --------------------------------------------------------------


@dataclass(frozen=True)
class _Page:
    """The header of a page."""

    kind: int
    size: int  # bytes, decompressed
    values: int
    coding: int


def _plan_group(
    name: str, stream: BinaryIO, metadata: pq.FileMetaData, number: int, texts: frozenset[str]
) -> tuple[int, list[str]]:
    """Return how many rows of a row group can be read at once, and which columns as dictionaries.

    Raises:
        InvalidTable: a row, or the pages of the group, would take too much memory.
    """
    size, group = stream.seek(0, 2), metadata.row_group(number)
    unpacked = width = fixed = count = 0
    coded: list[str] = []
    for place in range(metadata.num_columns):
        chunk, leaf = group.column(place), metadata.schema.column(place)
        pages = list(islice(_pages(stream, chunk), MOST_PAGES - count + 1))
        if (count := count + len(pages)) > MOST_PAGES:
            raise InvalidTable(f"{name}: got more than {MOST_PAGES:,} pages; write larger ones")
        dictionary = max((page.size for page in pages if page.kind == _DICTIONARY_PAGE), default=0)
        pages = [page for page in pages if page.kind != _DICTIONARY_PAGE]
        unpacked += dictionary + max((page.size for page in pages), default=0)
        codings = {page.coding for page in pages}
        stays = leaf.path in texts and dictionary > 0 and codings <= _DICTIONARY_OR_PLAIN
        coded += [leaf.path] if stays else []
        widths = [_value_width(leaf, page, 0 if stays else dictionary) for page in pages]
        widest = max(widths, default=0.0)
        if leaf.max_repetition_level:
            total = sum(each * page.values for each, page in zip(widths, pages, strict=True))
            if total > max(FREE, RATIO * chunk.total_compressed_size):
                raise refuse_bomb(f"{name}: the column {leaf.path!r}")
            widest = total / (group.num_rows or 1)
        width += int(widest) + 1
        fixed += leaf.length if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
    if unpacked > max(FREE, RATIO * size):
        raise refuse_bomb(name)
    if unpacked > LARGEST_PAGES:
        raise InvalidTable(
            f"{name}: its pages unpack to {unpacked:,} bytes at once, expected at most"
            f" {LARGEST_PAGES:,}; write it with smaller pages"
        )
    if fixed > WIDEST_ROW:
        raise _too_wide(name, fixed)
    return min(ROWS, max(1, BYTES // (width or 1))), coded


def _value_width(leaf: Any, page: _Page, dictionary: int) -> float:
    """Return about how many bytes a value of a page takes; an upper bound if some may be large.

    Args:
        leaf: the column.
        page: the page.
        dictionary: the size of the dictionary in bytes, 0 if the column is read as a dictionary.
    """
    if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY":
        return float(leaf.length)
    if leaf.physical_type != "BYTE_ARRAY":
        return float(max(8, _WIDTHS.get(leaf.physical_type, 16)))
    if page.coding in _DICTIONARY_CODINGS:
        return float(dictionary + 8)
    if page.coding == _PREFIX_CODING:
        return float(page.size)
    return page.size / (page.values or 1) + 4


def _pages(stream: BinaryIO, chunk: Any) -> Iterator[_Page]:
    """Yield the headers of the pages of a column in a row group."""
    place, first = chunk.data_page_offset, chunk.dictionary_page_offset
    if chunk.has_dictionary_page and first is not None and 0 < first < place:
        place = first
    end, left = place + chunk.total_compressed_size, chunk.num_values
    while place < end and left > 0:
        stream.seek(place)
        header, length = read_struct(stream)
        kind, size, packed = (_number(header, key) for key in (1, 2, 3))
        about = header.get({_DICTIONARY_PAGE: 7, _DATA_PAGE: 5, _DATA_PAGE_V2: 8}.get(kind, 0))
        about = about if isinstance(about, dict) else {}
        values = _number(about, 1)
        coding = _number(about, 4 if kind == _DATA_PAGE_V2 else 2)
        yield _Page(kind, size, values, coding)
        left -= 0 if kind == _DICTIONARY_PAGE else values
        place += length + packed


def _number(found: dict[int, Any], key: int) -> int:
    number = found.get(key, 0)
    if type(number) is not int or number < 0:
        raise pa.ArrowInvalid("the header of a page is damaged")
    return number


# --- decoding --------------------------------------------------------------------------------


def _bounded(name: str, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield a batch in parts whose texts take at most `BYTES`, or that are a single row."""
    size = sum(_text_size(column) for column in batch.columns)
    if size <= BYTES:
        yield batch
    elif batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from _bounded(name, batch.slice(0, half))
        yield from _bounded(name, batch.slice(half))
    elif size > WIDEST_ROW:
        raise _too_wide(name, size)
    else:
        yield batch


def _text_size(column: pa.Array) -> int:
    """Return to how many bytes the dictionaries in a column expand."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        words = column.dictionary
        if not (pa.types.is_binary(words.type) or pa.types.is_string(words.type)):
            return 0
        lengths = pc.fill_null(pc.binary_length(words), 0).to_numpy(zero_copy_only=False)
        places = column.indices.drop_null().to_numpy(zero_copy_only=False)
        return int(lengths[places].sum(dtype=np.int64))
    if pa.types.is_struct(kind):
        return sum(map(_text_size, column.flatten()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _text_size(column.flatten())
    if pa.types.is_map(kind):
        return _text_size(column.keys) + _text_size(column.items)
    return 0


def _decode(name: str, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with the types of a schema.

    Raises:
        InvalidTable: a text is not valid UTF-8, which Arrow itself does not check.
    """
    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        try:
            if column.type != field.type:
                if pa.types.is_nested(column.type):  # a cast of a slice would cast the whole array
                    column = column.take(pa.array(np.arange(len(column))))
                column = column.cast(field.type)
            if pa.types.is_string(field.type) or pa.types.is_nested(field.type):
                column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise InvalidTable(f"{name}: the column {field.name!r}: {error}") from error
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _too_wide(name: str, size: int) -> InvalidTable:
    return InvalidTable(f"{name}: got a row of {size:,} bytes, expected at most {WIDEST_ROW:,}")
