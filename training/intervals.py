"""Intervals of predicted numbers, calibrated on rows that no fit saw.

They are normalised conformal intervals (Lei et al., "Distribution-free predictive inference for
regression", 2018, section 5.2): prediction +- margin * scale, where the scale is how far a row's
prediction is expected to be off, itself predicted by boosted trees of the absolute errors of
held-out rows, and the margin is the conformal quantile of the errors in that unit (of
cross-validated rows as in Barber et al., "Predictive inference with the jackknife+", 2021). Where
that is not better than one width for all rows, there is one. Better is a lower interval score: the
width, and 2 / (1 - level) times what a row lies outside (Gneiting and Raftery, "Strictly proper
scoring rules, prediction, and estimation", 2007, section 6.2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from mlapp.families.regression import Answer
from mlapp.schema import Floats
from training.folds import SEED, Fold, Groups, each_fold, held_out

FEWEST_ADAPTIVE = 100  # held-out rows that widths can be learned from
TREES, RATE, LEAVES = 60, 0.06, 8  # of the model of the errors
FIFTHS = 5


@dataclass(frozen=True)
class Calibrated:
    """How intervals are made, and those of held-out rows.

    Attributes:
        answer: what is published: level, margin and bounds.
        rows: prediction, lower and upper of held-out rows, in their order, (n, 3). None of a row's
            limits was calibrated on the row.
        scale: the fitted model of the errors; None where all rows have one width.
    """

    answer: Answer
    rows: Floats
    scale: Any


def calibrate(
    inputs: Floats,
    target: Floats,
    predicted: Floats,
    folds: Sequence[Fold],
    bounds: Answer,
    level: float,
    constant: Floats | None = None,
) -> Calibrated:
    """Calibrate intervals of the level.

    Args:
        inputs: all rows, as the model takes them, (n, columns).
        target: of all rows, (n,).
        predicted: the predictions of held-out rows, among NaN, (n,).
        folds: that the predictions were made on.
        bounds: where predictions and intervals end.
        level: the share of new rows that an interval is meant to hold.
        constant: intervals of one width that were made otherwise, (n, 3), as those of least
            squares.
    """
    held = held_out(folds)
    actual, made = target[held], predicted[held]
    errors = np.abs(actual - made)
    one = _normalise(made, errors, np.ones(len(held)), bounds, level)
    if constant is not None:
        columns = dict(zip(("prediction", "lower", "upper"), constant[held].T, strict=True))
        one = replace(one, rows=replace(bounds, level=level).make(columns))
    if len(held) < FEWEST_ADAPTIVE or errors.max() == 0:
        return one
    place = np.empty(len(target), dtype=np.int64)
    place[held] = np.arange(len(held))
    tests = [place[fold.test] for fold in folds]
    other = _normalise(made, errors, _cross_fit(inputs[held], errors, tests), bounds, level)
    gain = interval_scores(one.rows, actual, level) - interval_scores(other.rows, actual, level)
    if gain.mean() <= gain.std(ddof=1) / math.sqrt(len(gain)):
        return one
    with threadpool_limits(1, user_api="openmp"):
        return replace(other, scale=_make_scale(len(held)).fit(inputs[held], _target(errors)))


def _normalise(
    predicted: Floats, errors: Floats, scales: Floats, bounds: Answer, level: float
) -> Calibrated:
    scores = errors / scales
    half = np.random.default_rng(SEED).permutation(len(scores)) % 2 == 0
    margins = scales * np.where(
        half, conformal_quantile(scores[~half], level), conformal_quantile(scores[half], level)
    )
    columns = {
        "prediction": predicted,
        "lower": predicted - margins,
        "upper": predicted + margins,
    }
    answer = replace(bounds, level=level, margin=conformal_quantile(scores, level))
    return Calibrated(answer, replace(answer, margin=0.0).make(columns), None)


def _cross_fit(inputs: Floats, errors: Floats, tests: Sequence[Groups]) -> Floats:
    """Return the expected error of each of n rows, by fits that did not see it."""
    scales = np.empty(len(errors))
    everything = np.arange(len(errors))

    def work(fold: Fold) -> None:
        fitted = _make_scale(len(fold.train)).fit(inputs[fold.train], _target(errors[fold.train]))
        scales[fold.test] = fitted.predict(inputs[fold.test])

    each_fold(work, [Fold(np.setdiff1d(everything, test), test) for test in tests])
    return scales


def _make_scale(rows: int) -> Any:
    """Return a model of absolute errors: positive, smooth, and slow to believe in outliers."""
    return HistGradientBoostingRegressor(
        loss="gamma",
        max_iter=TREES,
        learning_rate=RATE,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=max(20, rows // 50),
        early_stopping=False,
        random_state=0,
    )


def _target(errors: Floats) -> Floats:
    """Return errors that are all positive, as a gamma distribution's values are."""
    positive: Floats = np.maximum(errors, 0.05 * errors.mean())
    return positive


def conformal_quantile(scores: Floats, level: float) -> float:
    """Return the smallest score that at least the level of n + 1 rows do not exceed."""
    rank = min(len(scores), math.ceil((len(scores) + 1) * level))
    return float(np.sort(scores)[rank - 1])


def interval_scores(rows: Floats, actual: Floats, level: float) -> Floats:
    """Return the interval score of each of n rows (n, 3); less is better."""
    _, lower, upper = rows.T
    outside = np.maximum(lower - actual, 0) + np.maximum(actual - upper, 0)
    scores: Floats = upper - lower + 2 / (1 - level) * outside
    return scores


def coverage_by_fifth(rows: Floats, actual: Floats) -> list[dict[str, float]]:
    """Return how many rows lie in their intervals, by fifths of the predictions.

    Args:
        rows: prediction, lower and upper of n rows, (n, 3).
        actual: what they were, (n,).
    """
    prediction, lower, upper = rows.T
    inside = (lower <= actual) & (actual <= upper)
    return [
        {
            "from": float(prediction[part].min()),
            "to": float(prediction[part].max()),
            "rows": len(part),
            "coverage": float(inside[part].mean()),
        }
        for part in np.array_split(np.argsort(prediction, kind="stable"), FIFTHS)
        if len(part)
    ]
