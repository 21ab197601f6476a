"""Running counts of predictions, for charts, in an amount of memory that does not grow."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mlapp.schema import Floats, name_columns

FINEST = 2048  # bars that are counted
MOST_DIFFERING = 100  # rows that are kept, of those that differ most
SHOWN = 40  # the most bars that are shown
NOISE = 1e-9  # a difference below this part of the numbers is one of floating-point arithmetic


class Histogram:
    """Counts of numbers in bars that widen as needed: exact, and small for any range."""

    def __init__(self) -> None:
        self._width, self._counts = 0.0, Counter[int]()

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Count some numbers; none of them may be NaN."""
        if not len(values):
            return
        if not self._width:
            low, high = np.quantile(values, [0.25, 0.75])
            spread = float(high - low) or float(np.abs(values).max()) or 1.0
            self._width = 10.0 ** math.floor(math.log10(spread / 100))
        with np.errstate(over="ignore"):
            places = np.clip(np.floor(values / self._width), -(2.0**52), 2.0**52)
        found, counts = np.unique(places, return_counts=True)
        self._counts.update(dict(zip(map(int, found), counts.tolist(), strict=True)))
        while len(self._counts) > FINEST:
            self._width, self._counts = self._width * 2, _halved(self._counts)

    def bars(self) -> tuple[pd.DataFrame, int]:
        """Return the bars, at most `SHOWN`, without rare outliers.

        Returns:
            Columns start, end, rows; and how many outliers are left out.
        """
        width, counts = self._width, self._counts
        places = sorted(counts)
        if not places:
            return pd.DataFrame(columns=["start", "end", "rows"]), 0
        sums = np.cumsum([counts[place] for place in places])
        total = int(sums[-1])
        low, high = (places[np.searchsorted(sums, share * total)] for share in (0.005, 0.995))
        reach = high - low + 1  # of the middle 99%
        inside = [place for place in places if low - reach <= place <= high + reach]
        outside = total - sum(counts[place] for place in inside)
        counts = Counter({place: counts[place] for place in inside})
        while max(counts) - min(counts) >= SHOWN:
            width, counts = width * 2, _halved(counts)
        rows = [(place * width, (place + 1) * width, counts[place]) for place in sorted(counts)]
        return pd.DataFrame(rows, columns=["start", "end", "rows"]), outside


