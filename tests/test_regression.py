import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from mlapp.errors import ArtifactError, InvalidInput
from mlapp.families import engines
from mlapp.families.contract import replay
from mlapp.families.regression import Interval, RegressionModel
from mlapp.manifest import Artifact
from mlapp.store import artifacts, open_model
from tests.conftest import open_regression
from training.regression import train

ROOT = Path(__file__).resolve().parents[1]
CHAPTER_ROW = {"var_1": 734, "var_2": 688, "var_3": 81, "var_4": 0.328, "var_5": 0.259}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(ROOT / "data" / "linear_regression_dataset.csv")


@pytest.fixture(scope="module")
def model(trained: Path) -> RegressionModel:
    return open_regression(trained)


@pytest.fixture(scope="module")
def houses(trained: Path) -> RegressionModel:
    return open_regression(trained, "houses")


# --- predict ----------------------------------------------------------------------------------


def test_predictions_are_those_of_least_squares(
    model: RegressionModel, table: pd.DataFrame
) -> None:
    inputs = table.drop(columns="output")
    expected = LinearRegression().fit(inputs, table["output"]).predict(inputs)
    np.testing.assert_allclose(model.predict(inputs)["prediction"], expected, rtol=1e-10)


def test_the_saved_pipeline_predicts_the_same(trained: Path, model: RegressionModel) -> None:
    pipeline = joblib.load(trained / "regression" / "1" / "model.joblib")
    assert isinstance(pipeline[-1], LinearRegression)
    prediction = pipeline.predict([list(CHAPTER_ROW.values())])[0]
    assert model.predict([CHAPTER_ROW])["prediction"][0] == pytest.approx(prediction, rel=1e-12)


def test_a_prediction_keeps_the_index_and_lies_inside_its_interval(model: RegressionModel) -> None:
    rows = pd.DataFrame([CHAPTER_ROW, CHAPTER_ROW], index=["a", "b"])
    answer = model.predict(rows)
    assert list(answer.columns) == ["prediction", "lower", "upper"]
    assert list(answer.index) == ["a", "b"]
    assert (answer["lower"] < answer["prediction"]).all()
    assert (answer["prediction"] < answer["upper"]).all()


def test_the_order_of_columns_does_not_matter(model: RegressionModel) -> None:
    rows = pd.DataFrame([CHAPTER_ROW])
    pd.testing.assert_frame_equal(model.predict(rows), model.predict(rows[rows.columns[::-1]]))


def test_integers_and_texts_predict_as_the_floats_they_stand_for(model: RegressionModel) -> None:
    floats = {name: float(value) for name, value in CHAPTER_ROW.items()}
    texts = {name: str(value) for name, value in CHAPTER_ROW.items()}
    for row in (CHAPTER_ROW, texts):
        pd.testing.assert_frame_equal(model.predict([row]), model.predict([floats]))


def test_bad_rows_are_refused_before_the_model_sees_them(model: RegressionModel) -> None:
    with pytest.raises(InvalidInput) as caught:
        model.predict([CHAPTER_ROW | {"var_1": "abc", "var_4": np.nan}])
    assert [fault.input for fault in caught.value.faults] == ["var_1", "var_4"]


def test_a_category_and_a_missing_value_change_the_prediction(houses: RegressionModel) -> None:
    row = {"area": 100, "rooms": 3, "district": "east"}
    east, north, unknown = (
        houses.predict([row | change])["prediction"][0]
        for change in ({}, {"district": "north"}, {"rooms": None})
    )
    assert north - east == pytest.approx(40, abs=8)
    assert unknown != east


def test_no_rows_are_predicted_as_no_rows(model: RegressionModel) -> None:
    assert model.predict([]).shape == (0, 3)
    assert model.explain([]).shape == (0, 6)


# --- interval ---------------------------------------------------------------------------------


def test_the_interval_widens_away_from_the_training_data(model: RegressionModel) -> None:
    answer = model.predict([model.schema.typical, CHAPTER_ROW | {"var_1": 5000}])
    inside, outside = answer["upper"] - answer["lower"]
    assert outside > 2 * inside


def test_the_interval_is_that_of_least_squares_with_another_quantile(
    model: RegressionModel, table: pd.DataFrame
) -> None:
    design = np.column_stack([np.ones(len(table)), table.drop(columns="output")])
    row = np.array([1, *CHAPTER_ROW.values()])
    leverage = row @ np.linalg.inv(design.T @ design) @ row
    answer = model.predict([CHAPTER_ROW]).iloc[0]
    expected = model.interval.quantile * np.sqrt(1 + leverage)
    assert answer["upper"] - answer["prediction"] == pytest.approx(expected, rel=1e-6)


