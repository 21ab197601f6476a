"""Compiled estimators answer as the estimators do, and others are served by scikit-learn."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import ensemble, linear_model, neural_network, preprocessing, tree
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.impute import SimpleImputer
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVR

from mlapp.errors import InvalidData
from mlapp.families.engines import Layout
from mlapp.schema import Checked
from tests.conftest import make_houses
from training.compile import compile_estimator
from training.graph import Graph
from training.tables import learn_schema

lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")

NUMBERS, TEXTS = ["area", "rooms"], ["district"]
KINDS = Layout({"area": "float", "rooms": "float", "district": "text"})


@pytest.fixture(scope="module")
def houses() -> pd.DataFrame:
    table = make_houses()
    table["district"] = table["district"].astype(object)
    table.loc[::23, "district"] = None
    return table


@pytest.fixture(scope="module")
def rows(houses: pd.DataFrame) -> Checked:
    inputs = houses.drop(columns="price")
    return learn_schema(inputs, houses["price"]).check(inputs)


def prepared(**one_hot: Any) -> ColumnTransformer:
    """Return the usual preparation of a table with numbers, categories and missing values."""
    return make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), preprocessing.StandardScaler()), NUMBERS),
        (
            make_pipeline(
                SimpleImputer(strategy="constant", fill_value="none"),
                preprocessing.OneHotEncoder(**one_hot),
            ),
            TEXTS,
        ),
    )


def ordinal() -> ColumnTransformer:
    encoder = preprocessing.OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1
    )
    return make_column_transformer(("passthrough", NUMBERS), (encoder, TEXTS))


REGRESSORS = [
    make_pipeline(prepared(), linear_model.Ridge()),
    make_pipeline(prepared(drop="first"), linear_model.LinearRegression()),
    make_pipeline(prepared(), preprocessing.PolynomialFeatures(2), linear_model.RidgeCV()),
    make_pipeline(prepared(), linear_model.PoissonRegressor()),
    make_pipeline(prepared(), tree.DecisionTreeRegressor()),
    make_pipeline(prepared(), ensemble.RandomForestRegressor(20, random_state=0)),
    make_pipeline(ordinal(), ensemble.ExtraTreesRegressor(20, random_state=0)),
    make_pipeline(prepared(), ensemble.GradientBoostingRegressor(n_estimators=20)),
    make_pipeline(ordinal(), ensemble.HistGradientBoostingRegressor(categorical_features=[2])),
    make_pipeline(ordinal(), ensemble.HistGradientBoostingRegressor(loss="poisson", max_iter=9)),
    make_pipeline(
        prepared(),
        neural_network.MLPRegressor(
            hidden_layer_sizes=(8, 4), max_iter=2000, tol=10, random_state=0
        ),
    ),
    make_pipeline(
        prepared(),
        TransformedTargetRegressor(linear_model.Ridge(), func=np.log1p, inverse_func=np.expm1),
    ),
    make_pipeline(
        prepared(),
        ensemble.VotingRegressor(
            [("a", linear_model.Ridge()), ("b", tree.DecisionTreeRegressor())], weights=[2, 1]
        ),
    ),
    make_pipeline(
        make_column_transformer(
            (
                make_pipeline(SimpleImputer(add_indicator=True), preprocessing.RobustScaler()),
                NUMBERS,
            )
        ),
        preprocessing.MinMaxScaler(),
        linear_model.HuberRegressor(max_iter=1000),
    ),
    make_pipeline(prepared(), DummyRegressor()),
    make_pipeline(ordinal(), xgboost.XGBRegressor(n_estimators=30)),
    make_pipeline(ordinal(), lightgbm.LGBMRegressor(n_estimators=30, verbose=-1)),
]

CLASSIFIERS = [
    make_pipeline(prepared(), linear_model.LogisticRegression()),
    make_pipeline(prepared(), LinearDiscriminantAnalysis()),
    make_pipeline(prepared(), linear_model.SGDClassifier(loss="log_loss")),
    make_pipeline(prepared(), tree.DecisionTreeClassifier(max_depth=4)),
    make_pipeline(prepared(), ensemble.RandomForestClassifier(20, random_state=0)),
    make_pipeline(prepared(), ensemble.GradientBoostingClassifier(n_estimators=9)),
    make_pipeline(
        ordinal(), ensemble.HistGradientBoostingClassifier(categorical_features=[2], max_iter=20)
    ),
    make_pipeline(
        prepared(),
        neural_network.MLPClassifier(
            hidden_layer_sizes=(8,), max_iter=2000, tol=1e-2, random_state=0
        ),
    ),
    make_pipeline(prepared(), DummyClassifier()),
    make_pipeline(
        prepared(),
        ensemble.VotingClassifier(
            [("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier())],
            voting="soft",
        ),
    ),
    make_pipeline(ordinal(), xgboost.XGBClassifier(n_estimators=9)),
    make_pipeline(ordinal(), lightgbm.LGBMClassifier(n_estimators=9, verbose=-1)),
]


def name_of(estimator: Any) -> str:
    return type(estimator.steps[-1][1]).__name__


@pytest.mark.slow
@pytest.mark.parametrize("estimator", REGRESSORS, ids=name_of)
def test_a_regressor_is_compiled_and_gives_the_same_numbers(
    estimator: Any, houses: pd.DataFrame, rows: Checked
) -> None:
    estimator.fit(*prepare(houses, estimator))
    found = compile_estimator({"prediction": estimator}, rows, KINDS)
    assert found.report["form"] == "onnx", found.report
    assert found.report["largest_difference"] <= 1e-6
    assert found.report["rows"] == len(houses)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=name_of)
def test_a_classifier_is_compiled_and_gives_the_same_probabilities(
    labels: int, estimator: Any, houses: pd.DataFrame, rows: Checked
) -> None:
    target = pd.qcut(houses["price"], labels, labels=False)
    estimator.fit(prepare(houses, estimator)[0], target)
    found = compile_estimator({"probabilities": estimator}, rows, KINDS)
    assert found.report["form"] == "onnx", found.report


def prepare(houses: pd.DataFrame, estimator: Any) -> tuple[pd.DataFrame, pd.Series]:
    """Return inputs and target, with NaN for missing as pandas reads it."""
    inputs = houses.drop(columns="price")
    return inputs.where(inputs.notna(), np.nan), houses["price"]


@pytest.mark.parametrize("method", ["sigmoid"])
def test_calibrated_probabilities_are_compiled(
    method: str, houses: pd.DataFrame, rows: Checked
) -> None:
    inner = linear_model.LogisticRegression()
    estimator = make_pipeline(prepared(), CalibratedClassifierCV(inner, method=method))
    estimator.fit(prepare(houses, estimator)[0], houses["price"] > 400)
    found = compile_estimator({"probabilities": estimator}, rows, KINDS)
    assert found.report["form"] == "onnx", found.report


@pytest.mark.slow
def test_categories_that_boosting_splits_are_compiled_as_sets() -> None:
    random = np.random.default_rng(0)
    words = np.array([f"w{place:02d}" for place in range(60)])
    codes = random.integers(60, size=2000)
    table = pd.DataFrame({"word": words[codes], "size": random.normal(size=2000)})
    table["out"] = random.normal(size=60)[codes] * 5 + table["size"]
    table["word"] = table["word"].astype(object)
    table.loc[::9, "word"] = None
    schema = learn_schema(table[["word", "size"]], table["out"])
    rows = schema.check(table[["word", "size"]])
    estimator = ensemble.HistGradientBoostingRegressor(categorical_features=[0], max_iter=30)
    estimator.fit(rows.matrix, table["out"])
    found = compile_estimator({"prediction": estimator}, rows, "values")
    assert found.report["form"] == "onnx"
    assert found.report["largest_difference"] < 1e-9


@pytest.mark.slow
def test_an_interval_is_computed_by_the_same_graph(houses: pd.DataFrame, rows: Checked) -> None:
    estimators = {
        name: ensemble.HistGradientBoostingRegressor(
            loss="quantile", quantile=quantile, max_iter=20
        ).fit(rows.schema.encode(rows), houses["price"])
        for name, quantile in {"prediction": 0.5, "lower": 0.05, "upper": 0.95}.items()
    }
    found = compile_estimator(estimators, rows, "terms")
    assert list(found.engine.run(rows)) == ["prediction", "lower", "upper"]
    assert list(found.files) == ["model.onnx"]


@pytest.mark.slow
def test_a_row_is_answered_alike_whatever_rows_come_with_it(
    houses: pd.DataFrame, rows: Checked
) -> None:
    for estimator in (REGRESSORS[0], REGRESSORS[5], REGRESSORS[8], REGRESSORS[10]):
        estimator.fit(*prepare(houses, estimator))
        engine = compile_estimator({"prediction": estimator}, rows, KINDS).engine
        whole = engine.run(rows)["prediction"]
        alone = [
            engine.run(Checked(rows.schema, rows.matrix[place : place + 1]))["prediction"][0]
            for place in range(len(rows))
        ]
        assert whole.tolist() == alone


@pytest.mark.slow
def test_what_cannot_be_compiled_is_served_by_scikit_learn_itself(
    houses: pd.DataFrame, rows: Checked
) -> None:
    estimator = make_pipeline(prepared(), KNeighborsRegressor())
    estimator.fit(*prepare(houses, estimator))
    found = compile_estimator({"prediction": estimator}, rows, KINDS)
    assert found.report["form"] == "scikit-learn"
    assert "KNeighborsRegressor" in found.report["reason"]
    np.testing.assert_allclose(
        found.engine.run(rows)["prediction"], estimator.predict(prepare(houses, estimator)[0])
    )


def test_a_compiled_form_that_differs_is_not_served(
    houses: pd.DataFrame, rows: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = REGRESSORS[5].fit(*prepare(houses, REGRESSORS[5]))
    # Without the rounding to single precision, a row at a threshold takes another way.
    monkeypatch.setattr(Graph, "floats", lambda graph, tensor: tensor)
    found = compile_estimator({"prediction": estimator}, rows, KINDS)
    assert found.report["form"] == "scikit-learn"
    assert "differ by up to" in found.report["reason"]


class Doubled(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer of the publisher's own."""

    def fit(self, rows: Any, target: Any = None) -> "Doubled":
        self.fitted_ = True
        return self

    def transform(self, rows: Any) -> Any:
        return rows * 2


