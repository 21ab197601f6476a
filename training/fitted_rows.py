"""The rows that a fitted estimator takes: matched with it, and with what serving knows of them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import issparse

from mlapp.errors import InvalidData, quote
from mlapp.families.engines import Layout
from mlapp.schema import Floats, Schema, match_label, parse_text
from mlapp.tables.numbers import LARGEST
from training.codes import find_codes
from training.columns import NEARLY_ALL
from training.estimators import as_objects, choose_columns, label_texts, names_of
from training.foreign import OnnxEstimator
from training.tables import learn_schema

MOST_CATEGORIES = 10_000  # of a column
FEW_TEXTS = 10  # different ones, which may all occur once


@dataclass(frozen=True)
class Rows:
    """Rows of the data with their targets.

    Attributes:
        inputs: the columns that the estimator takes; the index has the places of the given rows.
        target: numbers, or for a classifier its labels, (n,).
    """

    inputs: pd.DataFrame
    target: Any


def match_rows(model: Any, X: Any, y: Any, classifies: bool) -> Rows:  # noqa: N803
    """Return rows and targets that fit each other and the model.

    Raises:
        InvalidData: they do not.
    """
    if issparse(X):
        raise InvalidData("The rows are a sparse matrix, expected a data frame or an array")
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
    if twice := list(dict.fromkeys(frame.columns[frame.columns.duplicated()])):
        raise InvalidData(f"The rows have several columns named {quote(twice)}, expected one each")
    present = ~pd.isna(target)
    frame, target = frame[present], target[present]
    for column in frame:  # missing values as pandas reads them
        if pd.api.types.is_object_dtype(frame[column]):
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
    if not (np.abs(numbers) <= LARGEST).all():
        raise InvalidData(f"The target has values beyond {LARGEST:g}; give it in a larger unit")
    return np.asarray(numbers)


def _labels(model: Any, target: Any) -> Any:
    """Return targets as places among the model's labels.

    Raises:
        InvalidData: one is not a label of the model, or all are alike.
    """
    texts = label_texts(model.classes_)
    places = {text: place for place, text in enumerate(texts)}
    given = [parse_text(each) or str(each) for each in as_objects(target)]
    found = [match_label(each, texts) or each for each in given]
    if strange := sorted({each for each in found if each not in places}):
        raise InvalidData(
            f"The target holds {quote(strange)}; the model was fitted on the labels {quote(texts)}"
        )
    if len(texts) < 2:
        raise InvalidData(f"The model knows one label alone, {quote(texts)}: nothing to tell apart")
    if len(set(found)) < 2:
        raise InvalidData(f"Every row of the target is {found[0]!r}: nothing to measure")
    return np.array([places[each] for each in found], dtype=np.int64)


def lay_out(model: Any, inputs: pd.DataFrame) -> tuple[pd.DataFrame, Layout]:
    """Return inputs as schemas are learned from, and how they become the estimator's again."""
    columns: dict[str, pd.Series] = {}
    kinds: dict[str, str] = {}
    codes = find_codes(model, inputs)
    for name in map(str, inputs):
        columns[name], kinds[name] = _column(name, inputs[name])
        if name in codes and columns[name].nunique() <= MOST_CATEGORIES:
            columns[name] = pd.Series(map(parse_text, columns[name]), dtype=object)
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
            f"The column {name!r} has {len(categories):,} different texts; at most"
            f" {MOST_CATEGORIES:,} are served"
        )
    if len(categories) > max(FEW_TEXTS, NEARLY_ALL * texts.notna().sum()):
        raise InvalidData(
            f"Nearly every value of the column {name!r} is different, as in a text or an"
            " identifier, and requests with a new one would be refused. Fit the model without it;"
            " python -m training.sentiment learns from texts"
        )
    if isinstance(column.dtype, pd.CategoricalDtype):
        return texts, "category"
    if all(isinstance(each, bool | np.bool_) for each in column.dropna()):
        return texts, "bool"
    return texts, "text"


def learn(inputs: pd.DataFrame, target: Any, name: str, classifies: bool) -> Schema:
    """Return the schema of inputs that `lay_out` returned; a classifier's has no output."""
    output = pd.Series(target, dtype=float, name=name)
    schema = learn_schema(inputs, output)
    return Schema(inputs=schema.inputs) if classifies else schema