def test_the_width_of_an_interval_is_the_same_to_the_bit_whatever_rows_come_with_it() -> None:
    rng = np.random.default_rng(0)
    standardised = rng.normal(size=(500, 30))
    inverse = np.linalg.inv(standardised.T @ standardised).astype(np.float64)
    interval = Interval(0.9, 1.6, 500, inverse)
    together = interval.half_width(standardised)
    alone = [interval.half_width(row[None])[0] for row in standardised]
    assert together.tolist() == alone


# --- explain ----------------------------------------------------------------------------------


@given(st.data())
def test_explanations_sum_to_the_prediction(houses: RegressionModel, data: st.DataObject) -> None:
    rows = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "area": st.floats(-1e6, 1e6),
                    "rooms": st.none() | st.integers(-100, 100),
                    "district": st.sampled_from(["east", "north", "west"]),
                }
            ),
            min_size=1,
            max_size=5,
        )
    )
    explained = houses.explain(rows)
    assert list(explained.columns) == ["baseline", "area", "rooms", "district"]
    predicted = houses.predict(rows)["prediction"]
    np.testing.assert_allclose(explained.sum(axis=1), predicted, rtol=1e-9, atol=1e-6)


def test_the_baseline_is_the_mean_output(model: RegressionModel, table: pd.DataFrame) -> None:
    explained = model.explain(table)
    assert explained["baseline"][0] == pytest.approx(table["output"].mean())
    np.testing.assert_allclose(explained.drop(columns="baseline").mean(), 0, atol=1e-12)


def test_an_input_adds_its_coefficient_times_its_distance_from_the_mean(
    model: RegressionModel, table: pd.DataFrame
) -> None:
    coefficient = next(
        entry["estimate"] for entry in model.report["coefficients"] if entry["term"] == "var_4"
    )
    added = model.explain([CHAPTER_ROW])["var_4"][0]
    assert added == pytest.approx(coefficient * (0.328 - table["var_4"].mean()))


# --- what if ----------------------------------------------------------------------------------


def test_what_if_moves_one_input_across_its_range(model: RegressionModel) -> None:
    moved = model.what_if(CHAPTER_ROW, "var_4", points=11)
    spec = model.schema["var_4"]
    assert spec.kind == "number"
    assert list(moved.columns) == ["var_4", "prediction", "lower", "upper"]
    assert (moved["var_4"].iloc[0], moved["var_4"].iloc[-1]) == (spec.minimum, spec.maximum)
    again = model.predict([CHAPTER_ROW | {"var_4": moved["var_4"][3]}])
    assert moved["prediction"][3] == again["prediction"][0]


def test_what_if_widens_the_range_to_hold_the_value_now(model: RegressionModel) -> None:
    moved = model.what_if(CHAPTER_ROW | {"var_1": 3000}, "var_1")
    assert moved["var_1"].max() == 3000


def test_what_if_takes_each_category(houses: RegressionModel) -> None:
    moved = houses.what_if({"area": 100, "rooms": None, "district": "east"}, "district")
    assert list(moved["district"]) == ["east", "north", "west"]


def test_what_if_moves_an_input_that_is_missing_now(houses: RegressionModel) -> None:
    moved = houses.what_if({"area": 100, "rooms": None, "district": "east"}, "rooms")
    assert moved["rooms"].max() == 7


# --- the rest ---------------------------------------------------------------------------------


def test_a_prediction_is_shown_in_the_precision_that_the_data_supports(
    model: RegressionModel, houses: RegressionModel
) -> None:
    assert model.gives.format(0.40113548) == "0.401"
    assert houses.gives.format(1234.5678) == "1,235"


def test_golden_predictions_are_replayed(folder: Path) -> None:
    replay(open_model(folder, "regression"))


def test_a_golden_prediction_that_is_not_reproduced_is_reported(folder: Path) -> None:
    artifact = artifacts.open(folder, "regression")
    golden = list(artifact.manifest.golden)
    wrong = golden[0].model_copy(update={"output": golden[0].output | {"prediction": 9.0}})
    manifest = artifact.manifest.model_copy(update={"golden": (wrong, *golden[1:])})
    with pytest.raises(ArtifactError, match="golden"):
        replay(RegressionModel(Artifact(artifact.path, manifest, artifact.files)))


