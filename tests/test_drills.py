"""The records when things go wrong: busy, killed, locked, full, deleted and stopped databases."""

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import event, func, select
from sqlalchemy.pool import Pool
from werkzeug.test import Client

from mlapp import answering, loaders
from mlapp.cli import main
from mlapp.errors import OtherTruth
from mlapp.records import confirmed, quality, queries
from mlapp.records import writer as records
from mlapp.records.bins import Series
from mlapp.records.database import Database, answers, counts, feedback, time_of
from mlapp.records.feedback import Given, give
from mlapp.service import create_app
from mlapp.settings import read_settings
from mlapp.store import artifacts, promotion
from tests.conftest import Server, client_of, free_port, wait_until
from tests.test_promotion import publish

HOUSE: dict[str, float | str] = {"area": 100.5, "rooms": 3, "district": "north"}
PREDICT = "/v1/models/houses:predict"
COUNT = 2_000  # records; benchmarks/log.py writes more


@pytest.fixture
def recorded(folder: Path, recording: None) -> Path:
    """A folder of models whose answers are recorded beside them."""
    return folder


@pytest.fixture
def client(recorded: Path) -> Client:
    return client_of(create_app())


def predict(client: Client) -> str:
    answer = client.post(PREDICT, json={"instances": [HOUSE]})
    assert answer.status_code == 200
    found: str = answer.get_json()["id"]
    return found


def flush() -> bool:
    log = records.writer()
    assert log is not None
    return log.flush()


def ids() -> list[str]:
    """Return the identifiers of all recorded answers."""
    with closing(Database(read_settings())) as database, database.begin() as connection:
        return list(connection.execute(select(answers.c.id)).scalars())


def count_of(outcome: str, client: Client) -> float:
    start = f'mlapp_records_total{{outcome="{outcome}"}} '
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(start)).removeprefix(start))


class Clients:
    """Threads that ask a server, and the identifiers of the answers that they got."""

    def __init__(self, server: Server, threads: int, most: int | None = None) -> None:
        self.answered, self.failures = list[str](), list[str]()
        self._address, self._most, self._ended = server.address + PREDICT, most, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        self._ended.set()
        self.wait()

    def _ask(self) -> None:
        with requests.Session() as session:
            asked = 0
            while not self._ended.is_set() and asked != self._most:
                asked += 1
                try:
                    answer = session.post(self._address, json={"instances": [HOUSE]}, timeout=30)
                    self.answered.append(answer.json()["id"])
                except requests.RequestException as error:
                    self.failures.append(str(error))


# --- many processes ---------------------------------------------------------------------------


