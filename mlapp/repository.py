"""The models of an artifact folder, opened once per process and version, and kept up to date.

A version that cannot be opened changes nothing for those who have a model already.
"""

import functools
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from mlapp import artifacts, models
from mlapp.artifacts import MANIFEST, Task
from mlapp.errors import ArtifactError
from mlapp.models import Model

KEPT = 16  # opened versions per folder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Held:
    """The model last served under a name, why a newer one was refused, and when that was seen."""

    model: Model
    refused: ArtifactError | None
    seen: float


class Repository:
    """The models of one artifact folder. All methods may be called from many threads."""

    def __init__(self, root: Path) -> None:
        """Look into a folder, which need not be there yet."""
        self.root = root
        self._lock = threading.RLock()
        self._opened: dict[tuple[str, int, int], Model] = {}
        self._held: dict[str, _Held] = {}

    def names(self, task: Task | None = None) -> list[str]:
        """Return the names of the published models, of one task or of all.

        A model whose task cannot be read is listed under every task, so that its fault is shown.
        """
        names = artifacts.names(self.root)
        return [
            name for name in names if not task or artifacts.task(self.root, name) in (task, None)
        ]

    def get(self, name: str, version: int | None = None, max_age: float = 0.0) -> Model:
        """Return a model, by default the version that is served.

        Args:
            name: the model's name.
            version: a version, which is then opened whatever is served.
            max_age: for how many seconds the served version need not be looked up again.

        Raises:
            ModelNotFound: there is none of that name or version.
            ArtifactError: it cannot be opened, and no version of it was served before.
        """
        if version is not None:
            return self._open(name, version)
        held = self._held.get(name)
        if held and time.monotonic() - held.seen < max_age:
            return held.model
        if held and max_age and not self._lock.acquire(blocking=False):
            return held.model  # another thread is looking
        try:
            return self._renew(name)
        finally:
            if held and max_age:
                self._lock.release()

    def refused(self, name: str) -> ArtifactError | None:
        """Return why the version that should be served is not, as was last seen."""
        held = self._held.get(name)
        return held.refused if held else None

    def _renew(self, name: str) -> Model:
        held = self._held.get(name)
        refused: ArtifactError | None = None
        try:
            model = self._open(name, artifacts.served_version(self.root, name))
        except ArtifactError as error:
            if held is None:
                raise
            model, refused = held.model, error
            if str(error) != str(held.refused):
                _log.warning("%s %s stays in use: %s", name, model.manifest.version, error)
        self._held[name] = _Held(model, refused, time.monotonic())
        return model

    def _open(self, name: str, version: int) -> Model:
        try:
            # A version that was made anew under its old number is another one.
            stamp = (self.root / name / str(version) / MANIFEST).stat().st_mtime_ns
        except OSError:
            stamp = 0
        key = (name, version, stamp)
        with self._lock:
            if key not in self._opened:
                self._opened[key] = models.open_model(self.root, name, version)
                while len(self._opened) > KEPT:
                    del self._opened[next(iter(self._opened))]
            return self._opened[key]


@functools.cache
def repository(root: Path) -> Repository:
    """Return the process's one repository of a folder, so that all share its opened models."""
    return Repository(root)