class Shares:
    """Counts of labels, sure and unsure."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels, self._counts = labels, Counter[tuple[str, bool]]()

    def add(self, labels: Sequence[str], unsure: Sequence[bool]) -> None:
        """Count some labels, each with whether it is unsure."""
        self._counts.update(zip(labels, unsure, strict=True))

    def bars(self) -> pd.DataFrame:
        """Return label, answer (sure, unsure), rows and their share, for each label and answer."""
        total = sum(self._counts.values()) or 1
        rows = [
            (label, answer, count := self._counts[label, answer == "unsure"], count / total)
            for label in self._labels
            for answer in ("sure", "unsure")
        ]
        return pd.DataFrame(rows, columns=["label", "answer", "rows", "share"])


def without_noise(difference: Floats, ours: Floats, theirs: Floats) -> Floats:
    """Return differences of numbers, 0 where they are no larger than rounding errors.

    Args:
        difference: of each row, NaN where there is none.
        ours: one of the numbers of each row.
        theirs: the other.
    """
    sizes = np.fmax(np.abs(ours), np.abs(theirs))
    # Where the terms of a sum cancel, its error is that of the terms; others tell their size.
    usual = float(np.nanmedian(sizes)) if np.isfinite(sizes).any() else 0.0
    least = np.maximum(NOISE * sizes, 1e-5 * NOISE * usual)
    return np.where(np.abs(difference) <= least, 0.0, difference)


class Differences:
    """How two answers to each row differ: counts, and the rows that differ most.

    Differences that are no larger than rounding errors are none.

    Attributes:
        compared: rows that both answered.
        differing: those of them whose answers differ.
        changed: those of them whose labels differ; for numbers, those outside the other's
            interval, if it has one.
        alone: rows that only one of the two answered.
        largest: the rows that differ most, in descending order: their number, from 1, and values.
    """

    def __init__(self, prefix: str, other_prefix: str) -> None:
        """Count nothing yet.

        Args:
            prefix: what the names of the columns of the answers begin with.
            other_prefix: what those of the other answers begin with.
        """
        self._prefix, self._other = prefix, other_prefix
        self.compared = self.differing = self.changed = self.alone = 0
        self._sum = 0.0
        self.largest: list[tuple[int, dict[str, Any]]] = []

    @property
    def mean(self) -> float:
        """The mean absolute difference, 0 if no rows were compared."""
        return self._sum / self.compared if self.compared else 0.0

    def add(self, batch: pa.RecordBatch, before: int) -> None:
        """Count a batch of the result of a comparison.

        Args:
            batch: columns as `comparison` has them.
            before: how many rows came before it.
        """
        size = np.abs(self._sizes(batch))
        both = ~np.isnan(size)
        self.compared += int(both.sum())
        self.differing += int((size[both] > 0).sum())
        self.changed += self._count_changed(batch, size)
        first, second = (batch.column(f"{prefix}error").is_null() for prefix in self._prefixes)
        self.alone += sum(
            ours != theirs
            for ours, theirs in zip(first.to_pylist(), second.to_pylist(), strict=True)
        )
        self._sum += float(size[both].sum())
        self._keep(batch, np.where(both, size, 0), before)

    def _sizes(self, batch: pa.RecordBatch) -> Floats:
        difference = _numbers(batch, f"{self._prefix}difference")
        names = [f"{prefix}prediction" for prefix in self._prefixes]
        if f"{self._prefix}changed" in batch.schema.names:  # of probabilities, which are up to 1
            return without_noise(difference, np.ones_like(difference), np.ones_like(difference))
        return without_noise(difference, *(_numbers(batch, name) for name in names))

    def _count_changed(self, batch: pa.RecordBatch, size: Floats) -> int:
        names = batch.schema.names
        if (changed := f"{self._prefix}changed") in names:
            return int(pc.sum(batch.column(changed)).as_py() or 0)
        if (lower := f"{self._other}lower") not in names:
            return 0
        prediction = _numbers(batch, f"{self._prefix}prediction")
        outside = (prediction < _numbers(batch, lower)) | (
            prediction > _numbers(batch, f"{self._other}upper")
        )
        return int((outside & (size > 0)).sum())

    def _keep(self, batch: pa.RecordBatch, size: Floats, before: int) -> None:
        name = f"{self._prefix}difference"
        least = abs(self.largest[-1][1][name]) if len(self.largest) == MOST_DIFFERING else 0.0
        places = np.flatnonzero(size > least)
        places = places[np.argsort(-size[places], kind="stable")][:MOST_DIFFERING]
        if not len(places):
            return
        rows = batch.take(pa.array(places)).to_pylist()
        numbers = (before + places + 1).tolist()
        kept = [*self.largest, *zip(numbers, rows, strict=True)]
        self.largest = sorted(kept, key=lambda row: -abs(row[1][name]))[:MOST_DIFFERING]

    def table(self) -> pd.DataFrame:
        """Return the rows that differ most, in descending order, with their numbers from 1.

        The differences come first, then the columns of the file and of both answers.
        """
        found = pd.DataFrame([values for _, values in self.largest])
        answers = [each + name for name in ("prediction", "label") for each in self._prefixes]
        first = [self._prefix + name for name in ("difference", "changed")]
        first = [name for name in [*first, *answers] if name in found]
        found = found[[*first, *(name for name in found if name not in first)]]
        name = next(iter(name_columns(["row"], found.columns).values()))
        found.insert(0, name, [number for number, _ in self.largest])
        return found

    @property
    def _prefixes(self) -> tuple[str, str]:
        return self._prefix, self._other


def _numbers(batch: pa.RecordBatch, name: str) -> Floats:
    found: Floats = batch.column(name).to_numpy(zero_copy_only=False)
    return found


def _halved(counts: Counter[int]) -> Counter[int]:
    """Return the counts for bars of twice the width."""
    halved = Counter[int]()
    for place, count in counts.items():
        halved[place // 2] += count
    return halved
