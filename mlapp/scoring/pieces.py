"""Files of a disk or an object store, found by an address and read in pieces of rows.

    address -> `find_sources` -> `read_pieces`, a row of an Arrow table for each piece

Ray sends the pieces from the processes that read to those that score.
"""

import json
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

from mlapp.errors import Fault, InvalidTable
from mlapp.tables.chunks import Chunk
from mlapp.tables.decoding import readable
from mlapp.tables.formats import FileFormat
from mlapp.tables.reading import open_table


@dataclass(frozen=True)
class _Source:
    """A file to score."""

    path: str
    format: FileFormat
    size: int


def _place(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system and the path in it that an address means."""
    if "://" not in address:
        return fs.LocalFileSystem(), str(Path(address).absolute())
    found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(address)
    return found


def _find(
    source: str, choose_format: Callable[[str], FileFormat]
) -> tuple[fs.FileSystem, list[_Source]]:
    """Return the files that an address means, by name; those that begin with _ or . are left out.

    Raises:
        InvalidTable: there is none, or the format of one is not known.
    """
    wild = re.search(r"[*?\[]", source)
    if "://" not in source and Path(source).exists():
        wild = None
    start = source.rfind("/", 0, wild.start()) + 1 if wild else len(source)
    with readable(source):
        disk, folder = _place(source[:start] or ".")
        if wild:
            infos = disk.get_file_info(
                ArrowFSWrapper(disk).glob(posixpath.join(folder, source[start:]))
            )
        elif disk.get_file_info(folder).type == fs.FileType.Directory:
            infos = disk.get_file_info(fs.FileSelector(folder, recursive=True))
            hidden = re.compile(r"(^|/)[_.]")
            infos = [info for info in infos if not hidden.search(info.path[len(folder) :])]
        else:
            infos = disk.get_file_info([folder])
    files = sorted((info.path, info.size) for info in infos if info.type == fs.FileType.File)
    if not files:
        raise InvalidTable(f"{source}: no file is there")
    return disk, [_Source(path, choose_format(path), size) for path, size in files]


def _read_schema(disk: fs.FileSystem, source: _Source) -> pa.Schema:
    """Return a file's columns; a text file is read to its end, so that damage is seen."""
    with _opened(disk, source) as stream, open_table(stream, source.format, source.path) as table:
        return table.schema


def _read_pieces(
    disk: fs.FileSystem, source: _Source, number: int, least: int, rows: int | None
) -> Iterator[pa.Table]:
    """Yield a file in pieces of at least so many bytes: a row each, its table as an Arrow stream.

    So tables of different columns go through one data set, and Ray cuts none and joins none.
    """
    with _opened(disk, source) as stream, open_table(stream, source.format, source.path) as table:
        held: list[Chunk] = []
        size = row = position = 0

        def pack() -> pa.Table:
            nonlocal row, size, position
            read, position = table.position() - position, table.position()
            packed = _pack(table.schema, held)
            ends = pa.array([0, packed.size], pa.int64()).buffers()[1]
            data = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, packed])
            piece = pa.table({"number": [number], "row": [row], "size": [read], "data": data})
            row, size = row + sum(chunk.batch.num_rows for chunk in held), 0
            held.clear()
            return piece

        for chunk in table.chunks(rows):
            held.append(chunk)
            size += chunk.batch.nbytes
            if size >= least:
                yield pack()
        if held:
            yield pack()


def _pack(schema: pa.Schema, chunks: list[Chunk]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        for chunk in chunks:
            faults = {
                place: (fault.input, fault.got, fault.allowed)
                for place, fault in chunk.faults.items()
            }
            noted = {"faults": json.dumps(faults)} if faults else None
            stream.write_batch(chunk.batch, custom_metadata=noted)
    return sink.getvalue()


@contextmanager
def _opened(disk: fs.FileSystem, source: _Source) -> Iterator[Any]:
    with readable(source.path):
        stream = disk.open_input_file(source.path)
    with stream:
        yield stream
