"""The reference of a version: its training data counted in bins, to measure drift."""

import json
from collections.abc import Mapping
from pathlib import Path

from mlapp.errors import ArtifactError
from mlapp.families.contract import Answers, Batch, Model
from mlapp.records import bins
from mlapp.records.bins import Series
from mlapp.store import artifacts

REFERENCE = "reference.json"  # a file of a version

Counts = Mapping[Series, Mapping[int, int]]


def learn(model: Model, batch: Batch, answers: Answers) -> bytes:
    """Count the training data of a model; return the content of `reference.json`.

    Args:
        model: the model, as it will be published.
        batch: the training rows; for texts, the held-out ones.
        answers: the answers to them, preferably of fits that did not see them.
    """
    cut = bins.binnings(model)
    found = [
        {"kind": series.kind, "name": series.name, "counts": counts}
        for series, values in bins.columns(model, bins.inputs(model, batch), answers).items()
        if series in cut and (counts := cut[series].count(values))
    ]
    return json.dumps({"series": found}).encode()


def read(root: Path, name: str, version: int) -> Counts | None:
    """Return the counts of a version, or None if it has none.

    Raises:
        ArtifactError: the version cannot be read.
    """
    if REFERENCE not in artifacts.read_manifest(root / name / str(version)).files:
        return None
    try:
        content = json.loads((root / name / str(version) / REFERENCE).read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{name} {version}: {REFERENCE} cannot be read: {error}") from error
    return {
        Series(each["kind"], each["name"]): {int(key): n for key, n in each["counts"].items()}
        for each in content["series"]
    }
