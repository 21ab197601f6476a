import fcntl
import os
import signal
import sqlite3
import sys
import termios
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest
import requests
from sqlalchemy import select

from mlapp import answering, loaders
from mlapp.records import queries
from mlapp.records import writer as records
from mlapp.records.database import TABLES, Database, answers, counts, first_id, runs, shadows
from mlapp.records.file import RecordsFile
from mlapp.records.process import start_early
from mlapp.records.transactions import COUNT, KEY, SHADOW, WRITTEN, Run, Transaction, write
from mlapp.records.writer import Writer
from mlapp.settings import read_settings
from tests.conftest import Server, children, wait_until
from tests.test_drills import HOUSE, ids


@pytest.fixture
def log(folder: Path, recording: None) -> Iterator[Writer]:
    """This process's writer, which lets another process write."""
    found = records.start(start_early(read_settings()))
    assert found
    found._purged = time.monotonic()  # deletes nothing of its own accord
    yield found
    records.close()


def answer() -> str:
    model = loaders.load_model("houses")
    return answering.answer(model, model.check([HOUSE]), "page").id


def processes(parent: int) -> list[int]:
    return children(parent, "mlapp.records.process")


def test_another_process_writes_and_ends_with_the_writer(log: Writer) -> None:
    [process] = processes(os.getpid())
    first = answer()
    assert log.flush()
    assert ids() == [first]
    second = answer()
    records.close()
    assert sorted(ids()) == sorted([first, second])
    assert not Path(f"/proc/{process}").exists()


@pytest.mark.slow
def test_the_signals_that_stop_a_service_do_not_stop_what_writes_its_records(log: Writer) -> None:
    first = answer()
    assert log.flush()
    [process] = processes(os.getpid())
    for number in (signal.SIGINT, signal.SIGTERM):  # as a terminal, or systemd, sends to all
        os.kill(process, number)
    second = answer()
    assert log.flush()
    assert processes(os.getpid()) == [process]
    assert sorted(ids()) == sorted([first, second])


@pytest.mark.slow
def test_a_writing_process_that_is_killed_is_replaced_and_nothing_is_lost(log: Writer) -> None:
    given = [answer()]
    assert log.flush()
    [process] = processes(os.getpid())
    os.kill(process, signal.SIGSTOP)
    given.append(answer())
    wait_until(lambda: bool(log._sent), "a transaction under way")
    os.kill(process, signal.SIGKILL)
    given.append(answer())
    wait_until(log.flush, "another process")
    assert processes(os.getpid()) != [process]
    assert sorted(ids()) == sorted(given)
    assert (log.written, log.lost) == (3, 0)


