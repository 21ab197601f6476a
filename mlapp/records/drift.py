"""Drift: whether the requests still look like the training data.

Each input, the further columns of answers, and the answers are compared with training in bins:

- the population stability index, sum of (p - q) ln(p / q) over the bins (Siddiqi, "Credit risk
  scorecards", 2006, chapter 9), measures how far a distribution has moved;
- the chi-square test of two samples (Press et al., "Numerical recipes", 2007, section 14.3) decides
  whether chance alone could have moved it so far.

For both, sparse bins are joined with their neighbours until each has at least `EXPECTED` values in
expectation.

A series is flagged if chance alone would flag it in fewer than 1 of 200 weeks.
`benchmarks/drift.py` simulates how often that happens with and without drift.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from mlapp.families.contract import Model
from mlapp.records import bins, queries
from mlapp.records.bins import MISSING, REFUSED, Binning, Series
from mlapp.records.database import Database
from mlapp.records.reference import Counts
from mlapp.tables.numbers import Floats

Severity: TypeAlias = Literal["green", "watch", "act", "unknown"]
Show: TypeAlias = Callable[[float], str | None]  # an edge as text

CHANCE = 0.005  # the p-value below which a series is flagged
LARGE = 0.25  # the index from which a flagged series requires action; Siddiqi's threshold
FEWEST = 50  # the fewest values that are compared
EXPECTED = 5  # the fewest expected values in a bin of the test
MANY = 4 * EXPECTED  # values in a bin that chance hardly brings where fewer are expected
WEEK = 7 * queries.DAY
DIGITS = (6, 9, 12)  # of an edge in a bin's name: as few as tell the edges apart


@dataclass(frozen=True)
class Drift:
    """How a series has moved.

    Attributes:
        series: the series; see `bins`.
        state: green; watch: beyond chance; act: beyond chance, and far; unknown: too few values,
            or no reference.
        rows: the number of values in requests.
        reference: the number of values in training.
        psi: the population stability index; None if it is unknown.
        p: the p-value; None if it is unknown.
        missing: the share of missing values.
        outside: the share outside the training range; for a category, always 0.
        refused: how many values were refused, such as categories that training did not have.
        bins: the name of each bin, and its shares in training and now; refused values have one.
    """

    series: Series
    state: Severity
    rows: int
    reference: int
    psi: float | None
    p: float | None
    missing: float
    outside: float
    refused: int
    bins: tuple[tuple[str, float, float], ...]

    @property
    def reason(self) -> str | None:
        """Why the state is unknown; None if it is known."""
        if self.state != "unknown":
            return None
        if not self.reference:
            return "no reference to compare with"
        if self.reference < FEWEST:
            return f"the reference has {self.reference} values, and at least {FEWEST} are needed"
        return f"at least {FEWEST} values are needed"


def measure(
    model: Model, reference: Counts | None, database: Database, since: int | None = None
) -> list[Drift]:
    """Compare requests with training, for each series of a model.

    Args:
        model: the version whose requests are compared.
        reference: what `reference.read` returned for the version.
        database: the records.
        since: a time in milliseconds; by default a week ago.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    since = queries.now() - WEEK if since is None else since
    manifest = model.manifest
    live = queries.totals(database, manifest.name, since, manifest.version)
    inputs = model.takes.inputs
    dates = {Series("input", spec.name): spec.plain for spec in inputs if spec.kind == "date"}
    return [
        compare(
            series, cut, (reference or {}).get(series, {}), live.get(series, {}), dates.get(series)
        )
        for series, cut in bins.binnings(model).items()
    ]


def compare(
    series: Series,
    cut: Binning,
    reference: Mapping[int, int],
    live: Mapping[int, int],
    show: Show | None = None,
) -> Drift:
    """Compare the counts of a series in training and now, by bin.

    Args:
        series: what is counted.
        cut: its bins.
        reference: the counts in training.
        live: the counts now.
        show: returns an edge as text; by default as a number.
    """
    places = [MISSING, *range(len(cut))]
    old = np.array([reference.get(place, 0) for place in places], dtype=float)
    new = np.array([live.get(place, 0) for place in places], dtype=float)
    rows, known, refused = int(new.sum()), int(old.sum()), live.get(REFUSED, 0)
    names = name_bins(cut, show)
    named = [_name_apart("missing", names), *names]
    shares = [
        (name, before / max(1, known), now / max(1, rows + refused))
        for name, before, now in zip(named, old.tolist(), new.tolist(), strict=True)
        if before or now
    ]
    if refused:
        shares.insert(0, (_name_apart("refused", names), 0.0, refused / (rows + refused)))
    ends = () if cut.values else (0, len(cut) - 1)
    outside = sum(live.get(place, 0) for place in ends) / max(1, rows)
    missing = live.get(MISSING, 0) / max(1, rows)
    state: Severity = "unknown"
    psi = p = None
    if rows + refused >= FEWEST and known >= FEWEST:
        # Refused values have a bin of their own; nothing that was learned from is refused.
        old, new = np.insert(old, 0, 0), np.insert(new, 0, refused)
        joined = _join_sparse(old, new)
        psi, p = stability_index(joined), p_value(joined)
        flagged = p < CHANCE
        state = ("act" if psi >= LARGE else "watch") if flagged else "green"
    return Drift(series, state, rows, known, psi, p, missing, outside, refused, tuple(shares))


