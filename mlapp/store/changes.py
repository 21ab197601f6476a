"""Remove a version, and rename a model.

A removed version leaves its empty folder, so that its number is never given to another.
"""

import json
import secrets
import shutil
from pathlib import Path
from typing import Any

from mlapp.errors import ArtifactError, InvalidSettings, ModelNotFound
from mlapp.manifest import NAME
from mlapp.settings import read_settings
from mlapp.store import artifacts


def remove(root: Path, name: str, version: int) -> None:
    """Remove a version.

    Raises:
        ModelNotFound: there is no such version.
        InvalidSettings: it is pinned.
    """
    found = artifacts.versions(root, name)
    if version not in found:
        there = ", ".join(map(str, found)) or "none"
        raise ModelNotFound(
            f"There is no version {version} of {name!r} in {root}; published: {there}"
        )
    with artifacts.locked(root / name):
        if artifacts.pinned(root, name) == version:
            raise InvalidSettings(
                f"{name} is pinned to version {version}; release it: mlapp unpin {name}"
            )
        folder = root / name / str(version)
        (folder / artifacts.MANIFEST).unlink()  # from here on there is no such version
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        artifacts.candidate_mark(root, name, version).unlink(missing_ok=True)


def rename(root: Path, old: str, new: str) -> None:
    """Give a model another name, with all its versions, candidates, pin and history.

    Its versions state its name, so they are written again, beside, and appear by one rename.

    Raises:
        ModelNotFound: nothing is published under the old name.
        ArtifactError: the new name is taken or cannot be used, or a version is damaged.
        InvalidSettings: the environment holds a version.
    """
    if not artifacts.versions(root, old):
        raise ModelNotFound(f"No complete version of {old!r} in {root}")
    if not NAME.fullmatch(new):
        raise ArtifactError(
            f"The name {new!r} cannot be used: expected at most 64 lower-case letters,"
            " digits, '-', '_' and '.', beginning with a letter or digit"
        )
    if (root / new).exists():
        raise ArtifactError(f"The name {new!r} is taken in {root}")
    if old in read_settings().pins:
        raise InvalidSettings(f"MLAPP_PINS holds a version of {old}: change it there")
    for version in artifacts.versions(root, old):
        artifacts.open(root, old, version)  # nothing damaged gets new digests
    temporary = root / f"{artifacts.TEMPORARY}{secrets.token_hex(8)}"
    try:
        with artifacts.locked(root / old):
            shutil.copytree(root / old, temporary)
            for version in artifacts.versions(root, old):
                _state_name(temporary / str(version), new)
            temporary.rename(root / new)
            shutil.rmtree(root / old)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _state_name(folder: Path, name: str) -> None:
    """Write a manifest again with another name."""
    file = folder / artifacts.MANIFEST
    stated: dict[str, Any] = json.loads(file.read_bytes())
    stated.pop("digest")
    stated["name"] = name
    artifacts.write_manifest(file, stated)
