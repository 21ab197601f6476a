"""What the writer writes at once: whole or not at all, and once, however often it is tried."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # SQLAlchemy takes longer to import than a row takes to predict
    from sqlalchemy import Connection, Table

    from mlapp.records.database import Database

AT_ONCE = 256  # rows of a statement
HOUR = 3_600_000  # milliseconds, in which values are counted together

Row: TypeAlias = tuple[Any, ...]  # of texts, numbers and None
Key: TypeAlias = tuple[str, int, int, str, str, int]  # model, version, hour, kind, name, bin


@dataclass
class Transaction:
    """What is written at once: rows of three tables, and what is added to `counts`.

    Attributes:
        bytes: of what was asked, in the rows of answers.
    """

    answers: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    shadows: list[Row] = field(default_factory=list)
    counts: Counter[Key] = field(default_factory=Counter)
    bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.answers or self.runs or self.shadows or self.counts)

    def __len__(self) -> int:
        return len(self.answers) + len(self.runs)

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
            (runs, transaction.runs),
            (shadows, transaction.shadows),
        ]
        for table, rows in tables:
            if rows and connection.execute(select(table.c.id).filter_by(id=rows[0][0])).first():
                return  # an earlier attempt was written, though its outcome was not known
        for table, rows in tables:
            _insert(connection, table, rows)
        # In one order everywhere, or two processes would wait for each other.
        found = [(*key, count) for key, count in sorted(transaction.counts.items())]
        add = (
            " ON CONFLICT (model, version, hour, kind, name, bin)"
            " DO UPDATE SET count = counts.count + excluded.count"
        )
        _insert(connection, counts, found, add)


def _insert(
    connection: "Connection", table: "Table", rows: Sequence[Row], suffix: str = ""
) -> None:
    """Insert rows, many in a statement.

    SQLAlchemy's own insertion takes as long for a row as SQLite does, and for each statement
    `sqlite3` lets go of the interpreter and waits until a request lets go of it in turn.
    """
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    marks = f"({', '.join([mark] * len(table.columns))})"
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        values = ", ".join([marks] * len(some))
        statement = f"INSERT INTO {table.name} ({names}) VALUES {values}{suffix}"
        connection.exec_driver_sql(statement, tuple(chain.from_iterable(some)))
