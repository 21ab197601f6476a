"""Parts of the texts that learn and judge, with near-repeated texts on one side.

Texts are near copies where they share most of their word triples, as estimated by MinHash (Broder,
"On the resemblance and containment of documents", 1997). Copies of copies belong together.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mlapp.families.text import Ids
from mlapp.families.units import Hashes, Units

HELD_OUT = 0.25  # share of the texts that judge the model, and nothing else
CALIBRATION = 0.05  # share that models are chosen and their probabilities are calibrated on
SIMILAR = 0.7  # the share of triples that near copies have in common, at least
BANDS, ROWS = 10, 6  # of a signature; candidates agree in all rows of a band
LARGEST_GROUP = 0.5  # share of the texts above which copies are no longer held together

Signature = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Split:
    """Rows of the three parts; no text is in two of them."""

    train: Ids
    calibration: Ids
    held_out: Ids


@lru_cache(maxsize=1)
def _permutations() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return odd factors and offsets, one pair for each place of a signature."""
    random = np.random.default_rng(0)
    factors, offsets = random.integers(0, 1 << 62, (2, BANDS * ROWS), dtype=np.uint64)
    return factors * np.uint64(2) + np.uint64(1), offsets


def sign(units: Units) -> Signature:
    """Return a text's MinHash signature, (BANDS * ROWS,): of triples, or of one or two units."""
    triples = units.hashes[: units.pieces][units.length[: units.pieces] == 3]
    shingles = np.unique(triples if len(triples) else units.hashes[: len(units.spans)])
    if not len(shingles):
        return np.zeros(BANDS * ROWS, dtype=np.uint32)
    factors, offsets = _permutations()
    mixed = shingles.astype(np.uint64)[:, None] * factors + offsets
    smallest: Hashes = (mixed >> np.uint64(32)).astype(np.uint32).min(axis=0)
    return smallest


def group(signatures: Sequence[Signature]) -> Ids:
    """Return the number of each text's group of near copies, (n,); most are alone in theirs."""
    table = np.array(signatures, dtype=np.uint32).reshape(len(signatures), BANDS * ROWS)
    parents = np.arange(len(table))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = int(parents[row])
        return row

    for band in range(BANDS):
        buckets: dict[bytes, int] = {}
        for row, key in enumerate(table[:, band * ROWS : (band + 1) * ROWS]):
            first = buckets.setdefault(key.tobytes(), row)
            if first != row and float(np.mean(table[first] == table[row])) >= SIMILAR:
                parents[root(row)] = root(first)
    return np.array([root(row) for row in range(len(table))], dtype=np.int64)


def count_copies(groups: Ids) -> int:
    """Return how many texts are near copies of another."""
    _, counts = np.unique(groups, return_counts=True)
    return int(counts[counts > 1].sum())


def loosen(groups: Ids, classes: Ids) -> Ids:
    """Return the groups without those too large to be held out: their texts stand alone.

    Too large is more than half of the texts, or all of a label, since too little would be left to
    learn from.

    Args:
        groups: of n texts, (n,).
        classes: the place of each one's label, (n,).
    """
    _, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    large = counts > LARGEST_GROUP * len(groups)
    for label in np.unique(classes):
        own = places[classes == label]
        large[own[0]] |= bool(np.all(own == own[0]))
    loose = (large & (counts > 1))[places]
    return np.where(loose, len(groups) + np.arange(len(groups)), groups)


def split(classes: Ids, random: np.random.Generator, groups: Ids | None = None) -> Split:
    """Split n texts at random, each label in the same proportion.

    Near copies that come to lie in several parts go to the training part.
    """
    part = np.zeros(len(classes), dtype=np.int64)
    for label in np.unique(classes):
        rows = random.permutation(np.flatnonzero(classes == label))
        out = round(HELD_OUT * len(rows))
        own = max(1, round(CALIBRATION * len(rows)))
        part[rows[:out]], part[rows[out : out + own]] = 2, 1
    if groups is not None:
        members = defaultdict(list)
        for row, own_group in enumerate(groups.tolist()):
            members[own_group].append(row)
        for rows_together in members.values():
            if len(set(part[rows_together].tolist())) > 1:
                part[rows_together] = 0
    return Split(*(np.flatnonzero(part == place) for place in range(3)))


def folds(classes: Ids, count: int, random: np.random.Generator, groups: Ids) -> Ids:
    """Return the fold, from 0, of each text, (n,); each label is spread evenly over the folds."""
    found = np.full(len(classes), -1)
    filled = np.zeros((int(classes.max()) + 1, count), dtype=np.int64)
    order = random.permutation(len(classes))
    members = defaultdict(list)
    for row in order.tolist():
        members[int(groups[row])].append(row)
    # The largest groups first, so that the small ones even them out.
    for rows in sorted(members.values(), key=len, reverse=True):
        label = classes[rows[0]]
        least = np.lexsort((filled.sum(axis=0), filled[label]))[0]
        found[rows] = least
        np.add.at(filled, (classes[rows], least), 1)
    return found