@pytest.mark.slow
def test_two_workers_and_a_page_record_every_answer(recorded: Path, tmp_path: Path) -> None:
    server = Server(recorded, tmp_path / "log", "--api-only", "--workers", "2")
    clients = Clients(server, threads=8, most=COUNT // 10)
    model = loaders.load_model("houses")
    own = [
        answering.answer(model, model.check([HOUSE]), "page").id
        for _ in range(COUNT - 8 * COUNT // 10)
    ]
    clients.wait()
    server.stop()
    records.close()
    assert not clients.failures
    assert sorted(ids()) == sorted([*own, *clients.answered])
    assert len(ids()) == COUNT
    with closing(Database(read_settings())) as database, database.begin() as connection:
        counted = select(func.sum(counts.c.count)).where(counts.c.kind == "answer")
        assert connection.execute(counted).scalar() == COUNT


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_its_last_moments_alone(
    recorded: Path, tmp_path: Path
) -> None:
    server = Server(recorded, tmp_path / "log", "--api-only", "--workers", "2")
    clients = Clients(server, threads=4)
    try:
        for _ in range(3):
            before = len(recorded_now(recorded))
            wait_until(lambda: len(recorded_now(recorded)) > before, "more records", 20)  # noqa: B023
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        killed = queries.now()
        wait_until(lambda: server.has_replaced(victim), "another worker")
        seen = len(clients.answered)
        wait_until(lambda: len(clients.answered) > seen + 100, "more answers")
    finally:
        clients.stop()
        server.stop()
    written = set(ids())
    lost = set(clients.answered) - written
    late = [time_of(each) - killed for each in lost]
    assert [each for each in late if not -1_000 < each <= 0] == []
    assert len(written - set(clients.answered)) <= len(clients.failures)


@pytest.mark.slow
def test_a_service_that_is_asked_to_stop_loses_nothing(recorded: Path, tmp_path: Path) -> None:
    server = Server(recorded, tmp_path / "log", "--api-only", "--workers", "2")
    clients = Clients(server, threads=4)
    try:
        wait_until(lambda: len(clients.answered) > 200, "answers")
    finally:
        server.stop()  # while they ask
        clients.stop()
    assert set(clients.answered) <= set(ids())


def recorded_now(folder: Path) -> list[str]:
    return ids() if (folder / "records.db").exists() else []


# --- a database that fails --------------------------------------------------------------------


@pytest.mark.slow
def test_a_locked_database_delays_records_and_no_answer(client: Client, recorded: Path) -> None:
    first = predict(client)
    assert flush()
    with sqlite3.connect(recorded / "records.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        more = [predict(client) for _ in range(20)]
        assert ids() == [first]  # the writer waits, and readers do not
        early = client.post("/v1/feedback", json={"id": more[0], "truth": 1})
        assert early.status_code == 503  # not 404, since it will be recorded
        other.execute("ROLLBACK")
    other.close()
    assert flush()
    assert sorted(ids()) == sorted([first, *more])


@pytest.fixture
def pragma() -> Iterator[Callable[[str], None]]:
    """Run a statement on each connection of SQLite before it is used."""
    chosen = ["PRAGMA query_only=OFF"]

    def prepare(connection: Any, *_: object) -> None:
        connection.execute(chosen[0]).close()

    event.listen(Pool, "checkout", prepare)
    yield lambda statement: chosen.__setitem__(0, statement)
    event.remove(Pool, "checkout", prepare)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "cure"),
    [
        ("PRAGMA query_only=ON", "PRAGMA query_only=OFF"),
        ("PRAGMA max_page_count=1", "PRAGMA max_page_count=1000000"),
    ],
    ids=["read-only", "full"],
)
def test_a_database_that_cannot_be_written_costs_records_beyond_a_limit_and_no_answer(
    client: Client,
    pragma: Callable[[str], None],
    harm: str,
    cure: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = predict(client)
    assert flush()
    before = count_of("lost", client)
    pragma(harm)
    monkeypatch.setattr(records, "MOST_ROWS", 400)
    waiting = [predict(client) for _ in range(500)][:400]
    assert not flush()
    answer = client.post("/v1/feedback", json={"id": first, "truth": 1})
    assert answer.status_code in (200, 503)  # a full database may have room on its last page
    early = client.post("/v1/feedback", json={"id": waiting[0], "truth": 1})
    assert early.status_code == 503  # not 404, since it will be recorded
    assert count_of("lost", client) - before == 100
    pragma(cure)
    assert flush()
    assert sorted(ids()) == sorted([first, *waiting])


def test_a_database_that_is_deleted_is_made_again(client: Client, recorded: Path) -> None:
    predict(client)
    assert flush()
    for file in recorded.glob("records.db*"):
        file.unlink()
    second = predict(client)
    assert flush()
    assert ids() == [second]
    answer = client.post("/v1/feedback", json={"id": second, "truth": 300})
    assert answer.status_code == 200


def test_a_clock_that_is_set_back_changes_no_record(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns
    first = predict(client)
    assert flush()
    monkeypatch.setattr(time, "time_ns", lambda: now() - 3_600 * 10**9)
    second = predict(client)
    assert flush()
    assert second < first
    assert sorted(ids()) == [second, first]
    for each in (first, second):
        assert client.post("/v1/feedback", json={"id": each, "truth": 300}).status_code == 200
    log = records.writer()
    assert log is not None
    assert [row["id"] for row in queries.export(log.database)] == [second, first]


# --- PostgreSQL -------------------------------------------------------------------------------


class PostgreSQL:
    """A cluster of its own, on loopback."""

    def __init__(self, programs: Path) -> None:
        self._programs, self.folder = programs, Path(tempfile.mkdtemp(prefix="mlapp-postgresql-"))
        # It refuses to run as root.
        self._user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self._user:
            shutil.chown(self.folder, "postgres")
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._data = str(self.folder / "data")
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "--no-sync")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *options: str) -> None:
        command = [*self._user, str(self._programs / program), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgreSQL]:
    """A running PostgreSQL."""
    found = shutil.which("initdb") or next(
        iter(sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))), None
    )
    if found is None:
        pytest.skip("there is no PostgreSQL on this machine (Debian: apt-get install postgresql)")
    made = PostgreSQL(Path(found).resolve().parent)
    try:
        made.start()
        yield made
        made.stop()
    finally:
        shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture
