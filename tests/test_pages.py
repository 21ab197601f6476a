import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from mlapp import store
from mlapp.dashboard import rows
from mlapp.dashboard.markup import literal
from mlapp.dashboard.shared import to_csv
from mlapp.families.regression import RegressionModel
from mlapp.families.varying import what_if
from mlapp.store import artifacts, open_model
from tests.conftest import make_houses, open_regression
from training.regression import train

pytestmark = pytest.mark.slow(3)

ROOT = Path(__file__).resolve().parents[1]
ROW = {"var_1": 734.0, "var_2": 688.0, "var_3": 81.0, "var_4": 0.328, "var_5": 0.259}
ADDRESS = {"var_1": "734", "var_2": "688", "var_3": "81", "var_4": "0.328", "var_5": "0.259"}


def home() -> AppTest:
    return run(AppTest.from_file(ROOT / "Home.py", default_timeout=30))


def run(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception, app.exception
    return app


def page(address: dict[str, str] | None = None) -> AppTest:
    app = home()
    for key, value in (address or {}).items():
        app.query_params[key] = value
    return run(app.switch_page("pages/regression.py"))


def predict(app: AppTest, row: dict[str, Any] = ROW) -> AppTest:
    for name, value in row.items():
        field: Any = app.get_by_key(name)
        field.set_value(value)
    app.button(key="predict").click()
    return run(app)


def texts(app: AppTest) -> str:
    shown = [*app.markdown, *app.caption, *app.error, *app.warning, *app.info, *app.code]
    return "\n".join(str(element.value) for element in shown)


def history(app: AppTest) -> pd.DataFrame:
    frame = app.dataframe[0].value
    assert "prediction" in frame
    return frame


# --- home -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_home_shows_each_model_with_its_quality_and_a_link() -> None:
    app = home()
    assert [card.value for card in app.header] == ["houses", "regression"]
    assert [metric.value for metric in app.metric] == ["0.992", "0.868"]
    assert "Trained on **1,232** rows" in texts(app)
    assert [link.value for link in app.page_link] == ["Use houses", "Use regression"]


def test_home_shows_why_a_model_cannot_be_opened_and_how_to_fix_it(folder: Path) -> None:
    (folder / "houses" / "1" / "model.joblib").write_bytes(b"broken")
    app = home()
    assert "model.joblib has 6 bytes" in app.error[0].value
    assert "python -m training.regression" in app.code[0].value
    assert [link.value for link in app.page_link] == ["Use regression"]


@pytest.mark.usefixtures("empty_folder")
def test_without_models_home_and_page_say_how_to_train_one() -> None:
    assert "python -m training.regression" in home().info[0].value
    assert "python -m training.regression" in page().info[0].value


def test_home_shows_that_a_version_is_pinned_and_that_a_newer_is_refused(
    folder: Path, houses_csv: Path
) -> None:
    app = home()
    train(houses_csv, "price", "houses", folder, say=lambda line: None)
    (folder / "houses" / "2" / "report.json").unlink()
    run(app)
    assert "report.json" in app.error[0].value
    artifacts.pin(folder, "houses", 1)
    run(app)
    assert not app.error
    assert any("pinned" in str(element.value) for element in app.markdown)


# --- the form ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_a_setting_that_cannot_be_used_is_named_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLAPP_ADMIN", "1")
    app = AppTest.from_file(ROOT / "Home.py", default_timeout=30).run()
    assert not app.exception
    assert [each.value for each in app.error] == ["MLAPP_ADMIN: got '1', expected off or on"]


def test_the_form_has_a_widget_for_each_input_with_its_typical_value_and_range() -> None:
    app = page()
    shown = {widget.key: widget.value for widget in app.number_input}
    assert shown == {"var_1": 716.0, "var_2": 714.0, "var_3": 81.0, "var_4": 0.326, "var_5": 0.259}
    assert app.number_input(key="var_4").proto.step == 0.001
    assert app.number_input(key="var_4").help == "In training: 0.273 to 0.378"
    assert not app.metric


@pytest.mark.usefixtures("folder")
def test_a_category_is_chosen_from_those_seen_in_training() -> None:
    app = page({"_model": "houses"})
    assert app.selectbox(key="district").options == ["east", "north", "west"]
    assert app.selectbox(key="district").value == "east"


def test_predict_shows_the_prediction_its_interval_and_its_reasons(folder: Path) -> None:
    app = predict(page())
    answer = open_regression(folder).predict([ROW]).iloc[0]
    assert app.metric[0].label == "Predicted output"
    assert app.metric[0].value == f"{answer['prediction']:.3f}" == "0.401"
    assert f"90% interval: **{answer['lower']:.3f}** to **{answer['upper']:.3f}**" in texts(app)
    assert "90% of new values are expected to be in their interval. The address" in texts(app)
    assert len(app.get("vega_lite_chart")) == 2
    assert not app.warning


@pytest.mark.usefixtures("folder")
def test_a_blank_input_is_refused_by_name_and_nothing_is_predicted() -> None:
    app = predict(page(), ROW | {"var_2": None})
    assert app.error[0].value == "- var_2: got nothing, expected a finite number"
    assert app.error[0].proto.title == "Please enter valid values"
    assert not app.metric
    assert app.number_input(key="var_1").value == 734.0


@pytest.mark.usefixtures("folder")
def test_every_fault_of_a_row_is_shown() -> None:
    app = predict(page(), ROW | {"var_2": None, "var_3": 1e308})
    assert [line.split(":")[0] for line in app.error[0].value.splitlines()] == [
        "- var_2",
        "- var_3",
    ]


@pytest.mark.usefixtures("folder")
def test_a_value_outside_the_training_range_is_predicted_with_a_notice() -> None:
    app = predict(page(), ROW | {"var_1": 2000.0})
    assert "var_1: 2000 lies outside the range seen in training" in app.warning[0].value
    assert app.metric[0].value == "0.832"
    assert "This row is unlike the training data, so that may not hold." in texts(app)


@pytest.mark.usefixtures("folder")
def test_a_missing_value_is_taken_where_training_saw_some() -> None:
    app = predict(page({"_model": "houses"}), {"rooms": None, "area": 100.0})
    assert not app.error
    assert app.metric


@pytest.mark.usefixtures("folder")
def test_what_if_follows_the_chosen_input_without_predicting_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = predict(page())
    moved: list[str] = []
    monkeypatch.setattr(
        rows, "what_if", lambda model, row, name: moved.append(name) or what_if(model, row, name)
    )
    app.selectbox(key="_what_if_regression").select("var_4")
    run(app)
    assert moved == ["var_4"]
    assert len(history(app)) == 1


@pytest.mark.usefixtures("folder")
def test_what_if_marks_no_point_where_the_value_is_missing() -> None:
    app = predict(page({"_model": "houses"}), {"rooms": None, "area": 100.0})
    for name, layers in (("area", 3), ("rooms", 2), ("district", 3)):
        app.selectbox(key="_what_if_houses").select(name)
        run(app)
        assert len(json.loads(app.get("vega_lite_chart")[1].proto.spec)["layer"]) == layers


@pytest.fixture
def homes(folder: Path, tmp_path: Path) -> Path:
    """Two models of houses whose district may be missing, beside the others."""
    table = make_houses(120)
    table.loc[::5, "district"] = None
    for name in ("homes", "huts"):
        train_on(table, folder, name, tmp_path)
    return folder


def train_on(table: pd.DataFrame, folder: Path, name: str, tmp_path: Path) -> None:
    table.to_csv(tmp_path / f"{name}.csv", index=False)
    path = tmp_path / f"{name}.csv"
    train(path, "price", name, folder, model="linear", say=lambda line: None)


@pytest.mark.usefixtures("homes")
def test_a_missing_category_is_shown_as_not_known() -> None:
    app = page({"_model": "homes"})
    assert app.selectbox(key="district").options == ["east", "north", "west", "not known"]
    app.selectbox(key="district").select("not known")
    app = predict(app, {"area": 100.0})
    assert app.query_params["district"] == ""
    assert pd.isna(history(app)["district"][0])
    assert displayed(app, "district") == "not known"


@pytest.mark.usefixtures("homes")
def test_a_missing_category_survives_a_link_and_another_model() -> None:
    app = page({"_model": "homes", "area": "100", "rooms": "3", "district": ""})
    answer = app.metric[0].value
    assert displayed(app, "district") == "not known"
    app.selectbox(key="_model_regression").select("huts")
    assert displayed(run(app), "district") == "east"
    app.selectbox(key="_model_regression").select("homes")
    assert displayed(run(app), "district") == "not known"
    assert (app.number_input(key="area").value, app.number_input(key="rooms").value) == (100, 3)
    assert app.metric[0].value == answer
    app.button(key="predict").click()
    assert run(app).metric[0].value == answer


def test_a_category_called_not_known_is_told_apart_from_a_missing_one(
    folder: Path, tmp_path: Path
) -> None:
    table = make_houses(120).replace({"district": {"west": "not known"}})
    table.loc[::5, "district"] = None
    train_on(table, folder, "homes", tmp_path)
    app = page({"_model": "homes"})
    assert app.selectbox(key="district").options == ["east", "north", "not known", "(not known)"]
    app.selectbox(key="district").select("not known")
    assert predict(app, {}).query_params["district"] == "not known"
    assert app.metric


def displayed(app: AppTest, key: str) -> str:
    """Return what a select box shows."""
    found = app.selectbox(key=key)
    assert found.index is not None
    return found.options[found.index]


def test_a_value_that_another_version_does_not_know_is_named_when_it_is_replaced(
    folder: Path, tmp_path: Path
) -> None:
    moved = make_houses(120).replace({"district": {"west": "*south*"}})
    train_on(moved, folder, "houses", tmp_path)
    app = page({"_model": "houses", "_version": "1"})
    app.selectbox(key="district").select("west")
    app = predict(app, {"area": 100.0})
    app.selectbox(key="_version").select(2)
    run(app)
    assert app.selectbox(key="district").value == "east"
    named = "- district: was 'west', now 'east'"
    assert named in [each.value for each in app.warning]
    assert "- district: got 'west', expected one of '\\*south\\*', 'east'" in app.error[0].value
    app.session_state["_tabs_houses"] = "About this model"
    assert named in [each.value for each in run(app).warning]
    app.session_state["_tabs_houses"] = "Predict"
    app = run(app)
    app.button(key="predict").click()
    assert not run(app).warning
    assert not run(app).warning
    assert app.metric


@pytest.mark.usefixtures("folder")
def test_the_reasons_are_computed_once_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    reasons = RegressionModel.reasons
    monkeypatch.setattr(
        RegressionModel, "reasons", lambda model, rows: asked.append(1) or reasons(model, rows)
    )
    app = predict(page())
    app.session_state["_tabs_regression"] = "About this model"
    run(app)
    app.selectbox(key="_model_regression").select("houses")
    run(app)
    app.selectbox(key="_model_regression").select("regression")
    assert len(run(app).get("vega_lite_chart")) == 2
    assert len(asked) == 1
    assert len(predict(app, ROW | {"var_1": 800.0}).get("vega_lite_chart")) == 2
    assert len(asked) == 2


# --- history ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_the_history_shows_small_numbers_in_full_and_says_whose_time_it_is() -> None:
    frame = predict(page()).dataframe[0]
    columns = json.loads(frame.proto.columns)
    assert columns["var_5"]["type_config"]["format"] == "%g"
    assert columns["prediction"]["type_config"]["format"] == "%.3f"
    assert columns["time"]["label"] == "time (UTC)"
    assert columns["time"]["type_config"]["timezone"] == "UTC"


@pytest.mark.usefixtures("folder")
def test_the_history_keeps_this_sessions_predictions_newest_first() -> None:
    app = predict(predict(page()), ROW | {"var_1": 800.0})
    assert list(history(app)["var_1"]) == [800.0, 734.0]
    run(app)
    assert len(history(app)) == 2


@pytest.mark.usefixtures("folder")
def test_the_history_can_be_downloaded_with_every_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    import streamlit as st

    offered: dict[str, Callable[[], str]] = {}
    monkeypatch.setattr(
        st, "download_button", lambda label, data, **_: offered.update({label: data})
    )
    app = predict(page())
    downloaded = pd.read_csv(io.StringIO(offered["Download as CSV"]()))
    answer = ["prediction", "lower", "upper", "id"]
    assert list(downloaded) == ["time", "model", "version", *ROW, *answer]
    assert downloaded["prediction"][0] == history(app)["prediction"][0]


def test_a_downloaded_table_holds_no_formula_that_a_spreadsheet_would_run() -> None:
    table = pd.DataFrame({"text": ["=HYPERLINK(1)", "-5 stars", None], "number": [-1.5, 2.0, 3.0]})
    assert to_csv(table) == "text,number\n'=HYPERLINK(1),-1.5\n'-5 stars,2.0\n,3.0\n"


@pytest.mark.usefixtures("folder")
def test_each_session_has_a_history_of_its_own() -> None:
    predict(page())
    assert not page().dataframe


@pytest.mark.parametrize(
    ("text", "shown"),
    [("12. may", "12\\. may"), ("0.401", "0.401"), ("-0.2", "-0.2"), ("- a", "\\- a")],
)
def test_what_would_begin_a_list_is_escaped_and_a_number_is_not(text: str, shown: str) -> None:
    assert literal(text) == shown


# --- links ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_a_prediction_puts_its_values_into_the_address() -> None:
    app = predict(page())
    assert dict(app.query_params) == ADDRESS | {"_model": "regression", "_version": "1"}


@pytest.mark.usefixtures("folder")
def test_a_link_reproduces_the_prediction() -> None:
    app = page(ADDRESS)
    assert app.metric[0].value == "0.401"
    inputs = {each.key: each.value for each in app.number_input if str(each.key)[0] != "_"}
    assert inputs == ROW
    assert len(history(app)) == 1


@pytest.mark.usefixtures("folder")
def test_a_link_with_bad_values_reports_each_and_keeps_the_good_ones() -> None:
    app = page(ADDRESS | {"var_2": "abc", "var_3": "inf"})
    assert "var_2: got 'abc'" in app.error[0].value
    assert "var_3: got 'inf'" in app.error[0].value
    assert app.number_input(key="var_1").value == 734.0
    assert not app.metric


@pytest.mark.usefixtures("folder")
def test_a_link_with_some_of_the_values_fills_them_in_and_waits() -> None:
    app = page({"var_1": "800"})
    assert app.number_input(key="var_1").value == 800.0
    assert not app.metric
    assert not app.error


@pytest.mark.usefixtures("folder")
def test_a_link_names_its_model() -> None:
    app = page({"_model": "houses", "area": "100", "rooms": "", "district": "west"})
    assert app.selectbox(key="_model_regression").value == "houses"
    assert app.selectbox(key="district").value == "west"
    assert app.metric[0].label == "Predicted price"


@pytest.mark.usefixtures("folder")
def test_a_link_to_a_model_that_is_not_published_says_so_and_offers_another() -> None:
    app = page({"_model": "flats", "area": "100"})
    assert "'flats'" in app.error[0].value
    app.button(key="_use_usual").click()
    run(app)
    assert not app.error
    assert app.selectbox(key="_model_regression").value == "regression"


@pytest.mark.parametrize("name", ["embed", "Embed_Options"])
def test_an_input_with_a_name_that_streamlit_keeps_for_itself_goes_into_the_address(
    folder: Path, tmp_path: Path, name: str
) -> None:
    train_on(make_houses(120).rename(columns={"area": name}), folder, "homes", tmp_path)
    app = predict(page({"_model": "homes"}), {name: 90.0})
    assert app.query_params[f"_input_{name}"] == "90"
    other = page(dict(app.query_params))
    assert other.number_input(key=name).value == 90.0
    assert other.metric[0].value == app.metric[0].value


# --- several models and versions --------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_choosing_another_model_shows_its_own_inputs() -> None:
    app = predict(page())
    app.selectbox(key="_model_regression").select("houses")
    run(app)
    assert [widget.key for widget in app.number_input] == ["area", "rooms"]
    assert not app.metric
    assert predict(app, {"area": 120.0}).metric[0].label == "Predicted price"


def test_another_model_begins_with_its_own_typical_values(
    folder: Path, houses_csv: Path, tmp_path: Path
) -> None:
    halls = pd.read_csv(houses_csv)
    halls["area"] *= 10
    halls.to_csv(tmp_path / "halls.csv", index=False)
    train(tmp_path / "halls.csv", "price", "halls", folder, say=lambda line: None)
    app = predict(page({"_model": "houses"}), {"area": 90.0})
    app.selectbox(key="_model_regression").select("halls")
    shown = run(app).number_input(key="area").value
    assert shown is not None
    assert shown > 900


@pytest.mark.usefixtures("shipped")
def test_one_model_needs_no_choice() -> None:
    assert not any(widget.key == "_model_regression" for widget in page().selectbox)


def test_a_running_page_follows_publish_and_pin_within_one_rerun(
    folder: Path, houses_csv: Path
) -> None:
    app = predict(page({"_model": "houses"}), {"area": 100.0})
    for act, version in (
        (lambda: train(houses_csv, "price", "houses", folder, say=lambda line: None), 2),
        (lambda: artifacts.pin(folder, "houses", 1), 1),
        (lambda: artifacts.unpin(folder, "houses"), 2),
    ):
        act()
        app.button(key="predict").click()
        assert run(app).dataframe[0].value["version"][0] == version


def test_a_newer_version_that_cannot_be_opened_leaves_the_page_working(
    folder: Path, houses_csv: Path
) -> None:
    app = page({"_model": "houses"})
    train(houses_csv, "price", "houses", folder, say=lambda line: None)
    (folder / "houses" / "2" / "model.joblib").write_bytes(b"broken")
    run(app)
    assert "model.joblib has 6 bytes" in app.warning[0].value
    assert predict(app, {"area": 100.0}).metric


def test_a_newer_version_with_other_categories_keeps_the_page_working(
    folder: Path, houses_csv: Path, tmp_path: Path
) -> None:
    app = page({"_model": "houses"})
    app.selectbox(key="district").select("west")
    predict(app, {"area": 100.0})
    moved = pd.read_csv(houses_csv).replace({"district": {"west": "south"}})
    moved.to_csv(tmp_path / "moved.csv", index=False)
    train(tmp_path / "moved.csv", "price", "houses", folder, say=lambda line: None)
    run(app)
    assert app.selectbox(key="district").options == ["east", "north", "south"]
    assert "got 'west'" in app.error[0].value
    assert predict(app, {"area": 100.0}).metric


def test_a_model_that_cannot_be_opened_says_why_and_the_others_work(folder: Path) -> None:
    (folder / "regression" / "1" / "interval.npz").write_bytes(b"")
    app = page()
    assert "interval.npz has 0 bytes" in app.error[0].value
    assert app.code[0].value == "python -m training.regression --model linear"
    app.selectbox(key="_model_regression").select("houses")
    assert predict(run(app), {"area": 100.0}).metric


def retrain(folder: Path, houses_csv: Path, factor: float) -> None:
    table = pd.read_csv(houses_csv)
    table["price"] *= factor
    path = folder.parent / "retrained.csv"
    table.to_csv(path, index=False)
    train(path, "price", "houses", folder, say=lambda line: None)


def test_a_link_reproduces_its_answer_after_a_retraining(folder: Path, houses_csv: Path) -> None:
    app = predict(page({"_model": "houses"}), {"area": 100.0})
    shared, answer = dict(app.query_params), app.metric[0].value
    retrain(folder, houses_csv, 2.0)
    other = page(shared)
    assert other.metric[0].value == answer
    assert other.selectbox(key="_version").value == 1
    other.selectbox(key="_version").select("served")
    assert run(other).metric[0].value != answer
    assert list(history(other)["version"]) == [2, 1]
    assert other.query_params["_version"] == "2"


def test_each_model_keeps_the_version_that_was_chosen_for_it(
    folder: Path, houses_csv: Path
) -> None:
    retrain(folder, houses_csv, 2.0)
    app = page({"_model": "houses"})
    app.selectbox(key="_version").select(1)
    run(app)
    app.selectbox(key="_model_regression").select("regression")
    assert run(app).selectbox(key="_version").value == "served"
    app.selectbox(key="_model_regression").select("houses")
    assert run(app).selectbox(key="_version").value == 1


@pytest.mark.usefixtures("folder")
def test_a_link_to_a_version_that_is_gone_says_so_and_offers_the_served_one() -> None:
    app = page(ADDRESS | {"_version": "9"})
    assert "Version '9' of regression is not published. Published: 1." in app.error[0].value
    app.button(key="_use_served").click()
    assert run(app).metric[0].value == "0.401"


def test_two_versions_are_compared_on_a_row_and_on_a_file(folder: Path, houses_csv: Path) -> None:
    retrain(folder, houses_csv, 2.0)
    app = predict(page({"_model": "houses"}), {"area": 100.0})
    app.session_state["_tabs_houses"] = "Compare"
    run(app)
    shown = {metric.label: metric.value for metric in app.metric}
    first, second = (
        open_regression(folder, "houses", version).predict(
            [{"area": 100.0, "rooms": 4.0, "district": "east"}]
        )["prediction"][0]
        for version in (1, 2)
    )
    rooms = app.number_input(key="rooms").value
    assert rooms == 4.0
    assert float(shown["price: version 2 minus version 1"]) == round(second - first, 0)
    app.file_uploader[0].upload("houses.csv", houses_csv.read_bytes())
    run(app)
    app.button(key="many_start").click()
    run(app)
    job = app.session_state["_many_houses"].job
    job.join()
    run(app)
    scored = pd.read_csv(io.BytesIO(job.results[0].read("csv")))
    apart = scored["prediction"] - scored["v1_prediction"]
    assert np.allclose(scored["difference"], apart)
    largest = app.dataframe[-1].value
    assert len(largest) == 100
    assert largest["row"][0] == apart.abs().argmax() + 1
    shown = {metric.label: metric.value for metric in app.metric}
    outside = ~scored["prediction"].between(scored["v1_lower"], scored["v1_upper"])
    assert shown["Outside the interval"] == f"{outside.sum():,}"


# --- about ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_about_shows_held_out_quality_coefficients_and_data() -> None:
    app = page()
    assert not app.metric
    app.session_state["_tabs_regression"] = "About this model"
    run(app)
    labels = [metric.label for metric in app.metric]
    assert labels == ["R²", "RMSE", "MAE", "Interval coverage"]
    assert [metric.value for metric in app.metric] == ["0.868", "0.012", "0.010", "90.1%"]
    [terms] = [each.value for each in app.dataframe if "term" in each.value]
    assert list(terms["term"]) == ["(intercept)", *ROW]
    assert "R² on the rows it was trained on: 0.8692670" in texts(app)
    [compared] = [each for each in app.dataframe if "shortfall" in each.value]
    assert not any("behind" in name for name in map(str, compared.value))
    formats = json.loads(compared.proto.columns)
    shown = {name: formats[name]["type_config"]["format"] for name in ("figure", "shortfall")}
    assert shown == dict.fromkeys(shown, "%.4f")
    assert "measured on the same rows, those of the 10-fold cross-validation" in texts(app)
    assert len(app.get("vega_lite_chart")) == 2


# --- economy ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_nothing_is_computed_twice_per_rerun(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *args, **kw: calls.append(name) or original(*args, **kw)
        )

    app = predict(page())
    for name in ("predict_array", "reasons"):
        count(RegressionModel, name)
    count(store, "open_model")
    app.button(key="predict").click()
    run(app)
    # The curve is a second prediction, of other rows.
    assert sorted(calls) == ["predict_array", "predict_array", "reasons"]


@pytest.mark.usefixtures("folder")
def test_sessions_share_one_copy_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    open_model = store.open_model
    monkeypatch.setattr(
        store, "open_model", lambda *args: opened.append(args[1]) or open_model(*args)
    )
    for _ in range(3):
        predict(page())
    assert sorted(opened) == ["houses", "regression"]


@pytest.mark.usefixtures("folder")
def test_a_long_history_is_cut_at_a_thousand() -> None:
    app = predict(page())
    past = app.session_state["_history"]
    app.session_state["_history"] = past * 1000
    assert len(history(predict(app))) == 1000


@pytest.mark.usefixtures("folder")
def test_the_shown_interval_is_that_of_the_model_for_any_quantile_row(folder: Path) -> None:
    model = open_model(folder, "regression")
    for golden in model.manifest.golden:
        row = {name: float(str(value)) for name, value in golden.input.items()}
        shown = predict(page(), row).metric[0].value
        assert float(shown) == np.round(float(str(golden.output["prediction"])), 3)