@pytest.mark.slow
def test_records_wait_while_the_process_cannot_be_started(
    log: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    [process] = processes(os.getpid())
    os.kill(process, signal.SIGKILL)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        first = answer()
        assert not log.flush()  # the one that was killed
        assert not log.flush()
    assert log.flush()
    assert ids() == [first]


@pytest.mark.slow
def test_records_wait_where_the_process_cannot_write_them(
    log: Writer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "records.db").mkdir()
    first = answer()
    assert not log.flush()
    assert "Records wait in memory" in caplog.text
    assert "records.db cannot be used: unable to open database file" in caplog.text
    (folder / "records.db").rmdir()
    assert log.flush()
    assert ids() == [first]


def test_a_file_with_tables_is_written_without_the_imports_of_sqlalchemy(
    folder: Path, log: Writer
) -> None:
    given = [answer()]
    assert log.flush()
    [process] = processes(os.getpid())
    assert "/sqlalchemy/" in Path(f"/proc/{process}/maps").read_text()  # it made the tables
    records.close()
    records.start(start_early(read_settings()))
    given.append(answer())
    again = records.writer()
    assert again
    assert again.flush()
    [process] = processes(os.getpid())
    assert "/sqlalchemy/" not in Path(f"/proc/{process}/maps").read_text()
    assert ids() == given


def test_a_file_that_is_deleted_is_made_again(log: Writer, folder: Path) -> None:
    answer()
    assert log.flush()
    for path in folder.glob("records.db*"):
        path.unlink()
    second = answer()
    assert log.flush()
    assert ids() == [second]


def test_a_transaction_whose_outcome_was_not_known_is_written_once(
    folder: Path, recording: None
) -> None:
    given = Transaction(counts=Counter({("houses", 1, 2, "seconds", "v1", 3): 4}))
    given.runs.append(Run("a", 1, "houses", 1, "file", 0.5, 3, 2, 1, 1, True))
    with closing(RecordsFile(read_settings())) as file:
        for _ in range(2):
            write(file, given)
    with closing(Database(read_settings())) as database, database.begin() as connection:
        assert list(map(Run._make, connection.execute(select(runs)))) == given.runs
        [counted] = connection.execute(select(counts)).all()
        assert tuple(counted) == ("houses", 1, 2, "seconds", "v1", 3, 4)


def test_the_columns_that_are_written_are_those_of_the_tables() -> None:
    for table, columns in ((runs, Run._fields), (shadows, SHADOW), (counts, COUNT)):
        assert tuple(table.columns.keys()) == columns
    assert tuple(counts.primary_key.columns.keys()) == KEY
    assert {table.name for table in TABLES} - set(WRITTEN) == {"feedback"}


@pytest.mark.slow
def test_records_wait_while_another_process_holds_a_lock(
    log: Writer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = [answer()]
    assert log.flush()
    with closing(sqlite3.connect(folder / "records.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        given.append(answer())
        assert not log.flush()
        assert "records.db cannot be used: database is locked" in caplog.text
    assert log.flush()
    assert ids() == given


@pytest.mark.slow
def test_what_cannot_be_written_at_all_is_logged_and_the_process_goes_on(log: Writer) -> None:
    first = answer()
    assert log.flush()
    [process] = processes(os.getpid())
    log._waiting.runs.append(("too", "short"))  # type: ignore[arg-type]
    assert not log.flush()
    assert processes(os.getpid()) == [process]
    log._doubtful[0].runs.clear()
    assert ids() == [first]


@pytest.mark.slow
def test_the_process_deletes_what_is_too_old(log: Writer) -> None:
    answer()
    assert log.flush()
    with closing(Database(read_settings())) as database, database.begin() as connection:
        old = first_id(queries.now() - 91 * queries.DAY)
        connection.execute(answers.update().values(id=old))
    second = answer()
    assert log.flush()
    log._purged = None
    log._purge()
    assert log.flush()
    assert ids() == [second]


def test_a_process_that_is_not_needed_ends(log: Writer) -> None:
    running = processes(os.getpid())
    other = start_early(read_settings())
    [started] = set(processes(os.getpid())) - set(running)
    assert records.start(other) is log
    assert not Path(f"/proc/{started}").exists()
    assert processes(os.getpid()) == running


def test_a_process_starts_early_only_where_answers_are_recorded(
    recording: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_LOG_ANSWERS", "off")
    process = start_early(read_settings())
    assert processes(os.getpid()) == []
    assert records.start(process) is None


def test_a_process_ends_where_the_database_cannot_be_used(
    recording: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_DATABASE_URL", "nonsense")
    process = start_early(read_settings())
    assert len(processes(os.getpid())) == 1
    assert records.start(process) is None
    assert processes(os.getpid()) == []


@pytest.mark.slow
def test_what_a_killed_worker_has_handed_over_is_written_and_its_process_ends(
    folder: Path, recording: None, tmp_path: Path
) -> None:
    server = Server(folder, tmp_path / "log", "--api-only", "--workers", "1")

    def ask() -> str:
        url = f"{server.address}/v1/models/houses:predict"
        answered = requests.post(url, json={"instances": [HOUSE]}, timeout=30)
        return str(answered.json()["id"])

    def metrics() -> str:
        return requests.get(f"{server.address}/metrics", timeout=30).text

    try:
        [worker] = server.workers()
        given = [ask()]
        wait_until(lambda: 'outcome="written"} 1.0' in metrics(), "a record")
        [process] = processes(worker)
        os.kill(process, signal.SIGSTOP)  # as if the machine had no time for it
        with Path(f"/proc/{process}/fd/0").open("rb") as tasks:
            for _ in range(2):
                before = unread(tasks)
                given.append(ask())
                wait_until(lambda: unread(tasks) > before, "a task")  # noqa: B023
        os.kill(worker, signal.SIGKILL)
        os.kill(process, signal.SIGCONT)
        wait_until(lambda: not Path(f"/proc/{process}").exists(), "its end")
    finally:
        server.stop()
    assert ids() == given
    assert "Traceback" not in server.log.read_text()


def unread(pipe: IO[bytes]) -> int:
    """Return how many bytes wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
