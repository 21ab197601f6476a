"""What became of the rows of a run: how many were scored, and the first refused ones, with why."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from mlapp.scoring.batch import Counts

SHOWN = 100  # refused rows that are listed

RefusedRow: TypeAlias = tuple[int, str]  # its number, from 1, and what is wrong
RefusedRowOfFile: TypeAlias = tuple[str, int, str]  # the file's path, then the same
R = TypeVar("R", bound=tuple[Any, ...])  # one of the two


@dataclass(frozen=True)
class Tally(Generic[R]):
    """Counts of rows, and the first `SHOWN` refused rows in order.

    Attributes:
        counts: all rows, scored, scored with a notice, refused.
        refused: the first refused rows.
    """

    counts: Counts = field(default_factory=Counts)
    refused: tuple[R, ...] = ()

    def add(self, counts: Counts, refused: Iterable[R]) -> "Tally[R]":
        """Return this tally with other rows added, from anywhere in the input."""
        first = heapq.nsmallest(SHOWN, [*self.refused, *refused])
        return Tally(self.counts + counts, tuple(first))


def add_batch(
    tally: Tally[RefusedRow], counts: Counts, errors: Mapping[int, str]
) -> Tally[RefusedRow]:
    """Return a tally with the next batch of rows added.

    Args:
        tally: of all rows before the batch.
        counts: of the batch.
        errors: what is wrong with its refused rows, by their places in the batch, from 0.
    """
    before = tally.counts.rows
    if len(tally.refused) == SHOWN:  # later rows are not among the first
        errors = {}
    return tally.add(counts, [(before + place + 1, error) for place, error in errors.items()])


def describe_refused(refused: RefusedRow | RefusedRowOfFile) -> str:
    """Return a refused row as messages name it."""
    *file, number, error = refused
    return "".join(f"{path}: " for path in file) + f"row {number:,}, {error}"


@dataclass(frozen=True)
class Summary(Generic[R]):
    """How a run ended.

    Attributes:
        counts: all rows, scored, scored with a notice, refused.
        refused: the first refused rows.
        seconds: how long this run took, without `starting`.
        earlier: how many rows an earlier run had scored, if this one resumed it.
        complete: whether all rows are scored; otherwise the run was stopped.
        parts: how many files were written.
        starting: seconds that a cluster took to start.
    """

    counts: Counts
    refused: tuple[R, ...]
    seconds: float
    earlier: int = 0
    complete: bool = True
    parts: int = 1
    starting: float = 0.0
