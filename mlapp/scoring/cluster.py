"""Whole folders of tables through a model on a Ray cluster.

    files -> `read_pieces` -> a pool of actors, one copy of the model each -> `score_batch`
          -> a part of Parquet for each piece, and its `Tally` -> summary

Ray Data schedules, bounds memory, and repeats what was in progress on a worker that died. Reading
and scoring are those of the local engine, so the answers are the same to the bit. A part is named
after its file and its first row, so a repetition writes the same file.
"""

import json
import logging
import posixpath
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from mlapp import families
from mlapp.disk import writing
from mlapp.errors import InvalidInput, InvalidTable, OutputError
from mlapp.families.contract import Model
from mlapp.manifest import Artifact
from mlapp.schema import TEXT
from mlapp.scoring.batch import (
    Counts,
    Options,
    find_inputs,
    make_plan,
    refuse_other_values,
    rows_of_chunk,
    score_batch,
    trained_column,
)
from mlapp.scoring.files import Progress
from mlapp.scoring.ray_connection import connect, translate_errors
from mlapp.scoring.sources import (
    Source,
    find_sources,
    locate,
    read_pieces,
    read_schema,
    unpack,
)
from mlapp.scoring.summary import (
    RefusedRow,
    RefusedRowOfFile,
    Summary,
    Tally,
    add_batch,
    describe_refused,
)
from mlapp.tables.chunks import Chunk
from mlapp.tables.formats import FileFormat, format_of
from mlapp.tables.writing import GROUP_ROWS

SUMMARY = "_summary.json"  # written last: a folder that has it is complete
UNFINISHED = "_unfinished"  # where parts are written before they are renamed
SHARES = 16  # pieces for each worker, so that none waits long for another at the end
SMALLEST, LARGEST = 1 << 20, 1 << 25  # bytes of a piece


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
) -> Summary[RefusedRowOfFile]:
    """Score tables into a folder of Parquet.

    The parts sort as the files and their rows do: `part-00002-000000065536.parquet` begins with
    row 65,536, from 0, of the third file by name. `_summary.json` is written last.

    Args:
        artifact: the opened model; it is sent to the workers.
        source: a file, a folder, or a pattern with *, ? or [], here or as in s3://bucket/folder.
        target: an empty or absent folder, here or as in s3://bucket/folder. A path without `://`,
            of source or target, must mean the same folder on every machine of the cluster.
        options: see `Options`.
        address: as for `connect`.
        workers: processes that score, a core and a copy of the model each; by default all cores.
        choose_format: returns a file's format, by its name.
        strict: whether a refused row ends the run.
        progress: called after each part with the progress of the run, except through `ray://`.

    Raises:
        InvalidTable: no file is there, or one cannot be read or has no column for an input, or
            `strict` met a refused row. After any error the target is as it was.
        OutputError: the target is not empty, or cannot be written.
        ClusterError: Ray is not installed, or failed.
    """
    began = time.monotonic()
    if address and address.startswith("ray://"):
        named = {"workers": workers, "choose_format": choose_format, "strict": strict}
        return _score_through_client(address, [artifact, source, target, options], named)
    with _writing(target):
        where, folder = locate(target)
        existed = _refuse_full(where, folder, target)
    disk, sources = find_sources(source, choose_format)
    with connect(address, workers) as count:
        ready = time.monotonic()
        model = families.from_artifact(artifact)
        _check(model, disk, sources, options)
        check = _find_check(model, options)
        parts = _score_parts(artifact, disk, sources, where, folder, options, check, count)
        with _emptied_on_error(where, folder, existed), _writing(target), translate_errors():
            where.create_dir(posixpath.join(folder, UNFINISHED), recursive=True)
            tally, names = _collect(parts, sources, strict, progress)
            _refuse_scattered(where, folder, names, target)
            seconds, starting = time.monotonic() - ready, ready - began
            done = Summary(
                tally.counts, tally.refused, seconds, parts=len(names), starting=starting
            )
            where.delete_dir(posixpath.join(folder, UNFINISHED))
            _write_summary(where, folder, artifact, sources, done)
    return done


def _score_through_client(
    address: str, arguments: list[Any], named: dict[str, Any]
) -> Summary[RefusedRowOfFile]:
    """Call `score` on the cluster itself: Ray Data does not run through Ray's client."""
    with connect(address), translate_errors():
        import ray

        remote: Any = ray.remote(num_cpus=0)(score)
        found: Summary[RefusedRowOfFile] = ray.get(remote.remote(*arguments, **named))
        return found


def _check(model: Model, disk: fs.FileSystem, sources: list[Source], options: Options) -> None:
    """Read every file on the cluster once, so that a bad one is reported before a long run.

    Raises:
        InvalidTable: one is damaged, or has no column for an input.
    """
    import ray

    with translate_errors():
        check = ray.remote(read_schema).options(name="check")
        schemas = ray.get([check.remote(disk, each) for each in sources])
    kinds = dict(zip(schemas, sources, strict=True))  # one file of each schema
    for schema, each in kinds.items():
        try:
            make_plan(model, schema, options)
        except (InvalidInput, InvalidTable) as error:
            raise InvalidTable(f"{each.path}: {error}") from error


