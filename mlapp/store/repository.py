"""The models of an artifact folder, opened once per process and version, and kept up to date.

The served version depends on the folder alone, so that all processes agree: the newest version
that can be opened, or only the pinned one. A model whose folder was removed is no longer served,
and one that has only candidates is not served yet.
"""

import functools
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mlapp import store
from mlapp.errors import ArtifactError, ModelNotFound, describe
from mlapp.families.contract import Model
from mlapp.manifest import NAME
from mlapp.settings import read_settings
from mlapp.store import artifacts

# The approximate memory of an opened model: a constant, and a multiple of the size of its files.
BASE_BYTES, BYTES_PER_BYTE = 300_000, 5

_log = logging.getLogger(__name__)

_Key: TypeAlias = tuple[str, int, tuple[tuple[str, int, int, int], ...]]


@dataclass(frozen=True)
class _Served:
    """The model served under a name, and when it was last looked up."""

    model: Model
    seen: float


class Repository:
    """The models of one artifact folder. All methods are thread-safe.

    Attributes:
        root: the folder.
        capacity: the memory that opened models may take together, in bytes, by `estimate`. The
            least recently used are closed first; the most recently used one always stays.
    """

    def __init__(self, root: Path, capacity: int) -> None:
        """Read a folder, which need not exist yet."""
        self.root, self.capacity = root, capacity
        self._lock = threading.Lock()  # of the dictionaries, never held while a model is opened
        self._locks: dict[str, threading.RLock] = {}
        self._opened: OrderedDict[_Key, Model] = OrderedDict()
        self._failed: dict[_Key, ArtifactError] = {}
        self._served: dict[str, _Served] = {}
        self._refused: dict[str, ArtifactError] = {}

    def names(self, takes: str | None = None, gives: str | None = None) -> list[str]:
        """Return the names of the models that are to be served, of some kind or all.

        A model that has only candidates is not listed, unless one is pinned. A model whose
        manifest cannot be read is listed for every kind, so that users see why.

        Args:
            takes: row or text; by default both.
            gives: number or labels; by default both.
        """
        found = []
        for name in artifacts.served_names(self.root):
            kind = artifacts.kind(self.root, name) if takes or gives else None
            if kind is None or (takes or kind.takes, gives or kind.gives) == kind:
                found.append(name)
        return found

    def get(self, name: str, version: int | None = None, max_age: float = 0.0) -> Model:
        """Return a model, by default the version that is served.

        Args:
            name: the model's name.
            version: a version to open instead of the served one.
            max_age: how many seconds ago the served version may have been looked up.

        Raises:
            ModelNotFound: there is no such model or version.
            ArtifactError: neither it nor an older version can be opened.
        """
        if not NAME.fullmatch(name) or (version or 0) > artifacts.LARGEST_VERSION:
            raise ModelNotFound(f"No such model: {describe(name)}")
        if version is not None:
            with self._lock_of(name):
                return self._open(name, version)
        served = self._served.get(name)
        if served and time.monotonic() - served.seen < max_age:
            return served.model
        lock = self._lock_of(name)
        if not lock.acquire(blocking=not (served and max_age)):
            assert served  # otherwise the lock is blocking
            return served.model  # another thread is looking it up
        try:
            return self._renew(name)
        finally:
            lock.release()

    def refused(self, name: str) -> ArtifactError | None:
        """Return why the version that should be served cannot be opened, by the last look-up."""
        return self._refused.get(name)

    def is_ready(self, name: str, max_age: float = 0.0) -> bool:
        """Return whether a version of a model can be served; see also `refused`."""
        try:
            self.get(name, max_age=max_age)
        except ArtifactError:
            return False
        return True

    def _lock_of(self, name: str) -> threading.RLock:
        return self._locks.setdefault(name, threading.RLock())

    def _renew(self, name: str) -> Model:
        """Find the best version that can be opened; the caller holds the name's lock."""
        try:
            wanted = artifacts.servable(self.root, name)
            model, refused = store.open_first(wanted, lambda version: self._open(name, version))
        except ArtifactError as error:
            self._served.pop(name, None)
            # If it was withdrawn, or waits for its promotion, nothing is refused.
            is_served = artifacts.is_served(self.root, name)
            self._note(name, error if is_served else None, "nothing is served")
            raise
        self._note(name, refused, f"version {model.manifest.version} is served")
        self._served[name] = _Served(model, time.monotonic())
        return model

    def _note(self, name: str, refused: ArtifactError | None, outcome: str) -> None:
        """Remember why a version is refused, and log it once."""
        if refused is None:
            self._refused.pop(name, None)
            return
        if str(refused) != str(self._refused.get(name)):
            _log.warning("%s: %s; %s", name, outcome, refused)
        self._refused[name] = refused

    def _open(self, name: str, version: int) -> Model:
        """Open a version, or return the opened one; the caller holds the name's lock."""
        # If its files changed, it is a different version.
        key = (name, version, artifacts.fingerprint(self.root, name, version))
        with self._lock:
            if key in self._opened:
                self._opened.move_to_end(key)
                return self._opened[key]
        if key in self._failed:
            raise self._failed[key]
        try:
            model = store.open_model(self.root, name, version)
        except ArtifactError as error:
            if not isinstance(error, ModelNotFound):
                self._forget_failures(name, version)
                self._failed[key] = error
            raise
        self._keep(key, model)
        return model

    def _forget_failures(self, name: str, version: int) -> None:
        for key in [key for key in self._failed if key[:2] == (name, version)]:
            self._failed.pop(key, None)

    def _keep(self, key: _Key, model: Model) -> None:
        """Keep an opened model, and close the least recently used ones if memory is short."""
        with self._lock:
            self._opened[key] = model
            used = sum(map(estimate, self._opened.values()))
            while used > self.capacity and len(self._opened) > 1:
                (name, _, _), dropped = self._opened.popitem(last=False)
                used -= estimate(dropped)
                served = self._served.get(name)
                if served and served.model is dropped:
                    del self._served[name]


def estimate(model: Model) -> int:
    """Return about how many bytes of memory an opened model takes."""
    return BASE_BYTES + BYTES_PER_BYTE * model.size


@functools.cache
def repository(root: Path) -> Repository:
    """Return this process's repository of a folder, which shares its opened models."""
    return Repository(root, read_settings().cache_bytes)
