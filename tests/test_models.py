from pathlib import Path

import pytest

from mlapp import families, store
from mlapp.errors import ArtifactError
from mlapp.families.regression import RegressionModel
from mlapp.manifest import Artifact
from mlapp.store import artifacts


def test_a_published_model_opens_by_its_task(folder: Path) -> None:
    assert isinstance(store.open_model(folder, "houses"), RegressionModel)


def test_a_task_without_a_family_is_reported(folder: Path) -> None:
    artifact = artifacts.open(folder, "houses")
    manifest = artifact.manifest.model_copy(update={"task": "ranking"})
    with pytest.raises(ArtifactError, match="'ranking'"):
        families.from_artifact(Artifact(artifact.path, manifest, artifact.files))


def test_the_headline_is_the_quality_on_held_out_rows(folder: Path) -> None:
    model = store.open_model(folder, "regression")
    manifest, metric = model.manifest, model.headline
    assert metric.name == "cross-validated R²"
    assert metric.value == f"{manifest.metrics['r2']:.3f}" == "0.868"
    assert float(str(manifest.metrics["r2_in_sample"])) > 0.869