def _collect(
    parts: Iterator[dict[str, Any]],
    sources: list[Source],
    strict: bool,
    progress: Progress | None,
) -> tuple[Tally[RefusedRowOfFile], set[str]]:
    """Wait for all parts; return what became of their rows, and the names of their files.

    Raises:
        InvalidTable: `strict` met a refused row.
    """
    total, size, names = sum(each.size for each in sources), 0, set[str]()
    tally = Tally[RefusedRowOfFile]()
    for part in parts:
        path, start = sources[part["number"]].path, part["row"]
        refused = [(path, start + row, error) for row, error in part["refused"]]
        tally = tally.add(Counts(*part["counts"]), refused)
        if strict and tally.refused:
            raise InvalidTable(describe_refused(tally.refused[0]))
        names.add(part["name"])
        size += part["size"]
        if progress:
            progress(tally.counts.rows, min(size / total, 1.0))
    return tally, names


def _find_check(model: Model, options: Options) -> Callable[[Chunk], Chunk]:
    """Return what refuses values in a chunk that are not texts, if the model takes texts."""
    takes, trained = model.takes, trained_column(model)

    def check(chunk: Chunk) -> Chunk:
        if takes.kind != "text":
            return chunk
        return refuse_other_values(
            chunk, find_inputs(takes, chunk.batch.schema, options, trained)[TEXT]
        )

    return check


def _score_parts(
    artifact: Artifact,
    disk: fs.FileSystem,
    sources: list[Source],
    where: fs.FileSystem,
    folder: str,
    options: Options,
    check: Callable[[Chunk], Chunk],
    workers: int,
) -> Iterator[dict[str, Any]]:
    """Yield what `_Scorer` returns for each part, as the parts are written to the folder."""
    import ray.data

    total = sum(each.size for each in sources)
    least = max(SMALLEST, min(LARGEST, total // (workers * SHARES)))
    rows = rows_of_chunk(artifact.manifest.kind.takes)

    def read(batch: pa.Table) -> Iterator[pa.Table]:
        for number in batch["item"].to_pylist():
            yield from read_pieces(disk, sources[number], number, least, rows, check)

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    numbers = list(range(len(sources)))
    files = ray.data.from_items(numbers, override_num_blocks=len(numbers))
    context = files.context
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = 1  # a block for each piece
    context.raise_original_map_exception = True
    # Readers wait for the disk and for the scorers, so they hold no core.
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


class _Scorer:
    """Scores pieces, with its own copy of the model."""

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
        """Write a part; return the piece without its data, its file's name, and what it counts."""
        tally, batches, plan = Tally[RefusedRow](), [], None
        for batch, faults in unpack(data):
            plan = plan or make_plan(self._model, batch.schema, self._options)
            scored = score_batch(self._model, plan, batch, faults)
            tally = add_batch(tally, scored.counts, scored.errors)
            batches.append(scored.batch)
        name = f"part-{piece['number']:05}-{piece['row']:012}.parquet"
        hidden = posixpath.join(self._folder, UNFINISHED, uuid4().hex)
        with _writing(self._folder):
            table = pa.Table.from_batches(batches)
            pq.write_table(table, hidden, row_group_size=GROUP_ROWS, filesystem=self._where)
            self._where.move(hidden, posixpath.join(self._folder, name))
        return piece | {"name": name, "counts": list(tally.counts), "refused": tally.refused}


def _refuse_full(where: fs.FileSystem, folder: str, target: str) -> bool:
    """Return whether the folder exists.

    Raises:
        OutputError: it is a file, or not empty.
    """
    kind = where.get_file_info(folder).type
    if kind == fs.FileType.File:
        raise OutputError(f"{target} is a file, expected a folder")
    if kind == fs.FileType.Directory and where.get_file_info(fs.FileSelector(folder)):
        raise OutputError(f"{target} is not empty, expected a new or an empty folder")
    return bool(kind == fs.FileType.Directory)


@contextmanager
def _emptied_on_error(where: fs.FileSystem, folder: str, existed: bool) -> Iterator[None]:
    """Leave a folder as it was when the work on it fails: empty, or absent."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            (where.delete_dir_contents if existed else where.delete_dir)(folder)
        raise


def _refuse_scattered(where: fs.FileSystem, folder: str, names: set[str], target: str) -> None:
    """Check that all parts are in the folder, and not on the disks of other machines.

    Raises:
        OutputError: some are not.
    """
    there = {info.base_name for info in where.get_file_info(fs.FileSelector(folder))}
    if absent := names - there:
        raise OutputError(
            f"{target}: {len(absent)} of {len(names)} parts are on other machines; write to a"
            " folder that all of them share, or to an object store"
        )


def _write_summary(
    where: fs.FileSystem,
    folder: str,
    artifact: Artifact,
    sources: list[Source],
    done: Summary[RefusedRowOfFile],
) -> None:
    manifest = artifact.manifest
    content = {
        "model": manifest.name,
        "version": manifest.version,
        **done.counts._asdict(),
        "seconds": round(done.seconds, 3),
        "files": [each.path for each in sources],
        "parts": done.parts,
        "refused_first": [
            {"file": file, "row": row, "error": error} for file, row, error in done.refused
        ],
    }
    with where.open_output_stream(posixpath.join(folder, SUMMARY)) as stream:
        stream.write(json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def _writing(target: str) -> AbstractContextManager[None]:
    return writing(target, also=(pa.ArrowException,))
