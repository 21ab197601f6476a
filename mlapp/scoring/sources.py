"""Files on a disk or in an object store, found by an address and read in pieces of many rows.

    address -> `find_sources` -> `read_pieces`, a row of an Arrow table for each piece -> `unpack`

Ray sends the pieces from the processes that read to those that score.
"""

import json
import posixpath
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

from mlapp.errors import ROW, Fault, InvalidTable
from mlapp.tables.chunks import Chunk
from mlapp.tables.decoding import readable
from mlapp.tables.formats import FileFormat
from mlapp.tables.reading import open_table


@dataclass(frozen=True)
class Source:
    """A file to score.

    Attributes:
        path: in its file system.
        format: what it is read as.
        size: in bytes.
    """

    path: str
    format: FileFormat
    size: int


def locate(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system that an address means, and the path in it."""
    if "://" not in address:
        return fs.LocalFileSystem(), str(Path(address).absolute())
    found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(address)
    return found


def find_sources(
    address: str, choose_format: Callable[[str], FileFormat]
) -> tuple[fs.FileSystem, list[Source]]:
    """Return the files that an address means, by name, without those that begin with _ or a dot.

    Args:
        address: a file, a folder, or a pattern with *, ? or [].
        choose_format: returns a file's format, by its name.

    Raises:
        InvalidTable: there is no file, or the format of one is not known.
    """
    wild = re.search(r"[*?\[]", address)
    if "://" not in address and Path(address).exists():
        wild = None
    start = address.rfind("/", 0, wild.start()) + 1 if wild else len(address)
    with readable(address):
        disk, folder = locate(address[:start] or ".")
        if wild:
            infos = disk.get_file_info(
                ArrowFSWrapper(disk).glob(posixpath.join(folder, address[start:]))
            )
        elif disk.get_file_info(folder).type == fs.FileType.Directory:
            infos = disk.get_file_info(fs.FileSelector(folder, recursive=True))
            hidden = re.compile(r"(^|/)[_.]")
            infos = [info for info in infos if not hidden.search(info.path[len(folder) :])]
        else:
            infos = disk.get_file_info([folder])
    files = sorted((info.path, info.size) for info in infos if info.type == fs.FileType.File)
    if not files:
        raise InvalidTable(f"{address}: no file is there")
    return disk, [Source(path, choose_format(path), size) for path, size in files]


def read_schema(disk: fs.FileSystem, source: Source) -> pa.Schema:
    """Return a file's columns; a text file is read to its end, to find damage.

    Raises:
        InvalidTable: it cannot be read.
    """
    with _opened(disk, source) as stream, open_table(stream, source.format, source.path) as table:
        return table.schema


def read_pieces(
    disk: fs.FileSystem,
    source: Source,
    number: int,
    least: int,
    rows: int | None,
    check: Callable[[Chunk], Chunk],
) -> Iterator[pa.Table]:
    """Yield a file in pieces.

    Each piece is a table of one row: the file's number, the place of the piece's first row in the
    file, the bytes that were read, and the rows as an Arrow stream. So files with different columns
    go through one data set, and Ray neither splits nor joins pieces.

    Args:
        disk: where the file is.
        source: the file.
        number: the file's number among all.
        least: the fewest bytes of a piece, except the last.
        rows: how many rows are read at once; None for as many as are quickest.
        check: adds faults to a chunk.

    Raises:
        InvalidTable: it cannot be read.
    """
    with _opened(disk, source) as stream, open_table(stream, source.format, source.path) as table:
        held: list[Chunk] = []
        size = row = position = 0

        def make_piece() -> pa.Table:
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
            held.append(check(chunk))
            size += chunk.batch.nbytes
            if size >= least:
                yield make_piece()
        if held:
            yield make_piece()


def _pack(schema: pa.Schema, chunks: list[Chunk]) -> pa.Buffer:
    """Return chunks as an Arrow stream, with the faults of their rows as its metadata."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        for chunk in chunks:
            faults = {
                place: (fault.input, fault.got, fault.allowed)
                for place, fault in chunk.faults.items()
            }
            metadata = {"faults": json.dumps(faults)} if faults else None
            stream.write_batch(chunk.batch, custom_metadata=metadata)
    return sink.getvalue()


def unpack(data: pa.Buffer) -> Generator[tuple[pa.RecordBatch, dict[int, Fault]]]:
    """Yield the batches of a piece, each with why rows could not be read, by place in the batch.

    Args:
        data: the rows of a piece that `read_pieces` made.
    """
    with pa.ipc.open_stream(data) as stream:
        for batch, metadata in stream.iter_batches_with_custom_metadata():
            faults = json.loads(metadata[b"faults"]) if metadata else {}
            yield batch, {int(place): _unpack(*fault) for place, fault in faults.items()}


def _unpack(name: str, got: str, allowed: str) -> Fault:
    # No reader finds fault with an input that is called as a whole row is.
    return Fault(ROW if name == ROW else name, got, allowed)


@contextmanager
def _opened(disk: fs.FileSystem, source: Source) -> Iterator[Any]:
    with readable(source.path):
        stream = disk.open_input_file(source.path)
    with stream:
        yield stream
