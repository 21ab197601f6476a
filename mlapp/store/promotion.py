"""Candidates, and changes of the served version: promote, roll back, and their history.

    artifacts/<name>/candidate-<version>   an empty file: that version is not served
    artifacts/<name>/history.jsonl         who promoted or rolled back what, when and why

A candidate is a complete version that is served only if a request names its number. A change of
the served version creates or deletes one file, so a running server needs no restart.
"""

import getpass
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

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
    """
    with _locked(root, name):
        served = require_promotable(root, name, version)
        change = _change("promoted", version, served, reason, forced, by)
        _append(root, name, change)
        artifacts.candidate_mark(root, name, version).unlink()
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
    """Serve the last whole version before the one that is served; later ones become candidates.

    Raises:
        ModelNotFound: there is no version before.
        ArtifactError: those before are all damaged.
        InvalidSettings: a version is pinned.
    """
    with _locked(root, name):
        _require_no_pin(root, name)
        served = artifacts.served_version(root, name)
        older = [each for each in artifacts.servable(root, name) if each < served]
        if not older:
            raise ModelNotFound(f"There is no version of {name!r} before {served} to serve")
        version = _first_whole(root, name, older)
        change = _change("rolled back", version, served, reason, False, by)
        _append(root, name, change)
        for later in (served, *older[: older.index(version)]):
            artifacts.candidate_mark(root, name, later).touch()
    return change


def _first_whole(root: Path, name: str, versions: Sequence[int]) -> int:
    """Return the first of some versions whose files are as they were published.

    Raises:
        ArtifactError: of the first, if all are damaged.
    """
    errors = []
    for version in versions:
        try:
            artifacts.open(root, name, version)
        except ArtifactError as error:
            errors.append(error)
        else:
            return version
    raise errors[0]


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
    try:
        return artifacts.served_version(root, name)
    except ModelNotFound:
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
    with (root / name / HISTORY).open("a", encoding="utf-8") as file:
        file.write(change.model_dump_json() + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _locked(root: Path, name: str) -> Iterator[None]:
    """Prevent other processes from changing the served version.

    Raises:
        ModelNotFound: nothing is published under the name.
    """
    if not artifacts.versions(root, name):
        raise ModelNotFound(f"No complete version of {name!r} in {root}")
    with artifacts.locked(root / name):
        yield
