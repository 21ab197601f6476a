"""The quality of answers by feedback, compared with what training measured.

Shares (accuracy, interval coverage) have Wilson's score interval: E. B. Wilson, "Probable
inference, the law of succession, and statistical inference", JASA 22 (1927), 209-212. All other
figures have a percentile bootstrap interval: B. Efron and R. J. Tibshirani, "An Introduction to the
Bootstrap" (1993), chapter 13. The level of the intervals is 95 %. Answers with feedback are rarely
a random sample: the intervals account for chance, not for selection bias.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import select

from mlapp.calibration import bins_of, calibration_error
from mlapp.manifest import Manifest
from mlapp.records.database import Database, answers, feedback
from mlapp.tables.numbers import Floats

LEVEL, NORMAL = 0.95, 1.959963984540054  # of the intervals, and its normal quantile
RESAMPLES = 1_000
MOST_DRAWN = 20_000_000  # rows that are drawn for one figure; limits the resamples of many rows
FEWEST = 2  # the fewest answers for a bootstrap


class Figure(NamedTuple):
    """A figure with the ends of its interval, and the figure of training; None if unknown."""

    value: float | None
    lower: float | None
    upper: float | None
    held_out: float | None = None


class Bin(NamedTuple):
    """Answers of similar probability: how many, their mean probability, the share right."""

    rows: int
    probability: float
    right: Figure


@dataclass(frozen=True)
class Quality:
    """The quality of a version's answers with feedback.

    Attributes:
        version: the version.
        week: the Monday of the week (UTC) of the answers; None for all weeks.
        rows: how many answers have feedback.
        figures: by name. For labels: accuracy, and ece, the expected calibration error. For
            numbers: r2, mae, and coverage if answers have an interval.
        calibration: for labels, the bins that are not empty.
    """

    version: int
    week: date | None
    rows: int
    figures: dict[str, Figure]
    calibration: tuple[Bin, ...] = ()


@dataclass(frozen=True)
class _Judged:
    """A version's answers with feedback: arrays (n,), NaN where an answer has no such part."""

    is_label: bool
    time: Floats
    truth: Floats
    prediction: Floats
    lower: Floats
    upper: Floats
    right: Floats
    probability: Floats

    def choose(self, chosen: Any) -> "_Judged":
        arrays = (self.time, self.truth, self.prediction, self.lower, self.upper)
        more = (self.right, self.probability)
        return _Judged(self.is_label, *(each[chosen] for each in (*arrays, *more)))


