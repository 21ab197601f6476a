"""What the writer writes at once: whole or not at all, and once, however often it is tried."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # SQLAlchemy takes longer to import than a row takes to predict
    from sqlalchemy import Connection, Table

    from mlapp.records.database import Database

AT_ONCE = 256  # rows of a statement
HOUR = 3_600_000  # milliseconds, in which values are counted together

Row: TypeAlias = tuple[Any, ...]  # of texts, numbers and None
Key: TypeAlias = tuple[str, int, int, str, str, int]  # model, version, hour, kind, name, bin


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
        bytes: of what was asked, in the rows of answers.
    """

    answers: list[Columns] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
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


def write(database: "Database", transaction: Transaction) -> None:
    """Write a transaction, whole or not at all; one that was written before changes nothing.

    Raises:
        RecordsUnavailable: it is not written, or that is not known.
    """
    from sqlalchemy import select

    from mlapp.records.database import answers, counts, runs, shadows

    with database.begin() as connection:
        tables = [
            (answers, transaction.answers),
            (runs, _columns(runs, transaction.runs)),
            (shadows, _columns(shadows, transaction.shadows)),
        ]
        for table, found in tables:
            for first in found[:1]:
                known = select(table.c.id).filter_by(id=first.each["id"][0])
                if connection.execute(known).first():
                    return  # an earlier attempt was written, though its outcome was not known
        for table, found in tables:
            for columns in found:
                _insert(connection, table, columns)
        # In one order everywhere, or two processes would wait for each other.
        ordered = [(*key, count) for key, count in sorted(transaction.counts.items())]
        add = (
            " WHERE true ON CONFLICT (model, version, hour, kind, name, bin)"
            " DO UPDATE SET count = counts.count + excluded.count"
        )
        for columns in _columns(counts, ordered):
            _insert(connection, counts, columns, add)


def _columns(table: "Table", rows: Sequence[Row]) -> list[Columns]:
    """Return whole rows of a table as columns, unless there are none."""
    if not rows:
        return []
    names = [column.name for column in table.columns]
    return [Columns(len(rows), {}, dict(zip(names, zip(*rows, strict=True), strict=True)))]


def _insert(connection: "Connection", table: "Table", columns: Columns, suffix: str = "") -> None:
    """Insert rows, many in a statement.

    SQLAlchemy's own insertion takes as long for a row as SQLite does, and SQLite's time for a row
    is that of its parameters: a value that is the same in all rows is given once.
    """
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
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
            f"INSERT INTO {table.name} ({names})"
            f" SELECT {selected} FROM (VALUES {rows}) AS found{suffix}"
        )
        connection.exec_driver_sql(statement, (*columns.same.values(), *values))
