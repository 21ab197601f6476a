"""Rows that pass the check and get no answer are refused alone, and every door says which."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_transformer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder
from werkzeug.test import Client

import mlapp
from mlapp.cli import main
from mlapp.errors import InvalidInput
from mlapp.families.classification import ClassificationModel
from mlapp.families.regression import RegressionModel
from mlapp.schema import Category
from mlapp.service import create_app
from mlapp.store import open_model
from tests.conftest import client_of, use_artifacts
from tests.test_pages import page, predict, texts

GOOD, BAD = {"area": 50.0, "district": 102}, {"area": -1.0, "district": 102}
NAN = "price: got nan from the model for this row, expected a finite number"
DISTRICTS = "district: got 103, expected one of '101', '102', '104', '110'"

Served = RegressionModel | ClassificationModel
Publish = Callable[..., Served]


@pytest.fixture(scope="module")
def houses() -> pd.DataFrame:
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "area": random.uniform(20, 200, 200).round(1),
            "district": random.choice([101, 102, 104, 110], 200),
        }
    )
    table["price"] = 90 * np.log(table["area"]) + table["district"] + random.normal(size=200)
    return table


def publish_to(root: Path, estimator: Any, inputs: pd.DataFrame, target: Any) -> Served:
    """Fit an estimator, publish it as `houses`, and open it."""
    estimator.fit(inputs, target)
    mlapp.publish(
        estimator, inputs, target, "houses", target="price", root=root, say=lambda line: None
    )
    model = open_model(root, "houses")
    assert isinstance(model, Served)
    return model


@pytest.fixture
def publish(houses: pd.DataFrame, empty_folder: Path) -> Publish:
    """Fit an estimator to the houses' prices, or to what is given, and publish it."""

    def publish(estimator: Any, target: Any = None, inputs: Any = None) -> Served:
        rows = houses[["area", "district"]] if inputs is None else inputs
        return publish_to(
            empty_folder, estimator, rows, houses["price"] if target is None else target
        )

    return publish


def logarithm() -> ColumnTransformer:
    """Return a preparation that has no finite number for an area of 0 or less."""
    return make_column_transformer((FunctionTransformer(np.log), ["area"]), remainder="passthrough")


def codes(encoder: Any) -> ColumnTransformer:
    return make_column_transformer((encoder, ["district"]), remainder="passthrough")


def refusal(model: Served, *rows: dict[str, Any]) -> str:
    """Return the message with which rows are refused."""
    with pytest.raises(InvalidInput) as caught:
        model.answer(model.check(list(rows)))
    return str(caught.value)


# --- answers that are not finite ----------------------------------------------------------------


def test_a_number_that_is_not_finite_is_no_answer(publish: Publish) -> None:
    model = publish(make_pipeline(logarithm(), LinearRegression()))
    assert model.manifest.training["served"] == "onnx"
    assert refusal(model, GOOD, BAD) == f"row 1, {NAN}"
    zero = BAD | {"area": 0.0}
    assert "row 0, price: got -inf from the model" in refusal(model, zero)
    with pytest.raises(InvalidInput, match=f"^row second, {NAN}$"):
        model.predict(pd.DataFrame([GOOD, BAD], index=["first", "second"]))


def test_a_prediction_that_overflows_is_no_answer(publish: Publish, houses: pd.DataFrame) -> None:
    estimator = TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1)
    model = publish(estimator, houses["area"] / 50)
    assert "row 1, price: got inf from the model" in refusal(model, GOOD, BAD | {"area": 1e9})


def test_a_label_without_a_probability_is_no_answer(publish: Publish, houses: pd.DataFrame) -> None:
    dear = houses["price"] > houses["price"].median()
    model = publish(make_pipeline(logarithm(), LogisticRegression()), dear)
    assert refusal(model, GOOD, BAD) == f"row 1, {NAN}"


