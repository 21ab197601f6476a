"""How far a prediction is expected to be off: models of the absolute errors of held-out rows.

By the prediction: errors in bins of the prediction, as Mondrian conformal regression has them
(Bostrom and Johansson, "Mondrian conformal regressors", 2020). By the inputs: boosted trees.
"""

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from mlapp.schema import Floats

ROWS_IN_BIN, MOST_BINS = 60, 10
TREES, RATE, LEAVES = 60, 0.06, 8  # of the boosted trees


class ByPrediction:
    """An estimator whose answer is a step function of another's answer."""

    def __init__(self, model: Any, steps: Any) -> None:
        """Combine a fitted regressor with fitted steps (1 column)."""
        self.model, self.steps = model, steps

    def predict(self, rows: Floats) -> Floats:
        """Return the step of each row's prediction, (n,)."""
        predicted = np.asarray(self.model.predict(rows), dtype=np.float64).reshape(-1, 1)
        return np.asarray(self.steps.predict(predicted), dtype=np.float64)


def fit_steps(predicted: Floats, errors: Floats, level: float) -> Any:
    """Fit the quantile of the errors in bins of the prediction; both (n,)."""
    bins = int(np.clip(len(errors) // ROWS_IN_BIN, 2, MOST_BINS))
    heights = np.empty(len(errors))
    floor = 0.05 * errors.mean()
    for part in np.array_split(np.argsort(predicted, kind="stable"), bins):
        heights[part] = max(floor, float(np.quantile(errors[part], level)))
    # One tree of this kind, since a DecisionTreeRegressor rounds predictions to single precision.
    steps = HistGradientBoostingRegressor(
        max_iter=1, learning_rate=1, max_leaf_nodes=bins, early_stopping=False, random_state=0
    )
    return steps.fit(predicted.reshape(-1, 1), heights)


def fit_trees(inputs: Floats, errors: Floats) -> Any:
    """Fit boosted trees to the errors (n,) of rows (n, columns): smooth, and always positive."""
    trees = HistGradientBoostingRegressor(
        loss="gamma",
        max_iter=TREES,
        learning_rate=RATE,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=max(20, len(errors) // 50),
        early_stopping=False,
        random_state=0,
    )
    return trees.fit(fill_empty(inputs), np.maximum(errors, 0.05 * errors.mean()))


def fill_empty(inputs: Floats) -> Floats:
    """Return inputs for a fit of boosted trees, which take no column of missing values alone."""
    empty = np.isnan(inputs).all(axis=0)
    return np.where(empty, 0.0, inputs) if empty.any() else inputs
