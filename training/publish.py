"""Publish a fitted estimator: learn its inputs from data, measure it, and store what is served."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import KFold, StratifiedKFold

from mlapp import families
from mlapp.errors import InvalidData, quote
from mlapp.families.contract import replay
from mlapp.families.engines import Layout
from mlapp.families.regression import ANSWER, Answer
from mlapp.families.shapley import BACKGROUND as BACKGROUND_ROWS
from mlapp.families.table import BACKGROUND, REPORT, dump_background
from mlapp.manifest import Artifact, Data
from mlapp.schema import Checked, Floats, Schema, parse_text
from mlapp.settings import read_settings
from mlapp.store import artifacts
from training import measures
from training.compile import Compiled, compile_estimator, random_rows
from training.estimators import check_estimator, choose_columns, label_texts, names_of
from training.foreign import OnnxEstimator
from training.tables import Say, learn_schema

LEVEL = 0.9  # the share of new rows that an interval is meant to hold
FOLDS = 5  # of the cross-validation
SEED = 0
MOST_CATEGORIES = 10_000  # of a column
FEWEST = 20  # rows that an estimator is measured and its interval calibrated on
GOLDEN_ROWS = 5

NOT_HONEST = "measured on the model's own training rows, which flatters it"


@dataclass(frozen=True)
class Rows:
    """Rows of the data with their targets.

    Attributes:
        inputs: the columns that the estimator takes.
        target: numbers, or for a classifier its labels, (n,).
    """

    inputs: pd.DataFrame
    target: Any


@dataclass(frozen=True)
class Measured:
    """What was measured, and on what.

    Attributes:
        how: `held-out` or `cross-validated`; None where the rows are those of the training.
        target: of the rows, (n,): numbers, or places of labels.
        answers: predictions (n,), or probabilities (n, labels).
    """

    how: str | None
    target: Any
    answers: Floats


def publish(
    model: Any,
    X: Any,  # noqa: N803
    y: Any,
    name: str,
    *,
    held_out: tuple[Any, Any] | None = None,
    root: Path | None = None,
    level: float = LEVEL,
    source: Data | None = None,
    target: str | None = None,
    command: str = "",
    candidate: bool = False,
    say: Say = print,
) -> Artifact:
    """Publish a fitted estimator or pipeline as the next version of a model.

    It is measured on `held_out`, or by cross-validating a clone on the data, and a regressor's
    interval is calibrated on the same: on rows that the model has not seen. Where neither can be
    done it is measured on its own rows, saying so, and has no interval.

    Args:
        model: a fitted regressor or classifier of scikit-learn, or with its interface.
        X: the rows it was fitted on, or like them: a data frame, or an array (n, columns).
        y: their targets, (n,).
        name: the model's name.
        held_out: rows and targets that the model was not fitted on.
        root: the artifact folder; by default that of the settings.
        level: the share of new rows that an interval is meant to hold, between 0 and 1.
        source: what the data is; by default it is described from `X`.
        target: what is predicted; by default the name of `y`, or `target`.
        command: that publishes the model again, for the manifest.
        candidate: whether the version waits for `mlapp promote`.
        say: called with each line of the report.

    Raises:
        InvalidData: the model cannot be published, or the data does not fit it; the message says
            why.
        ArtifactError: the name cannot be used, or the folder cannot be published to.
    """
    if not 0 < level < 1:
        raise InvalidData(f"The level is {level}, expected a number between 0 and 1")
    classifies = check_estimator(model)
    data = _rows(model, X, y, classifies)
    seen = None if held_out is None else _rows(model, *held_out, classifies)
    target = target or str(getattr(y, "name", None) or "target")
    labels = label_texts(model.classes_) if classifies else None
    cleaned, layout = _lay_out(model, data.inputs)
    schema = _learn(cleaned, data.target, target, classifies)
    checked = schema.check(cleaned)
    compiled = compile_estimator(
        {"probabilities" if classifies else "prediction": model}, checked, layout
    )
    _say_form(compiled, say)
    measured = _measure(model, data, seen, classifies, say)
    files, metrics, report = _report(measured, labels, level, say)
    files |= compiled.files
    files[BACKGROUND] = dump_background(_background(checked))
    files[REPORT] = json.dumps(report | {"served": compiled.report}, allow_nan=False).encode()
    fields: dict[str, Any] = {
        "task": "classification" if classifies else "regression",
        "data": source or _describe(data),
        "training": {
            "command": command,
            "published": type(model).__name__,
            "target": target,
            "rows_used": len(data.inputs),
            "served": str(compiled.report["form"]),
            "measured": measured.how or "in-sample",
            **({"folds": FOLDS, "seed": SEED} if measured.how == "cross-validated" else {}),
        },
        "input_schema": schema,
        "labels": labels,
        "metrics": metrics,
    }
    published = _store(name, files, compiled, fields, checked, root, candidate)
    say(f"Published {published.path}")
    return published


def _store(
    name: str,
    files: Mapping[str, bytes],
    compiled: Compiled,
    fields: dict[str, Any],
    checked: Checked,
    root: Path | None,
    candidate: bool,
) -> Artifact:
    libraries = ("mlapp", "numpy", *compiled.libraries)
    first = families.from_artifact(artifacts.draft(name, files, libraries, golden=(), **fields))
    random = random_rows(checked, {}, GOLDEN_ROWS)
    rows = [checked.schema.typical, *map(random.row, range(len(random)))]
    answers = first.answer(first.check(rows)).records()
    golden = [{"input": row, "output": out} for row, out in zip(rows, answers, strict=True)]
    drafted = artifacts.draft(name, files, libraries, golden=golden, **fields)
    root = read_settings().artifacts if root is None else root
    return artifacts.publish(
        root,
        drafted,
        lambda artifact: replay(families.from_artifact(artifact)),
        candidate=candidate,
    )


# --- data ------------------------------------------------------------------------------------


def _rows(model: Any, X: Any, y: Any, classifies: bool) -> Rows:  # noqa: N803
    """Return rows and targets that fit each other and the model.

    Raises:
        InvalidData: they do not.
    """
    frame = X if isinstance(X, pd.DataFrame) else _name_columns(model, np.asarray(X))
    target = np.asarray(y)
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    if target.ndim != 1:
        raise InvalidData(
            f"The target has {target.shape[1]} columns, expected one: a published model gives one"
            " number or one label"
        )
    if len(target) != len(frame):
        raise InvalidData(f"There are {len(frame):,} rows and {len(target):,} targets")
    if not len(target):
        raise InvalidData("There are no rows")
    frame = frame.set_axis([str(each) for each in frame], axis=1).reset_index(drop=True)
    frame = choose_columns(model, frame)
    present = ~pd.isna(target)
    frame, target = frame[present].reset_index(drop=True), target[present]
    for column in frame.columns[frame.dtypes == object]:  # as pandas reads missing values
        frame[column] = frame[column].where(frame[column].notna(), np.nan)
    return Rows(frame, _labels(model, target) if classifies else _numbers(model, target))


def _name_columns(model: Any, array: Any) -> pd.DataFrame:
    if array.ndim != 2:
        raise InvalidData(f"The rows have the shape {array.shape}, expected (rows, columns)")
    names = names_of(model)
    if names is None or len(names) != array.shape[1]:
        names = [f"x{place}" for place in range(array.shape[1])]
    return pd.DataFrame(array, columns=names)


def _numbers(model: Any, target: Any) -> Floats:
    try:
        numbers = target.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidData(
            f"{type(model).__name__} is a regressor, and the target is not numbers: {error}"
        ) from error
    if not np.isfinite(numbers).all():
        raise InvalidData("The target has infinite values")
    return np.asarray(numbers)


def _labels(model: Any, target: Any) -> Any:
    """Return targets as places among the model's labels.

    Raises:
        InvalidData: one is not a label of the model, or all are alike.
    """
    texts = label_texts(model.classes_)
    places = {text: place for place, text in enumerate(texts)}
    found = [parse_text(each) for each in target.tolist()]
    if strange := sorted({str(each) for each in found if each not in places}):
        raise InvalidData(
            f"The target holds {quote(strange)}; the model was fitted on the labels {quote(texts)}"
        )
    if len(texts) < 2:
        raise InvalidData(f"The model knows one label alone, {quote(texts)}: nothing to tell apart")
    if len(set(found)) < 2:
        raise InvalidData(f"Every row of the target is {found[0]!r}: nothing to measure")
    return np.array([places[str(each)] for each in found], dtype=np.int64)


def _lay_out(model: Any, inputs: pd.DataFrame) -> tuple[pd.DataFrame, Layout]:
    """Return inputs as schemas are learned from, and how they become the estimator's again."""
    columns: dict[str, pd.Series] = {}
    kinds: dict[str, str] = {}
    for name in map(str, inputs):
        columns[name], kinds[name] = _column(name, inputs[name])
    named = names_of(model) is not None or isinstance(model, OnnxEstimator)
    return pd.DataFrame(columns), Layout(kinds, named)