@pytest.mark.parametrize(
    "step",
    [Doubled(), preprocessing.FunctionTransformer(lambda rows: rows * 2)],
    ids=["a class", "a lambda"],
)
def test_code_of_the_publishers_is_refused(step: Any, houses: pd.DataFrame, rows: Checked) -> None:
    estimator = make_pipeline(prepared(), step, SVR()).fit(*prepare(houses, None))
    with pytest.raises(InvalidData, match="cannot be served"):
        compile_estimator({"prediction": estimator}, rows, KINDS)


def test_the_logits_of_a_linear_classifier_are_sums_though_it_is_certain_of_most_rows() -> None:
    inputs, target = load_breast_cancer(return_X_y=True, as_frame=True)
    schema = learn_schema(inputs, target.astype(float))
    rows = schema.check(inputs)
    estimator = make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(C=9))
    estimator.fit(rows.matrix, target)
    found = compile_estimator({"probabilities": estimator}, rows, "values")
    assert found.engine.additive


@pytest.mark.parametrize("strength", [1, 100])
def test_the_logits_of_two_labels_are_precise_on_either_side(strength: int) -> None:
    inputs, target = load_breast_cancer(return_X_y=True, as_frame=True)
    schema = learn_schema(inputs, target.astype(float))
    rows = schema.check(inputs)
    logistic = linear_model.LogisticRegression(C=strength, max_iter=5000)
    estimator = make_pipeline(preprocessing.StandardScaler(), logistic).fit(rows.matrix, target)
    found = compile_estimator({"probabilities": estimator}, rows, "values")
    assert found.engine.additive
    likely = found.engine.run(rows)["probabilities"]
    logits = np.log(likely[:, 1]) - np.log(likely[:, 0])
    assert logits == pytest.approx(estimator.decision_function(rows.matrix), abs=1e-6)