def test_a_model_saved_by_another_scikit_learn_is_refused_before_it_is_unpickled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpickle(*_: Any) -> None:
        pytest.fail("the model was unpickled")

    monkeypatch.setattr(engines, "library_version", lambda library: "99.1.0")
    monkeypatch.setattr(engines, "_Reader", unpickle)
    with pytest.raises(ArtifactError, match=r"99\.1\.0 is installed"):
        open_model(folder, "regression")


def test_serving_imports_neither_scikit_learn_nor_pandas(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlapp.store import open_model\n"
        "model = open_model(Path(sys.argv[1]), 'regression')\n"
        f"print(model.predict_array(model.check([{CHAPTER_ROW}]))[0, 0])\n"
        "print(sorted({'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    predicted, imported = ran.stdout.splitlines()
    assert float(predicted) == pytest.approx(0.4011, abs=1e-4)
    assert imported == "[]"


@pytest.mark.parametrize("other", [os.system, {"steps": []}], ids=["a command", "no pipeline"])
def test_a_pickle_of_anything_else_is_refused_and_not_run(folder: Path, other: Any) -> None:
    opened = artifacts.open(folder, "regression")
    file = io.BytesIO()
    joblib.dump(other, file)
    changed = replace(opened, files={**opened.files, "model.joblib": file.getvalue()})
    with pytest.raises(ArtifactError, match="is not a pipeline of mlapp"):
        RegressionModel(changed)


def test_nothing_is_unpickled_when_a_digest_does_not_hold(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joblib, "load", lambda *_: pytest.fail("the model was unpickled"))
    shutil.copy(
        folder / "houses" / "1" / "model.joblib", folder / "regression" / "1" / "model.joblib"
    )
    with pytest.raises(ArtifactError, match=r"model\.joblib"):
        open_model(folder, "regression")


def test_the_report_holds_no_row_of_inputs(folder: Path) -> None:
    report = json.loads((folder / "houses" / "1" / "report.json").read_text())
    known = {"held_out", "coefficients", "compared", "coverage_by_fifth", "losses"}
    assert set(report) == known
    assert set(report["held_out"]) == {"actual", "prediction", "lower", "upper"}


def test_the_shipped_model_answers_the_chapters_row(shipped: Path) -> None:
    answer = open_regression(shipped).predict([CHAPTER_ROW]).iloc[0]
    assert answer["prediction"] == pytest.approx(0.4011355, abs=5e-7)
    assert answer["lower"] == pytest.approx(0.381, abs=0.002)
    assert answer["upper"] == pytest.approx(0.421, abs=0.002)


def test_more_of_var_1_means_more_output_all_else_held(shipped: Path) -> None:
    moved = open_regression(shipped).what_if(CHAPTER_ROW, "var_1")
    assert moved["prediction"].is_monotonic_increasing


@pytest.mark.slow
def test_a_mean_beyond_a_bound_turns_no_reason_around(tmp_path: Path) -> None:
    rng = np.random.default_rng(1247)  # whose 64 rows of the background have a mean below 0
    x = rng.normal(size=1000)
    table = pd.DataFrame({"x": x, "y": np.where(x > 2.5, 100 * (x - 2.4), 0).round(3)})
    table.to_csv(tmp_path / "rare.csv", index=False)
    options: dict[str, Any] = {"model": "linear", "say": lambda line: None}
    model = RegressionModel(train(tmp_path / "rare.csv", "y", "rare", tmp_path, **options))
    rows = [{"x": value} for value in (-2.0, 0.0, 1.0, 3.0)]
    found = model.explain(rows)
    assert set(found["baseline"]) == {0.0}
    assert list(found["x"][:1]) == [0.0]
    assert found["x"].is_monotonic_increasing
    np.testing.assert_allclose(found.sum(axis=1), model.predict(rows)["prediction"], rtol=1e-12)


def test_a_prediction_outside_the_training_range_gets_a_notice(houses: RegressionModel) -> None:
    rows = [{"area": -20.0, "rooms": 1, "district": "west"}, houses.schema.typical]
    checked = houses.check(rows)
    predicted = houses.predict_array(checked)
    assert houses.schema.output is not None
    # It would be below zero, where no price was, and so it is held at zero.
    assert predicted[0, 0] == 0 < predicted[0, 2] < houses.schema.output.minimum
    last = houses.notices(checked, predicted)[-1]
    assert (last.input, last.row) == ("price", 0)
    assert "the prediction" in last.message
    assert "lies outside the range seen in training" in last.message
