"""Least squares: the fit, its interval by leave-one-out residuals, and its coefficients."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from mlapp.errors import InvalidData
from mlapp.families.regression import Interval
from mlapp.schema import Checked, Floats, Input, Number, Schema
from training.folds import Fold, Groups
from training.tables import Say

LEVEL = 0.9  # the share of new rows that an interval is meant to hold
MOST_TERMS = 1000  # of a fit; its cost grows with their cube


@dataclass(frozen=True)
class Fit:
    """A least-squares fit: the pipeline, its interval, and its leave-one-out residuals."""

    pipeline: Pipeline
    interval: Interval

    def predict(self, encoded: Floats) -> Floats:
        """Return prediction, lower and upper (n, 3) for encoded rows (n, k)."""
        prediction = self.pipeline.predict(encoded)
        half = self.interval.half_width(self.pipeline["scale"].transform(encoded))
        return np.column_stack([prediction, prediction - half, prediction + half])


def fit(encoded: Floats, output: Floats, level: float = LEVEL, groups: Groups | None = None) -> Fit:
    """Fit on encoded rows (n, k), and calibrate the interval on leave-one-out residuals.

    `Interval` says how it is made, and from where. Rows of one group are left out together. With m
    of them, each of leverage h, their residuals r become r + h * sum(r) / (1 - m * h), and the
    leverage h / (1 - m * h): the matrix inversion lemma, as in Cook and Weisberg, "Residuals
    and influence in regression" (1982), section 3.6.

    Args:
        encoded: the rows.
        output: their outputs, (n,).
        level: the share of new rows that the interval is to hold.
        groups: the number of each row's group, (n,); rows of one group are equal. By default each
            row is alone.

    Raises:
        InvalidData: there are too few rows for an interval of that level.
    """
    pipeline = Pipeline([("scale", StandardScaler()), ("regress", LinearRegression())])
    pipeline.fit(encoded, output)
    standardised = pipeline["scale"].transform(encoded)
    rows = len(output)
    inverse = invert(standardised.T @ standardised)
    leverage = Interval(level, math.nan, rows, inverse).leverage(standardised)
    _, own, members = np.unique(
        np.arange(rows) if groups is None else groups, return_inverse=True, return_counts=True
    )
    residuals = output - pipeline.predict(encoded)
    alike, sums = members[own], np.bincount(own, residuals)[own]
    # Rows that the fit passes through have no leave-one-out residual; they count as the largest.
    room = np.where(alike * leverage < 1 - 1e-9, 1 - alike * leverage, np.nan)
    left_out = np.abs(residuals + leverage * sums / room)
    scores = left_out / np.sqrt(1 + leverage / room)
    scores[np.isnan(scores)] = np.inf
    # Of g groups the share is (g + 1) / g of the level, as of g new rows.
    rank = math.ceil((len(members) + 1) * level * rows / len(members) - 1e-9)
    quantile = float(np.sort(scores)[rank - 1]) if rank <= rows else math.inf
    if not math.isfinite(quantile):
        raise InvalidData(
            f"{len(members)} different rows are too few for {encoded.shape[1]} columns and their"
            " intervals"
        )
    return Fit(pipeline, Interval(level, quantile, rows, inverse))


def invert(gram: Floats) -> Floats:
    """Return the pseudo-inverse of Z'Z (k, k), exactly symmetric and without negative squares.

    Directions in which the rows do not differ are left out: rounding, not data, would fill them.
    """
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-10 * values[-1]
    half = vectors[:, kept] / np.sqrt(values[kept])
    inverse: Floats = half @ half.T
    return inverse


def cross_validate(
    encoded: Floats,
    output: Floats,
    folds: Sequence[Fold],
    level: float = LEVEL,
    groups: Groups | None = None,
) -> Floats:
    """Predict each held-out row by a fit that did not see it: prediction, lower, upper.

    Returns:
        (n, 3); NaN for rows that no fold holds out.
    """
    groups = np.arange(len(output)) if groups is None else groups
    predicted = np.full((len(output), 3), np.nan)
    for fold in folds:
        part = fold.train
        fitted = fit(encoded[part], output[part], level, groups[part])
        predicted[fold.test] = fitted.predict(encoded[fold.test])
    return predicted


def coefficients(
    fitted: Fit, schema: Schema, encoded: Floats, output: Floats
) -> list[dict[str, Any]]:
    """Return term, estimate, lower and upper in the inputs' own units, the intercept first.

    The limits are those of least squares with the t distribution (Draper and Smith, "Applied
    regression analysis", 1998, chapter 5), at the interval's level.
    """
    scaler, regression = fitted.pipeline["scale"], fitted.pipeline["regress"]
    rows, interval = len(output), fitted.interval
    estimates = regression.coef_ / scaler.scale_
    shift = scaler.mean_ / scaler.scale_
    intercept = regression.intercept_ - estimates @ scaler.mean_
    freedom = max(1, rows - 1 - np.linalg.matrix_rank(interval.inverse))
    variance = np.sum((output - fitted.pipeline.predict(encoded)) ** 2) / freedom
    errors = np.sqrt(variance * np.diag(interval.inverse)) / scaler.scale_
    error = math.sqrt(variance * (1 / rows + shift @ interval.inverse @ shift))
    limit = stats.t.ppf((1 + interval.level) / 2, freedom)
    return [
        {
            "term": term,
            "estimate": estimate,
            "lower": estimate - limit * e,
            "upper": estimate + limit * e,
        }
        for term, estimate, e in zip(
            ["(intercept)", *schema.terms],
            map(float, [intercept, *estimates]),
            map(float, [error, *errors]),
            strict=True,
        )
    ]


def drop_dependent(checked: Checked, say: Say, *, numbers: bool = False) -> Schema:
    """Return the schema without inputs that are sums of others, which no fit can tell from them.

    Args:
        checked: the rows.
        say: called with a line for each input that is left out.
        numbers: whether numbers alone may be left out.
    """
    schema = checked.schema
    if len(schema.terms) > MOST_TERMS:
        return schema
    encoded = StandardScaler().fit_transform(schema.encode(checked))
    rows = len(encoded)
    # A triangle has the rank of the columns that it was made of, and is far smaller.
    triangle: Floats = np.asarray(np.linalg.qr(encoded, mode="r"))
    kept: list[Input] = []
    columns, rank = np.empty((len(triangle), 0)), 0
    for spec, (name, part) in zip(schema.inputs, schema.split(triangle), strict=True):
        wider = np.hstack([columns, part])
        tolerance = 1e-9 * math.sqrt(rows * wider.shape[1])
        wider_rank = int(np.linalg.matrix_rank(wider, tol=tolerance))
        # With as many columns as rows, each is a combination of others.
        if rank < rows - 1 and wider_rank == rank and (isinstance(spec, Number) or not numbers):
            say(f"Left out column {name}: it is a linear combination of the columns before it")
            continue
        kept.append(spec)
        columns, rank = wider, wider_rank
    return Schema(inputs=tuple(kept), output=schema.output)