def _column(name: str, column: pd.Series) -> tuple[pd.Series, str]:
    """Return a column as floats or texts, and its kind of `Layout.kinds`.

    Raises:
        InvalidData: it holds something else.
    """
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise InvalidData(f"The column {name!r} holds dates or times; turn them into numbers first")
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        numbers = pd.Series(column.to_numpy(dtype=np.float64, na_value=math.nan))
        if not (numbers.abs() < math.inf).any():
            raise InvalidData(f"The column {name!r} has no finite number")
        whole = pd.api.types.is_integer_dtype(column)
        return numbers.where(numbers.abs() < math.inf), "int" if whole else "float"
    texts = pd.Series([parse_text(each) for each in column], dtype=object)
    categories = texts.dropna().unique()
    if not len(categories):
        raise InvalidData(f"Every value of the column {name!r} is missing")
    if len(categories) > MOST_CATEGORIES:
        raise InvalidData(
            f"The column {name!r} has {len(categories):,} different texts, at most"
            f" {MOST_CATEGORIES:,} are served"
        )
    if isinstance(column.dtype, pd.CategoricalDtype):
        return texts, "category"
    if all(isinstance(each, bool | np.bool_) for each in column.dropna()):
        return texts, "bool"
    return texts, "text"


def _learn(inputs: pd.DataFrame, target: Any, name: str, classifies: bool) -> Schema:
    output = pd.Series(target, dtype=float, name=name)
    schema = learn_schema(inputs, output)
    return Schema(inputs=schema.inputs) if classifies else schema


