"""The default database as the process that writes needs it: a file of SQLite, and no SQLAlchemy.

The import of `database` takes longer than a small file takes to score.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlapp.errors import RecordsUnavailable
from mlapp.records.transactions import WRITTEN, Execute
from mlapp.settings import RECORDS, Settings

LOCK_SECONDS = 5  # how long a statement waits for another process's transaction


class RecordsFile:
    """The file, opened on first use, and again if it was replaced. For one thread.

    Attributes:
        mark: where a statement takes a parameter.
    """

    mark = "?"

    def __init__(self, settings: Settings) -> None:
        """Find the file, which may be missing."""
        self._settings = settings
        self._path = (settings.artifacts / RECORDS).absolute()
        self._connection: sqlite3.Connection | None = None
        self._seen: tuple[int, int] | None = None

    @contextmanager
    def writing(self) -> Iterator[Execute]:
        """Yield what executes statements in a transaction, as `Database.writing` does.

        Raises:
            RecordsUnavailable: the file cannot be opened, read or written.
        """
        try:
            with self._open() as connection:
                yield connection.execute
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise RecordsUnavailable(f"{self._path} cannot be used: {error}") from error

    def close(self) -> None:
        """Close the file."""
        if self._connection:
            self._connection.close()
        self._connection = self._seen = None

    def _open(self) -> sqlite3.Connection:
        if self._connection and self._seen != identity(self._path):
            self.close()  # the file was replaced or deleted: writes would be lost
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, timeout=LOCK_SECONDS)
            prepare(self._connection)
            if not _has_tables(self._connection):
                self._create_tables()
            self._seen = identity(self._path)
        return self._connection

    def _create_tables(self) -> None:
        from mlapp.records.database import Database

        database = Database(self._settings)
        with database.begin():
            pass
        database.close()


def prepare(connection: sqlite3.Connection) -> None:
    """Configure a connection so that readers and writers do not block each other."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name; None if it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _has_tables(connection: sqlite3.Connection) -> bool:
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    return names.issuperset(WRITTEN)
