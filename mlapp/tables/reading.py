"""Tables of any format as streams of chunks of rows.

Cells of CSV, JSON lines and Excel are text, so that they are written as they were read, and a text
in row 900,000 of a numeric column is one bad row. Parquet keeps its types. Memory holds a few
chunks, regardless of the length of the table.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from mlapp.errors import InvalidTable
from mlapp.tables.chunks import Chunk
from mlapp.tables.decoding import find_format_in_zip, readable
from mlapp.tables.delimited import open_delimited
from mlapp.tables.formats import FileFormat, TableFormat, format_of, says_only_zip
from mlapp.tables.jsonlines import open_json_lines


@dataclass
class Table:
    """An opened table.

    Attributes:
        name: the file's name, for messages.
        format: that of the file.
        schema: its columns, whose names have no spaces around them. Those of CSV, JSON lines and
            Excel are text; the fields of CSV carry decimal marks, see `numbers.decimal_of`.
        size: of the file in bytes, if it is known.
        position: returns how many of these bytes were read.
    """

    name: str
    format: FileFormat
    schema: pa.Schema
    size: int | None
    position: Callable[[], int]
    _chunks: Iterator[Chunk]

    def chunks(self, rows: int | None = None) -> Iterator[Chunk]:
        """Yield the rows in order, once; the same file always gives the same chunks.

        Args:
            rows: the most rows of a chunk.

        Raises:
            InvalidTable: the file is damaged, or a row is too long.
        """
        while True:
            with readable(self.name):
                chunk = next(self._chunks, None)
            if chunk is None:
                return
            count = chunk.batch.num_rows
            for start in range(0, count, rows or count):
                yield chunk.slice(start, rows or count)


@contextmanager
def open_table(
    source: Path | BinaryIO, file_format: FileFormat | None = None, name: str | None = None
) -> Iterator[Table]:
    """Open a table with named columns and at least one row.

    The dialect of CSV with its decimal marks, byte-order marks, gzip and zip are detected. A text
    file is read completely in advance, so that a damaged archive or a wrong encoding in its last
    row is an error at once; a stream that cannot be read twice raises it later.

    Args:
        source: a file, or an open stream of bytes, which stays open.
        file_format: by default that of the file's name.
        name: what messages call it; by default the file's name.

    Raises:
        InvalidTable: it cannot be read; the message says why, and what is allowed.
    """
    if name is None:
        name = str(source if isinstance(source, Path) else getattr(source, "name", source))
    file_format = file_format or format_of(name)
    pa.enable_signal_handlers(False)  # Arrow's own lose a Ctrl-C now and then
    with ExitStack() as stack:
        if isinstance(source, Path):
            with readable(name):
                stream: BinaryIO = stack.enter_context(source.open("rb"))
        else:
            stream = source
        size = None
        if stream.seekable():
            size = stream.seek(0, io.SEEK_END)
            stream.seek(0)
        if file_format.compressed and says_only_zip(name):  # by name, not chosen
            file_format = replace(file_format, format=find_format_in_zip(name, stream))
        schema, chunks, position = _opener(file_format.format)(name, stream, file_format)
        stack.callback(chunks.close)
        filled = filter(lambda chunk: chunk.batch.num_rows, chunks)
        with readable(name):
            first = next(filled, None)
        if first is None:
            raise InvalidTable(f"{name} has a header but no rows")
        yield Table(name, file_format, schema, size, position, chain([first], filled))


def _opener(format_: TableFormat) -> Callable[..., Any]:
    """Return the function that opens a format, without importing the libraries of the others."""
    if format_ == "parquet":
        from mlapp.tables.parquet import open_parquet

        return open_parquet
    if format_ == "xlsx":
        from mlapp.tables.excel import open_excel

        return open_excel
    return open_json_lines if format_ == "jsonl" else open_delimited
