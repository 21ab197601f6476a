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

from mlapp.families.sentiment import softmax
from mlapp.schema import Floats
from training.folds import Fold, Groups, held_out

SMALLEST = 1e-9  # of a probability, before it is heated or cooled


def to_scores(probabilities: Floats) -> Floats:
    """Return scores (n, labels), whose softmax is the probabilities."""
    scores: Floats = np.log(np.maximum(probabilities, SMALLEST))
    return scores


def temper(probabilities: Floats, temperature: float) -> Floats:
    """Return probabilities (n, labels) whose logits are divided by the temperature."""
    return softmax(to_scores(probabilities) / temperature)


def fit_temperature(scores: Floats, classes: Groups) -> float:
    """Return the temperature at which scores (n, labels) give the smallest log loss.

    No label counts as quite certain: a row's own label has (n + 1) / (n + 2), the others share the
    rest. It is Laplace's rule of succession, as in Platt, "Probabilistic outputs for support vector
    machines" (1999). A few rows that are all told apart would make every answer certain otherwise.
    Platt counts the rows of one label, since he fits its probability alone; one temperature is
    fitted to all n rows, and with many labels of few rows each his targets would be too low.

    Args:
        scores: of rows that no fit saw.
        classes: the place of each one's label, (n,).
    """
    count, labels = scores.shape
    own = np.eye(labels)[classes]
    targets = np.where(own > 0, (count + 1) / (count + 2), 1 / (count + 2) / (labels - 1))

    def loss(power: float) -> float:
        probabilities = softmax(scores / np.exp(power))
        return float(-(targets * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def cross_temper(target: Groups, probabilities: Floats, folds: Sequence[Fold]) -> Floats:
    """Return each fold's probabilities at the temperature of the others, (n, labels)."""
    held, tempered = held_out(folds), np.full(probabilities.shape, np.nan)
    for fold in folds:
        others = np.setdiff1d(held, fold.test)
        temperature = fit_temperature(to_scores(probabilities[others]), target[others])
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
