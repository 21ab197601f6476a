"""Where a scored file is written: a file that is whole or absent, and can be resumed; or a stream.

    .OUT.part     the output so far, renamed to OUT at the end
    .OUT.journal  what a run needs to resume one that was cut off

The journal holds what the run is made of (input, model, options), and of the last whole chunk that
is safely on disk its number, the bytes up to it, and the tally. A run that resumes truncates the
part there, and its output has the same bytes as that of an uninterrupted one.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from pydantic import BaseModel, Field

from mlapp.disk import sync_folder, temporary_file, writing
from mlapp.errors import InvalidTable, OutputError
from mlapp.scoring.batch import Counts, Part
from mlapp.scoring.summary import RefusedRow, Tally, add_batch
from mlapp.tables.formats import FileFormat
from mlapp.tables.writing import Bytes, finish_parquet

Report: TypeAlias = Callable[[str], None]  # called with a line for the user

SAVE_EVERY = 0.5  # seconds between two entries in the journal


@dataclass(frozen=True)
class Written:
    """What is written so far.

    Attributes:
        parts: the head and the chunks.
        size: their bytes.
        tally: their rows.
    """

    parts: int = 0
    size: int = 0
    tally: Tally[RefusedRow] = field(default_factory=Tally[RefusedRow])

    def add(self, part: Part) -> "Written":
        """Return this with another part."""
        tally = add_batch(self.tally, part.counts, part.errors)
        return Written(self.parts + 1, self.size + len(part.data), tally)


def is_unfinished(target: Path) -> bool:
    """Return whether a run into a file was cut off and can be resumed."""
    return _beside(target, "journal").exists()


class _Entry(BaseModel):
    """What a journal says of `Written`."""

    parts: int = Field(ge=0)
    size: int = Field(ge=0)
    counts: tuple[int, int, int, int]
    refused: tuple[tuple[int, str], ...]


class _Journal(BaseModel):
    """The content of a journal; `origin` is what the run is made of."""

    origin: dict[str, Any]
    done: _Entry


class FileOutput:
    """A file that appears when it is whole, and can be resumed until then."""

    def __init__(
        self,
        target: Path,
        file_format: FileFormat,
        origin: dict[str, Any] | None,
        resume: bool,
        report: Report,
    ) -> None:
        """Open the output for this run alone.

        Args:
            target: the file; a link to a file is followed.
            file_format: what it becomes.
            origin: what a run must have in common with the one that it resumes; None if it cannot
                be resumed, so that nothing is kept.
            resume: whether to resume a run that was cut off, if there is one.
            report: called with a line about a journal that cannot be used.

        Raises:
            OutputError: it cannot be written, or not be resumed.
        """
        self._target = Path(os.path.realpath(target))
        self._part, self._journal = _beside(target, "part"), _beside(target, "journal")
        self._format, self._origin, self._saved_at = file_format, origin, 0.0
        self._report = report
        self._saving: Future[None] | None = None
        self._finished = False
        with self._writing():
            self._descriptor = self._lock()
            try:
                self.done = self._resume() if resume else Written()
                if not resume:
                    self._journal.unlink(missing_ok=True)
                os.ftruncate(self._descriptor, self.done.size)
                os.lseek(self._descriptor, 0, os.SEEK_END)
            except BaseException:
                os.close(self._descriptor)
                raise
        self._saver = ThreadPoolExecutor(1)

    def __enter__(self) -> "FileOutput":
        """Return the output."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Keep what is written, so that it can be resumed, unless the input is at fault."""
        try:
            self._saver.shutdown()
            if kind and issubclass(kind, InvalidTable):
                self._part.unlink(missing_ok=True)
                self._journal.unlink(missing_ok=True)
            elif not self._finished:
                with suppress(OSError):
                    self._save(self.done)
                if not self._journal.exists():  # there is nothing to resume
                    self._part.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)

    def write(self, part: Part) -> None:
        """Add a part; from time to time a thread saves the journal."""
        with self._writing():
            _write(self._descriptor, part.data)
            self.done = self.done.add(part)
            if self._saving is None or self._saving.done():
                if self._saving:
                    self._saving.result()
                if time.monotonic() > self._saved_at + SAVE_EVERY:
                    self._saved_at = time.monotonic()
                    self._saving = self._saver.submit(self._save, self.done)

    def finish(self) -> None:
        """Move the whole output to its place."""
        with self._writing():
            self._saver.shutdown()
            os.fsync(self._descriptor)
            if self._format.format == "parquet":
                self._save(self.done)
                self._convert()
                self._part.unlink()
            else:
                self._part.replace(self._target)
            self._finished = True
            self._journal.unlink(missing_ok=True)
            sync_folder(self._target.parent)

    def _convert(self) -> None:
        whole = _beside(self._target, "whole")
        try:
            with self._part.open("rb") as spool, whole.open("wb") as file:
                finish_parquet(spool, file)
                file.flush()
                os.fsync(file.fileno())
            whole.replace(self._target)
        finally:
            whole.unlink(missing_ok=True)

    def _lock(self) -> int:
        """Open the part for this run alone."""
        while True:
            descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(self._part.stat(), os.fstat(descriptor)):
                    return descriptor
            except FileNotFoundError:
                pass
            except BlockingIOError:
                os.close(descriptor)
                raise OutputError(f"another run is writing {self._target}") from None
            os.close(descriptor)  # another run finished in between, and renamed it

    def _resume(self) -> Written:
        try:
            content = self._journal.read_bytes()
        except FileNotFoundError:
            return Written()
        try:
            found = _Journal.model_validate_json(content, strict=True)
        except ValueError:
            self._report(f"{self._journal} is empty or damaged: the run starts again")
            return Written()
        now = json.loads(json.dumps(self._origin))
        for what in sorted(now.keys() | found.origin.keys()):
            if (then := found.origin.get(what)) != now.get(what):
                raise OutputError(
                    f"{self._target} cannot be resumed: the {what} was {then}, and is"
                    f" {now.get(what)}; start again without --resume"
                )
        done = found.done
        if os.fstat(self._descriptor).st_size < done.size:
            raise OutputError(f"{self._part} is damaged; start again without --resume")
        return Written(done.parts, done.size, Tally(Counts(*done.counts), done.refused))

    def _save(self, done: Written) -> None:
        if self._origin is None:
            return
        os.fsync(self._descriptor)
        counts, refused = done.tally.counts, done.tally.refused
        entry = {"parts": done.parts, "size": done.size, "counts": counts, "refused": refused}
        written = self._journal.with_name(f"{self._journal.name}.new")
        try:
            with written.open("w", encoding="utf-8") as file:
                json.dump({"origin": self._origin, "done": entry}, file)
                file.flush()
                os.fsync(file.fileno())
            written.replace(self._journal)
        finally:
            written.unlink(missing_ok=True)
        sync_folder(self._journal.parent)

    def _writing(self) -> AbstractContextManager[None]:
        hint = "free some space"
        if self._origin is not None:
            hint = f"what is done is kept: {hint}, then use --resume"
        return writing(str(self._target), hint)


