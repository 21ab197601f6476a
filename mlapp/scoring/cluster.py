"""Whole folders of tables through a model on a Ray cluster, and the web service on many replicas.

    files -> `open_table` -> pieces of rows -> a pool of actors, one copy of the model each
          -> `score_batch` -> a part of Parquet for each piece, and what it counts -> summary

Ray Data schedules, bounds memory, and does again what was under way on a worker that died. Reading
and scoring are those of the local engine, so the answers are the same to the bit. A part is named
after its file and its first row, so doing it again writes the same file.
"""

import heapq
import json
import logging
import os
import posixpath
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

from mlapp import families
from mlapp.errors import ClusterError, Fault, InvalidInput, InvalidTable, MlappError, OutputError
from mlapp.families.contract import Model
from mlapp.manifest import Artifact
from mlapp.scoring.batch import Counts, Options, make_plan, rows_of_chunk, score_batch
from mlapp.scoring.files import SHOWN, Progress
from mlapp.tables.chunks import Chunk
from mlapp.tables.decoding import readable
from mlapp.tables.formats import FileFormat, format_of
from mlapp.tables.reading import open_table
from mlapp.tables.writing import GROUP_ROWS

SUMMARY = "_summary.json"  # written last: a folder that has it is whole
UNFINISHED = "_unfinished"  # where parts are written before they are renamed
SHARES = 16  # pieces for each worker, so that none waits long for another at the end
SMALLEST, LARGEST = 1 << 20, 1 << 25  # bytes of a piece
STORE = 1 << 28  # bytes of shared memory for each worker, where Ray is started here


@dataclass(frozen=True)
class Summary:
    """What became of the tables.

    Attributes:
        counts: their rows: all, scored, scored with a notice, refused.
        refused: the first refused rows: file, row from 1, and what is wrong.
        parts: how many files were written.
        seconds: how long it took, from the moment on that Ray was there.
        starting: seconds until then.
    """

    counts: Counts
    refused: tuple[tuple[str, int, str], ...]
    parts: int
    seconds: float
    starting: float


@dataclass(frozen=True)
class _Source:
    """A file to score."""

    path: str
    format: FileFormat
    size: int


@contextmanager
def connect(
    address: str | None = None, workers: int | None = None, show: bool = False
) -> Iterator[int]:
    """Connect to a running Ray cluster, or start Ray on this machine; leave or stop it at the end.

    Where the process is connected already, it stays so, and `address` is not looked at.

    Args:
        address: of a cluster: `auto`, `HOST:PORT` or `ray://HOST:PORT`; None starts one here.
        workers: how many processes work; by default one for each core.
        show: whether what they print is shown.

    Yields:
        The number of workers.

    Raises:
        ClusterError: Ray is not installed, or no cluster is at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "Ray is not installed; it comes with the extra scale: pip install 'mlapp[scale]'"
        ) from error
    found = ray.is_initialized()
    if not found:
        quiet: dict[str, Any] = {"log_to_driver": show, "logging_level": logging.ERROR}
        try:
            if address is None:
                count = workers or os.cpu_count() or 1
                ray.init(
                    "local",
                    num_cpus=count,
                    object_store_memory=count * STORE,
                    include_dashboard=False,
                    **quiet,
                )
            else:
                # Ray itself would wait for minutes.
                if match := re.fullmatch(r"(?:ray://)?(.+):([0-9]+)", address):
                    socket.create_connection((match[1].strip("[]"), int(match[2])), 10).close()
                ray.init(address, **quiet)
        except Exception as error:  # Ray's exceptions share no base
            message = f"No Ray cluster answers at {address}" if address else "Ray cannot be started"
            raise ClusterError(f"{message}: {error}") from error
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield workers or max(1, int(resources.get("CPU", 1)))
    finally:
        if not found:
            ray.shutdown()


def score(
    artifact: Artifact,
    source: str,
    target: str,
    options: Options = Options(),  # noqa: B008  # frozen
    *,
    address: str | None = None,
    workers: int | None = None,
    choose_format: Callable[[str], FileFormat] = format_of,
    strict: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Score tables into a folder of Parquet.

    The parts sort as the files and their rows do: `part-00002-000000065536.parquet` begins with
    row 65,536, from 0, of the third file by name. `_summary.json` is written last.

    Args:
        artifact: the opened model; it is sent to the workers.
        source: a file, a folder, or a pattern with *, ? or [], here or as in s3://bucket/folder.
        target: a folder, empty or not there, here or as in s3://bucket/folder. A path without
            `://`, of either, must lead to the same place on every machine of the cluster.
        options: see `Options`.
        address: as for `connect`.
        workers: processes that score, a core and a copy of the model each; by default all cores.
        choose_format: returns a file's format, by its name.
        strict: whether a refused row ends the run.
        progress: is told after each part how far the run is, except through `ray://`.

    Raises:
        InvalidTable: no file is there, or one cannot be read or has no column for an input, or
            `strict` met a refused row. After any error the target is as it was.
        OutputError: the target is not empty, or cannot be written.
        ClusterError: Ray is not there, or gave up.
    """
    began = time.monotonic()
    if address and address.startswith("ray://"):
        # Ray Data does not run through Ray's client: the whole is done on the cluster.
        with connect(address), _translated():
            import ray

            there: Any = ray.remote(num_cpus=0)(score)
            asked = {"workers": workers, "choose_format": choose_format, "strict": strict}
            summary: Summary = ray.get(there.remote(artifact, source, target, options, **asked))
            return summary
    model = families.from_artifact(artifact)
    with _told(target):
        where, folder = _place(target)
        found = _refuse_full(where, folder, target)
    disk, sources = _find(source, choose_format)
    with connect(address, workers) as count:
        ready = time.monotonic()
        _check(model, disk, sources, options)
        parts = _score_parts(artifact, disk, sources, where, folder, options, count)
        total = sum(each.size for each in sources)
        done = _Done()
        try:
            with _told(target), _translated():
                where.create_dir(posixpath.join(folder, UNFINISHED), recursive=True)
                for part in parts:
                    done.add(part)
                    if strict:
                        _refuse_any(done.first(sources))
                    if progress:
                        progress(done.counts.rows, min(done.size / total, 1.0))
                _refuse_scattered(where, folder, done.names, target)
                seconds, starting = time.monotonic() - ready, ready - began
                refused = done.first(sources)
                summary = Summary(done.counts, refused, len(done.names), seconds, starting)
                where.delete_dir(posixpath.join(folder, UNFINISHED))
                _write_summary(where, folder, artifact, sources, summary)
        except BaseException:
            with suppress(OSError):
                (where.delete_dir_contents if found else where.delete_dir)(folder)
            raise
    return summary


