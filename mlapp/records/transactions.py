"""What the writer writes at once: whole or not at all, and once, however often it is tried."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

AT_ONCE = 256  # rows of a statement
HOUR = 3_600_000  # milliseconds, in which values are counted together

Row: TypeAlias = tuple[Any, ...]  # of texts, numbers and None
Key: TypeAlias = tuple[str, int, int, str, str, int]  # of `KEY`
Execute: TypeAlias = Callable[[str, Row], Any]  # a statement with its parameters; returns a cursor

SHADOW = ("id", "place", "time", "model", "version", "prediction", "label", "probability")
KEY = ("model", "version", "hour", "kind", "name", "bin")
COUNT = (*KEY, "count")
WRITTEN = ("answers", "runs", "shadows", "counts")  # the tables


class Run(NamedTuple):
    """A file that was scored: the columns of the table `runs`."""

    id: str
    time: int
    model: str
    version: int
    channel: str
    seconds: float
    rows: int
    scored: int
    noticed: int
    refused: int
    complete: bool


@dataclass(frozen=True)
class Columns:
    """Rows of a table, by the names of its columns; a column that is not here is null.

    Attributes:
        size: number of rows.
        same: the values of columns that are the same in all rows.
        each: the values of the others, (size,) each.
    """

    size: int
    same: Mapping[str, Any]
    each: Mapping[str, Sequence[Any]]


@dataclass
class Transaction:
    """What is written at once: rows of three tables, and what is added to `counts`.

    Attributes:
        shadows: rows with the columns `SHADOW`.
        bytes: of what was asked, in the rows of answers.
    """

    answers: list[Columns] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    shadows: list[Row] = field(default_factory=list)
    counts: Counter[Key] = field(default_factory=Counter)
    bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.answers or self.runs or self.shadows or self.counts)

    def __len__(self) -> int:
        return sum(each.size for each in self.answers) + len(self.runs)

    @property
    def held(self) -> int:
        """How many rows there are of all tables."""
        return len(self) + len(self.shadows)

    def take(self, other: "Transaction") -> None:
        """Add what another has."""
        self.answers += other.answers
        self.runs += other.runs
        self.shadows += other.shadows
        self.counts.update(other.counts)
        self.bytes += other.bytes


class Target(Protocol):
    """A database that is written."""

    @property
    def mark(self) -> str:
        """Where a statement takes a parameter."""

    def writing(self) -> AbstractContextManager[Execute]:
        """Yield what executes statements in a transaction, on the disk when the block ends.

        Raises:
            RecordsUnavailable: the database cannot be reached, read or written.
        """

    def close(self) -> None:
        """Close its connections."""


def write(target: Target, transaction: Transaction) -> None:
    """Write a transaction, whole or not at all; one that was written before changes nothing.

    Raises:
        RecordsUnavailable: it is not written, or that is not known.
    """
    tables = [
        ("answers", transaction.answers),
        ("runs", _columns(Run._fields, transaction.runs)),
        ("shadows", _columns(SHADOW, transaction.shadows)),
    ]
    # In one order everywhere, or two processes would wait for each other.
    ordered = [(*key, count) for key, count in sorted(transaction.counts.items())]
    add = (
        f" WHERE true ON CONFLICT ({', '.join(KEY)})"
        " DO UPDATE SET count = counts.count + excluded.count"
    )
    with target.writing() as execute:
        for table, found in tables:
            for first in found[:1]:
                known = f"SELECT 1 FROM {table} WHERE id = {target.mark}"
                if execute(known, (first.each["id"][0],)).fetchone():
                    return  # an earlier attempt was written, though its outcome was not known
        for table, found in tables:
            for columns in found:
                _insert(execute, target.mark, table, columns)
        for columns in _columns(COUNT, ordered):
            _insert(execute, target.mark, "counts", columns, add)


def _columns(names: Sequence[str], rows: Sequence[Row]) -> list[Columns]:
    """Return rows as columns, unless there are none."""
    if not rows:
        return []
    return [Columns(len(rows), {}, dict(zip(names, zip(*rows, strict=True), strict=True)))]


def _insert(execute: Execute, mark: str, table: str, columns: Columns, suffix: str = "") -> None:
    """Insert rows, many in a statement.

    SQLAlchemy's own insertion takes as long for a row as SQLite does, and SQLite's time for a row
    is that of its parameters: a value that is the same in all rows is given once.
    """
    width = len(columns.each)
    names = ", ".join(f'"{name}"' for name in (*columns.same, *columns.each))
    selected = ", ".join([mark] * len(columns.same) + ["found.*"])
    marks = f"({', '.join([mark] * width)})"
    for start in range(0, columns.size, AT_ONCE):
        count = min(AT_ONCE, columns.size - start)
        values: list[Any] = [None] * (count * width)
        for place, column in enumerate(columns.each.values()):
            values[place::width] = column[start : start + count]
        rows = ", ".join([marks] * count)
        statement = (
            f"INSERT INTO {table} ({names}) SELECT {selected} FROM (VALUES {rows}) AS found{suffix}"
        )
        execute(statement, (*columns.same.values(), *values))
