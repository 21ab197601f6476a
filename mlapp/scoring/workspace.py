"""What a session of the dashboard keeps for one model: its files, and the job that scores them."""

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, cast

import pandas as pd
import pyarrow as pa

from mlapp.errors import MlappError
from mlapp.families.contract import Model
from mlapp.scoring.background import Job, Upload
from mlapp.scoring.batch import Options

CHECK_EVERY = 1.0  # seconds between two checks whether a session is still connected
# A browser reconnects within seconds, and Streamlit allows it two minutes: the job stops after the
# former, the files are deleted after the latter.
STOP_AFTER, CLEAR_AFTER = 5, 150  # checks in a row that found the session disconnected


class Workspace:
    """The files of a session for one model, and the job on them.

    Attributes:
        uploads: the files.
        job: the last job on them.
        round: how many times files were uploaded.
    """

    def __init__(self) -> None:
        self.uploads: list[Upload] = []
        self.job: Job | None = None
        self.round = 0
        self._previews: dict[tuple[Upload, str | None], Any] = {}
        self._ended = threading.Event()
        weakref.finalize(self, self._ended.set)

    def replace_files(self, uploads: Sequence[Upload]) -> None:
        """Replace the files; the old ones are deleted, and a job on them is stopped."""
        if self.job:
            self.job.stop()
        if self.uploads:
            old = [self.uploads, self.job]
            threading.Thread(target=_discard, args=old, daemon=True).start()
        self.uploads, self.job = list(uploads), None
        self.round += 1
        self._previews.clear()

    def clear_when(
        self,
        left: Callable[[], bool],
        every: float = CHECK_EVERY,
        times: int = CLEAR_AFTER,
        stop_after: int = STOP_AFTER,
    ) -> None:
        """Stop the job, and later delete the files, once the session stays disconnected.

        Args:
            left: returns whether the session is disconnected now.
            every: seconds between two checks.
            times: checks in a row that must find it disconnected before the files are deleted.
            stop_after: checks in a row that must find it disconnected before the job is stopped.
        """
        run = [weakref.ref(self), self.round, left, every, times, stop_after]
        threading.Thread(target=_watch, args=run, daemon=True).start()

    def preview(self, upload: Upload, encoding: str | None) -> tuple[pa.Schema, pd.DataFrame]:
        """Return the cached result of `Upload.preview`.

        Raises:
            InvalidTable: the file cannot be read.
        """
        key = (upload, encoding)
        if key not in self._previews:
            try:
                self._previews[key] = upload.preview(encoding)
            except MlappError as error:
                self._previews[key] = error
        found = self._previews[key]
        if isinstance(found, MlappError):
            raise found
        return cast(tuple[pa.Schema, pd.DataFrame], found)

    def start(
        self,
        model: Model,
        uploads: Sequence[Upload],
        options: Options,
        encoding: str | None,
        decimal: str | None = None,
        against: Model | None = None,
    ) -> None:
        """Score files of the workspace, unless a job is running."""
        if not (self.job and self.job.running):
            self.job = Job(model, uploads, options, encoding, self._ended, decimal, against)


def _discard(uploads: list[Upload], job: Job | None) -> None:
    """Delete files and results once no thread reads them, even if references to them remain."""
    if job:
        job.join()
        for result in job.results:
            result.close()
    for upload in uploads:
        upload.close()


def _watch(
    workspace: "weakref.ref[Workspace]",
    number: int,
    left: Callable[[], bool],
    every: float,
    times: int,
    stop_after: int,
) -> None:
    absences = 0
    while absences < times:
        time.sleep(every)
        if (seen := workspace()) is None or seen.round != number:
            return  # other files are watched by another thread
        absences = absences + 1 if left() else 0
        if absences >= stop_after and seen.job:
            seen.job.stop()
        del seen
    if seen := workspace():
        seen.replace_files([])
