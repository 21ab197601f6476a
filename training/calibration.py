"""Probabilities that mean what they say: one temperature, fitted on rows that no fit saw.

Logits are divided by it (Guo et al., "On calibration of modern neural networks", 2017, section
4.2). It is written into the fitted model, whose parameters it divides, so that serving needs no
step of its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.ensemble import HistGradientBoostingClassifier

from mlapp.schema import Floats
from training.folds import Fold, Groups, held_out
from training.losses import row_losses

RANGE = (0.2, 20.0)  # of a temperature
SMALLEST = 1e-9  # of a probability, before it is heated or cooled


def temper(probabilities: Floats, temperature: float) -> Floats:
    """Return probabilities (n, labels) whose logits are divided by the temperature."""
    logs = np.log(np.maximum(probabilities, SMALLEST)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def fit_temperature(target: Groups, probabilities: Floats) -> float:
    """Return the temperature at which the probabilities cost least log loss."""
    low, high = np.log(RANGE)
    found = minimize_scalar(
        lambda log: row_losses(target, temper(probabilities, float(np.exp(log)))).mean(),
        bounds=(low, high),
        method="bounded",
    )
    return float(np.exp(found.x))


def cross_temper(target: Groups, probabilities: Floats, folds: Sequence[Fold]) -> Floats:
    """Return each fold's probabilities at the temperature of the others, (n, labels)."""
    held, tempered = held_out(folds), np.full(probabilities.shape, np.nan)
    for fold in folds:
        others = np.setdiff1d(held, fold.test)
        temperature = fit_temperature(target[others], probabilities[others])
        tempered[fold.test] = temper(probabilities[fold.test], temperature)
    return tempered


def set_temperature(model: Any, temperature: float) -> None:
    """Divide the logits of a fitted logistic regression or boosted trees by the temperature."""
    if isinstance(model, HistGradientBoostingClassifier):
        model._baseline_prediction = model._baseline_prediction / temperature
        for iteration in model._predictors:
            for tree in iteration:
                tree.nodes["value"] /= temperature
        return
    regression = model[-1]
    regression.coef_ = regression.coef_ / temperature
    regression.intercept_ = regression.intercept_ / temperature
