"""Published versions on disk, and the models opened from them.

artifacts   publish, find, open, pin
promotion   candidates: promote, roll back, the history
changes     remove a version, rename a model
learned     what a version has learned from, so that it is not judged by that
gate        whether a candidate is worse than the version that is served
repository  models opened once per process and version, and kept up to date
"""

from pathlib import Path

from mlapp import families
from mlapp.families.contract import Model
from mlapp.store import artifacts


def open_model(root: Path, name: str, version: int | None = None) -> Model:
    """Open a published model of any family, by default the version that is served.

    Raises:
        ArtifactError: it cannot be opened; the message says why and how to fix it.
    """
    return families.from_artifact(artifacts.open(root, name, version))