def _check(model: Model, disk: fs.FileSystem, sources: list[_Source], options: Options) -> None:
    """Read every file on the cluster once, so that a bad one is told before a long run.

    Raises:
        InvalidTable: one is damaged, or has no column for an input.
    """
    import ray

    with _translated():
        check = ray.remote(_read_schema).options(name="check")
        schemas = ray.get([check.remote(disk, each) for each in sources])
    kinds = dict(zip(schemas, sources, strict=True))  # one file of each
    for schema, each in kinds.items():
        try:
            make_plan(model, schema, options)
        except (InvalidInput, InvalidTable) as error:
            raise InvalidTable(f"{each.path}: {error}") from error


def _score_parts(
    artifact: Artifact,
    disk: fs.FileSystem,
    sources: list[_Source],
    where: fs.FileSystem,
    folder: str,
    options: Options,
    workers: int,
) -> Iterator[dict[str, Any]]:
    """Return what each part is, as the parts come to lie in the folder."""
    import ray.data

    total = sum(each.size for each in sources)
    piece = max(SMALLEST, min(LARGEST, total // (workers * SHARES)))
    rows = rows_of_chunk(artifact.manifest.kind.takes)

    def read(batch: pa.Table) -> Iterator[pa.Table]:
        for number in batch["item"].to_pylist():
            yield from _read_pieces(disk, sources[number], number, piece, rows)

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    numbers = list(range(len(sources)))
    files = ray.data.from_items(numbers, override_num_blocks=len(numbers))
    context = files.context
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = 1  # a block for each piece
    context.raise_original_map_exception = True
    # Readers wait for the disk and for those who score, so they hold no core.
    readers = min(workers, len(numbers))
    pieces = files.map_batches(read, batch_format="pyarrow", num_cpus=0, concurrency=readers)
    parts = pieces.map_batches(
        _Scorer,
        fn_constructor_args=[artifact, options, where, folder],
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=2
        ),
        num_cpus=1,
    )
    return iter(parts.iter_rows())


@dataclass
class _Done:
    """What the parts that are done add up to."""

    counts: Counts = field(default_factory=Counts)
    refused: list[tuple[int, int, str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    size: int = 0

    def add(self, part: dict[str, Any]) -> None:
        number, start = part["number"], part["row"]
        refused = [(number, start + row + 1, error) for row, error in part["refused"]]
        self.refused = heapq.nsmallest(SHOWN, [*self.refused, *refused])
        self.counts += Counts(*part["counts"])
        self.names.add(part["name"])
        self.size += part["size"]

    def first(self, sources: list[_Source]) -> tuple[tuple[str, int, str], ...]:
        """Return the first refused rows, each with its file."""
        return tuple((sources[number].path, row, error) for number, row, error in self.refused)


class _Scorer:
    """Scores pieces, with a model of its own."""

    def __init__(
        self, artifact: Artifact, options: Options, where: fs.FileSystem, folder: str
    ) -> None:
        self._model, self._options = families.from_artifact(artifact), options
        self._where, self._folder = where, folder

    def __call__(self, pieces: pa.Table) -> Mapping[str, Any]:
        data = [each.as_buffer() for each in pieces["data"]]
        kept = pieces.drop(["data"]).to_pylist()
        parts = [self._score(*each) for each in zip(kept, data, strict=True)]
        return {key: [part[key] for part in parts] for key in parts[0]}

    def _score(self, piece: dict[str, int], data: pa.Buffer) -> dict[str, Any]:
        counts, refused, batches = Counts(), list[tuple[int, str]](), []
        with pa.ipc.open_stream(data) as stream:
            plan = make_plan(self._model, stream.schema, self._options)
            for batch, noted in stream.iter_batches_with_custom_metadata():
                faults = json.loads(noted[b"faults"]) if noted else {}
                faults = {int(place): Fault(*fault) for place, fault in faults.items()}
                scored = score_batch(self._model, plan, batch, faults)
                errors = sorted(scored.errors.items())[: SHOWN - len(refused)]
                refused += [(counts.rows + place, error) for place, error in errors]
                counts += scored.counts
                batches.append(scored.batch)
        name = f"part-{piece['number']:05}-{piece['row']:012}.parquet"
        hidden = posixpath.join(self._folder, UNFINISHED, uuid4().hex)
        with _told(self._folder):
            table = pa.Table.from_batches(batches)
            pq.write_table(table, hidden, row_group_size=GROUP_ROWS, filesystem=self._where)
            self._where.move(hidden, posixpath.join(self._folder, name))
        return piece | {"name": name, "counts": list(counts), "refused": refused}


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


def _place(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system and the path in it that an address means."""
    if "://" not in address:
        return fs.LocalFileSystem(), str(Path(address).absolute())
    found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(address)
    return found


def _refuse_full(where: fs.FileSystem, folder: str, target: str) -> bool:
    """Return whether the folder is there, empty."""
    kind = where.get_file_info(folder).type
    if kind == fs.FileType.File:
        raise OutputError(f"{target} is a file, expected a folder")
    if kind == fs.FileType.Directory and where.get_file_info(fs.FileSelector(folder)):
        raise OutputError(f"{target} is not empty, expected a new or an empty folder")
    return bool(kind == fs.FileType.Directory)


def _refuse_any(refused: tuple[tuple[str, int, str], ...]) -> None:
    for file, row, error in refused[:1]:
        raise InvalidTable(f"{file}: row {row:,}, {error}")


def _refuse_scattered(where: fs.FileSystem, folder: str, names: set[str], target: str) -> None:
    """Refuse parts that workers wrote, but to disks of their own."""
    there = {info.base_name for info in where.get_file_info(fs.FileSelector(folder))}
    if absent := names - there:
        raise OutputError(
            f"{target}: {len(absent)} of {len(names)} parts are on other machines; write to a"
            " folder that all of them share, or to an object store"
        )


def _write_summary(
    where: fs.FileSystem, folder: str, artifact: Artifact, sources: list[_Source], summary: Summary
) -> None:
    manifest = artifact.manifest
    content = {
        "model": manifest.name,
        "version": manifest.version,
        **summary.counts._asdict(),
        "seconds": round(summary.seconds, 3),
        "files": [each.path for each in sources],
        "parts": summary.parts,
        "refused_first": [
            {"file": file, "row": row, "error": error} for file, row, error in summary.refused
        ],
    }
    with where.open_output_stream(posixpath.join(folder, SUMMARY)) as stream:
        stream.write(json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


@contextmanager
def _opened(disk: fs.FileSystem, source: _Source) -> Iterator[Any]:
    with readable(source.path):
        stream = disk.open_input_file(source.path)
    with stream:
        yield stream


@contextmanager
def _told(target: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OutputError(f"{target} cannot be written: {why}") from error


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what Ray raises into what a worker said, or else into words about Ray."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MlappError) and not isinstance(cause, ray.exceptions.RayError):
                known = isinstance(cause, InvalidTable | OutputError)
                # Behind the first line Ray adds words of its own.
                raise (type(cause) if known else ClusterError)(str(cause).split("\n")[0]) from error
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise ClusterError(f"Ray gave up: {last_line(error)}") from error


def last_line(error: BaseException) -> str:
    """Return what an error says, without what was where on a worker."""
    return str(error).strip().rpartition("\n")[2]