def _background(checked: Checked) -> Floats:
    count = min(BACKGROUND_ROWS, len(checked))
    places = np.random.default_rng(SEED).choice(len(checked), count, replace=False)
    return checked.matrix[np.sort(places)]


def _describe(data: Rows) -> Data:
    hashes = pd.util.hash_pandas_object(data.inputs.astype(str), index=False).to_numpy()
    digest = hashlib.sha256(hashes.tobytes() + np.asarray(data.target).tobytes()).hexdigest()
    rows, columns = data.inputs.shape
    return Data(source="a data frame", rows=rows, columns=columns + 1, sha256=digest)


# --- measuring -------------------------------------------------------------------------------


def _measure(model: Any, data: Rows, held_out: Rows | None, classifies: bool, say: Say) -> Measured:
    """Answer rows that the model has not seen, if that can be done."""
    if held_out is not None:
        say(f"Measured on {len(held_out.target):,} held-out rows")
        return Measured("held-out", held_out.target, _ask(model, held_out.inputs, classifies))
    reason = "it is a graph that cannot be fitted again"
    if not isinstance(model, OnnxEstimator):
        try:
            answers = _cross_validate(model, data, classifies)
        except Exception as error:  # an estimator may raise anything
            reason = str(error) if isinstance(error, InvalidData) else f"its fit fails: {error}"
        else:
            say(
                f"Measured by {FOLDS}-fold cross-validation of a clone on {len(data.target):,} rows"
            )
            return Measured("cross-validated", data.target, answers)
    say(f"Not cross-validated: {reason}")
    say(f"The figures are {NOT_HONEST}; --held-out FILE measures on rows it has not seen")
    return Measured(None, data.target, _ask(model, data.inputs, classifies))


def _ask(model: Any, inputs: pd.DataFrame, classifies: bool) -> Floats:
    named = names_of(model) is not None or isinstance(model, OnnxEstimator)
    given = inputs if named else inputs.to_numpy()
    if classifies:
        return np.asarray(model.predict_proba(given), dtype=np.float64)
    found = np.asarray(model.predict(given), dtype=np.float64)
    if found.ndim == 2 and found.shape[1] > 1:
        raise InvalidData(
            f"{type(model).__name__} gives {found.shape[1]} numbers for a row, expected one"
        )
    return found.reshape(len(inputs))


