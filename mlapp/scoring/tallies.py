"""Running counts of predictions, of which charts are drawn: small, however many are counted."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

FINEST = 2048  # bars that are counted apart
SHOWN = 40  # bars that are shown at most


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
        """Return the bars, at most `SHOWN`; rare numbers far off are left out.

        Returns:
            Columns start, end, rows; and how many numbers are left out.
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
    """Counts of labels, of sure and of unsure ones."""

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


def _halved(counts: Counter[int]) -> Counter[int]:
    """Return the counts in bars of twice the width."""
    halved = Counter[int]()
    for place, count in counts.items():
        halved[place // 2] += count
    return halved