def test_a_row_at_which_scikit_learn_raises_has_no_answer(publish: Publish) -> None:
    model = publish(make_pipeline(logarithm(), KNeighborsRegressor()))
    assert model.manifest.training["served"] == "scikit-learn"
    rows = [GOOD, BAD, GOOD, GOOD, BAD]
    said = refusal(model, *rows)
    assert said.count("price: got no answer from the model (Input X contains NaN.)") == 2
    assert "row 1, " in said
    assert "row 4, " in said
    alone = model.answer(model.check([GOOD])).records()
    assert model.answer(model.check([GOOD] * 3)).records() == alone * 3


def test_a_fault_of_the_software_is_not_blamed_on_a_row(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = publish(make_pipeline(logarithm(), KNeighborsRegressor()))

    def fail(self: Any, rows: Any) -> None:
        raise AttributeError("n_samples_fit_")

    monkeypatch.setattr(KNeighborsRegressor, "predict", fail)
    with pytest.raises(AttributeError):
        model.answer(model.check([GOOD]))


def publish_lengths(publish: Publish, houses: pd.DataFrame) -> Served:
    """Publish the logarithm of end - start, which has none for the start and end of two rows."""
    start = pd.Series(np.random.default_rng(1).uniform(0, 1000, len(houses)))
    inputs = pd.DataFrame({"start": start, "end": start + houses["area"]})
    length = TransformedTargetRegressor(
        LinearRegression(), func=np.exp2, inverse_func=np.log2, check_inverse=False
    )
    return publish(length, np.log2(houses["area"]), inputs)


def test_reasons_that_are_not_finite_are_refused(publish: Publish, houses: pd.DataFrame) -> None:
    model = publish_lengths(publish, houses)
    batch = model.check([{"start": 100, "end": 150}])
    assert model.answer(batch).records()[0]["prediction"] == pytest.approx(np.log2(50))
    with pytest.raises(InvalidInput, match="row 0, price: got reasons from the model that are not"):
        model.reasons(batch)


@pytest.mark.slow(3)
def test_a_page_shows_that_a_row_has_no_answer_or_no_reasons(
    publish: Publish, houses: pd.DataFrame
) -> None:
    publish_lengths(publish, houses)
    app = predict(page(), {"start": 100.0, "end": 150.0})
    assert app.metric[0].value.startswith("5.6")
    assert "price: got reasons from the model that are not finite numbers" in texts(app)
    assert NAN in texts(predict(app, {"end": 50.0}))


def test_what_if_has_gaps_where_there_is_no_answer(publish: Publish) -> None:
    model = publish(make_pipeline(logarithm(), LinearRegression()))
    moved = model.what_if(GOOD | {"area": 200.0}, "area", points=5)
    assert moved["prediction"].notna().all()
    # The range is widened to the row's own value, which here has no answer.
    moved = model.what_if(BAD, "area", points=5)
    assert moved["area"].tolist() == pytest.approx(np.linspace(-1, moved["area"].max(), 5))
    assert moved["prediction"].isna().tolist() == [True, False, False, False, False]


# --- codes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "served"),
    [
        (make_pipeline(codes(OneHotEncoder()), LinearRegression()), "onnx"),
        (make_pipeline(codes(OrdinalEncoder()), LinearRegression()), "onnx"),
        (make_pipeline(codes(OneHotEncoder()), KNeighborsRegressor()), "scikit-learn"),
    ],
    ids=["one-hot", "ordinal", "neighbours"],
)
def test_numbers_that_an_encoder_does_not_know_are_refused(
    estimator: Any, served: str, publish: Publish, houses: pd.DataFrame
) -> None:
    model = publish(estimator)
    assert model.manifest.training["served"] == served
    assert isinstance(model.schema["district"], Category)
    for unknown in (103, 102.5, 7):
        said = refusal(model, GOOD, GOOD | {"district": unknown})
        assert said == f"row 1, {DISTRICTS.replace('103', str(unknown))}"
    for known in (102, 102.0, "102"):
        model.check([GOOD | {"district": known}])
    rows = houses[["area", "district"]]
    np.testing.assert_allclose(model.predict(rows)["prediction"], estimator.predict(rows))


