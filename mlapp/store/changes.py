"""Remove a version, and rename a model.

A removed version leaves an empty folder, so that its number is not used again.
"""

import errno
import json
import os
import secrets
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from mlapp.disk import writing
from mlapp.errors import ArtifactError, InvalidSettings, OutputError
from mlapp.settings import read_settings
from mlapp.store import artifacts


def remove(root: Path, name: str, version: int) -> None:
    """Remove a version.

    Raises:
        ModelNotFound: there is no such version.
        InvalidSettings: it is pinned.
        OutputError: the folder cannot be written to.
    """
    artifacts.require_version(root, name, version)
    with writing(str(root / name / str(version))), artifacts.locked(root / name):
        if artifacts.pinned(root, name) == version:
            raise InvalidSettings(
                f"{name} is pinned to version {version}; to unpin it:"
                f" {artifacts.how_to_unpin(name)}"
            )
        folder = root / name / str(version)
        _require_writable(root / name, folder)
        (folder / artifacts.MANIFEST).unlink()  # from now on the version does not exist
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        artifacts.candidate_mark(root, name, version).unlink(missing_ok=True)


def rename(
    root: Path, old: str, new: str, records: AbstractContextManager[None] | None = None
) -> None:
    """Rename a model, with all its versions, candidates, pin and history.

    The manifests contain the name, so they are rewritten in a copy, which appears by one rename.
    If anything fails before that, or the records do, the old name stays.

    Args:
        root: the artifact folder.
        old: the present name.
        new: the new one.
        records: renames what is recorded of the model, if the block succeeds; by default nothing.

    Raises:
        ModelNotFound: nothing is published under the old name.
        OutputError: the folder cannot be written to.
        ArtifactError: the new name is taken or cannot be used, or a version is damaged.
        InvalidSettings: the environment pins a version.
    """
    versions = artifacts.require_model(root, old)
    artifacts.require_name(new)
    if (root / new).exists():
        raise ArtifactError(f"The name {new!r} is taken in {root}")
    if old in read_settings().pins:
        raise InvalidSettings(f"MLAPP_PINS pins a version of {old}: change it there")
    for version in versions:
        artifacts.open(root, old, version)  # damaged files must not get new digests
    # A copy of a read-only folder is read-only, too, and could not be removed again.
    _require_writable(root, root / old, *(root / old / str(version) for version in versions))
    made = root / f"{artifacts.TEMPORARY}{secrets.token_hex(8)}"
    with writing(str(root)), artifacts.locked(root / old):
        try:
            shutil.copytree(root / old, made)
            for version in artifacts.versions(root, old):
                _state_name(made / str(version), new)
            with records or nullcontext(), writing(str(root / new)):
                made = made.rename(root / new)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        shutil.rmtree(root / old)


def _require_writable(*folders: Path) -> None:
    """Check that folders can be written to.

    Raises:
        OutputError: one cannot.
    """
    for folder in folders:
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{folder} cannot be written: {os.strerror(errno.EACCES)}")


def _state_name(folder: Path, name: str) -> None:
    """Rewrite a manifest with another name."""
    file = folder / artifacts.MANIFEST
    stated: dict[str, Any] = json.loads(file.read_bytes())
    stated.pop("digest")
    stated["name"] = name
    artifacts.write_manifest(file, stated)
