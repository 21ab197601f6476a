import logging
import shutil
from pathlib import Path

import pytest

from mlapp import loaders, store
from mlapp.errors import ArtifactError, ModelNotFound
from mlapp.families.regression import RegressionModel
from mlapp.store import artifacts
from training.regression import train


def publish_again(folder: Path, houses_csv: Path) -> None:
    train(houses_csv, "price", "houses", folder, say=lambda line: None)


def damage(folder: Path, version: int) -> None:
    (folder / "houses" / str(version) / "model.joblib").write_bytes(b"broken")


@pytest.mark.usefixtures("folder")
def test_a_model_is_opened_once_per_process_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    open_model = store.open_model
    monkeypatch.setattr(
        store, "open_model", lambda *args: opened.append(args[1:]) or open_model(*args)
    )
    first = loaders.load_regression()
    assert loaders.load_regression() is first
    assert loaders.load_model("regression") is first
    assert opened == [("regression", 1)]


def test_models_are_found_by_what_they_take_and_give(folder: Path) -> None:
    assert loaders.model_names("row", "number") == ["houses", "regression"]
    assert loaders.model_names("row", "labels") == loaders.model_names("text") == []
    assert loaders.load_regression("houses").manifest.name == "houses"


def test_a_newer_version_is_picked_up_and_a_pin_followed(folder: Path, houses_csv: Path) -> None:
    assert loaders.load_regression("houses").manifest.version == 1
    publish_again(folder, houses_csv)
    assert loaders.load_regression("houses").manifest.version == 2
    artifacts.pin(folder, "houses", 1)
    assert loaders.load_regression("houses").manifest.version == 1
    artifacts.unpin(folder, "houses")
    assert loaders.load_regression("houses").manifest.version == 2


@pytest.mark.slow
def test_a_newer_version_that_cannot_be_opened_changes_nothing_but_a_log_line(
    folder: Path, houses_csv: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = loaders.load_regression("houses")
    publish_again(folder, houses_csv)
    damage(folder, 2)
    with caplog.at_level(logging.WARNING):
        assert loaders.load_regression("houses") is held
        assert loaders.load_regression("houses") is held
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    refused = loaders.refused("houses")
    assert refused is not None
    assert "model.joblib" in str(refused)
    publish_again(folder, houses_csv)
    assert loaders.load_regression("houses").manifest.version == 3
    assert loaders.refused("houses") is None


@pytest.mark.slow
def test_a_first_version_that_cannot_be_opened_is_an_error_until_it_is_replaced(
    folder: Path, houses_csv: Path
) -> None:
    damage(folder, 1)
    with pytest.raises(ArtifactError, match=r"model\.joblib"):
        loaders.load_regression("houses")
    assert loaders.load_regression("regression").manifest.name == "regression"
    publish_again(folder, houses_csv)
    assert loaders.load_regression("houses").manifest.version == 2


@pytest.mark.slow
def test_a_version_that_is_replaced_under_its_number_is_opened_again(
    folder: Path, houses_csv: Path
) -> None:
    held = loaders.load_regression("houses")
    shutil.rmtree(folder / "houses")
    publish_again(folder, houses_csv)
    assert loaders.load_regression("houses") is not held


def test_a_model_whose_folder_was_removed_is_gone(folder: Path) -> None:
    loaders.load_regression("houses")
    shutil.rmtree(folder / "houses")
    with pytest.raises(ModelNotFound, match="houses"):
        loaders.load_regression("houses")
    assert loaders.refused("houses") is None
    assert loaders.model_names() == ["regression"]


def test_a_loader_opens_the_version_that_is_asked_for(folder: Path, houses_csv: Path) -> None:
    publish_again(folder, houses_csv)
    assert loaders.load_regression("houses", version=1).manifest.version == 1
    assert loaders.load_regression("houses").manifest.version == 2
    with pytest.raises(ModelNotFound, match="version 3"):
        loaders.load_regression("houses", version=3)


@pytest.mark.usefixtures("empty_folder")
def test_without_artifacts_the_loader_says_which_command_trains() -> None:
    assert loaders.model_names() == []
    with pytest.raises(ModelNotFound, match=r"python -m training\.regression"):
        loaders.load_regression()


def test_a_model_that_gives_labels_is_not_a_regression(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        size = 0
        manifest = artifacts.open(folder, "houses").manifest.model_copy(
            update={"labels": ("a", "b")}
        )

    monkeypatch.setattr(store, "open_model", lambda *_: Other())
    with pytest.raises(ArtifactError, match="not a regression"):
        loaders.load_regression("houses")


def test_a_model_whose_manifest_is_unreadable_is_listed_under_every_kind(folder: Path) -> None:
    (folder / "houses" / "1" / "manifest.json").write_text("{}")
    assert "houses" in loaders.model_names("row", "number")


@pytest.mark.usefixtures("shipped")
def test_the_shipped_model_loads() -> None:
    model = loaders.load_regression()
    assert isinstance(model, RegressionModel)
    assert model.schema.names == ["var_1", "var_2", "var_3", "var_4", "var_5"]
