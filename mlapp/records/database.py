"""The tables of the records, and their database: SQLite or PostgreSQL.

    answers    one row for each answer: `id` is the request's, `place` counts its instances from 0
    runs       one row for each file that was scored
    counts     values counted in bins, by hour: see `bins`
    feedback   what turned out to be true of an answer
    shadows    a candidate's answer to the same instance, which was not served

Times are milliseconds since 1970 (UTC), hours are hours since then. Identifiers are UUIDs of
version 7, so that the primary keys are in the order of time.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from mlapp.errors import InvalidSettings, RecordsUnavailable
from mlapp.records.file import LOCK_SECONDS, identity, prepare
from mlapp.records.transactions import HOUR, Execute
from mlapp.settings import RECORDS, Settings

BACKENDS = ("postgresql", "sqlite")
ENCODING = "UTF8"  # of a PostgreSQL database; others cannot hold every text

metadata = MetaData()


def _answer_columns() -> list[Column[Any]]:
    """Return the columns that say which answer a row is about; a table needs its own."""
    return [
        Column("id", Text, primary_key=True),
        Column("place", Integer, primary_key=True, autoincrement=False),
        Column("time", BigInteger, nullable=False),
        Column("model", Text, nullable=False),
        Column("version", Integer, nullable=False),
    ]


answers = Table(
    "answers",
    metadata,
    *_answer_columns(),
    Column("channel", Text, nullable=False),
    Column("rows", Integer, nullable=False),  # of the request
    Column("seconds", Float, nullable=False),  # of the model, for the request
    Column("prediction", Float),
    Column("lower", Float),
    Column("upper", Float),
    Column("label", Text),
    Column("probability", Float),  # of the label
    Column("key", Text),  # the client's own name of the instance
    Column("inputs", Text),  # JSON, by input name; only if values are recorded
    sqlite_with_rowid=False,
)
by_key = Index("answers_by_key", answers.c.key, answers.c.model)
for _dialect in ("sqlite", "postgresql"):  # most answers have none
    by_key.dialect_options[_dialect]["where"] = answers.c.key.is_not(None)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("channel", Text, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("scored", BigInteger, nullable=False),
    Column("noticed", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("complete", Boolean, nullable=False),
    sqlite_with_rowid=False,
)

counts = Table(
    "counts",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("bin", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

feedback = Table(
    "feedback",
    metadata,
    *_answer_columns(),
    Column("channel", Text, nullable=False),
    Column("number", Float),  # the true number
    Column("label", Text),  # or the true label
    Column("note", Text),
    sqlite_with_rowid=False,
)

shadows = Table(
    "shadows",
    metadata,
    Column("id", Text, primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),  # of the candidate
    Column("prediction", Float),
    Column("label", Text),
    Column("probability", Float),  # of the label
    sqlite_with_rowid=False,
)

TABLES = (answers, runs, counts, feedback, shadows)


class Database:
    """The database of the records, opened on first use, and again if its file was replaced.

    All methods are thread-safe.

    Attributes:
        url: its URL.
        path: its file; None if it is on a server.
    """

    def __init__(self, settings: Settings) -> None:
        """Find its URL.

        Raises:
            InvalidSettings: `MLAPP_DATABASE_URL` cannot be used.
        """
        self.url = find_url(settings)
        is_file = self.url.get_backend_name() == "sqlite"
        self.path = Path(self.url.database or "") if is_file else None
        self._is_given = settings.database_url is not None
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._seen: tuple[int, int] | None = None

    def __str__(self) -> str:
        return str(self.path or self.url.render_as_string())  # without its password

    @property
    def exists(self) -> bool:
        """Whether there may be records; a file is created with the first one.

        Raises:
            RecordsUnavailable: `MLAPP_DATABASE_URL` names a file in a folder that does not exist.
        """
        if self.path is None or self.path.exists():
            return True
        if self._is_given and not self.path.parent.is_dir():
            raise RecordsUnavailable(
                f"MLAPP_DATABASE_URL: got {self.path}, expected a file in a folder that exists"
            )
        return False

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Yield a connection in a transaction, which is on the disk when the block ends.

        Raises:
            RecordsUnavailable: the database cannot be reached, read or written.
        """
        with self._explaining(), self._open().begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection to read in a transaction; the file may be in a read-only folder.

        Raises:
            RecordsUnavailable: the database cannot be reached or read.
        """
        if not self._is_frozen():
            with self.begin() as connection:
                yield connection
            return
        engine = self._connect_frozen()
        try:
            with self._explaining(), engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Raise RecordsUnavailable, with the reason, where the database fails."""
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            raise RecordsUnavailable(f"{self} cannot be used: {reason}") from error

    @property
    def mark(self) -> str:
        """Where a statement that `writing` executes takes a parameter."""
        return "?" if self.path else "%s"

    @contextmanager
    def writing(self) -> Iterator[Execute]:
        """Yield what executes statements, as the driver takes them, in a transaction as `begin`'s.

        Raises:
            RecordsUnavailable: the database cannot be reached, read or written.
        """
        with self.begin() as connection:
            yield connection.exec_driver_sql

    def insert(self, table: Table) -> Any:
        """Return an insertion that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
        return (sqlite if self.path else postgresql).insert(table)

    def close(self) -> None:
        """Close its connections."""
        with self._lock:
            self._dispose()

    def _open(self) -> Engine:
        with self._lock:
            if self._engine and self._seen != self._identity():
                self._dispose()  # the file was replaced or deleted: writes would be lost
            if self._engine is None:
                engine = self._connect()
                try:
                    if self.path is None:
                        check_encoding(engine)
                    create_tables(engine)
                except BaseException:
                    engine.dispose()
                    raise
                self._engine, self._seen = engine, self._identity()
            return self._engine

    def _connect(self) -> Engine:
        if self.path is None:
            options = {"connect_timeout": LOCK_SECONDS, "client_encoding": ENCODING}
            return create_engine(self.url, pool_pre_ping=True, connect_args=options)
        engine = create_engine(self.url, connect_args={"timeout": LOCK_SECONDS})
        event.listen(engine, "connect", lambda connection, _: prepare(connection))
        return engine

    def _is_frozen(self) -> bool:
        """Return whether SQLite cannot make its log beside the file, and nobody else has one."""
        return (
            self.path is not None
            and self.path.exists()
            and not os.access(self.path.parent, os.W_OK)
            and not Path(f"{self.path}-wal").exists()
        )

    def _connect_frozen(self) -> Engine:
        """Return an engine that reads the file without a log."""
        assert self.path
        address = f"{self.path.absolute().as_uri()}?immutable=1"
        return create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(address, uri=True), poolclass=NullPool
        )

    def _dispose(self) -> None:
        if self._engine:
            self._engine.dispose()
        self._engine = self._seen = None

    def _identity(self) -> tuple[int, int] | None:
        return identity(self.path) if self.path else None


def find_url(settings: Settings) -> URL:
    """Return the URL of the database, with its driver.

    Raises:
        InvalidSettings: `MLAPP_DATABASE_URL` cannot be used.
    """
    given = settings.database_url
    if given is None:
        return URL.create("sqlite", database=str((settings.artifacts / RECORDS).absolute()))
    allowed = "expected postgresql://user:password@host/database or sqlite:////folder/file"
    try:
        url = make_url(given)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() in BACKENDS:
            url.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError, ValueError):
        # The URL may contain a password, so messages do not repeat it.
        raise InvalidSettings(f"MLAPP_DATABASE_URL: got an invalid URL, {allowed}") from None
    except ImportError as error:
        raise InvalidSettings(
            f"MLAPP_DATABASE_URL: {error}; to use PostgreSQL: pip install 'mlapp[postgresql]'"
        ) from error
    backend = url.get_backend_name()
    if backend not in BACKENDS or not url.database or ":memory:" in url.database:
        raise InvalidSettings(f"MLAPP_DATABASE_URL: got {backend}, {allowed}")
    return url


def check_encoding(engine: Engine) -> None:
    """Check that a PostgreSQL database can hold every text.

    Raises:
        RecordsUnavailable: its encoding is another.
    """
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if found != ENCODING:
        raise RecordsUnavailable(
            f"MLAPP_DATABASE_URL: got a database in {found}, expected {ENCODING}"
        )


def create_tables(engine: Engine) -> None:
    """Create the tables that do not exist."""
    with engine.begin() as connection:
        for table in TABLES:
            connection.execute(CreateTable(table, if_not_exists=True))
        connection.execute(CreateIndex(by_key, if_not_exists=True))


def hour_of(time: int) -> int:
    """Return the hour of a time in milliseconds."""
    return time // HOUR


def first_id(time: int) -> str:
    """Return the smallest identifier that an answer of a time in milliseconds can have."""
    digits = f"{max(0, time):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def time_of(identifier: str) -> int:
    """Return the time in an identifier, in milliseconds."""
    return int(identifier[:8] + identifier[9:13], 16)