def test_numbers_that_an_encoder_ignores_are_numbers(publish: Publish) -> None:
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = publish(make_pipeline(codes(encoder), LinearRegression()))
    assert not isinstance(model.schema["district"], Category)
    assert len(model.answer(model.check([GOOD | {"district": 103}]))) == 1


def test_codes_may_be_missing_where_training_saw_it(publish: Publish, houses: pd.DataFrame) -> None:
    inputs = houses[["area", "district"]].astype(float)
    inputs.loc[::7, "district"] = np.nan
    estimator = make_pipeline(codes(OneHotEncoder()), LinearRegression())
    model = publish(estimator, inputs=inputs)
    np.testing.assert_allclose(model.predict(inputs)["prediction"], estimator.predict(inputs))
    assert "or no value" in refusal(model, GOOD | {"district": 103})


def test_numbers_beyond_a_fixed_range_are_no_codes(publish: Publish, houses: pd.DataFrame) -> None:
    model = publish(IsotonicRegression(out_of_bounds="raise"), inputs=houses[["area"]])
    assert not isinstance(model.schema["area"], Category)
    assert "row 1, price: got no answer from the model (A value" in refusal(
        model, {"area": 50.0}, {"area": 1000.0}
    )


# --- every door -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(houses: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact folder with a model that scikit-learn serves, and that refuses areas below 0."""
    root = tmp_path_factory.mktemp("artifacts")
    estimator = make_pipeline(logarithm(), KNeighborsRegressor())
    publish_to(root, estimator, houses[["area", "district"]], houses["price"])
    return root


@pytest.fixture
def client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    use_artifacts(folder, monkeypatch)
    return client_of(create_app())


SAID = "price: got no answer from the model (Input X contains NaN.), expected a finite number"


@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_v1_says_which_row_has_no_answer(client: Client, verb: str) -> None:
    given = {"instances": [GOOD, BAD]}
    response = client.post(f"/v1/models/houses:{verb}", json=given)
    assert response.status_code == 422
    assert response.json is not None
    [fault] = response.json["faults"]
    assert (fault["row"], fault["input"], fault["expected"]) == (1, "price", "a finite number")


def test_v2_says_which_row_has_no_answer(client: Client) -> None:
    inputs = [
        {"name": name, "shape": [2], "datatype": "FP64", "data": [GOOD[name], BAD[name]]}
        for name in GOOD
    ]
    response = client.post("/v2/models/houses/infer", json={"inputs": inputs})
    assert response.status_code == 422
    assert response.json is not None
    assert response.json["error"] == f"row 1, {SAID}"


def test_the_form_says_that_a_row_has_no_answer(client: Client) -> None:
    response = client.post("/predict?_model=houses", data=BAD)
    assert response.status_code == 422
    assert f"<li>{SAID}</li>" in response.text
    assert 'value="-1.0"' in response.text


def test_the_command_says_that_a_row_has_no_answer(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "houses", "--area", "-1", "--district", "102"]
    assert main(["predict", *words]) == 1
    assert capsys.readouterr().err == f"error: {SAID}\n"


@pytest.mark.parametrize("explain", [[], ["--explain"]], ids=["plain", "explained"])
def test_a_file_is_scored_but_for_the_rows_without_an_answer(
    client: Client, tmp_path: Path, explain: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [GOOD, BAD, {"area": "large", "district": 102}, GOOD, BAD]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["score", str(source), "-o", str(target), "--model", "houses", *explain]
    assert main(command) == 3
    scored = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["error"] for row in scored] == [
        None,
        SAID,
        "area: got 'large', expected a finite number",
        None,
        SAID,
    ]
    assert [row["prediction"] is None for row in scored] == [False, True, True, False, True]
    assert "3" in capsys.readouterr().err


def test_a_file_whose_rows_are_all_refused_is_written(client: Client, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("area,district\n-1,102\nlarge,102\n")
    assert main(["score", str(source), "-o", str(target), "--model", "houses"]) == 3
    assert pd.read_csv(target)["error"].notna().all()