def _name_apart(name: str, names: Sequence[str]) -> str:
    """Return a name that no category has."""
    while name in names:
        name = f"({name})"
    return name


def name_bins(cut: Binning, show: Show | None = None) -> list[str]:
    """Return the name of each bin: its range, or its value; see `compare`."""
    if cut.values:
        return list(cut.values)
    shown = [show(edge) for edge in cut.edges] if show else _show_numbers(cut.edges)
    inside = [
        f"{name}" if _is_next(low, high) else f"{name} to {upper}"
        for (low, high), (name, upper) in zip(pairwise(cut.edges), pairwise(shown), strict=True)
    ]
    return [f"below {shown[0]}", *inside, f"above {shown[-1]}"]


def _show_numbers(edges: Sequence[float]) -> list[str | None]:
    """Return edges with as few digits as tell them apart."""
    apart = [(low, high) for low, high in pairwise(edges) if not _is_next(low, high)]
    digits = next((n for n in DIGITS if all(f"{a:.{n}g}" != f"{b:.{n}g}" for a, b in apart)), 17)
    tiny = math.nextafter(0.0, 1.0)  # the edge above 0
    return [f"{0.0 if edge == tiny else edge:.{digits}g}" for edge in edges]


def _is_next(low: float, high: float) -> bool:
    return high == math.nextafter(low, math.inf)


def stability_index(pairs: Floats) -> float:
    """Return the population stability index of counts (2, bins); half a value is added to each."""
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in pairs)
    return float(np.sum((q - p) * np.log(q / p)))


def p_value(pairs: Floats) -> float:
    """Return the p-value of the chi-square test that counts (2, bins) are of one distribution."""
    totals = pairs.sum(axis=1, keepdims=True)
    expected = totals * pairs.sum(axis=0) / pairs.sum()
    statistic = float(np.sum((pairs - expected) ** 2 / expected))
    return chi_square_tail(statistic, pairs.shape[1] - 1)


def chi_square_tail(statistic: float, freedom: int) -> float:
    """Return the probability that a chi-square variable exceeds a value.

    The finite sums of Abramowitz and Stegun, "Handbook of mathematical functions" (1964), 26.4.4
    and 26.4.5, which hold for whole degrees of freedom.
    """
    if freedom < 1 or statistic <= 0:
        return 1.0
    if freedom % 2:
        tail = math.erfc(math.sqrt(statistic / 2))
        term = math.sqrt(2 * statistic / math.pi) * math.exp(-statistic / 2)
        for power in range(3, freedom + 1, 2):
            tail += term
            term *= statistic / power
        return min(1.0, tail)
    term, tail = math.exp(-statistic / 2), 0.0
    for power in range(2, freedom + 1, 2):
        tail += term
        term *= statistic / power
    return min(1.0, tail)


def _join_sparse(old: Floats, new: Floats) -> Floats:
    """Return counts (2, bins) with neighbours joined until each bin has enough expected values.

    A bin where the smaller sample has `MANY` stays: it may be one that the other hardly has.
    """
    share = min(old.sum(), new.sum()) / (old.sum() + new.sum())
    smaller = int(new.sum() < old.sum())

    def is_sparse(group: list[float]) -> bool:
        return sum(group) * share < EXPECTED and group[smaller] < MANY

    groups: list[list[float]] = []
    for pair in zip(old.tolist(), new.tolist(), strict=True):
        if groups and is_sparse(groups[-1]):
            groups[-1] = [a + b for a, b in zip(groups[-1], pair, strict=True)]
        else:
            groups.append(list(pair))
    if len(groups) > 1 and is_sparse(groups[-1]):
        last = groups.pop()
        groups[-1] = [a + b for a, b in zip(groups[-1], last, strict=True)]
    return np.array(groups).T
