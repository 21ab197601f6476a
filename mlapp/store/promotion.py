"""Candidates, and changes of the served version: promote, roll back, and their history.

    artifacts/<name>/candidate-<version>   an empty file: that version is not served
    artifacts/<name>/history.jsonl         who promoted or rolled back what, when and why

A candidate is a complete version that is served only if a request names its number. A change of
the served version creates or deletes one file, so a running server needs no restart.
"""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from mlapp import store
from mlapp.disk import writing
from mlapp.errors import ArtifactError, InvalidSettings, ModelNotFound
from mlapp.store import artifacts

HISTORY = "history.jsonl"


class Change(BaseModel):
    """A change of the served version.

    Attributes:
        time: when.
        action: promoted, or rolled back.
        version: the version that is served from then on.
        previous: the version that was served until then, or None.
        by: the user of the machine, or `dashboard`.
        reason: the gate's verdict, or the reason that was given with `--force`.
        forced: whether the gate advised against it.
    """

    model_config = ConfigDict(frozen=True)

    time: AwareDatetime
    action: Literal["promoted", "rolled back"]
    version: int
    previous: int | None
    by: str
    reason: str
    forced: bool = False


def promote(
    root: Path, name: str, version: int, reason: str, *, forced: bool = False, by: str | None = None
) -> Change:
    """Serve a candidate from now on.

    Args:
        root: the artifact folder.
        name: the model's name.
        version: the candidate.
        reason: why, for the history.
        forced: whether the gate advised against it.
        by: who; by default the user of the machine.

    Raises:
        ModelNotFound: the version is not a candidate, or a newer one is served.
        InvalidSettings: a version is pinned.
        OutputError: the folder cannot be written to; nothing is changed.
    """
    mark = artifacts.candidate_mark(root, name, version)
    with _locked(root, name):
        served = require_promotable(root, name, version)
        change = _change("promoted", version, served, reason, forced, by)
        mark.unlink()
        try:
            _append(root, name, change)
        except BaseException:
            mark.touch()
            raise
    return change


def require_promotable(root: Path, name: str, version: int) -> int | None:
    """Check that a version can be promoted, and return the version that is served until then.

    Raises:
        ModelNotFound, InvalidSettings: as `promote`.
    """
    _require_no_pin(root, name)
    waiting = artifacts.candidates(root, name)
    if version not in waiting:
        found = ", ".join(map(str, waiting)) or "none"
        raise ModelNotFound(
            f"Version {version} of {name!r} is not a candidate; candidates: {found}"
        )
    served = _served(root, name)
    if served is not None and served > version:
        raise ModelNotFound(
            f"Version {served} of {name!r} is newer than {version}, and is served",
            f"mlapp pin {name} {version}",
        )
    return served


def roll_back(root: Path, name: str, reason: str, *, by: str | None = None) -> Change:
    """Serve the version before the one that is served; later ones become candidates.

    Versions that cannot be opened are passed over.

    Raises:
        ModelNotFound: there is no version before.
        ArtifactError: none of those before can be opened.
        InvalidSettings: a version is pinned.
        OutputError: the folder cannot be written to; nothing is changed.
    """
    with _locked(root, name):
        _require_no_pin(root, name)
        model, _ = store.open_served(root, name)
        served, wanted = model.manifest.version, artifacts.servable(root, name)
        older = [each for each in wanted if each < served]
        if not older:
            raise ModelNotFound(f"There is no version of {name!r} before {served} to serve")
        before, _ = store.open_first(older, lambda each: store.open_model(root, name, each))
        version = before.manifest.version
        change = _change("rolled back", version, served, reason, False, by)
        marks = [artifacts.candidate_mark(root, name, each) for each in wanted if each > version]
        try:
            for mark in marks:
                mark.touch()
            _append(root, name, change)
        except BaseException:
            for mark in marks:
                mark.unlink(missing_ok=True)
            raise
    return change


def history(root: Path, name: str) -> list[Change]:
    """Return all changes, oldest first; lines that cannot be read are skipped."""
    try:
        lines = (root / name / HISTORY).read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    changes = []
    for line in lines:
        try:
            changes.append(Change.model_validate_json(line))
        except ValidationError:
            continue  # cut off by a full disk or a crash
    return changes


def _served(root: Path, name: str) -> int | None:
    """Return the version that is served, None if there is none or it cannot be opened."""
    try:
        return store.open_served(root, name)[0].manifest.version
    except ArtifactError:
        return None


def _change(
    action: Literal["promoted", "rolled back"],
    version: int,
    previous: int | None,
    reason: str,
    forced: bool,
    by: str | None,
) -> Change:
    return Change(
        time=datetime.now(UTC).replace(microsecond=0),
        action=action,
        version=version,
        previous=previous,
        by=by or _user(),
        reason=reason,
        forced=forced,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return str(os.getuid())


def _require_no_pin(root: Path, name: str) -> None:
    held = artifacts.pinned(root, name)
    if held is not None:
        fix = artifacts.how_to_unpin(name)
        raise InvalidSettings(f"{name} is pinned to version {held}; release it: {fix}")


def _append(root: Path, name: str, change: Change) -> None:
    """Add a change to the history.

    Raises:
        OutputError: it cannot be written; the history is as it was.
    """
    path = root / name / HISTORY
    with writing(str(path)):
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(change.model_dump_json() + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)  # half a line would spoil the next one
            raise


@contextmanager
def _locked(root: Path, name: str) -> Iterator[None]:
    """Prevent other processes from changing the served version.

    Raises:
        ModelNotFound: nothing is published under the name.
        OutputError: the block cannot write to the folder.
    """
    artifacts.require_model(root, name)
    with writing(str(root / name)), artifacts.locked(root / name):
        yield
