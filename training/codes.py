"""Columns of numbers that a fitted estimator takes as codes: it refuses numbers between them.

A OneHotEncoder with `handle_unknown="error"`, the default, knows the numbers that it was fitted on
alone. So such a column is served as a category.
"""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from training.asking import as_fitted

BETWEEN = 0.381966  # a share of a gap that is not likely to be a code itself


def find_codes(model: Any, inputs: pd.DataFrame) -> frozenset[str]:
    """Return the names of the columns of numbers between which a fitted estimator refuses others.

    Args:
        model: the estimator.
        inputs: n rows of the data, one or more, as it was fitted on.
    """
    between = {
        str(name): _between(column.to_numpy(dtype=np.float64, na_value=np.nan))
        for name, column in inputs.items()
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    }
    if not _refuses(model, inputs, between, between):
        return frozenset()
    return frozenset(name for name in between if _refuses(model, inputs, between, [name]))


def _between(numbers: Any) -> float:
    """Return a number between the two least that a column has."""
    least = np.unique(numbers[np.isfinite(numbers)])[:2]
    if not len(least):
        return np.nan
    gap = least[1] - least[0] if len(least) == 2 else 1.0
    return float(least[0] + BETWEEN * gap)


def _refuses(
    model: Any, inputs: pd.DataFrame, between: dict[str, float], names: Iterable[str]
) -> bool:
    """Return whether the first row is refused with other numbers in some columns."""
    row = inputs[:1].assign(**{name: between[name] for name in names})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.predict(as_fitted(model, row))
    except Exception:  # an estimator may raise anything
        return True
    return False
