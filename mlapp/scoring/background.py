"""Whole files scored in the background, from temporary files into temporary files.

    upload -> `Upload` -> `Job`, a thread -> for each file a `Result`: CSV, Parquet, counts, charts

Nothing here knows about Streamlit. The temporary files have no names: they are deleted together
with the object that owns them, and with the process, however it ends.
"""

import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

import pandas as pd
import pyarrow as pa

from mlapp import answering
from mlapp.disk import TEMPORARY, temporary_file, writing
from mlapp.errors import MlappError
from mlapp.families.contract import Model
from mlapp.scoring.batch import (
    Counts,
    Options,
    Origin,
    Part,
    Plan,
    Scorer,
    make_plan,
    score_table,
)
from mlapp.scoring.comparison import plan_comparison
from mlapp.scoring.distributions import Differences, Histogram, Shares
from mlapp.scoring.summary import RefusedRow, Tally, add_batch
from mlapp.tables.chunks import Chunk
from mlapp.tables.decoding import BLOCK
from mlapp.tables.formats import FileFormat, format_of
from mlapp.tables.reading import open_table
from mlapp.tables.values import write_out
from mlapp.tables.writing import finish_parquet, write_chunk, write_head

Status: TypeAlias = Literal["waiting", "scoring", "finishing", "done", "stopped", "failed"]

AT_ONCE = 2  # jobs that run at once in a process; others wait for their turn
FIRST = 5  # rows of a file that are previewed

_CSV, _PARQUET = FileFormat("csv"), FileFormat("parquet")
_turns = threading.BoundedSemaphore(AT_ONCE)
_log = logging.getLogger(__name__)


class Upload:
    """An uploaded file, copied to the disk.

    Attributes:
        name: the file's name.
        size: in bytes.
    """

    def __init__(self, name: str, source: BinaryIO) -> None:
        """Copy a file, block by block.

        Raises:
            OutputError: it cannot be written to the disk.
        """
        self.name = name
        with writing(TEMPORARY):
            self.file = _scratch(self, name)
            shutil.copyfileobj(source, self.file, BLOCK)
            self.file.flush()
        self.size = self.file.tell()

    def close(self) -> None:
        """Delete the copy."""
        _close(self.file)

    def format(self, encoding: str | None = None, decimal: str | None = None) -> FileFormat:
        """Return its format, by its name.

        Raises:
            InvalidTable: the name's suffix is not known.
        """
        return format_of(self.name).reading(encoding, decimal)

    def preview(self, encoding: str | None = None) -> tuple[pa.Schema, pd.DataFrame]:
        """Return its columns and its first rows; unless it is Parquet, all of it is read.

        Raises:
            InvalidTable: it cannot be read.
        """
        with open_table(self.file, self.format(encoding)) as table:
            first = next(table.chunks(FIRST)).batch.slice(0, FIRST)
            # Python cannot hold every date.
            columns = [write_out(each) if _is_date(each.type) else each for each in first.columns]
            return table.schema, pa.table(columns, table.schema.names).to_pandas()


