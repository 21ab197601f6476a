"""Intervals of predicted numbers, calibrated on rows that no fit saw.

They are normalised conformal intervals (Lei et al., "Distribution-free predictive inference for
regression", 2018, section 5.2): prediction +- margin * scale. The scale is how far a row's
prediction is expected to be off (`training.scales`), and the margin is the conformal quantile of
the errors in that unit (of cross-validated rows as in Barber et al., "Predictive inference with the
jackknife+", 2021). Where that is not better than one width for all rows, there is one. Better is a
lower interval score: the width, and 2 / (1 - level) times what a row lies outside (Gneiting and
Raftery, "Strictly proper scoring rules, prediction, and estimation", 2007, section 6.2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mlapp.families.regression import Answer
from mlapp.schema import Floats
from training.folds import SEED, Fold, Groups, each_fold, held_out
from training.scales import ByPrediction, fit_steps, fit_trees

FEWEST_ADAPTIVE = 200  # held-out rows that widths can be learned from
FIFTHS = 5
TOLERATED = 0.05  # of a fifth's coverage, from the level


@dataclass(frozen=True)
class Calibrated:
    """How intervals are made, and those of held-out rows.

    Attributes:
        answer: what is published: level, margin and bounds.
        rows: prediction, lower and upper of held-out rows, in their order, (n, 3). None of a row's
            limits was calibrated on the row.
        scale: the fitted model of the errors; None where all rows have one width.
        judged: the places of the rows, among those, that the coverage is stated of; forwards in
            time all but those of the first fold, which no earlier errors calibrate.
        half_width: the median of the rows' intervals as they are published.
    """

    answer: Answer
    rows: Floats
    scale: Any
    judged: Groups
    half_width: float = math.nan


def calibrate(
    inputs: Floats,
    target: Floats,
    predicted: Floats,
    folds: Sequence[Fold],
    bounds: Answer,
    level: float,
    model: Any,
    groups: Groups,
    constant: Floats | None = None,
    forward: bool = False,
) -> Calibrated:
    """Calibrate intervals of the level.

    Args:
        inputs: all rows, as the model takes them, (n, columns).
        target: of all rows, (n,).
        predicted: the predictions of held-out rows, among NaN, (n,).
        folds: that the predictions were made on.
        bounds: where predictions and intervals end.
        level: the share of new rows that an interval is meant to hold.
        model: the fitted regressor, as it is published.
        groups: the number of each row's group, (n,), such as copies; none is in both halves that
            calibrate each other.
        constant: intervals of one width that were made otherwise, (n, 3), as those of least
            squares.
        forward: whether the folds go forwards in time; each one's limits are of earlier ones then.
    """
    held = held_out(folds)
    actual, made = target[held], predicted[held]
    errors, halves = np.abs(actual - made), halve(groups[held])
    one = normalise(made, errors, np.ones(len(held)), halves, bounds, level)
    if constant is not None:
        columns = dict(zip(("prediction", "lower", "upper"), constant[held].T, strict=True))
        one = replace(one, rows=replace(bounds, level=level).make(columns))
    tests = [np.searchsorted(held, fold.test) for fold in folds]
    rows, options = inputs[held], [one]
    if len(held) >= FEWEST_ADAPTIVE and errors.max() > 0:
        apart = [Fold(np.setdiff1d(np.arange(len(held)), test), test) for test in tests]
        options += [
            normalise(made, errors, scales, halves, bounds, level)
            for scales in _cross_fit(rows, made, errors, apart, level)
        ]
    chosen = _choose(options, actual, level) if len(options) > 1 else 0
    half_width = np.median(np.diff(options[chosen].rows[:, 1:])) / 2
    found = replace(options[chosen], half_width=float(half_width))
    if chosen == 1:
        found = replace(found, scale=ByPrediction(model, fit_steps(made, errors, level)))
    elif chosen == 2:
        with threadpool_limits(1, user_api="openmp"):
            found = replace(found, scale=fit_trees(rows, errors))
    if not forward:
        return found
    parts = _look_back(tests)
    scales = np.ones(len(held))
    if chosen:
        scales = _cross_fit(rows, made, errors, parts, level)[chosen - 1]
    stated = normalise(made, errors, scales, parts, bounds, level).rows
    return replace(found, rows=stated, judged=np.sort(np.concatenate(tests[1:])))


def halve(groups: Groups) -> list[Fold]:
    """Return two folds of rows, of which each is judged by the other; groups stay whole."""
    names, places = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        names = places = np.arange(len(groups))
    half = (np.random.default_rng(SEED).permutation(len(names)) % 2 == 0)[places]
    one, other = np.flatnonzero(half), np.flatnonzero(~half)
    return [Fold(other, one), Fold(one, other)]


def _look_back(tests: Sequence[Groups]) -> list[Fold]:
    """Return folds that see all earlier ones; the halves of the first see each other."""
    first = tests[0]
    halves = [Fold(first[each.train], first[each.test]) for each in halve(np.arange(len(first)))]
    if len(first) < 2:
        halves = [Fold(first, first)]
    later = range(1, len(tests))
    return halves + [Fold(np.concatenate(tests[:place]), tests[place]) for place in later]


def _choose(options: Sequence[Calibrated], actual: Floats, level: float) -> int:
    """Return the place of the option to publish; the simplest is the first.

    Wanted are those that hold the level in every fifth of the predictions; where none does, the one
    that comes closest. Of them, it is the simplest that is no worse than the best beyond chance.
    """
    off = [
        max(abs(each["coverage"] - level) for each in coverage_by_fifth(option.rows, actual))
        for option in options
    ]
    scores = [interval_scores(option.rows, actual, level) for option in options]
    chance = 2 * math.sqrt(level * (1 - level) * FIFTHS / len(actual))  # two standard errors
    allowed = max(TOLERATED, chance, min(off))
    good = [place for place, apart in enumerate(off) if apart <= allowed]
    best = min(good, key=lambda place: scores[place].mean())
    for place in good:
        behind = scores[place] - scores[best]
        if behind.mean() <= behind.std(ddof=1) / math.sqrt(len(behind)):
            return place
    return best


def normalise(
    predicted: Floats,
    errors: Floats,
    scales: Floats,
    parts: Sequence[Fold],
    bounds: Answer,
    level: float,
) -> Calibrated:
    """Return intervals in proportion to the scales; each part's margin is of its other rows.

    Args:
        predicted: of n rows, (n,).
        errors: how far they are off, (n,).
        scales: how far they are expected to be off, (n,).
        parts: the rows that are judged, with those that calibrate them.
        bounds: where predictions and intervals end.
        level: the share of new rows that an interval is meant to hold.
    """
    scores, margins = errors / scales, np.empty(len(scales))
    for part in parts:
        margins[part.test] = scales[part.test] * conformal_quantile(scores[part.train], level)
    columns = {
        "prediction": predicted,
        "lower": predicted - margins,
        "upper": predicted + margins,
    }
    answer = replace(bounds, level=level, margin=conformal_quantile(scores, level))
    return Calibrated(
        answer, replace(answer, margin=0.0).make(columns), None, np.arange(len(scales))
    )


def _cross_fit(
    inputs: Floats, predicted: Floats, errors: Floats, parts: Sequence[Fold], level: float
) -> tuple[Floats, Floats]:
    """Return the expected errors of n rows by fits that did not see them: by either model."""
    steps, trees = np.ones(len(errors)), np.ones(len(errors))

    def work(fold: Fold) -> None:
        known, new = fold.train, fold.test
        if len(known) < 2 or errors[known].max() == 0:  # as a small first fold may be
            return
        fitted = fit_steps(predicted[known], errors[known], level)
        steps[new] = fitted.predict(predicted[new].reshape(-1, 1))
        trees[new] = fit_trees(inputs[known], errors[known]).predict(inputs[new])

    each_fold(work, parts)
    return steps, trees


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
