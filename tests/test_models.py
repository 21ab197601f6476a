"""Models opened from what is published: by task, and which version where none is named."""

import json
import logging
from pathlib import Path

import pytest

from mlapp import families, store
from mlapp.cli import main
from mlapp.errors import ArtifactError
from mlapp.families.regression import RegressionModel
from mlapp.manifest import Artifact
from mlapp.store import artifacts
from tests.conftest import make_houses
from tests.test_promotion import damage, publish


def test_a_published_model_opens_by_its_task(folder: Path) -> None:
    assert isinstance(store.open_model(folder, "houses"), RegressionModel)


@pytest.fixture
def refusing(folder: Path) -> Path:
    """A folder where version 2 of `houses` should be served, and cannot be opened."""
    publish(folder, candidate=False)
    damage(folder / "houses" / "2")
    return folder


def test_the_newest_version_that_opens_is_opened_and_the_log_says_why(
    refusing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert store.open_model(refusing, "houses").manifest.version == 1
    [line] = caplog.messages
    assert line.startswith("houses: version 1 is served; ")
    assert "houses/2/report.json" in line
    with pytest.raises(ArtifactError, match=r"houses/2/report\.json"):
        store.open_model(refusing, "houses", 2)


def test_the_error_is_that_of_the_newest_version_where_none_opens(refusing: Path) -> None:
    damage(refusing / "houses" / "1")
    with pytest.raises(ArtifactError, match=r"houses/2/report\.json"):
        store.open_model(refusing, "houses")


def test_a_pinned_version_that_does_not_open_is_not_replaced(refusing: Path) -> None:
    artifacts.pin(refusing, "houses", 2)
    with pytest.raises(ArtifactError, match=r"houses/2/report\.json"):
        store.open_model(refusing, "houses")


@pytest.mark.usefixtures("refusing")
def test_the_commands_use_the_version_that_the_service_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_houses().to_csv(tmp_path / "more.csv", index=False)
    assert main(["drift", "houses", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1
    assert main(["retrain", "houses", "--data", str(tmp_path / "more.csv"), "--dry-run"]) == 0
    row = ["--area", "100", "--rooms", "3", "--district", "east"]
    assert main(["predict", "--model", "houses", *row]) == 0


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