@pytest.fixture(scope="module")
def patients() -> tuple[pd.DataFrame, pd.Series, Checked, Layout]:
    """The diabetes data: inputs, target, the checked rows, and their layout."""
    inputs, target = load_diabetes(return_X_y=True, as_frame=True)
    rows = learn_schema(inputs, target).check(inputs)
    return inputs, target, rows, Layout(dict.fromkeys(inputs, "float"))


@pytest.mark.parametrize("trees", [100, 1000])
def test_xgboost_is_summed_as_it_sums_to_the_last_bit(trees: int, patients: Any) -> None:
    inputs, target, rows, layout = patients
    estimator = xgboost.XGBRegressor(n_estimators=trees, n_jobs=1).fit(inputs, target)
    found = compile_estimator({"prediction": estimator}, rows, layout)
    assert found.report["form"] == "onnx", found.report
    assert found.report["largest_difference"] == 0
    alone = [found.engine.run(Checked(rows.schema, row[None]))["prediction"][0]
             for row in rows.matrix[:50]]  # fmt: skip
    assert alone == estimator.predict(inputs[:50]).tolist()


@pytest.mark.slow
def test_xgboost_of_many_trees_counts_and_classifies(patients: Any) -> None:
    inputs, target, rows, layout = patients
    options = {"n_estimators": 300, "n_jobs": 1}
    counts = xgboost.XGBRegressor(objective="count:poisson", **options).fit(inputs, target)
    found = compile_estimator({"prediction": counts}, rows, layout)
    assert found.report["form"] == "onnx", found.report
    for labels in (2, 3):
        classes = pd.qcut(target, labels, labels=False)
        classifier = xgboost.XGBClassifier(**options).fit(inputs, classes)
        found = compile_estimator({"probabilities": classifier}, rows, layout)
        assert found.report["form"] == "onnx", found.report


