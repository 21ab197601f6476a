"""Fitted estimators are published, from files and from Python, and served by every door."""

import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMRegressor
from onnx import helper, load_model_from_string
from scipy.sparse import csr_array
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.neighbors import KNeighborsRegressor, RadiusNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_info, threadpool_limits
from xgboost import XGBClassifier

import mlapp
from mlapp import store
from mlapp.cli import main
from mlapp.errors import ArtifactError, InvalidData
from mlapp.families.classification import ClassificationModel
from mlapp.families.contract import replay
from mlapp.families.regression import Interval, RegressionModel
from mlapp.records import bins, drift, quality, queries, reference
from mlapp.records import writer as records
from mlapp.records.bins import Series
from mlapp.records.database import Database
from mlapp.schema import Checked
from mlapp.service import create_app
from mlapp.settings import read_settings
from mlapp.store import artifacts
from tests.conftest import client_of, make_houses
from training.foreign import OnnxEstimator

INPUTS = ["area", "rooms", "district"]


@pytest.fixture(scope="module")
def houses() -> pd.DataFrame:
    table = make_houses(400)
    table["cheap"] = np.where(table["price"] < 350, "cheap", "dear")
    return table


@pytest.fixture
def houses_file(houses: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "houses.csv"
    houses.drop(columns="cheap").to_csv(path, index=False)
    return path


def prepared() -> ColumnTransformer:
    return make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["area", "rooms"]),
        (OneHotEncoder(handle_unknown="ignore"), ["district"]),
    )


def regression(houses: pd.DataFrame, estimator: Any = None) -> Any:
    return make_pipeline(prepared(), Ridge() if estimator is None else estimator).fit(
        houses[INPUTS], houses["price"]
    )


def classifier(houses: pd.DataFrame) -> Any:
    return make_pipeline(prepared(), LogisticRegression()).fit(houses[INPUTS], houses["cheap"])


def quiet(line: str) -> None:
    """Say nothing."""


