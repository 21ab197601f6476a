"""Which rows are held out together: folds that keep groups whole, or go forwards in time.

Every candidate is fitted and measured on the same folds.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits

from mlapp.errors import InvalidData
from mlapp.schema import Floats
from training.tables import Say

SEED = 0  # of the folds' shuffling
FOLDS = ((5_000, 10), (20_000, 5))  # up to so many rows, so many folds
FEWEST_FOLDS = 3  # of more rows: each fold is large, and each fit slow

OWN_VALUES = 0.9  # distinct values, as a share of the rows, from which a column tells rows apart
FEWEST_DIFFERENT = 20  # rows, below which equal inputs do not make a copy
ROWS_OF_COMBINATION = 10  # on average, from which they do not, either, if their targets differ
FREQUENT = 0.05, 20  # share and number of rows, above which equal inputs do not make a copy
SAME_TARGET = 1.05  # targets of a group of copies, on average, at most

Groups: TypeAlias = npt.NDArray[np.int64]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Fold:
    """The places of the rows that a fit sees, and of those that it is measured on."""

    train: Groups
    test: Groups


def count_folds(rows: int) -> int:
    """Return into how many folds so many rows are split."""
    return next((folds for most, folds in FOLDS if rows <= most), FEWEST_FOLDS)


def number_rows(rows: Floats | pd.DataFrame) -> Groups:
    """Return a number for each of n rows, the same for equal rows, (n,).

    Args:
        rows: a matrix (n, inputs), or a table of numbers and texts; missing values are equal.
    """
    table = pd.DataFrame(rows)
    if table.empty:
        return np.zeros(len(table), dtype=np.int64)
    numbers = table.groupby(list(table), dropna=False, sort=False).ngroup()
    return np.asarray(numbers, dtype=np.int64)


def find_observations(groups: Groups, target: Any) -> npt.NDArray[np.bool_]:
    """Return which rows are different observations, even if their inputs are equal, (n,).

    The others with equal inputs are copies. All are observations where the inputs have few
    combinations, as a few categories have; those of a frequent combination are, as that of
    customers who bought nothing.

    Args:
        groups: the number of each row's inputs, as `number_rows` returns it, (n,).
        target: what the inputs are to predict, (n,).
    """
    sizes, rows = np.bincount(groups), len(groups)
    different = np.count_nonzero(sizes)
    few = different < FEWEST_DIFFERENT
    if not few and different * ROWS_OF_COMBINATION <= rows:
        few = _count_pairs(groups, target) > SAME_TARGET * different
    if few:
        return np.ones(rows, dtype=np.bool_)
    share, count = FREQUENT
    return np.asarray(sizes[groups] > max(share * rows, count))


def set_apart(groups: Groups, alone: npt.NDArray[np.bool_]) -> Groups:
    """Return groups in which each of some rows has one of its own, (n,)."""
    apart = np.where(alone, len(groups) + np.arange(len(groups)), groups)
    return np.unique(apart, return_inverse=True)[1].astype(np.int64)


def _count_pairs(groups: Groups, target: Any) -> int:
    """Return how many different rows there are, with their targets."""
    return len(np.unique(number_rows(np.column_stack([groups, target]))))


def group_rows(matrix: Floats, target: Any, needed: int, read: int, say: Say) -> Groups:
    """Return the number of each row's group, (n,): rows with the same inputs stay together.

    A copy of a row on both sides of a fold would be predicted from itself. It may differ in columns
    with a value of its own for nearly each row, such as a time. Rows that are different
    observations in spite of equal inputs (`find_observations`) are a group each.

    Args:
        matrix: the checked inputs, (n, inputs).
        target: what they are to predict, (n,).
        needed: how many different rows there have to be.
        read: how many rows the table has; of those that are not here the target is not usable.
        say: called with what the reader should know.

    Raises:
        InvalidData: the rows are copies of fewer than `needed`.
    """
    groups = number_rows(matrix)
    different = _count_pairs(groups, target)
    if different < needed:
        lost = read - len(target)
        without = f" (the target is not usable in {lost} more)" if lost else ""
        raise InvalidData(
            f"The table has {len(target)} usable rows{without}, {different} of them different;"
            f" training needs at least {needed}"
        )
    alone = find_observations(groups, target)
    if alone.all():
        say("The inputs have few combinations: folds are drawn row by row")
        return set_apart(groups, alone)
    if alone.any():
        say(f"{np.count_nonzero(alone):,} rows have frequent inputs: folds draw them row by row")
    if (repeated := np.count_nonzero(~alone) - _count_pairs(groups[~alone], target[~alone])) > 0:
        say(f"{repeated:,} rows repeat another; they are kept, and stay in one fold with it")
    alike = _find_near_copies(matrix, target)
    if alike is None or len(np.unique(alike)) < needed:
        return set_apart(groups, alone)
    alike = set_apart(alike, find_observations(alike, target))
    copies = len(target) - len(np.unique(alike))
    say(
        f"{copies:,} rows repeat another but for columns that differ in nearly every row; they stay"
        " in one fold with it"
    )
    return alike


def _find_near_copies(matrix: Floats, target: Any) -> Groups | None:
    """Return the groups of rows that are equal but for columns with hardly a value twice, (n,).

    It is None unless many rows repeat a measured number, with decimals, and rows of a group have
    one target: otherwise they are different observations, as those of one shop at several times.
    """
    rows = len(target)
    values = [len(np.unique(column)) for column in matrix.T]
    common = matrix[:, [count <= OWN_VALUES * rows for count in values]]
    if not 0 < common.shape[1] < matrix.shape[1]:
        return None
    groups = number_rows(common)
    different = len(np.unique(groups))
    if different > OWN_VALUES * rows or _count_pairs(groups, target) > SAME_TARGET * different:
        return None
    measured = (np.unique(column[~np.isnan(column)]) for column in common.T)
    is_measured = any(len(each) > different / 2 and np.any(each % 1) for each in measured)
    return groups if is_measured else None


def join_groups(one: Groups, other: Groups) -> Groups:
    """Return groups such that rows which share either group share one, (n,)."""
    count = int(one.max()) + 1
    size = count + int(other.max()) + 1
    edges = coo_array((np.ones(len(one)), (one, count + other)), shape=(size, size))
    _, parts = connected_components(edges, directed=False)
    joined: Groups = parts[one].astype(np.int64)
    return joined


def random_folds(groups: Groups, count: int, labels: Groups | None = None) -> list[Fold]:
    """Split rows into folds at random, each group in one; with labels, each label evenly.

    Args:
        groups: the number of each row's group, (n,).
        count: how many folds.
        labels: the place of each row's label, (n,).

    Raises:
        InvalidData: there are fewer groups than folds.
    """
    names, first, places = np.unique(groups, return_index=True, return_inverse=True)
    if len(names) < count:
        raise InvalidData(
            f"The rows are of {len(names)} groups, and {count} folds need at least as many"
        )
    if labels is None:
        parts = [held for _, held in KFold(count, shuffle=True, random_state=SEED).split(names)]
    else:
        order = np.random.default_rng(SEED).permutation(len(names))
        order = order[np.argsort(labels[first][order], kind="stable")]
        parts = [order[start::count] for start in range(count)]
    fold_of_group = np.empty(len(names), dtype=np.int64)
    for place, held in enumerate(parts):
        fold_of_group[held] = place
    fold_of_row = fold_of_group[places]
    return [
        Fold(np.flatnonzero(fold_of_row != place), np.flatnonzero(fold_of_row == place))
        for place in range(count)
    ]


def forward_folds(times: Floats, count: int) -> list[Fold]:
    """Split rows by time: each fold is predicted by a fit that saw earlier rows alone.

    The earliest part is never held out. Rows of one time stay together.

    Args:
        times: of each row, (n,), in any unit.
        count: how many folds.

    Raises:
        InvalidData: there are too few different times.
    """
    moments, places = np.unique(times, return_inverse=True)
    if len(moments) <= count:
        raise InvalidData(
            f"The rows have {len(moments)} different times, and {count} folds in order of time"
            f" need at least {count + 1}"
        )
    # Cut so that the parts hold about as many rows each, and at least one time.
    rows = np.cumsum(np.bincount(places))
    cuts = np.searchsorted(rows, len(times) * np.arange(1, count + 1) / (count + 1), side="right")
    steps = np.arange(1, count + 1)
    cuts = np.maximum.accumulate(np.maximum(cuts, 1) - steps) + steps  # each above the last
    cuts = np.minimum(cuts, len(moments) - count - 1 + steps)
    ends = [*cuts.tolist(), len(moments)]
    return [
        Fold(np.flatnonzero(places < start), np.flatnonzero((start <= places) & (places < end)))
        for start, end in itertools.pairwise(ends)
    ]


def held_out(folds: Sequence[Fold]) -> Groups:
    """Return the places of the rows that a fold holds out, ascending."""
    return np.sort(np.concatenate([fold.test for fold in folds]))


def each_fold(work: Callable[[Fold], Found], folds: Sequence[Fold]) -> list[Found]:
    """Do something for each fold, as many at a time as there are cores.

    Each fit has one thread: several would wait for each other wherever a machine is busy.
    """

    def alone(fold: Fold) -> Found:
        with threadpool_limits(1, user_api="openmp"):
            return work(fold)

    with ThreadPoolExecutor(min(len(folds), cpu_count() or 1)) as pool:
        return list(pool.map(alone, folds))
