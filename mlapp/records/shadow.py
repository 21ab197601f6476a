"""Shadow candidates: their answers to the same requests are recorded, but not served.

Requests are handed over when they are recorded, and a thread lets the candidate answer them. If
that is too slow, or fails, only the candidate's answers are missing.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlapp.errors import ArtifactError, InvalidInput, MlappError, quote
from mlapp.families.contract import Model
from mlapp.records.entries import Record, Shadowed
from mlapp.store import artifacts
from mlapp.store.repository import repository

MOST_ROWS = 5_000  # the most rows that wait for a candidate
MOST_WARNINGS = 100  # different ones in the log of a process
LAST_SECONDS = 5.0  # for the waiting rows when the process ends

_log = logging.getLogger(__name__)


class Shadow:
    """Lets candidates answer the requests to served versions, in a thread."""

    def __init__(
        self,
        root: Path,
        versions: Mapping[str, int],
        add: Callable[[Shadowed], object],
        notify: Callable[[str, int], object],
    ) -> None:
        """Start the thread.

        Args:
            root: the artifact folder.
            versions: the candidate by the model's name.
            add: called with each answer.
            notify: called with `shadowed` or `unshadowed` and a number of rows.
        """
        self._root, self._versions, self._add, self._notify = root, versions, add, notify
        self._queue: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._waiting, self._mutex = 0, threading.Lock()
        self._end: float | None = None
        self._logged: set[str] = set()
        for name, version in versions.items():
            if reason := _why_useless(root, name, version):
                self._log_once(f"MLAPP_SHADOW: version {version} of {name} {reason}")
        self._thread = threading.Thread(target=self._work, name="mlapp-shadow", daemon=True)
        self._thread.start()

    def take(self, record: Record) -> None:
        """Queue a request for its candidate, if there is one and not too much is waiting."""
        manifest = record.model.manifest
        if self._versions.get(manifest.name, manifest.version) == manifest.version:
            return
        rows = len(record.answers)
        with self._mutex:
            full = self._waiting >= MOST_ROWS
            self._waiting += 0 if full else rows
        if full:
            self._notify("unshadowed", rows)
        else:
            self._queue.put(record)

    def close(self) -> None:
        """Answer the waiting requests, for a limited time, and stop."""
        self._end = time.monotonic() + LAST_SECONDS
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while record := self._queue.get():
            rows = len(record.answers)
            with self._mutex:
                self._waiting -= rows
            answered = False
            if self._end is None or time.monotonic() < self._end:
                answered = self._answer(record)
            self._notify("shadowed" if answered else "unshadowed", rows)

    def _answer(self, record: Record) -> bool:
        """Record the candidate's answer; return whether it could answer."""
        name = record.model.manifest.name
        version = self._versions[name]
        try:
            model = repository(self._root.resolve()).get(name, version)
            answers = model.answer(model.check(_instances(record, model)))
            self._add(Shadowed(record.id, record.time, name, version, answers))
        except InvalidInput as error:  # its message holds values, which may not be recorded
            refused = quote(sorted({fault.input for fault in error.faults}))
            self._log_once(
                f"Version {version} of {name} refuses requests in shadow mode: {refused}"
            )
            return False
        except MlappError as error:
            self._log_once(f"Version {version} of {name} cannot run in shadow mode: {error}")
            return False
        except Exception:  # a family's own check or answer
            _log.exception("Version %d of %s cannot run in shadow mode", version, name)
            return False
        return True

    def _log_once(self, message: str) -> None:
        """Log a warning, unless it was logged before."""
        if message not in self._logged and len(self._logged) < MOST_WARNINGS:
            self._logged.add(message)
            _log.warning("%s", message)


def _why_useless(root: Path, name: str, version: int) -> str | None:
    """Return why a version cannot run in shadow mode; None if it can, as far as is known."""
    if version not in artifacts.versions(root, name):
        return "is not published"
    try:
        is_served = version == artifacts.served_version(root, name)
    except ArtifactError:  # none is served yet
        return None
    return "is served, so it does not run in shadow mode" if is_served else None


def _instances(record: Record, model: Model) -> list[Any]:
    """Return the instances of a request, in the form that another version of the model takes."""
    rows = [record.batch.row(place) for place in range(len(record.answers))]
    if model.takes.kind == "text":
        return [next(iter(row.values())) for row in rows]
    names = set(model.takes.names)
    return [{name: value for name, value in row.items() if name in names} for row in rows]