class StreamOutput:
    """A stream: what is written to it cannot be taken back."""

    def __init__(
        self, target: Path | BinaryIO, file_format: FileFormat, whole: bool = False
    ) -> None:
        """Open the output.

        Args:
            target: the stream, or the path of a device or a pipe.
            file_format: what is written.
            whole: whether nothing is written before all is there; Parquet always is.

        Raises:
            OutputError: it cannot be written.
        """
        self._is_parquet = file_format.format == "parquet"
        self._stack, self.done = ExitStack(), Written()
        self._name = str(target) if isinstance(target, Path) else "the output"
        with writing(self._name):
            if isinstance(target, Path):
                target = self._stack.enter_context(target.open("wb"))
            self._target = target
            self._spool: BinaryIO | None = None
            if whole or self._is_parquet:
                self._spool = self._stack.enter_context(temporary_file(self._name))

    def __enter__(self) -> "StreamOutput":
        """Return the output."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what this opened."""
        with suppress(OSError):
            self._stack.close()

    def write(self, part: Part) -> None:
        """Write a part."""
        with writing(self._name):
            (self._spool or self._target).write(part.data)
        self.done = self.done.add(part)

    def finish(self) -> None:
        """Write what is left."""
        with writing(self._name):
            if spool := self._spool:
                spool.seek(0)
                if self._is_parquet:
                    whole = self._stack.enter_context(temporary_file(self._name))
                    finish_parquet(spool, whole)
                    whole.seek(0)
                    spool = whole
                shutil.copyfileobj(spool, self._target)
            self._target.flush()


def _beside(target: Path, kind: str) -> Path:
    target = Path(os.path.realpath(target))
    return target.with_name(f".{target.name}.{kind}")


def _write(descriptor: int, data: Bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