def test_xgboost_that_stopped_early_is_compiled_up_to_its_best_tree(patients: Any) -> None:
    inputs, target, rows, layout = patients
    estimator = xgboost.XGBRegressor(n_estimators=500, early_stopping_rounds=5, n_jobs=1)
    estimator.fit(inputs[100:], target[100:], eval_set=[(inputs[:100], target[:100])], verbose=0)
    found = compile_estimator({"prediction": estimator}, rows, layout)
    assert found.report["largest_difference"] == 0, found.report


@pytest.mark.parametrize("kind", ["prediction", "probabilities"])
def test_lightgbm_may_tell_missing_values_from_all_others(kind: str) -> None:
    random = np.random.default_rng(0)
    present = np.where(random.random(400) < 0.2, np.nan, random.normal(size=400))
    inputs = pd.DataFrame({"size": random.normal(size=400), "age": present})
    target = inputs["size"] + 3 * inputs["age"].isna() + random.normal(size=400) / 5
    rows = learn_schema(inputs, target).check(inputs)
    boosted = lightgbm.LGBMRegressor if kind == "prediction" else lightgbm.LGBMClassifier
    estimator = boosted(n_jobs=1, verbose=-1)
    estimator.fit(inputs, target if kind == "prediction" else target > 1)
    assert "e+300" in str(estimator.booster_.dump_model())
    layout = Layout({"size": "float", "age": "float"})
    found = compile_estimator({kind: estimator}, rows, layout)
    assert found.report["form"] == "onnx", found.report
    assert found.report["largest_difference"] < 1e-12


def test_an_encoder_that_refuses_numbers_between_its_own_is_not_compiled() -> None:
    random = np.random.default_rng(0)
    inputs = pd.DataFrame({"code": random.integers(1, 5, 200), "size": random.normal(size=200)})
    target = inputs["code"] + inputs["size"]
    rows = learn_schema(inputs.astype(float), target).check(inputs)
    encoder = make_column_transformer(
        (preprocessing.OneHotEncoder(), ["code"]), remainder="passthrough"
    )
    estimator = make_pipeline(encoder, linear_model.LinearRegression()).fit(inputs, target)
    found = compile_estimator(
        {"prediction": estimator}, rows, Layout({"code": "int", "size": "float"})
    )
    assert found.report["form"] == "scikit-learn"
    assert "unknown categories" in found.report["reason"]