def test_a_pipeline_is_published_from_a_file(
    houses: pd.DataFrame,
    houses_file: Path,
    empty_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fitted = regression(houses)
    joblib.dump(fitted, tmp_path / "model.joblib")
    command = ["publish", str(tmp_path / "model.joblib"), "--data", str(houses_file)]
    assert main([*command, "--target", "price", "--name", "houses"]) == 0
    said = capsys.readouterr().out
    assert "runs whatever code it holds" in said
    assert "Served compiled (ONNX)" in said
    assert "5-fold cross-validation of a clone" in said
    model = store.open_model(empty_folder, "houses")
    assert isinstance(model, RegressionModel)
    predicted = model.predict(houses[INPUTS])
    np.testing.assert_allclose(predicted["prediction"], fitted.predict(houses[INPUTS]), rtol=1e-9)
    inside = predicted["lower"].le(houses["price"]) & houses["price"].le(predicted["upper"])
    assert 0.85 < inside.mean() < 0.97
    assert "joblib" not in str(list(model.manifest.files))
    replay(model)


def test_a_model_is_published_from_python_and_answers_over_http(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    fitted = classifier(houses)
    mlapp.publish(fitted, houses[INPUTS], houses["cheap"], name="bargains", say=quiet)
    row = {"area": 60.0, "rooms": None, "district": "west"}
    client = client_of(create_app())
    [answer] = client.post("/v1/models/bargains:predict", json={"instances": [row]}).json[
        "predictions"
    ]
    [[cheap, dear]] = fitted.predict_proba(pd.DataFrame([row | {"rooms": np.nan}]))
    assert answer["label"] == "cheap"
    assert (answer["cheap"], answer["dear"]) == pytest.approx((cheap, dear))
    [why] = client.post("/v1/models/bargains:explain", json={"instances": [row]}).json[
        "explanations"
    ]
    assert why["logit"] == pytest.approx(np.log(dear / cheap))
    assert why["logit"] == pytest.approx(sum(why[name] for name in ["baseline", *INPUTS]))


@pytest.mark.slow
def test_labels_of_any_type_are_texts(houses: pd.DataFrame, empty_folder: Path) -> None:
    for name, target in {
        "truths": houses["price"] > 400,
        "numbers": pd.qcut(houses["price"], 4, labels=False),
        "floats": (houses["price"] > 400).astype(float) + 1,
    }.items():
        fitted = make_pipeline(prepared(), LogisticRegression()).fit(houses[INPUTS], target)
        mlapp.publish(fitted, houses[INPUTS], target, name=name, say=quiet)
    labels = {
        name: store.open_model(empty_folder, name).manifest.labels
        for name in ("truths", "numbers", "floats")
    }
    assert labels == {
        "truths": ("False", "True"),
        "numbers": ("0", "1", "2", "3"),
        "floats": ("1", "2"),
    }


@pytest.mark.slow
def test_lightgbm_may_be_fitted_on_names_with_spaces(empty_folder: Path) -> None:
    random = np.random.default_rng(0)
    inputs = pd.DataFrame(random.random((200, 2)), columns=["living area", "rooms"])
    estimator = LGBMRegressor(n_estimators=5, verbose=-1).fit(inputs, inputs["living area"])
    mlapp.publish(estimator, inputs, inputs["living area"], name="spaced", say=print)
    model = store.open_model(empty_folder, "spaced", 1)
    assert [spec.name for spec in model.takes.inputs] == ["living area", "rooms"]
    found = model.answer(model.check(inputs[:5].to_dict("records"))).table()["prediction"]
    assert found == pytest.approx(estimator.predict(inputs[:5]))


def test_a_boolean_column_is_compiled_as_a_number(houses: pd.DataFrame, empty_folder: Path) -> None:
    inputs = houses[["area"]].fillna(50.0).assign(garden=houses["rooms"] > 3)
    lines: list[str] = []
    mlapp.publish(Ridge().fit(inputs, houses["price"]), inputs, houses["price"], "gardens",
                  say=lines.append)  # fmt: skip
    assert any("Served compiled" in line for line in lines), lines


def test_held_out_rows_are_measured_where_they_are_given(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    half = len(houses) // 2
    forest = regression(houses[:half], RandomForestRegressor(30, random_state=0))
    seen = houses[:half]
    kept = (houses[INPUTS][half:], houses["price"][half:])
    lines: list[str] = []
    mlapp.publish(
        forest, seen[INPUTS], seen["price"], name="forest", held_out=kept, say=lines.append
    )
    model = store.open_model(empty_folder, "forest")
    assert f"Measured on {len(houses) - half} held-out rows" in lines
    assert model.manifest.metrics["r2"] == pytest.approx(forest.score(*kept))
    assert model.headline.name == "held-out R²"


def noise(rows: int, seed: int) -> pd.DataFrame:
    """Return rows with a target that follows from them with much noise."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    return table.assign(y=table["a"] + random.normal(size=rows))


def test_repeated_rows_are_cross_validated_together(empty_folder: Path) -> None:
    table = pd.concat([noise(200, 0)] * 4)
    inputs, target = table[["a", "b", "c"]], table["y"]
    forest = RandomForestRegressor(20, random_state=0).fit(inputs, target)
    lines: list[str] = []
    published = mlapp.publish(forest, inputs, target, name="copies", say=lines.append)
    assert "600 rows repeat another; they are kept, and stay in one fold with it" in lines
    r2 = published.manifest.metrics["r2"]
    assert isinstance(r2, float)
    assert r2 < 0.7
    fresh = noise(500, 1)
    model = store.open_model(empty_folder, "copies")
    assert isinstance(model, RegressionModel)
    predicted = model.predict(fresh[["a", "b", "c"]])
    assert fresh["y"].between(predicted["lower"], predicted["upper"]).mean() > 0.8


def test_repeated_rows_of_a_label_are_not_enough_to_cross_validate(empty_folder: Path) -> None:
    table = noise(100, 0).assign(y=["rare", *["usual"] * 99])
    table = pd.concat([table, *[table[:1]] * 9])
    fitted = LogisticRegression().fit(table[["a", "b", "c"]], table["y"])
    lines: list[str] = []
    mlapp.publish(fitted, table[["a", "b", "c"]], table["y"], name="rare", say=lines.append)
    assert any("the label 'rare' has 1 different rows" in line for line in lines), lines


@pytest.mark.parametrize("classifies", [False, True])
def test_figures_that_are_too_good_to_be_true_are_warned_of(
    classifies: bool, empty_folder: Path
) -> None:
    table = noise(200, 0)
    inputs = table[["a", "b", "c"]].assign(copy=(table["y"] > 0) if classifies else table["y"])
    inputs = inputs.astype(float)
    model = LogisticRegression(C=1e6) if classifies else LinearRegression()
    target = np.where(table["y"] > 0, "high", "low") if classifies else table["y"]
    lines: list[str] = []
    mlapp.publish(model.fit(inputs, target), inputs, target, name="leaks", say=lines.append)
    [warning] = [line for line in lines if "too good to be true" in line]
    assert warning.endswith("The closest is copy")


def test_held_out_rows_that_are_in_the_data_are_left_out(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    fitted = regression(houses[:300])
    mixed = houses[200:]
    lines: list[str] = []
    published = mlapp.publish(
        fitted, houses[:300][INPUTS], houses[:300]["price"], name="houses",
        held_out=(mixed[INPUTS], mixed["price"]), say=lines.append,
    )  # fmt: skip
    assert "Left out 100 of 200 held-out rows: they are rows of the data, too" in lines
    unseen = houses[300:]
    r2 = fitted.score(unseen[INPUTS], unseen["price"])
    assert published.manifest.metrics["held_out"] == 100
    assert published.manifest.metrics["r2"] == pytest.approx(r2)


@pytest.mark.parametrize("classifies", [False, True])
def test_held_out_rows_that_are_nearly_all_in_the_data_are_refused(
    classifies: bool, houses: pd.DataFrame, empty_folder: Path
) -> None:
    model, target = (classifier(houses), "cheap") if classifies else (regression(houses), "price")
    data, kept = houses[:390], houses[200:]
    with pytest.raises(
        InvalidData, match=r"Of 200 held-out rows, 10 are left .*at least 20.*Give rows"
    ):
        mlapp.publish(
            model, data[INPUTS], data[target], "bad", held_out=(kept[INPUTS], kept[target]),
            say=quiet,
        )  # fmt: skip
    assert artifacts.names(empty_folder) == []


def test_a_model_that_cannot_be_measured_honestly_says_so_and_has_no_interval(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    few = houses[:15].fillna(3)
    lines: list[str] = []
    fitted = LinearRegression().fit(few[["area"]], few["price"])
    mlapp.publish(fitted, few[["area"]], few["price"], name="few", say=lines.append)
    model = store.open_model(empty_folder, "few")
    assert isinstance(model, RegressionModel)
    assert any("own training rows" in line for line in lines)
    assert "No intervals" in " ".join(lines)
    assert list(model.predict([{"area": 50}])) == ["prediction"]
    assert model.headline.name == "R² on its own training rows"


@pytest.mark.slow
def test_what_is_not_compiled_is_served_by_scikit_learn_and_explained(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    fitted = regression(houses, KNeighborsRegressor())
    lines: list[str] = []
    mlapp.publish(fitted, houses[INPUTS], houses["price"], name="near", say=lines.append)
    assert any("Served by scikit-learn itself" in line for line in lines)
    model = store.open_model(empty_folder, "near")
    assert isinstance(model, RegressionModel)
    assert model.platform == "sklearn"
    rows = houses[INPUTS][:3]
    found = model.explain(rows)
    np.testing.assert_allclose(found.sum(axis=1), model.predict(rows)["prediction"])


def test_an_array_without_names_and_columns_of_every_type_are_served(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    numbers = houses[["area", "rooms"]].fillna(3).to_numpy()
    plain = Ridge().fit(numbers, houses["price"])
    mlapp.publish(plain, numbers, houses["price"].to_numpy(), name="plain", say=quiet)
    model = store.open_model(empty_folder, "plain")
    assert model.takes.names == ["x0", "x1"]
    mixed = pd.DataFrame(
        {
            "garden": houses["area"] > 100,
            "floor": np.arange(len(houses)) % 4,
            "street": houses["district"].astype("category"),
        }
    )
    encoder = make_column_transformer((OneHotEncoder(drop="first"), list(mixed)))
    fitted = make_pipeline(encoder, Ridge()).fit(mixed, houses["price"])
    mlapp.publish(fitted, mixed, houses["price"], name="mixed", say=quiet)
    [answer] = (
        client_of(create_app())
        .post(
            "/v1/models/mixed:predict",
            json={"instances": [{"garden": True, "floor": 2, "street": "west"}]},
        )
        .json["predictions"]
    )
    row = pd.DataFrame({"garden": [True], "floor": [2], "street": ["west"]})
    assert answer["prediction"] == pytest.approx(fitted.predict(row)[0])


def linear_graph() -> bytes:
    """Return y = 2 * a + 3 * b as another tool may write it, in single precision."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["rows", "weights"], ["out"]),
        ],
        "other",
        [helper.make_tensor_value_info("rows", 1, [None, 2])],
        [helper.make_tensor_value_info("out", 1, [None, 1])],
        [helper.make_tensor("weights", 1, [2, 1], [2.0, 3.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def test_an_onnx_file_is_published_with_the_schema_of_its_data(
    empty_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(linear_graph())
    table = pd.DataFrame({"a": np.arange(50) % 7, "b": np.arange(50) % 11 / 2})
    table["y"] = 2 * table["a"] + 3 * table["b"]
    table.to_csv(tmp_path / "data.csv", index=False)
    command = ["publish", str(tmp_path / "model.onnx"), "--data", str(tmp_path / "data.csv")]
    assert main([*command, "--target", "y", "--name", "other"]) == 0
    assert "own training rows" in capsys.readouterr().out
    model = store.open_model(empty_folder, "other")
    assert isinstance(model, RegressionModel)
    assert model.predict([{"a": 3, "b": 2}])["prediction"].tolist() == [12.0]


def test_an_onnx_file_with_foreign_operators_is_refused() -> None:
    proto = load_model_from_string(linear_graph())
    proto.graph.node[0].domain = "com.example"
    with pytest.raises(InvalidData, match=r"com\.example"):
        OnnxEstimator(proto.SerializeToString(), [1.0])


def test_a_skops_file_is_published(
    houses: pd.DataFrame, houses_file: Path, empty_folder: Path, tmp_path: Path
) -> None:
    import skops.io  # here, since that takes a second

    skops.io.dump(regression(houses), tmp_path / "model.skops")
    command = ["publish", str(tmp_path / "model.skops"), "--data", str(houses_file)]
    assert main([*command, "--target", "price", "--name", "houses"]) == 0
    assert artifacts.versions(empty_folder, "houses") == [1]


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Ridge(), "Ridge is not fitted"),
        (Ridge, "is the class Ridge"),
        (StandardScaler(), "StandardScaler is a transformer"),
        ("a text", "expected a fitted estimator"),
    ],
    ids=str,
)
def test_what_is_not_a_fitted_estimator_is_refused(
    model: Any, message: str, houses: pd.DataFrame, empty_folder: Path
) -> None:
    with pytest.raises(InvalidData, match=message):
        mlapp.publish(model, houses[["area"]], houses["price"], name="bad", say=quiet)
    assert artifacts.names(empty_folder) == []


def test_an_estimator_that_was_fitted_on_other_columns_is_refused(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    fitted = LinearRegression().fit(houses[["area"]], houses["price"])
    other = houses[["area"]].rename(columns={"area": "size"})
    with pytest.raises(InvalidData, match="'area'; it has 'size'"):
        mlapp.publish(fitted, other, houses["price"], name="bad", say=quiet)
    nameless = LinearRegression().fit(houses[["area"]].to_numpy(), houses["price"])
    with pytest.raises(InvalidData, match="fitted on 1 columns, and the data has 3"):
        mlapp.publish(nameless, houses[INPUTS], houses["price"], name="bad", say=quiet)


@pytest.mark.parametrize("name", ["predict", "lower", "_model"])
def test_an_input_with_a_name_that_answers_or_pages_use_is_refused(
    name: str, empty_folder: Path
) -> None:
    rows = pd.DataFrame({name: np.arange(50.0), "other": np.arange(50.0) % 7})
    fitted = LinearRegression().fit(rows, rows["other"])
    with pytest.raises(InvalidData, match=f"Rename the column '{name}': "):
        mlapp.publish(fitted, rows, rows["other"], "mine", say=quiet)


def test_a_model_of_several_targets_is_refused(houses: pd.DataFrame, empty_folder: Path) -> None:
    targets = np.column_stack([houses["price"], houses["area"]])
    fitted = LinearRegression().fit(houses[["area"]], targets)
    with pytest.raises(InvalidData, match="2 columns, expected one"):
        mlapp.publish(fitted, houses[["area"]], targets, name="bad", say=quiet)
    with pytest.raises(InvalidData, match="gives 2 numbers for a row"):
        mlapp.publish(fitted, houses[["area"]], houses["price"], name="bad", say=quiet)


def test_targets_of_one_label_or_strange_ones_are_refused(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    fitted, inputs = classifier(houses), houses[INPUTS]
    with pytest.raises(InvalidData, match="Every row of the target is 'cheap'"):
        mlapp.publish(fitted, inputs, ["cheap"] * len(inputs), name="bad", say=quiet)
    with pytest.raises(InvalidData, match="The target holds 'free'"):
        mlapp.publish(fitted, inputs, ["free"] * len(inputs), name="bad", say=quiet)


def test_a_label_of_one_row_is_measured_on_its_own_rows_and_says_so(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    target = pd.Series(["dear", *["cheap"] * (len(houses) - 1)])
    fitted = make_pipeline(prepared(), LogisticRegression()).fit(houses[INPUTS], target)
    lines: list[str] = []
    mlapp.publish(fitted, houses[INPUTS], target, name="rare", say=lines.append)
    assert (
        "Not cross-validated: the label 'dear' has 1 different rows; at least 5 are needed" in lines
    )


def test_a_pipeline_with_a_lambda_is_refused(houses: pd.DataFrame, empty_folder: Path) -> None:
    step = FunctionTransformer(lambda rows: rows)
    fitted = make_pipeline(prepared(), step, Ridge()).fit(houses[INPUTS], houses["price"])
    with pytest.raises(InvalidData, match=r"cannot be served.*lambda"):
        mlapp.publish(fitted, houses[INPUTS], houses["price"], name="bad", say=quiet)


def test_a_pickle_of_a_class_that_is_not_installed_is_refused(
    houses_file: Path, empty_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content, message in {
        b"cnowhere.to_be_found\nModel\n.": "needs the module 'nowhere'",
        b"c__main__\nMyVeryOwnModel\n.": "needs a class or function that is not here",
        b"not a pickle": "cannot be read as an estimator",
    }.items():
        (tmp_path / "model.joblib").write_bytes(content)
        command = ["publish", str(tmp_path / "model.joblib"), "--data", str(houses_file)]
        assert main([*command, "--target", "price", "--name", "bad"]) == 1
        assert message in capsys.readouterr().err


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("file", ["model.joblib", "model.skops", "model.onnx"])
def test_serving_runs_no_code_of_a_publisher(
    file: str, houses: pd.DataFrame, empty_folder: Path, tmp_path: Path
) -> None:
    """Whoever can write the folder writes a pickle that runs code, under each name."""
    mlapp.publish(regression(houses), houses[INPUTS], houses["price"], name="houses", say=quiet)
    whole = artifacts.open(empty_folder, "houses")
    left = {name: content for name, content in whole.files.items() if name != "model.onnx"}
    bad = left | {file: pickle.dumps(Trap(tmp_path / "ran")), "frame.json": b"{}"}
    bad["interval.npz"] = Interval(0.9, 1.0, 9, np.eye(2)).dump()
    fields = whole.manifest.model_dump(exclude={"files", "libraries", "name", "version", "created"})
    drafted = artifacts.draft("houses", bad, ("scikit-learn",), **fields)
    artifacts.publish(empty_folder, drafted, lambda artifact: None)
    with pytest.raises(ArtifactError):
        store.open_model(empty_folder, "houses", 2)
    assert not (tmp_path / "ran").exists()


def test_a_skops_file_that_names_foreign_code_is_not_opened(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    mlapp.publish(
        regression(houses, KNeighborsRegressor()),
        houses[INPUTS],
        houses["price"],
        name="near",
        say=quiet,
    )
    whole = artifacts.open(empty_folder, "near")
    import skops.io  # here, since that takes a second

    content = skops.io.dumps({"prediction": FunctionTransformer(subprocess.run)})
    fields = whole.manifest.model_dump(exclude={"files", "libraries", "name", "version", "created"})
    files = dict(whole.files) | {"model.skops": content}
    drafted = artifacts.draft("near", files, ("scikit-learn",), **fields)
    artifacts.publish(empty_folder, drafted, lambda artifact: None)
    with pytest.raises(ArtifactError, match=r"subprocess\.run"):
        store.open_model(empty_folder, "near", 2)


@pytest.mark.slow
def test_serving_a_compiled_model_imports_neither_scikit_learn_nor_pandas(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    mlapp.publish(regression(houses), houses[INPUTS], houses["price"], name="houses", say=quiet)
    script = (
        "import sys; from pathlib import Path; from mlapp.store import open_model\n"
        f"model = open_model(Path({str(empty_folder)!r}), 'houses')\n"
        "model.answer(model.check([model.schema.typical]))\n"
        "print([name for name in ('sklearn', 'pandas', 'skops', 'onnx', 'training')"
        " if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# --- reasons ---------------------------------------------------------------------------------


def test_reasons_of_an_interacting_model_are_the_shapley_values(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    """Against the definition, for two inputs: half of either order."""
    two = houses[["area", "rooms"]].fillna(3)
    fitted = RandomForestRegressor(10, random_state=0).fit(two, houses["price"])
    mlapp.publish(fitted, two, houses["price"], name="forest", say=quiet)
    model = store.open_model(empty_folder, "forest")
    assert isinstance(model, RegressionModel)
    background = np.load(empty_folder / "forest" / "1" / "background.npy")

    def mean(area: float | None, rooms: float | None) -> float:
        rows = pd.DataFrame(background, columns=["area", "rooms"])
        for name, value in (("area", area), ("rooms", rooms)):
            if value is not None:
                rows[name] = value
        return float(fitted.predict(rows).mean())

    [found] = model.explain([{"area": 120.0, "rooms": 5.0}]).to_dict("records")
    none, area, rooms, both = (
        mean(None, None),
        mean(120.0, None),
        mean(None, 5.0),
        mean(120.0, 5.0),
    )
    assert found["baseline"] == pytest.approx(none)
    assert found["area"] == pytest.approx(((area - none) + (both - rooms)) / 2)
    assert found["rooms"] == pytest.approx(((rooms - none) + (both - area)) / 2)


def test_reasons_of_more_than_ten_inputs_are_estimated_with_a_stated_error(
    empty_folder: Path,
) -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame(random.normal(size=(300, 12)), columns=[f"v{at}" for at in range(12)])
    target = rows["v0"] * rows["v1"] + rows["v2"]
    fitted = RandomForestRegressor(10, random_state=0).fit(rows, target)
    mlapp.publish(fitted, rows, target, name="wide", say=quiet)
    model = store.open_model(empty_folder, "wide")
    assert isinstance(model, RegressionModel)
    found = model.explain(rows[:2])
    total = found.drop(columns="error").sum(axis=1)
    np.testing.assert_allclose(total, model.predict(rows[:2])["prediction"])
    assert (found["error"] > 0).all()
    assert (found["error"] < 0.3 * rows.shape[1]).all()
    fields = [each.name for each in model.takes.reason_fields]
    assert fields == list(model.reasons(model.check(rows[:2])).table())


def test_a_linear_model_of_many_inputs_is_explained_exactly(empty_folder: Path) -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame(random.normal(size=(200, 30)), columns=[f"v{at}" for at in range(30)])
    fitted = Ridge().fit(rows, rows.sum(axis=1))
    mlapp.publish(fitted, rows, rows.sum(axis=1), name="line", say=quiet)
    model = store.open_model(empty_folder, "line")
    assert isinstance(model, RegressionModel)
    background = np.load(empty_folder / "line" / "1" / "background.npy")
    found = model.explain(rows[:1])
    assert "error" not in found
    expected = fitted.coef_ * (rows.to_numpy()[0] - background.mean(axis=0))
    np.testing.assert_allclose(found.drop(columns="baseline").to_numpy()[0], expected, atol=1e-9)


@pytest.mark.slow
def test_a_classifier_of_three_labels_explains_the_one_it_gives(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    target = pd.cut(houses["price"], 3, labels=["low", "middle", "high"]).astype(str)
    inputs = houses[["area", "rooms"]]
    fitted = HistGradientBoostingClassifier(max_iter=10).fit(inputs, target)
    mlapp.publish(fitted, inputs, target, name="bands", say=quiet)
    model = store.open_model(empty_folder, "bands")
    assert isinstance(model, ClassificationModel)
    reasons = model.reasons(model.check(inputs[:20]))
    assert reasons.labels == model.predict(inputs[:20])["label"].tolist()
    logs = np.log(model.probabilities(model.check(inputs[:20])))
    np.testing.assert_allclose(
        reasons.totals, (logs - logs.mean(axis=1, keepdims=True)).max(axis=1)
    )
    moved = model.what_if({"area": 100, "rooms": 3}, "area", points=5)
    assert len(moved) == 5


# --- managing versions -----------------------------------------------------------------------


def test_models_are_listed_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["version"], each["state"]) for each in found] == [
        ("houses", 1, "served"),
        ("regression", 1, "served"),
    ]
    assert found[0]["gives"] == "number"
    assert found[0]["metrics"]["r2"] > 0.9


def test_a_removed_version_is_gone_and_its_number_is_not_given_again(
    houses: pd.DataFrame, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = regression(houses)
    for _ in range(2):
        mlapp.publish(fitted, houses[INPUTS], houses["price"], name="houses", say=quiet)
    assert main(["pin", "houses", "2"]) == 0
    assert main(["remove", "houses", "2"]) == 1
    assert "mlapp unpin houses" in capsys.readouterr().err
    assert main(["unpin", "houses"]) == 0
    assert main(["remove", "houses", "2"]) == 0
    assert "version 1 is served" in capsys.readouterr().out
    assert main(["remove", "houses", "2"]) == 1
    assert "published: 1" in capsys.readouterr().err
    published = mlapp.publish(fitted, houses[INPUTS], houses["price"], name="houses", say=quiet)
    assert published.manifest.version == 3


def test_a_renamed_model_keeps_its_versions_and_answers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rename", "houses", "regression"]) == 1
    assert "'regression' is taken" in capsys.readouterr().err
    assert main(["rename", "houses", "Not A Name"]) == 1
    assert main(["pin", "houses", "1"]) == 0
    assert main(["rename", "houses", "homes"]) == 0
    assert artifacts.names(folder) == ["homes", "regression"]
    assert artifacts.pinned(folder, "homes") == 1
    replay(store.open_model(folder, "homes"))


def answer_and_judge(name: str) -> None:
    """Ask a model for the price of a house, and say what it was sold for."""
    client = client_of(create_app())
    row = {"area": 100.5, "rooms": 3, "district": "north"}
    answer = client.post(f"/v1/models/{name}:predict", json={"instances": [row]}).get_json()
    judged = client.post("/v1/feedback", json={"id": answer["id"], "truth": 300})
    assert judged.status_code == 200
    records.close()


def recorded(name: str) -> tuple[int, int, int]:
    """Return how many answers, judged answers and counted values are recorded under a name."""
    database = Database(read_settings())
    judged = sum(each.rows for each in quality.measure(database, name) if each.week is None)
    counted = queries.totals(database, name, 0).get(Series("input", "area"), {})
    return len(list(queries.export(database, name))), judged, sum(counted.values())


@pytest.mark.slow
def test_a_renamed_model_keeps_its_records(folder: Path, recording: None, tmp_path: Path) -> None:
    shutil.copytree(folder / "houses", tmp_path / "copy")
    answer_and_judge("houses")
    assert main(["rename", "houses", "homes"]) == 0
    assert (recorded("houses"), recorded("homes")) == ((0, 0, 0), (1, 1, 1))
    # Counts of a model that had the name before are kept: the bins of both are the same.
    shutil.rmtree(folder / "homes")
    shutil.move(tmp_path / "copy", folder / "houses")
    answer_and_judge("houses")
    assert main(["rename", "houses", "homes"]) == 0
    assert (recorded("houses"), recorded("homes")) == ((0, 0, 0), (2, 2, 2))


def test_a_model_without_records_is_renamed_and_leaves_no_database(
    folder: Path, recording: None
) -> None:
    assert main(["rename", "houses", "homes"]) == 0
    assert not Database(read_settings()).exists


def test_a_model_whose_records_cannot_be_renamed_keeps_its_name(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "records.db").write_bytes(b"this is no database" * 100)
    monkeypatch.setenv("MLAPP_DATABASE_URL", f"sqlite:///{tmp_path}/records.db")
    before = sorted(path.name for path in folder.iterdir())
    assert main(["rename", "houses", "homes"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("file is not a database; houses is not renamed")
    assert sorted(path.name for path in folder.iterdir()) == before
    replay(store.open_model(folder, "houses"))


@pytest.mark.slow
def test_a_model_whose_folder_cannot_be_renamed_keeps_its_records(
    folder: Path,
    recording: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer_and_judge("houses")

    def refuse(path: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "rename", refuse)
    assert main(["rename", "houses", "homes"]) == 1
    assert "homes cannot be written: Permission denied" in capsys.readouterr().err
    assert (recorded("houses"), recorded("homes")) == ((1, 1, 1), (0, 0, 0))
    assert artifacts.names(folder) == ["houses", "regression"]


def test_checked_rows_pass_through(houses: pd.DataFrame, empty_folder: Path) -> None:
    mlapp.publish(regression(houses), houses[INPUTS], houses["price"], name="houses", say=quiet)
    model = store.open_model(empty_folder, "houses")
    batch = model.check(houses[INPUTS])
    assert isinstance(batch, Checked)
    assert model.check(batch) is batch


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("classifies", [False, True])
def test_a_published_version_carries_its_losses_and_its_reference(
    held: bool, classifies: bool, houses: pd.DataFrame, empty_folder: Path
) -> None:
    model, target = (classifier(houses), "cheap") if classifies else (regression(houses), "price")
    seen = (houses[INPUTS][:100], houses[target][:100]) if held else None
    data = houses[100:] if held else houses
    published = mlapp.publish(
        model, data[INPUTS], data[target], name="houses", held_out=seen, say=quiet
    )
    losses = json.loads(published.files["report.json"])["losses"]
    assert losses["metric"] == ("log loss" if classifies else "squared error")
    rows = len(houses[[*INPUTS, target]].drop_duplicates())
    known = len(data[[*INPUTS, target]].drop_duplicates()) if held else 0
    assert len(losses["values"]) == rows - known
    assert reference.read(empty_folder, "houses", 1)


@pytest.mark.slow
@pytest.mark.parametrize("held", [False, True])
def test_fresh_rows_of_the_same_distribution_are_no_drift(held: bool, empty_folder: Path) -> None:
    """A forest is surer of the rows that it remembers than of any others."""
    inputs = ["a", "b", "c"]
    table, kept, fresh = (
        noise(rows, seed).assign(label=lambda each: np.where(each["y"] > 0, "high", "low"))
        for rows, seed in ((2000, 0), (1000, 1), (1000, 2))
    )
    forest = RandomForestClassifier(50, random_state=0).fit(table[inputs], table["label"])
    mlapp.publish(
        forest, table[inputs], table["label"], "forest",
        held_out=(kept[inputs], kept["label"]) if held else None, say=quiet,
    )  # fmt: skip
    states = drift_of(fresh, empty_folder, "forest")
    assert set(states.values()) == {"green"}, states


def drift_of(fresh: pd.DataFrame, root: Path, name: str) -> dict[str, str]:
    """Return the state of each series of a model where rows are its requests."""
    model, known = store.open_model(root, name), reference.read(root, name, 1)
    assert known is not None
    batch = model.check(fresh)
    live = bins.columns(model, bins.inputs(model, batch), model.answer(batch))
    return {
        f"{series.kind} {series.name}": drift.compare(
            series, cut, known.get(series, {}), cut.count(live[series])
        ).state
        for series, cut in bins.binnings(model).items()
    }


@pytest.mark.parametrize("leaves", [4, 30])
def test_the_few_answers_of_a_tree_are_no_drift_because_other_trees_have_others(
    leaves: int, empty_folder: Path
) -> None:
    inputs = ["a", "b", "c"]
    table = noise(1000, 0)
    tree = DecisionTreeRegressor(max_leaf_nodes=leaves).fit(table[inputs], table["y"])
    mlapp.publish(tree, table[inputs], table["y"], "tree", say=quiet)
    states = drift_of(noise(1000, 1)[inputs], empty_folder, "tree")
    assert set(states.values()) == {"green"}, states
    moved = drift_of(noise(500, 2)[inputs] + 0.5, empty_folder, "tree")
    assert moved["answer y"] == "act", moved


def test_answers_to_rows_that_a_model_was_fitted_on_are_no_reference(empty_folder: Path) -> None:
    inputs = ["a", "b", "c"]
    table = noise(1000, 0)
    table["y"] = np.where(table["y"].rank() > 990, "high", "low")
    table.loc[table["y"] == "high", inputs] = table.loc[table["y"] == "high", inputs].iloc[0]
    forest = RandomForestClassifier(10, random_state=0).fit(table[inputs], table["y"])
    published = mlapp.publish(forest, table[inputs], table["y"], "forest", say=quiet)
    assert published.manifest.training["measured"] == "in-sample"
    states = drift_of(noise(200, 1)[inputs], empty_folder, "forest")
    assert (states["answer y"], states["unsure y"]) == ("unknown", "unknown")
    assert states["input a"] != "unknown"


def test_new_rows_of_known_categories_are_held_out(empty_folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"a": rng.integers(0, 40, 3000).astype(str), "b": rng.choice(list("xyz"), 3000)}
    )
    usual = np.where(rows["a"].astype(int) % 2, "no", "yes")
    y = np.where(rng.random(3000) < 0.03, np.where(usual == "no", "yes", "no"), usual)
    fitted = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(
        rows[:1000], y[:1000]
    )
    made = mlapp.publish(
        fitted, rows[:1000], y[:1000], "clubs", held_out=(rows[1000:], y[1000:]), say=quiet
    )
    assert made.manifest.metrics["held_out"] == 2000
    right = float(np.mean(fitted.predict(rows[1000:]) == y[1000:]))
    assert made.manifest.metrics["accuracy"] == pytest.approx(right)


def test_a_model_without_an_answer_to_some_rows_is_not_cross_validated(empty_folder: Path) -> None:
    x = np.random.default_rng(0).normal(size=(300, 1))
    lines: list[str] = []
    fitted = IsotonicRegression().fit(x, x[:, 0])
    made = mlapp.publish(fitted, x, x[:, 0], "rising", say=lines.append)
    assert any("rows get no finite answer" in line for line in lines)
    assert made.manifest.training["measured"] == "in-sample"


def test_a_model_that_answers_at_random_is_refused(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    fitted = DummyClassifier(strategy="stratified").fit(houses[INPUTS], houses["cheap"])
    with pytest.raises(InvalidData, match="gives equal rows different answers"):
        mlapp.publish(fitted, houses[INPUTS], houses["cheap"], "dice", say=quiet)


def test_columns_of_one_name_are_refused(houses: pd.DataFrame, empty_folder: Path) -> None:
    rows = houses[INPUTS[:1] * 2]
    fitted = LinearRegression().fit(rows.to_numpy(), houses["price"])
    with pytest.raises(InvalidData, match="several columns named"):
        mlapp.publish(fitted, rows, houses["price"], "twins", say=quiet)


def test_a_label_may_be_called_NA(empty_folder: Path) -> None:  # noqa: N802
    x = np.random.default_rng(0).normal(size=(300, 2))
    y = np.where(x[:, 0] > 0, "NA", "EU")
    rows = pd.DataFrame(x, columns=["a", "b"])
    made = mlapp.publish(LogisticRegression().fit(rows, y), rows, y, "regions", say=quiet)
    assert made.manifest.labels == ("EU", "NA")


def test_a_model_that_would_answer_requests_otherwise_is_refused(empty_folder: Path) -> None:
    rows = pd.DataFrame({"shop": pd.Categorical([1, 2, 3] * 40), "x": np.arange(120.0)})
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["shop"]), remainder="passthrough"
    )
    target = rows["shop"].astype(float) * 100 + rows["x"]
    fitted = make_pipeline(encode, LinearRegression()).fit(rows, target)
    with pytest.raises(InvalidData, match=r"answer requests differently .* 'shop'"):
        mlapp.publish(fitted, rows, target, "stores", say=quiet)


def test_a_classifier_with_a_threshold_of_its_own_is_refused(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    fitted = FixedThresholdClassifier(classifier(houses), threshold=0.95).fit(
        houses[INPUTS], houses["cheap"]
    )
    with pytest.raises(InvalidData, match="a label other than the most likely"):
        mlapp.publish(fitted, houses[INPUTS], houses["cheap"], "mine", say=quiet)


# --- models that do not fit the data ---------------------------------------------------------


@pytest.fixture
def lots() -> pd.DataFrame:
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {"area": random.uniform(30, 200, 300), "rooms": random.integers(1, 7, 300)}
    )
    logs = 10 + table["area"] / 100 + table["rooms"] * 0.1 + random.normal(size=300) * 0.05
    return table.assign(price=np.exp(logs), dear=np.where(logs > 11.5, "dear", "cheap"))


LOTS = ["area", "rooms"]


@pytest.mark.parametrize("wrong", ["logarithm", "order"])
def test_a_model_of_another_target_or_of_columns_in_another_order_is_refused(
    wrong: str, lots: pd.DataFrame, empty_folder: Path
) -> None:
    forest = RandomForestRegressor(20, random_state=0)
    if wrong == "logarithm":
        forest.fit(lots[LOTS], np.log(lots["price"]))
    else:
        forest.fit(lots[LOTS[::-1]].to_numpy(), lots["price"])
    with pytest.raises(InvalidData) as caught:
        mlapp.publish(forest, lots[LOTS], lots["price"], "lots", say=quiet)
    given = lots[LOTS] if wrong == "logarithm" else lots[LOTS].to_numpy()
    error = root_mean_squared_error(lots["price"], forest.predict(given))
    assert f"a root mean squared error of {error:,.6g} on the rows of the data" in str(caught.value)
    assert f"the mean of the target ({lots['price'].std(ddof=0):,.6g})" in str(caught.value)
    for cause in ("its logarithm", "columns in another order", "other spellings"):
        assert cause in str(caught.value)
    assert artifacts.names(empty_folder) == []


def test_a_classifier_of_columns_in_another_order_is_refused(
    lots: pd.DataFrame, empty_folder: Path
) -> None:
    forest = RandomForestClassifier(20, random_state=0)
    forest.fit(lots[LOTS[::-1]].to_numpy(), lots["dear"])
    with pytest.raises(InvalidData, match=r"log loss of .* worse than the labels' shares"):
        mlapp.publish(forest, lots[LOTS], lots["dear"], "lots", say=quiet)


def test_a_model_that_is_worse_than_its_clones_has_figures_and_intervals_of_its_own_errors(
    lots: pd.DataFrame, empty_folder: Path
) -> None:
    """It was fitted on other spellings of a district, which it does not know."""
    district = np.where(lots["price"] > 200_000, "north", "south")
    fitted = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["district"]), remainder="passthrough"
        ),
        RandomForestRegressor(20, random_state=0),
    )
    fitted.fit(lots[LOTS].assign(district=np.char.upper(district)), lots["price"])
    rows = lots[LOTS].assign(district=district)
    lines: list[str] = []
    made = mlapp.publish(fitted, rows, lots["price"], "lots", say=lines.append)
    [warning] = [line for line in lines if "clones fitted to these rows" in line]
    assert "may have been in its training" in warning
    assert made.manifest.training["measured"] == "in-sample"
    assert made.manifest.metrics["r2_in_sample"] == pytest.approx(fitted.score(rows, lots["price"]))
    model = store.open_model(empty_folder, "lots")
    assert isinstance(model, RegressionModel)
    predicted = model.predict(rows)
    inside = lots["price"].between(predicted["lower"], predicted["upper"])
    assert inside.mean() == pytest.approx(0.9, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        LinearRegression(),
        RandomForestRegressor(10, random_state=0),
        KNeighborsRegressor(),
        GradientBoostingRegressor(loss="quantile", alpha=0.9, n_estimators=20),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_weak_model_of_another_sample_is_published_without_a_warning(
    estimator: Any, empty_folder: Path
) -> None:
    table, other = (noise(300, seed).assign(y=lambda each: each["y"] * 3) for seed in (0, 1))
    inputs = ["a", "b", "c"]
    lines: list[str] = []
    estimator.fit(other[inputs], other["y"])
    made = mlapp.publish(estimator, table[inputs], table["y"], "weak", say=lines.append)
    assert not any("Warning" in line for line in lines)
    assert made.manifest.training["measured"] == "cross-validated"


def test_a_model_that_is_worse_than_the_mean_on_held_out_rows_is_warned_of(
    lots: pd.DataFrame, empty_folder: Path
) -> None:
    forest = RandomForestRegressor(20, random_state=0)
    forest.fit(lots[LOTS][:200], np.log(lots["price"][:200]))
    kept = lots[200:]
    lines: list[str] = []
    made = mlapp.publish(
        forest, lots[LOTS][:200], lots["price"][:200], "lots",
        held_out=(kept[LOTS], kept["price"]), say=lines.append,
    )  # fmt: skip
    [warning] = [line for line in lines if line.startswith("Warning")]
    assert "on the held-out rows, worse than the mean of the target" in warning
    assert float(str(made.manifest.metrics["r2"])) < 0


# --- rows that cannot be answered, or only otherwise -----------------------------------------


def cities(rows: int) -> pd.DataFrame:
    """Return rows of three cities whose target follows from them and a number."""
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {"a": random.normal(size=rows), "city": random.choice(["Oslo", "Pisa", "Rome"], rows)}
    )
    return table.assign(y=table["a"] + table["city"].map({"Oslo": 0, "Pisa": 5, "Rome": 9}))


def strict(estimator: Any, column: str, table: pd.DataFrame) -> Any:
    """Return a fitted pipeline that answers no category that it has not seen."""
    encoder = make_column_transformer((OneHotEncoder(), [column]), remainder="passthrough")
    return make_pipeline(encoder, estimator).fit(table[["a", column]], table["y"])


def test_a_value_that_is_changed_in_a_late_row_alone_is_found(empty_folder: Path) -> None:
    table = cities(2500)
    table.loc[2300:, "city"] = " Pisa"
    fitted = strict(Ridge(), "city", table)
    with pytest.raises(InvalidData, match=r"answer requests .* as row 2,301: .* 'city'"):
        mlapp.publish(fitted, table[["a", "city"]], table["y"], "late", say=quiet)
    assert artifacts.names(empty_folder) == []


def test_a_label_that_is_not_the_likeliest_in_late_rows_alone_is_found(
    empty_folder: Path,
) -> None:
    x = np.repeat([-10.0, 10.0, 0.5], [1250, 1250, 500])[:, None]
    y = np.where(x[:, 0] > 0, "high", "low")
    y[-150:] = "low"
    fitted = FixedThresholdClassifier(LogisticRegression(), threshold=0.95, pos_label="high")
    fitted.fit(x, y)
    with pytest.raises(InvalidData, match="gives 17% of the rows a label other than"):
        mlapp.publish(fitted, x, y, "mine", say=quiet)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"city": "Bergen"}, r"row 2,401 of the data: Found unknown categories \['Bergen'\]"),
        ({"a": np.nan}, "row 2,401 of the data: Input X contains NaN"),
    ],
    ids=["category", "missing"],
)
@pytest.mark.parametrize("held", [False, True])
def test_a_row_that_the_model_cannot_answer_is_named(
    held: bool, bad: dict[str, Any], message: str, empty_folder: Path
) -> None:
    table = cities(2500)
    fitted = strict(Ridge(), "city", table)
    with_bad = table.assign(a=table["a"] + 1)
    for name, value in bad.items():
        with_bad.loc[2400:, name] = value
    data, kept = (table, (with_bad[["a", "city"]], with_bad["y"])) if held else (with_bad, None)
    expected = message.replace("the data", "the held-out rows") if held else message
    with pytest.raises(InvalidData, match=f"Pipeline cannot answer {expected}"):
        mlapp.publish(fitted, data[["a", "city"]], data["y"], "strict", held_out=kept, say=quiet)


def test_a_model_that_has_no_answer_between_the_numbers_of_the_data_is_published(
    empty_folder: Path,
) -> None:
    table = cities(200)
    table["code"] = table["city"].map({"Oslo": 101, "Pisa": 104, "Rome": 110})
    fitted = strict(KNeighborsRegressor(), "code", table)
    mlapp.publish(fitted, table[["a", "code"]], table["y"], "codes", say=quiet)
    model = store.open_model(empty_folder, "codes")
    assert model.manifest.golden
    replay(model)


def test_a_model_without_neighbours_far_away_is_published(empty_folder: Path) -> None:
    table = noise(300, 0)
    rows, wanted = table[["a", "b"]], table["y"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, about each row without neighbours
        fitted = RadiusNeighborsRegressor(0.5).fit(rows, wanted)
        mlapp.publish(fitted, rows, wanted, "radius", say=quiet)
        replay(store.open_model(empty_folder, "radius"))


def test_targets_that_cannot_be_squared_are_refused(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    rows, wanted = houses[["area"]].fillna(50), houses["price"] * 1e200
    with pytest.raises(InvalidData, match=r"values beyond 1e\+100; give it in a larger unit"):
        mlapp.publish(Ridge().fit(rows, wanted), rows, wanted, "huge", say=quiet)


def test_a_column_of_free_texts_is_refused(houses: pd.DataFrame, empty_folder: Path) -> None:
    rows = houses[["area"]].fillna(50).assign(note=[f"house {at}" for at in range(len(houses))])
    steps = make_column_transformer((TfidfVectorizer(), "note"), remainder="passthrough")
    fitted = make_pipeline(steps, Ridge()).fit(rows, houses["price"])
    with pytest.raises(InvalidData, match="Nearly every value of the column 'note' is different"):
        mlapp.publish(fitted, rows, houses["price"], "notes", say=quiet)


def test_categories_that_are_numbers_are_named_where_they_are_refused(empty_folder: Path) -> None:
    rows = pd.DataFrame({"shop": pd.Categorical([1, 2, 3] * 40), "x": np.arange(120.0)})
    target = rows["shop"].astype(float) * 100 + rows["x"]
    encode = make_column_transformer((OneHotEncoder(), ["shop"]), remainder="passthrough")
    fitted = make_pipeline(encode, LinearRegression()).fit(rows, target)
    with pytest.raises(InvalidData, match="those of 'shop' are numbers or Booleans"):
        mlapp.publish(fitted, rows, target, "stores", say=quiet)


def test_a_sparse_matrix_is_refused(houses: pd.DataFrame, empty_folder: Path) -> None:
    rows = csr_array(houses[["area", "rooms"]].fillna(3).to_numpy())
    with pytest.raises(InvalidData, match="are a sparse matrix, expected a data frame"):
        mlapp.publish(Ridge().fit(rows, houses["price"]), rows, houses["price"], "bad", say=quiet)


def test_an_empty_skops_file_is_refused(
    houses_file: Path, empty_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.skops").touch()
    command = ["publish", str(tmp_path / "model.skops"), "--data", str(houses_file)]
    assert main([*command, "--target", "price", "--name", "bad"]) == 1
    assert "model.skops is not a skops file: it is empty" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bool", "boolean"])
def test_truths_are_labels_of_a_model_that_counts_them(dtype: str, empty_folder: Path) -> None:
    table = noise(200, 0)
    rows, truths = table[["a", "b", "c"]], pd.Series(table["y"] > 0, dtype=dtype)
    fitted = XGBClassifier(n_estimators=5, n_jobs=1).fit(rows, truths.astype(bool))
    made = mlapp.publish(fitted, rows, truths, "truths", say=quiet)
    assert made.manifest.labels == ("0", "1")


@pytest.mark.parametrize(
    ("hour", "labels"),
    [
        ("00:00", ("2023-01-01", "2024-01-01")),
        ("05:30", ("2023-01-01 05:30:00", "2024-01-01 05:30:00")),
    ],
)
def test_labels_that_are_days_or_times_are_texts(
    hour: str, labels: tuple[str, str], empty_folder: Path
) -> None:
    table = noise(200, 0)
    rows = table[["a", "b", "c"]]
    years = np.where(table["y"] > 0, "2024", "2023")
    target = np.array([f"{year}-01-01T{hour}" for year in years], dtype="datetime64[ns]")
    fitted = LogisticRegression().fit(rows, target)
    made = mlapp.publish(fitted, rows, target, "years", say=quiet)
    assert made.manifest.labels == labels


def test_a_model_is_published_with_one_openmp_thread(
    houses: pd.DataFrame, empty_folder: Path
) -> None:
    """Several would wait for each other, for minutes, on a machine that is busy."""
    found: set[int] = set()

    def look(line: str) -> None:
        pools = threadpool_info()
        found.update(each["num_threads"] for each in pools if each["user_api"] == "openmp")

    with threadpool_limits(3, user_api="openmp"):
        mlapp.publish(classifier(houses), houses[INPUTS], houses["cheap"], "cheap", say=look)
    assert found == {1}
