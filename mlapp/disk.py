"""The disk: temporary files, folders that survive a crash, and messages for its errors."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, cast

from mlapp.errors import DiskFull, OutputError

TEMPORARY = "the temporary folder"  # what messages call it
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def reason(error: Exception) -> str:
    """Return why a read or a write failed, without the error's number and the file's name."""
    return str(getattr(error, "strerror", None) or error)


@contextmanager
def writing(
    name: str, if_full: str = "free some space", also: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn what a failed write raises into an error that names the file.

    A `BrokenPipeError` passes: the reader of the output has closed it.

    Args:
        name: what the file is called in messages.
        if_full: what to do when the disk is full.
        also: exceptions besides `OSError` that a failed write raises.

    Raises:
        DiskFull: the disk is full, or a quota is used up.
        OutputError: any other reason.
    """
    failures: tuple[type[Exception], ...] = (OSError, *also)
    try:
        yield
    except BrokenPipeError:
        raise
    except failures as error:
        message = f"{name} cannot be written: {reason(error)}"
        if isinstance(error, OSError) and error.errno in _FULL:
            raise DiskFull(f"{message}; {if_full}") from error
        raise OutputError(message) from error


def temporary_file(name: str = TEMPORARY, buffering: int = -1) -> BinaryIO:
    """Return a file without a path; it is deleted when it is closed, or when the process ends.

    Args:
        name: what it is called in messages.
        buffering: as for `open`.

    Raises:
        OutputError: it cannot be created; `DiskFull` where the disk is full.
    """
    with writing(name):
        file = cast(Any, TemporaryFile(buffering=buffering))  # noqa: SIM115  # the caller closes it
    getattr(file, "raw", file).name = name
    return cast(BinaryIO, file)


def sync_folder(path: Path) -> None:
    """Make renames in a folder survive a crash; where folders cannot be synced, do nothing."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