def _cross_validate(model: Any, data: Rows, classifies: bool) -> Floats:
    """Answer each row by a clone that was fitted on the others.

    Raises:
        InvalidData: there are too few rows, or too few of a label.
    """
    rows, labels = len(data.target), None
    if rows < FEWEST:
        raise InvalidData(f"{rows} rows are too few, at least {FEWEST} are needed")
    if classifies:
        labels = np.asarray(model.classes_)
        counts = np.bincount(data.target, minlength=len(labels))
        if counts.min() < FOLDS:
            rare = label_texts(model.classes_)[int(counts.argmin())]
            raise InvalidData(
                f"the label {rare!r} has {counts.min()} rows, at least {FOLDS} are needed"
            )
    splitter = (StratifiedKFold if classifies else KFold)(FOLDS, shuffle=True, random_state=SEED)
    target = data.target if labels is None else labels[data.target]
    named = names_of(model) is not None
    answers = np.empty((rows, len(labels)) if labels is not None else rows)
    for train, test in splitter.split(data.inputs, data.target):
        part = data.inputs.iloc[train]
        fitted = clone(model).fit(part if named else part.to_numpy(), target[train])
        answers[test] = _ask(fitted, data.inputs.iloc[test], classifies)
    return answers


def _report(
    measured: Measured, labels: tuple[str, ...] | None, level: float, say: Say
) -> tuple[dict[str, bytes], dict[str, float], dict[str, Any]]:
    """Return the files of the interval, the metrics, and the report."""
    if labels is not None:
        metrics = measures.of_labels(measured.target, measured.answers)
        report = measures.mistakes(labels, measured.target, measured.answers)
        files = {}
    else:
        answer, predicted = _calibrate(measured, level, say)
        metrics = measures.of_numbers(measured.target, predicted)
        report = measures.held_out(measured.target, predicted)
        files = {ANSWER: answer.dump()}
    if measured.how is None:
        metrics = {f"{key}_in_sample": value for key, value in metrics.items()}
        report = {}
    elif measured.how == "held-out":
        metrics["held_out"] = len(measured.target)
    for key, value in metrics.items():
        say(f"  {key:<24} {value:.6g}")
    return files, metrics, report


def _calibrate(measured: Measured, level: float, say: Say) -> tuple[Answer, Floats]:
    """Return how intervals are made, and the rows' predictions with theirs.

    The margin is the conformal quantile of the absolute residuals (split conformal prediction, Lei
    et al., "Distribution-free predictive inference for regression", 2018; of cross-validated rows
    as in Barber et al., "Predictive inference with the jackknife+", 2021). Each row's own interval
    in the report has the margin of the rows of the other half, so that its coverage is honest.
    """
    predicted = measured.answers[:, None]
    if measured.how is None or len(predicted) < max(FEWEST, 2 / (1 - level)):
        say("No intervals: there are no rows, or too few, that the model has not seen")
        return Answer(), predicted
    apart = np.abs(measured.target - measured.answers)
    half = np.random.default_rng(SEED).permutation(len(apart)) % 2 == 0
    margins = np.where(half, _quantile(apart[~half], level), _quantile(apart[half], level))
    rows = np.column_stack(
        [measured.answers, measured.answers - margins, measured.answers + margins]
    )
    return Answer(level, _quantile(apart, level)), rows


def _quantile(scores: Floats, level: float) -> float:
    """Return the smallest score that at least the level of n + 1 rows do not exceed."""
    rank = min(len(scores), math.ceil((len(scores) + 1) * level))
    return float(np.sort(scores)[rank - 1])


def _say_form(compiled: Compiled, say: Say) -> None:
    found = compiled.report
    if found["form"] == "onnx":
        say(
            f"Served compiled (ONNX): {found['reason']} on {found['rows']:,} rows and"
            f" {found['random_rows']:,} random ones (largest difference"
            f" {found['largest_difference']:.1e})"
        )
    else:
        say(f"Served by scikit-learn itself: {found['reason']}")
