"""A file scored into a file, whole or not at all.

    .OUT.part     the output as far as it is done, renamed to OUT at the end
    .OUT.journal  how far that is, for a run that goes on after one was cut off

The journal says what the run is made of (input, model, options), and of the last whole chunk that
lies safely on the disk its number, the bytes up to it, and the counts. A run that goes on cuts the
part there, and its output has the same bytes as that of an undisturbed one.
"""

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, TypeAlias, cast

from pydantic import BaseModel, Field

from mlapp.errors import DiskFull, InvalidTable, OutputError
from mlapp.families.contract import Model
from mlapp.scoring.batch import Counts, Options, Origin, Part, make_plan, score_table
from mlapp.tables.formats import FileFormat, format_of
from mlapp.tables.reading import open_table
from mlapp.tables.writing import Bytes, finish_parquet

# Called with the rows that are done, and the share of the input's bytes, None where it has no end.
Progress: TypeAlias = Callable[[int, float | None], None]

SHOWN = 100  # refused rows that a summary lists
SAVE_EVERY = 0.5  # seconds between two notes in the journal
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Summary:
    """What became of a table.

    Attributes:
        counts: its rows: all, scored, scored with a notice, refused.
        refused: the first refused rows, each with its number, from 1, and what is wrong.
        seconds: how long this run took.
        earlier: how many rows an earlier run had done.
        complete: whether all rows are done; else the run was stopped.
    """

    counts: Counts
    refused: tuple[tuple[int, str], ...]
    seconds: float
    earlier: int = 0
    complete: bool = True


@dataclass(frozen=True)
class _Done:
    """How far a run is: the head and the chunks, their bytes, the counts, the refused rows."""

    parts: int = 0
    size: int = 0
    counts: Counts = field(default_factory=Counts)
    refused: tuple[tuple[int, str], ...] = ()

    def add(self, part: Part) -> "_Done":
        room = SHOWN - len(self.refused)
        rows = sorted(part.errors.items())[:room] if room else []
        refused = tuple((self.counts.rows + place + 1, error) for place, error in rows)
        parts, size = self.parts + 1, self.size + len(part.data)
        return _Done(parts, size, self.counts + part.counts, self.refused + refused)