def postgresql(
    cluster: PostgreSQL, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PostgreSQL]:
    """PostgreSQL, without records, where answers are recorded with their inputs."""
    monkeypatch.setenv("MLAPP_DATABASE_URL", cluster.url)
    monkeypatch.setenv("MLAPP_LOG_INPUTS", "values")
    records.close()
    yield cluster
    records.close()
    with closing(Database(read_settings())) as database:
        queries.purge(database, 0)


@pytest.mark.slow
def test_postgresql_that_is_stopped_costs_no_answer_and_no_record(
    postgresql: PostgreSQL, folder: Path
) -> None:
    client = client_of(create_app())
    first = predict(client)
    assert flush()
    postgresql.stop()
    more = [predict(client) for _ in range(20)]
    assert not flush()
    assert client.post("/v1/feedback", json={"id": first, "truth": 300}).status_code == 503
    postgresql.start()
    assert flush()
    assert sorted(ids()) == sorted([first, *more])
    assert client.post("/v1/feedback", json={"id": first, "truth": 300}).status_code == 200


@pytest.mark.slow
def test_postgresql_keeps_all_that_sqlite_does(postgresql: PostgreSQL, folder: Path) -> None:
    server = Server(folder, postgresql.folder / "server.log", "--api-only", "--workers", "2")
    clients = Clients(server, threads=8, most=50)
    clients.wait()
    server.stop()
    assert not clients.failures
    assert sorted(ids()) == sorted(clients.answered)
    log = records.writer()
    assert log is not None
    database = log.database
    given = [Given(each, 250.0 + place) for place, each in enumerate(clients.answered[:100])]

    def judge(_: int) -> int:
        return sum(give(database, folder, given, "v1"))

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(judge, range(16))) == 100
    with pytest.raises(OtherTruth):
        give(database, folder, [given[0]._replace(truth=1.0)], "v1")
    areas = queries.totals(database, "houses", 0)[Series("input", "area")]
    assert sum(areas.values()) == 400
    assert quality.measure(database, "houses")[0].rows == 100
    assert queries.shadowed(database, "houses", 0) == []
    found = confirmed.read(database, "houses")
    assert (found.judged, found.without_inputs) == (100, 0)
    rows = list(queries.export(database))
    assert len(rows) == 400
    assert sum(row["truth"] is not None for row in rows) == 100
    assert rows[0]["inputs"] == HOUSE
    assert queries.latest(database, "houses", 5)[0]["id"] == max(clients.answered)
    assert queries.purge(database, 0) == 400
    with database.begin() as connection:
        assert connection.execute(select(func.count()).select_from(feedback)).scalar() == 0


# --- candidates -------------------------------------------------------------------------------


def test_a_damaged_candidate_is_not_promoted_even_by_force(
    client: Client, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(recorded)
    file = recorded / "houses" / "2" / "model.joblib"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    for force in ([], ["--force", "it must be"]):
        assert main(["promote", "houses", *force]) == 1
        assert "model.joblib is damaged" in capsys.readouterr().err
    assert artifacts.candidates(recorded, "houses") == [2]
    assert promotion.history(recorded, "houses") == []
    predict(client)
