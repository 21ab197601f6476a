"""The pages Monitor and Versions, through the real records and the real store."""

import json
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mlapp import answering, loaders
from mlapp.cli import main
from mlapp.families.contract import replay
from mlapp.families.regression import RegressionModel
from mlapp.records import reference
from mlapp.records import writer as records
from mlapp.store import artifacts
from tests.conftest import ROOT
from tests.test_promotion import publish

NAME = "houses"


@pytest.fixture
def recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose answers are recorded beside the models; `houses` has a reference."""
    monkeypatch.delenv("MLAPP_DATABASE_URL")
    records.close()
    first = artifacts.open(folder, NAME)
    model = RegressionModel(first)
    batch = model.check(make_rows(np.random.default_rng(0), 2000))
    learned = reference.learn(model, batch, model.answer(batch))
    files = {**first.files, reference.REFERENCE: learned}
    kept = ("task", "data", "training", "input_schema", "metrics", "golden")
    fields = {field: getattr(first.manifest, field) for field in kept}
    drafted = artifacts.draft(NAME, files, tuple(first.manifest.libraries), **fields)
    artifacts.publish(folder, drafted, lambda each: replay(RegressionModel(each)))
    return folder


def make_rows(rng: np.random.Generator, count: int, shift: float = 0.0) -> list[dict[str, object]]:
    areas = np.clip(rng.normal(120 + shift, 30, count), 45, 190)
    return [
        {"area": float(area), "rooms": float(rng.integers(1, 8)), "district": "east"}
        for area in areas
    ]


def ask(shift: float = 0.0, count: int = 500) -> None:
    model = loaders.load_regression(NAME)
    rows = make_rows(np.random.default_rng(5), count, shift)
    answering.answer(model, model.check(rows), "v1")
    log = records.writer()
    assert log is not None
    assert log.flush()


def page(name: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "Home.py"), default_timeout=60)
    app.run()
    app.switch_page(f"pages/{name}.py").run()
    assert not app.exception
    return app


def choose(app: AppTest, key: str) -> AppTest:
    app.selectbox(key=key).select(NAME).run()
    assert not app.exception
    return app


@pytest.mark.usefixtures("recorded")
def test_values_like_those_of_training_are_green() -> None:
    ask()
    app = choose(page("monitor"), "_monitor_model")
    assert [each.value for each in app.metric][:2] == ["1", "0"]
    assert app.success[0].value == "Nothing moved beyond chance."


@pytest.mark.usefixtures("recorded")
def test_a_shift_of_half_a_standard_deviation_is_flagged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask(shift=15.0)
    app = choose(page("monitor"), "_monitor_model")
    assert "area" in app.warning[0].value
    assert "rooms" not in app.warning[0].value
    capsys.readouterr()
    assert main(["drift", NAME, "--json"]) == 3
    reported = json.loads(capsys.readouterr().out)
    states = {each["series"]["name"]: each["state"] for each in reported["series"]}
    assert states["area"] in ("watch", "act")
    assert states["rooms"] == "green"


@pytest.mark.usefixtures("folder")
def test_a_version_without_a_reference_says_so() -> None:
    app = choose(page("monitor"), "_monitor_model")
    assert "without a reference" in app.info[0].value


@pytest.mark.usefixtures("recorded")
def test_a_candidate_is_promoted_and_rolled_back_on_the_page(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(recorded)
    app = choose(page("versions"), "_versions_model")
    assert not app.button
    monkeypatch.setenv("MLAPP_ADMIN", "on")
    app.run()
    app.button(key="_promote_3").click().run()
    assert not app.exception
    assert loaders.load_model(NAME).manifest.version == 3
    app.text_input(key="_why").input("complaints").run()
    app.button(key="_rollback").click().run()
    assert loaders.load_model(NAME).manifest.version == 2
    assert list(app.dataframe[-1].value["action"]) == ["rolled back", "promoted"]
    assert next(iter(app.dataframe[-1].value["reason"])) == "complaints"


@pytest.mark.usefixtures("folder")
def test_the_model_card_is_complete_and_escapes_names() -> None:
    from mlapp.model_card import write_card

    manifest = loaders.load_model(NAME).manifest
    odd = manifest.model_copy(update={"labels": ("<b>", "calm")})
    card = write_card(odd)
    assert "<b>" not in card
    for part in ("Intended use", "SHA-256", "training.regression", "district", "r2"):
        assert part in card