def score(
    model: Model,
    source: Path | BinaryIO,
    target: Path | BinaryIO,
    options: Options = Options(),  # noqa: B008  # frozen
    *,
    source_format: FileFormat | None = None,
    target_format: FileFormat | None = None,
    workers: int | None = None,
    strict: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    origin: Origin | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Score a table into a file or a stream, row by row in order.

    Args:
        model: any published model.
        source: a file, or an open stream of bytes, which stays open.
        target: a file, or an open stream of bytes, which stays open.
        options: see `Options`.
        source_format: that of the source; by default what its name says.
        target_format: that of the target; by default what its name says, and of a stream CSV.
        workers: threads, by default one for each core.
        strict: whether the first refused row ends the run; a file is then not written.
        resume: whether to go on where a run into the same file was cut off, if one was.
        progress: called after each chunk.
        stop: called after each chunk; if it returns true the run stops, and can be resumed.
        origin: as for `score_table`.
        say: called with a line about what a person should know of the run.

    Raises:
        InvalidTable: the input cannot be read, or `strict` met a refused row; nothing is written.
        InvalidInput: it has no column for an input.
        OutputError: the output cannot be written, or not be resumed.
        KeyboardInterrupt: as it came; what is done can be resumed.
    """
    began = time.monotonic()
    if isinstance(target, Path):
        target_format = target_format or format_of(str(target), write=True)
        _refuse_same(source, target)
    written = target_format or FileFormat("csv")
    with open_table(source, source_format) as table:
        plan = make_plan(model, table.schema, options)
        if isinstance(target, Path) and not (target.exists() and not target.is_file()):
            made_of = _origin(source, model, options, table.format, written)
            output: _File | _Stream = _File(target, written, made_of, resume, say)
        elif resume:
            raise OutputError("a stream cannot be resumed, only a file")
        else:
            output = _Stream(target, written)
        with output:
            earlier, complete = output.done.counts.rows, True
            parts = score_table(
                model, table, plan, written, options.raw, workers, output.done.parts, origin
            )
            with closing(parts):
                for part in parts:
                    if strict and part.errors:
                        row = min(part.errors)
                        number = output.done.counts.rows + row + 1
                        raise InvalidTable(f"row {number:,}, {part.errors[row]}")
                    output.write(part)
                    if progress:
                        progress(output.done.counts.rows, part.share)
                    if stop and stop():
                        complete = False
                        break
            if complete:
                output.finish()
            done = output.done
    seconds = time.monotonic() - began
    return Summary(done.counts, done.refused, seconds, earlier, complete)


def write_error(name: str, error: OSError, if_full: str = "make room on the disk") -> OutputError:
    """Return the error for a file that cannot be written; `DiskFull` where there is no room."""
    message = f"{name} cannot be written: {error.strerror or error}"
    if error.errno in _FULL:
        return DiskFull(f"{message}; {if_full}")
    return OutputError(message)


def is_unfinished(target: Path) -> bool:
    """Return whether a run into a file was cut off, and can be resumed."""
    return _beside(target, "journal").exists()


class _Noted(BaseModel):
    """What a journal says of the last whole chunk; see `_Done`."""

    parts: int = Field(ge=0)
    size: int = Field(ge=0)
    counts: tuple[int, int, int, int]
    refused: tuple[tuple[int, str], ...]


class _Journal(BaseModel):
    """What a journal holds."""

    origin: dict[str, Any]
    done: _Noted


class _File:
    """The output as a file; leaving it keeps what is done, unless the input is at fault."""

    def __init__(
        self,
        target: Path,
        file_format: FileFormat,
        origin: dict[str, Any],
        resume: bool,
        say: Callable[[str], None],
    ) -> None:
        self._target = Path(os.path.realpath(target))
        self._part, self._journal = _beside(target, "part"), _beside(target, "journal")
        self._format, self._origin, self._saved_at = file_format, origin, 0.0
        self._say = say
        self._saving: Future[None] | None = None
        self._finished = False
        with self._writing():
            self._descriptor = self._lock()
            try:
                self.done = self._resume() if resume else _Done()
                if not resume:
                    self._journal.unlink(missing_ok=True)
                os.ftruncate(self._descriptor, self.done.size)
                os.lseek(self._descriptor, 0, os.SEEK_END)
            except BaseException:
                os.close(self._descriptor)
                raise
        self._saver = ThreadPoolExecutor(1)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._saver.shutdown()
            if kind and issubclass(kind, InvalidTable):
                self._part.unlink(missing_ok=True)
                self._journal.unlink(missing_ok=True)
            elif not self._finished:
                with suppress(OSError):
                    self._save(self.done)
                if not self._journal.exists():  # there is nothing to go on from
                    self._part.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)

    def write(self, part: Part) -> None:
        """Add a part; now and then a thread notes in the journal what is safe on the disk."""
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
        """Put the whole output in its place."""
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
            _sync_folder(self._target.parent)

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
            os.close(descriptor)  # it was renamed in between, when another run came to its end

    def _resume(self) -> _Done:
        try:
            content = self._journal.read_bytes()
        except FileNotFoundError:
            return _Done()
        try:
            noted = _Journal.model_validate_json(content, strict=True)
        except ValueError:
            self._say(f"{self._journal} is empty or damaged: the run begins anew")
            return _Done()
        now = json.loads(json.dumps(self._origin))
        for what in sorted(now.keys() | noted.origin.keys()):
            if (then := noted.origin.get(what)) != now.get(what):
                raise OutputError(
                    f"{self._target} cannot be resumed: the {what} was {then}, and is"
                    f" {now.get(what)}; start anew without --resume"
                )
        done = noted.done
        if os.fstat(self._descriptor).st_size < done.size:
            raise OutputError(f"{self._part} is damaged; start anew without --resume")
        return _Done(done.parts, done.size, Counts(*done.counts), done.refused)

    def _save(self, done: _Done) -> None:
        os.fsync(self._descriptor)
        written = self._journal.with_name(f"{self._journal.name}.new")
        try:
            with written.open("w", encoding="utf-8") as file:
                json.dump({"origin": self._origin, "done": asdict(done)}, file)
                file.flush()
                os.fsync(file.fileno())
            written.replace(self._journal)
        finally:
            written.unlink(missing_ok=True)
        _sync_folder(self._journal.parent)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(
                str(self._target),
                error,
                "what is done is kept: make room, then go on with --resume",
            ) from error


class _Stream:
    """The output as a stream, which nothing can be taken back from."""

    def __init__(self, target: Path | BinaryIO, file_format: FileFormat) -> None:
        self._stack, self.done = ExitStack(), _Done()
        self._name = str(target) if isinstance(target, Path) else "the output"
        with self._writing():
            if isinstance(target, Path):
                target = self._stack.enter_context(target.open("wb"))
            self._target = target
            self._spool: BinaryIO | None = None
            if file_format.format == "parquet":
                spool = TemporaryFile()  # noqa: SIM115  # the stack closes it
                self._spool = cast(BinaryIO, self._stack.enter_context(spool))

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._stack.close()

    def write(self, part: Part) -> None:
        """Write a part."""
        with self._writing():
            (self._spool or self._target).write(part.data)
        self.done = self.done.add(part)

    def finish(self) -> None:
        """Write what is left."""
        with self._writing():
            if self._spool:
                self._spool.seek(0)
                with TemporaryFile() as whole:
                    finish_parquet(self._spool, cast(BinaryIO, whole))
                    whole.seek(0)
                    shutil.copyfileobj(whole, self._target)
            self._target.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_error(self._name, error) from error


def _beside(target: Path, kind: str) -> Path:
    target = Path(os.path.realpath(target))
    return target.with_name(f".{target.name}.{kind}")


def _sync_folder(folder: Path) -> None:
    """Make sure that what was renamed in a folder is so after a crash, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: Bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _refuse_same(source: Path | BinaryIO, target: Path) -> None:
    both = isinstance(source, Path) and source.exists() and target.exists()
    if both and target.samefile(cast(Path, source)):
        raise OutputError(f"{target} is the input; the output must be another file")


def _origin(
    source: Path | BinaryIO,
    model: Model,
    options: Options,
    source_format: FileFormat,
    target_format: FileFormat,
) -> dict[str, Any]:
    """Return what a run must have in common with the one that it goes on with."""
    made: Any = None
    if isinstance(source, Path):
        found = source.stat()
        made = [str(source.resolve()), found.st_size, found.st_mtime_ns]
    manifest = model.manifest
    return {
        "input": made,
        "model": [manifest.name, manifest.version, str(manifest.created)],
        "options": asdict(options),
        "formats": [asdict(source_format), asdict(target_format)],
    }