def _is_date(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


class Progress(NamedTuple):
    """The progress of a job: rows, rows per second, share of the bytes, seconds left if known."""

    rows: int
    rate: float
    share: float
    left: float | None


class Result:
    """The result for one file, which grows while the file is scored.

    Attributes:
        name, size: the upload's.
        state: waiting, scoring, finishing (Parquet is written), done, stopped or failed.
        seconds: how long it took.
        share: of the file's bytes that are read.
        error: why it failed.
        histogram, shares: the distribution of the predictions; one of the two, the other is None.
        differences: if two versions are compared, how their answers differ.
    """

    def __init__(self, model: Model, upload: Upload) -> None:
        self.name, self.size = upload.name, upload.size
        self.state: Status = "waiting"
        self._tally = Tally[RefusedRow]()
        self.seconds = self.share = 0.0
        self.error = ""
        gives = model.gives
        self.histogram = Histogram() if gives.kind == "number" else None
        self.shares = Shares(gives.labels) if gives.kind == "labels" else None
        self.differences: Differences | None = None
        self._files: dict[str, BinaryIO] = {}

    @property
    def counts(self) -> Counts:
        """How many rows there are so far: all, scored, scored with a notice, refused."""
        return self._tally.counts

    @property
    def refused(self) -> tuple[RefusedRow, ...]:
        """The first refused rows, each with its number, from 1, and what is wrong."""
        return self._tally.refused

    def name_as(self, suffix: str) -> str:
        """Return the name of the result as csv or parquet: `a.csv.gz` becomes `a-scored.csv`."""
        stem = self.name.removesuffix(".gz").removesuffix(".zip").rpartition(".")[0]
        return f"{stem}-scored.{suffix}"

    def bytes_of(self, suffix: str) -> int:
        """Return the size of the whole result, as csv or as parquet, in bytes."""
        return os.fstat(self._files[suffix].fileno()).st_size

    def close(self) -> None:
        """Delete the result."""
        for file in self._files.values():
            _close(file)

    def read(self, suffix: str) -> bytes:
        """Return the whole result, as csv or as parquet; any thread may call this."""
        parts, place, descriptor = [], 0, self._files[suffix].fileno()
        while part := os.pread(descriptor, 1 << 30, place):
            parts.append(part)
            place += len(part)
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def score(
        self,
        model: Model,
        upload: Upload,
        file_format: FileFormat,
        options: Options,
        stop: Callable[[], bool],
        against: Model | None = None,
    ) -> None:
        """Score the file, and compare the answers with those of another version if there is one.

        The result is whole, or there is none.

        Raises:
            MlappError: the file cannot be read, or not be scored.
        """
        self.state, began = "scoring", time.monotonic()
        csv, parquet = _scratch(self), _scratch(self)
        try:
            with (
                writing(TEMPORARY),
                open_table(upload.file, file_format) as table,
                temporary_file(TEMPORARY) as spool,
            ):
                plan, score = self._plan(model, against, table.schema, options)
                origin = Origin(answering.new_id(), "page")
                csv.write(write_head(_CSV, plan.schema, options.raw))
                scored = score_table(
                    model, table, plan, _PARQUET, options.raw, origin=origin, score=score
                )
                with closing(scored) as parts:
                    for part in parts:
                        spool.write(part.data)
                        if part.counts.rows:
                            batch = pa.ipc.read_record_batch(pa.py_buffer(part.data), plan.schema)
                            csv.write(write_chunk(_CSV, Chunk(batch), plan.own, options.raw))
                            self._count(part, batch, options.prefix)
                            self.seconds = time.monotonic() - began
                        if stop():
                            self.state = "stopped"
                            return
                self.state = "finishing"
                csv.flush()
                spool.seek(0)
                finish_parquet(spool, parquet)
                parquet.flush()
            self._files = {"csv": csv, "parquet": parquet}
            self.seconds = time.monotonic() - began
            self.share, self.state = 1.0, "done"
        finally:
            if not self._files:
                _close(csv)
                _close(parquet)

    def _plan(
        self, model: Model, against: Model | None, schema: pa.Schema, options: Options
    ) -> tuple[Plan, Scorer | None]:
        """Return how the file is scored; prepare to count differences if versions are compared."""
        if against is None:
            return make_plan(model, schema, options), None
        comparison = plan_comparison(model, against, schema, options)
        self.differences = Differences(comparison.prefix, comparison.other_prefix)
        return comparison.plan, comparison.score

    def _count(self, part: Part, batch: pa.RecordBatch, prefix: str) -> None:
        if self.histogram:
            predictions = batch.column(f"{prefix}prediction").drop_null()
            self.histogram.add(predictions.to_numpy(zero_copy_only=False))
        if self.shares:
            labels, unsure = (batch.column(prefix + name) for name in ("label", "unsure"))
            self.shares.add(labels.drop_null().to_pylist(), unsure.drop_null().to_pylist())
        if self.differences:
            self.differences.add(batch, self.counts.rows)
        self._tally = add_batch(self._tally, part.counts, part.errors)
        self.share = part.share or 0.0


class Job:
    """Files that a thread scores, one after another.

    Attributes:
        model: scores them.
        against: the version that it is compared with; None if the files are only scored.
        results: of each file, in order.
    """

    def __init__(
        self,
        model: Model,
        uploads: Sequence[Upload],
        options: Options,
        encoding: str | None = None,
        ended: threading.Event | None = None,
        decimal: str | None = None,
        against: Model | None = None,
    ) -> None:
        """Start.

        Args:
            model: scores the files.
            uploads: the files; nothing else may read them while the job runs.
            options: as for `files.score`.
            encoding: of text files; see `FileFormat`.
            ended: set when the session has ended; the job then stops.
            decimal: of CSV and TSV files; see `FileFormat`.
            against: another version of the model, to compare it with on the files.
        """
        self.model, self.against = model, against
        self.results = [Result(model, upload) for upload in uploads]
        self._began, self._stop, self._ended = 0.0, threading.Event(), ended or threading.Event()
        run = [list(uploads), options, encoding, decimal]
        self._thread = threading.Thread(target=self._run, args=run, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread is scoring, or waits for its turn."""
        return self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Stop after the chunks in progress; results that are not whole are discarded."""
        self._stop.set()

    def join(self) -> None:
        """Wait until the job has ended."""
        self._thread.join()

    def progress(self) -> Progress:
        """Return the progress over all files."""
        rows = sum(result.counts.rows for result in self.results)
        size = sum(result.size for result in self.results) or 1
        share = min(1.0, sum(result.share * result.size for result in self.results) / size)
        seconds = time.monotonic() - self._began if self._began else 0.0
        left = seconds * (1 - share) / share if share else None
        return Progress(rows, rows / seconds if seconds else 0.0, share, left)

    def _must_stop(self) -> bool:
        return self._stop.is_set() or self._ended.is_set()

    def _run(
        self, uploads: list[Upload], options: Options, encoding: str | None, decimal: str | None
    ) -> None:
        while not _turns.acquire(timeout=0.1):
            if self._must_stop():
                break
        else:
            try:
                self._began = time.monotonic()
                for upload, result in zip(uploads, self.results, strict=True):
                    if not self._must_stop():
                        self._score(upload, result, options, encoding, decimal)
            finally:
                _turns.release()
        for result in self.results:
            if result.state == "waiting":
                result.state = "stopped"

    def _score(
        self,
        upload: Upload,
        result: Result,
        options: Options,
        encoding: str | None,
        decimal: str | None,
    ) -> None:
        try:
            file_format = upload.format(encoding, decimal)
            result.score(self.model, upload, file_format, options, self._must_stop, self.against)
        except MlappError as error:
            result.state, result.error = "failed", str(error)
        except Exception as error:
            if "interpreter shutdown" in str(error):  # thread pools refuse work by then
                result.state = "stopped"
                return
            _log.exception("a file was not scored")
            result.state = "failed"
            result.error = "Something unexpected went wrong; see the server's log"


def _scratch(owner: object, name: str = TEMPORARY) -> BinaryIO:
    """Return a temporary file that is closed, and so deleted, together with its owner.

    Args:
        owner: any object.
        name: what messages call the file.

    Raises:
        OutputError: it cannot be created.
    """
    file = temporary_file(name)
    weakref.finalize(owner, _close, file)
    return file


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # a full disk, at the last flush
        file.close()
