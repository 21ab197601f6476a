"""The pages of row models, on families of the tests: labels, and numbers without an interval."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from mlapp import families
from mlapp.families.contract import NumberOutput, Numbers, RowReasons
from mlapp.manifest import Artifact
from mlapp.records import queries
from mlapp.records import writer as records
from mlapp.records.database import Database
from mlapp.schema import Checked
from mlapp.settings import read_settings
from mlapp.store import artifacts
from tests.conftest import use_artifacts
from tests.test_other_families import Sizes, publish_sizes
from tests.test_pages import home, run, texts

pytestmark = pytest.mark.slow

ROW = {"height": "1.5", "colour": "red"}


class Lengths(Sizes):
    """Gives a number without an interval: the height, and a little more if it is red."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact)
        self.gives = NumberOutput("length", 1, None)  # type: ignore[assignment]

    def answer(self, batch: Checked) -> Numbers:  # type: ignore[override]
        return Numbers(self.gives, self.reasons(batch).totals[:, None], batch.notices)  # type: ignore[arg-type]

    def reasons(self, batch: Checked) -> RowReasons:
        found = super().reasons(batch)
        return RowReasons(self.takes, found.baseline, found.effects, error=np.full(len(batch), 0.1))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact folder with two versions of `sizes`; the second finds less to be large."""
    monkeypatch.setitem(families.FAMILIES, "toy-sizes", "tests.test_other_families:Sizes")
    root = tmp_path / "artifacts"
    publish_sizes(root)
    publish_sizes(root, threshold=2.0)
    use_artifacts(root, monkeypatch)
    return root


def page(address: dict[str, str] | None = None) -> AppTest:
    app = home()
    for key, value in (address or {}).items():
        app.query_params[key] = value
    return run(app.switch_page("pages/classification.py"))


def predict(app: AppTest) -> AppTest:
    app.number_input(key="height").set_value(1.5)
    app.selectbox(key="colour").select("red")
    app.button(key="predict").click()
    return run(app)


def show(app: AppTest, tab: str) -> AppTest:
    app.session_state["_tabs_sizes"] = tab
    return run(app)


def chart(app: AppTest, place: int) -> dict[str, object]:
    found: dict[str, object] = json.loads(app.get("vega_lite_chart")[place].proto.spec)
    return found


@pytest.mark.usefixtures("folder")
def test_home_links_a_classifier_to_its_page() -> None:
    assert [link.value for link in home().page_link] == ["Use sizes"]


@pytest.mark.usefixtures("folder")
def test_a_single_model_is_named() -> None:
    chosen = page().selectbox(key="_model_classification")
    assert (chosen.label, chosen.options, chosen.value) == ("Model", ["sizes"], "sizes")


@pytest.mark.usefixtures("folder")
def test_predict_shows_the_label_its_probability_the_reasons_and_a_what_if() -> None:
    app = predict(page())
    large = 1 / (1 + np.exp(0.25))
    assert (app.metric[0].label, app.metric[0].value) == ("Predicted size", "small")
    assert (app.metric[1].label, app.metric[1].value) == ("Probability", f"{1 - large:.0%}")
    assert len(app.get("vega_lite_chart")) == 3
    assert "the logit of large" in texts(app)
    assert "exact" in texts(app)
    past = app.dataframe[0].value
    assert (past["label"][0], past["version"][0]) == ("small", 2)
    assert past["large"][0] == pytest.approx(large)


@pytest.mark.usefixtures("folder")
def test_an_answer_without_a_clear_label_is_shown_as_unsure() -> None:
    app = page({"height": "1.9", "colour": "blue"})
    assert "Unsure" in texts(app)


@pytest.mark.usefixtures("folder")
def test_what_if_moves_numbers_and_categories() -> None:
    app = predict(page())
    for name in ("height", "colour"):
        app.selectbox(key="_what_if_sizes").select(name)
        run(app)
        assert len(app.get("vega_lite_chart")) == 3
    assert len(app.dataframe[0].value) == 1


@pytest.mark.usefixtures("folder")
def test_a_blank_input_is_refused_by_name() -> None:
    app = page()
    app.number_input(key="height").set_value(None)
    app.button(key="predict").click()
    run(app)
    assert app.error[0].value == "- height: got nothing, expected a finite number"
    assert not app.metric


@pytest.mark.usefixtures("folder")
def test_a_link_reproduces_the_answer_of_its_version() -> None:
    app = page(ROW | {"_model": "sizes", "_version": "1"})
    assert app.metric[0].value == "large"
    assert app.selectbox(key="_version").value == 1
    assert "Version 2 is served" in texts(app)
    assert dict(app.query_params) == ROW | {"_model": "sizes", "_version": "1"}


def test_a_link_to_a_version_that_is_gone_says_so_and_offers_the_served_one(folder: Path) -> None:
    app = page(ROW | {"_model": "sizes", "_version": "7"})
    assert app.error[0].value == "Version '7' of sizes is not published. Published: 1, 2."
    app.button(key="_use_served").click()
    run(app)
    assert app.metric[0].value == "small"
    assert app.number_input(key="height").value == 1.5


@pytest.mark.usefixtures("folder")
def test_two_versions_answer_one_row_side_by_side() -> None:
    app = show(predict(page()), "Compare")
    values = [metric.value for metric in app.metric if metric.label == "Predicted size"]
    assert values[-2:] == ["small", "large"]  # the page's own answer comes before
    assert "Version 2 says small, version 1 large." in texts(app)
    table = app.dataframe[1].value.set_index("label")
    change = 1 / (1 + np.exp(0.25)) - 1 / (1 + np.exp(-0.75))
    assert table["difference"]["large"] == pytest.approx(change)
    reasons = app.dataframe[2].value.set_index("input")
    assert reasons["difference"]["height"] == -1.0


@pytest.mark.usefixtures("folder")
def test_a_comparison_of_versions_is_not_recorded(recording: None) -> None:
    show(page(), "Compare")  # of the typical row, which nobody asked about
    records.close()
    assert queries.latest(Database(read_settings()), "sizes", 5) == []


@pytest.mark.usefixtures("folder")
def test_two_versions_are_compared_on_a_file() -> None:
    app = show(predict(page()), "Compare")
    rows = pd.DataFrame({"height": [0.1, 1.5, 1.9, "tall"], "colour": "blue"})
    app.file_uploader[0].upload("rows.csv", rows.to_csv(index=False).encode())
    run(app)
    app.button(key="many_start").click()
    run(app)
    job = app.session_state["_many_sizes"].job
    job.join()
    run(app)
    shown = {metric.label: metric.value for metric in app.metric}
    assert (shown["Compared"], shown["Different"], shown["Other label"]) == ("3", "3", "2")
    differing = app.dataframe[-2].value
    assert (differing["row"][0], differing["v1_label"][0]) == (2, "large")
    scored = job.results[0].read("csv").decode().splitlines()
    assert scored[0].split(",")[-7:-5] == ["v1_label", "v1_probability"]


@pytest.mark.usefixtures("folder")
def test_one_version_has_nothing_to_compare_with(folder: Path) -> None:
    shutil.rmtree(folder / "sizes" / "1")
    assert "Version 2 is the only one of sizes" in texts(show(page(), "Compare"))


@pytest.mark.usefixtures("folder")
def test_about_shows_what_there_is_of_a_model_that_keeps_no_report() -> None:
    app = show(page(), "About this model")
    assert "Nothing was measured" in texts(app)
    assert list(app.dataframe[0].value["input"]) == ["height", "colour"]


@pytest.mark.usefixtures("folder")
def test_many_rows_takes_the_files_of_a_classifier() -> None:
    assert list(show(page(), "Many rows").dataframe[0].value) == ["height", "colour"]


def test_a_number_without_an_interval_has_every_part_of_the_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(families.FAMILIES, "toy-lengths", f"{__name__}:Lengths")
    for version in (1, 2):
        drawn = artifacts.open(folder, "sizes", version)
        update = {"name": "lengths", "task": "toy-lengths", "labels": None, "golden": ()}
        manifest = drawn.manifest.model_copy(update=update)
        draft = Artifact(drawn.path, manifest, drawn.files)
        artifacts.publish(folder, draft, lambda artifact: None)
    app = home()
    app.query_params["_model"] = "lengths"
    app = predict(run(app.switch_page("pages/regression.py")))
    assert app.metric[0].value == "-0.2"
    assert "This model gives no interval." in texts(app)
    assert "a standard error of at most 0.1" in texts(app)
    assert len(app.get("vega_lite_chart")) == 2
    assert list(app.dataframe[0].value)[-1] == "prediction"
    for tab, shown in (("Compare", "A file"), ("About this model", "The inputs")):
        app.session_state["_tabs_lengths"] = tab
        assert shown in [each.value for each in run(app).header]
