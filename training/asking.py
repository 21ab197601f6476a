"""Ask a fitted estimator about rows, and check that requests get the answers that they get."""

from typing import Any

import numpy as np
import pandas as pd

from mlapp.errors import InvalidData, quote
from mlapp.families.engines import Layout
from mlapp.schema import Checked, Floats
from mlapp.tables.numbers import LARGEST
from training.estimators import names_of
from training.foreign import OnnxEstimator

OTHER_LABELS = 0.02  # share of the rows that may get another label than the likeliest


def as_fitted(model: Any, inputs: pd.DataFrame) -> Any:
    """Return rows with names, or as an array if the model was fitted on one."""
    named = names_of(model) is not None or isinstance(model, OnnxEstimator)
    return inputs if named else inputs.to_numpy()


def ask(model: Any, inputs: pd.DataFrame, classifies: bool, what: str) -> Floats:
    """Return what a model gives n rows: numbers (n,), or probabilities (n, labels).

    Args:
        model: a fitted estimator.
        inputs: the rows, as it was fitted on; the index counts them from 0.
        classifies: whether it gives probabilities.
        what: the rows are called.

    Raises:
        InvalidData: it cannot answer a row, gives several numbers for one, or none that is finite;
            the message names the first such row.
    """
    answers = np.asarray(
        _call(model, "predict_proba" if classifies else "predict", inputs, what), dtype=np.float64
    )
    if not classifies:
        if answers.ndim == 2 and answers.shape[1] > 1:
            raise InvalidData(
                f"{type(model).__name__} gives {answers.shape[1]} numbers for a row, expected one"
            )
        answers = answers.reshape(len(inputs))
    usable = np.abs(answers.reshape(len(answers), -1)) <= LARGEST  # NaN is not
    if len(bad := np.flatnonzero(~usable.all(axis=1))):
        raise InvalidData(
            f"{len(bad):,} of {len(inputs):,} rows get no finite answer up to {LARGEST:g} from"
            f" {type(model).__name__}, as row {inputs.index[bad[0]] + 1:,} of {what}"
        )
    return answers


def _call(model: Any, method: str, inputs: pd.DataFrame, what: str) -> Any:
    """Return what a method gives rows.

    Raises:
        InvalidData: it cannot answer one.
    """
    try:
        return getattr(model, method)(as_fitted(model, inputs))
    except Exception as error:  # an estimator may raise anything
        first, reason = _find_failing(model, method, inputs, error)
        raise InvalidData(
            f"{type(model).__name__} cannot answer row {inputs.index[first] + 1:,} of {what}:"
            f" {(str(reason) or type(reason).__name__).splitlines()[0]}"
        ) from error


def _find_failing(
    model: Any, method: str, inputs: pd.DataFrame, error: Exception
) -> tuple[int, Exception]:
    """Return the place of the first row that a method cannot answer, and why, by bisection."""
    start, end = 0, len(inputs)
    while end - start > 1:
        middle = (start + end) // 2
        try:
            getattr(model, method)(as_fitted(model, inputs[start:middle]))
        except Exception as found:  # an estimator may raise anything
            end, error = middle, found
        else:
            start = middle
    return start, error


def require_same_answers(
    model: Any,
    inputs: pd.DataFrame,
    answers: Floats,
    checked: Checked,
    layout: Layout,
    classifies: bool,
) -> None:
    """Check that a model gives the rows the same answers once they are checked.

    Args:
        model: a fitted estimator.
        inputs: n rows, as they are given.
        answers: what the model gives them.
        checked: the same rows, as requests are.
        layout: how these become the estimator's again.
        classifies: whether it gives probabilities.

    Raises:
        InvalidData: it does not, since the check changes values, such as spaces around a text.
    """
    restored = pd.DataFrame(layout.restore(checked)).set_axis(inputs.columns, axis=1)
    restored.index = inputs.index
    try:
        ours = ask(model, restored, classifies, "the data as requests give it")
    except InvalidData as error:
        raise InvalidData(f"{error}{_describe_categories(inputs)}") from error
    close = np.isclose(ours, answers, rtol=1e-6, atol=1e-6 * float(np.abs(ours).max(initial=0)))
    other = np.flatnonzero(~close.reshape(len(inputs), -1).all(axis=1))
    if not len(other):
        return
    given, requested = inputs.iloc[other], restored.iloc[other]
    changed = [
        str(name) for name in inputs if repr(given[name].tolist()) != repr(requested[name].tolist())
    ]
    if not changed:
        raise InvalidData(f"{type(model).__name__} gives equal rows different answers")
    raise InvalidData(
        f"{type(model).__name__} would answer requests differently from the rows it was fitted"
        f" on, as row {given.index[0] + 1:,}: requests give {quote(changed)} as texts"
        " without spaces around them, as whole numbers without .0, or as missing. Fit it on such"
        f" values{_describe_categories(inputs)}"
    )


def _describe_categories(inputs: pd.DataFrame) -> str:
    """Return which categorical columns hold something else than texts, for a message."""
    dtypes = {name: each for name, each in inputs.dtypes.items()
              if isinstance(each, pd.CategoricalDtype)}  # fmt: skip
    strange = [
        str(name)
        for name, each in dtypes.items()
        if not all(isinstance(category, str) for category in each.categories)
    ]
    if not strange:
        return ""
    return (
        f". Categories are served as texts, and those of {quote(strange)} are numbers or Booleans:"
        " fit it on a column of numbers, or on categories that are texts"
    )


def require_likeliest(model: Any, inputs: pd.DataFrame, probabilities: Floats) -> None:
    """Check that a classifier gives the label with the highest probability, (n, labels).

    Raises:
        InvalidData: it often gives another, as where a threshold was chosen.
    """
    likeliest = np.asarray(model.classes_)[probabilities.argmax(axis=1)]
    given = np.asarray(_call(model, "predict", inputs, "the data")).reshape(len(inputs))
    other = float(np.mean(given != likeliest))
    if other > OTHER_LABELS:
        raise InvalidData(
            f"{type(model).__name__} gives {other:.0%} of the rows a label other than the most"
            " likely by its own probabilities, as a custom threshold does; the label that is"
            " served is always the most likely one"
        )
