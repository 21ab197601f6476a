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


def _refuse_full(where: fs.FileSystem, folder: str, target: str) -> bool:
    """Return whether the folder is there, empty."""
    kind = where.get_file_info(folder).type
    if kind == fs.FileType.File:
        raise OutputError(f"{target} is a file, expected a folder")
    if kind == fs.FileType.Directory and where.get_file_info(fs.FileSelector(folder)):
        raise OutputError(f"{target} is not empty, expected a new or an empty folder")
    return bool(kind == fs.FileType.Directory)


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


