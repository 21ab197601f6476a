"""Published versions on disk, and the models opened from them.

artifacts   publish, find, open, pin
promotion   candidates: promote, roll back, the history
changes     remove a version, rename a model
learned     what a version has learned from, so that it is not judged by that
gate        whether a candidate is worse than the version that is served
repository  models opened once per process and version, and kept up to date
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from mlapp import families
from mlapp.errors import ArtifactError, ModelNotFound
from mlapp.families.contract import Model
from mlapp.store import artifacts

T = TypeVar("T")

_log = logging.getLogger(__name__)


def open_model(root: Path, name: str, version: int | None = None) -> Model:
    """Open a published model of any family, by default the version that is served.

    If a newer version should be served but cannot be opened, the log says why.

    Raises:
        ArtifactError: it cannot be opened; the message says why and how to fix it.
    """
    if version is not None:
        return families.from_artifact(artifacts.open(root, name, version))
    model, refused = open_served(root, name)
    if refused:
        _log.warning("%s: version %d is served; %s", name, model.manifest.version, refused)
    return model


def open_served(root: Path, name: str) -> tuple[Model, ArtifactError | None]:
    """Open the version that is served: the pinned one, or the newest that can be opened.

    Returns:
        The model, and why the version that should be served cannot be opened, if so.

    Raises:
        ModelNotFound: nothing but candidates is published, or the pinned version is missing.
        ArtifactError: the pinned version, or every version, cannot be opened.
    """
    wanted = artifacts.servable(root, name)
    return open_first(wanted, lambda version: open_model(root, name, version))


def open_first(
    versions: Iterable[int], open_version: Callable[[int], T]
) -> tuple[T, ArtifactError | None]:
    """Open the first of some versions that can be opened.

    Args:
        versions: their numbers, best first.
        open_version: opens one; raises an ArtifactError if it cannot.

    Returns:
        What was opened, and why the first version cannot be, if so.

    Raises:
        ModelNotFound: there are no versions.
        ArtifactError: none can be opened; the error of the first.
    """
    refused: ArtifactError | None = None
    for version in versions:
        try:
            return open_version(version), refused
        except ArtifactError as error:
            refused = refused or error
    raise refused or ModelNotFound("There is no version to open")