def measure(
    database: Database, model: str, manifests: Sequence[Manifest] = (), since: int = 0
) -> list[Quality]:
    """Return the live quality of a model's versions, newest first: of all weeks, then of each.

    Args:
        database: where feedback is recorded.
        model: the model's name.
        manifests: of its versions, for the figures on held-out data.
        since: only answers given after this time, in milliseconds, are measured.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    if not database.exists:
        return []
    held_out = {each.version: each.metrics for each in manifests}
    found = []
    for version, judged in sorted(_read(database, model, since).items(), reverse=True):
        metrics = held_out.get(version, {})
        weeks = np.array([monday(time).toordinal() for time in judged.time.tolist()])
        found.append(_measure(version, None, judged, metrics))
        for week in sorted(set(weeks.tolist()), reverse=True):
            chosen = judged.choose(weeks == week)
            found.append(_measure(version, date.fromordinal(week), chosen, metrics))
    return found


def monday(time: float) -> date:
    """Return the first day of the week (UTC) of a time in milliseconds."""
    day = datetime.fromtimestamp(time / 1000, UTC).date()
    return day - timedelta(days=day.weekday())


def wilson(right: int, rows: int) -> tuple[float, float]:
    """Return Wilson's interval for a share.

    Args:
        right: how many of the rows are.
        rows: 1 or more.
    """
    share, square = right / rows, NORMAL**2
    middle = (share + square / (2 * rows)) / (1 + square / rows)
    half = math.sqrt(share * (1 - share) / rows + square / (4 * rows**2))
    half *= NORMAL / (1 + square / rows)
    # Exact at the ends, without rounding errors.
    lower = 0.0 if right == 0 else max(0.0, middle - half)
    return lower, 1.0 if right == rows else min(1.0, middle + half)


def bootstrap(
    figure: Callable[..., float | None], columns: Sequence[Floats], seed: int = 0
) -> tuple[float | None, float | None]:
    """Return the percentile interval of a figure.

    Args:
        figure: returns the figure of columns (n,), drawn with replacement; None if undefined.
        columns: of n rows.
        seed: of the draws, so that the same rows have the same interval.
    """
    rows = len(columns[0])
    if rows < FEWEST:
        return None, None
    rng = np.random.default_rng(seed)
    times = max(100, min(RESAMPLES, MOST_DRAWN // rows))
    drawn = []
    for _ in range(times):
        places = rng.integers(rows, size=rows)
        value = figure(*(column[places] for column in columns))
        if value is not None:
            drawn.append(value)
    if len(drawn) < times / 2:
        return None, None
    lower, upper = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(lower), float(upper)


def r2(truth: Floats, predicted: Floats) -> float | None:
    """Return the share of the variance that is explained; None if the truth does not vary."""
    if truth.min() == truth.max():  # their rounded mean may be another number
        return None
    total = float(np.sum((truth - truth.mean()) ** 2))
    return 1 - float(np.sum((truth - predicted) ** 2)) / total


def mae(truth: Floats, predicted: Floats) -> float:
    """Return the mean absolute error."""
    return float(np.mean(np.abs(truth - predicted)))


# --- measuring -------------------------------------------------------------------------------


def _read(database: Database, model: str, since: int) -> dict[int, _Judged]:
    """Return a model's answers with feedback, by version."""
    judged = (answers.c.id == feedback.c.id) & (answers.c.place == feedback.c.place)
    truth = (feedback.c.number, feedback.c.label.label("truth"))
    numbers = (answers.c.prediction, answers.c.lower, answers.c.upper)
    labels = (answers.c.label, answers.c.probability)
    wanted = select(answers.c.version, answers.c.time, *truth, *numbers, *labels)
    wanted = wanted.select_from(feedback.join(answers, judged))
    wanted = wanted.where(feedback.c.model == model, answers.c.time >= since)
    with database.reading() as connection:
        rows = connection.execute(wanted).all()
    found: dict[int, list[Any]] = {}
    for row in rows:
        found.setdefault(row.version, []).append(row)
    return {version: _columns(each) for version, each in found.items()}


def _columns(rows: Sequence[Any]) -> _Judged:
    def numbers(name: str) -> Floats:
        return np.array([getattr(row, name) for row in rows], dtype=float)  # None becomes NaN

    right = np.array([row.label is not None and row.label == row.truth for row in rows], float)
    return _Judged(
        rows[0].label is not None,
        numbers("time"),
        numbers("number"),
        numbers("prediction"),
        numbers("lower"),
        numbers("upper"),
        right,
        numbers("probability"),
    )


def _measure(version: int, week: date | None, judged: _Judged, held_out: dict[str, Any]) -> Quality:
    rows = len(judged.time)
    figures: dict[str, Figure] = {}

    def known(name: str) -> float | None:
        value = held_out.get(name)
        return float(value) if isinstance(value, int | float) else None

    def share(name: str, right: Floats) -> None:
        count = len(right)
        ends = wilson(int(right.sum()), count)
        figures[name] = Figure(float(right.mean()), *ends, known(name))

    def resampled(name: str, figure: Callable[..., float | None], *columns: Floats) -> None:
        figures[name] = Figure(figure(*columns), *bootstrap(figure, columns), known(name))

    if judged.is_label:
        share("accuracy", judged.right)
        # Of few answers it is above zero by chance alone, and resampling adds to that: no interval.
        error = calibration_error(judged.right, judged.probability)
        figures["ece"] = Figure(error, None, None, known("ece"))
        return Quality(version, week, rows, figures, _calibration(judged))
    resampled("r2", r2, judged.truth, judged.prediction)
    resampled("mae", mae, judged.truth, judged.prediction)
    bounded = judged.choose(~np.isnan(judged.lower))
    if len(bounded.time):
        inside = (bounded.lower <= bounded.truth) & (bounded.truth <= bounded.upper)
        share("coverage", inside.astype(float))
    return Quality(version, week, rows, figures)


def _calibration(judged: _Judged) -> tuple[Bin, ...]:
    found = []
    places = bins_of(judged.probability)
    for part in sorted(set(places.tolist())):
        chosen = judged.choose(places == part)
        rows, right = len(chosen.right), int(chosen.right.sum())
        share = Figure(right / rows, *wilson(right, rows))
        found.append(Bin(rows, float(chosen.probability.mean()), share))
    return tuple(found)
