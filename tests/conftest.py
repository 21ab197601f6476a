"""Fixtures: tiny models, really trained and published; folders to damage; a browser."""

import fcntl
import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import coverage
import hypothesis
import numpy as np
import pandas as pd
import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, expect, sync_playwright
from streamlit.components.v2 import manifest_scanner
from werkzeug.test import TestResponse

from mlapp.families.network import Network
from mlapp.families.regression import RegressionModel
from mlapp.families.sentiment import SentimentModel
from mlapp.records import writer as records
from mlapp.store import open_model
from mlapp.store.repository import repository
from training.regression import train

# How long an example takes says nothing while other tests run beside it.
hypothesis.settings.register_profile("beside others", deadline=None)
hypothesis.settings.load_profile("beside others")

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "artifacts"
NETWORKS = ROOT / "tests" / "networks"  # made by `python -m tests.small_networks`
# The files whose slow tests reach what no fast one does.
MEASURED = (
    "test_cli",
    "test_cluster",
    "test_drills",
    "test_feedback",
    "test_hostile_tables",
    "test_pages",
    "test_processes",
    "test_promotion",
    "test_publish",
    "test_repository",
    "test_retrain",
    "test_score_cli",
    "test_server",
    "test_service_score",
    "test_shadow",
    "test_tables",
    "test_training_classification",
    "test_writing",
)
TRACING = "COVERAGE_PROCESS_CONFIG"  # the variable by which coverage traces what is started
BROWSER_FLAGS = [
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
]


def pytest_configure(config: pytest.Config) -> None:
    """Let each process of the tests, and what it starts, record answers in a file of its own."""
    folder = tempfile.TemporaryDirectory(prefix="mlapp-records-")
    config.add_cleanup(folder.cleanup)
    # In the background of a shell, interrupts are ignored, and would be by what the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["MLAPP_DATABASE_URL"] = f"sqlite:///{folder.name}/records.db"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name no test by bytes: archives hold the time, and pytest-xdist wants names that last."""
    return argname if isinstance(val, bytes) else None


def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores, since many tests wait for servers; at most 4."""
    return min(4, (os.cpu_count() or 1) + 1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files that take longest first, so that no process ends long after another.

    Of the slow tests, those of `MEASURED` alone count for the coverage, which slows all of them.
    """
    seconds: Counter[Path] = Counter()
    for item in items:
        is_measured = item.path.stem.startswith(MEASURED)
        if item.get_closest_marker("slow") and not is_measured:
            item.add_marker("no_cover")
        if mark := item.get_closest_marker("slow"):
            seconds[item.path] += mark.args[0] if mark.args else 2
    order = [path for path, _ in seconds.most_common()]
    items.sort(key=lambda item: order.index(item.path) if item.path in order else len(order))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let what a test starts count for the coverage if the test itself does."""
    tracing = find_tracing()
    if any(map(item.get_closest_marker, ("no_cover", "untraced"))):
        os.environ.pop(TRACING, None)
    elif tracing:
        os.environ[TRACING] = tracing


@functools.cache
def find_tracing() -> str | None:
    """Return the value of `TRACING` before any test changed it."""
    return os.environ.get(TRACING)


def make_houses(rows: int = 240) -> pd.DataFrame:
    """Return a table with numbers, a category, missing values and a noisy linear price."""
    rng = np.random.default_rng(7)
    area = rng.uniform(40, 200, rows).round(1)
    rooms = np.clip((area / 30 + rng.normal(0, 0.7, rows)).round(), 1, 7)
    district = rng.choice(["east", "north", "west"], rows, p=[0.5, 0.3, 0.2])
    extra = pd.Series(district).map({"east": 0.0, "north": 40.0, "west": -25.0}).to_numpy()
    price = 50 + 2.5 * area + 8 * rooms + extra + rng.normal(0, 12, rows)
    table = pd.DataFrame(
        {"area": area, "rooms": rooms, "district": district, "price": price.round(1)}
    )
    table.loc[::17, "rooms"] = np.nan
    return table


@pytest.fixture(scope="session")
def houses_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file to train on."""
    path = tmp_path_factory.mktemp("data") / "houses.csv"
    make_houses().to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, houses_csv: Path) -> Path:
    """An artifact folder with one version of `regression` and of `houses`; only to be read."""
    root = tmp_path_factory.mktemp("trained")
    # Boosted trees have tests of their own; a linear model is trained sooner.
    options: dict[str, Any] = {"model": "linear", "say": lambda line: None}
    train(ROOT / "data" / "linear_regression_dataset.csv", root=root, **options)
    train(houses_csv, "price", "houses", root, **options)
    return root


@pytest.fixture(scope="session")
def trained_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact folder with text classifiers, to be read.

    The networks `sentiment`, `chapter` and `moods` are those of `tests/networks`. `topics` is
    a linear model of three labels.
    """
    return make_once("trained-texts", gather_classifiers, tmp_path_factory)


@pytest.fixture(scope="session")
def trained_topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact folder with the linear model `topics` alone, which is trained sooner."""
    return make_once("trained-topics", train_topics, tmp_path_factory)


def gather_classifiers(root: Path) -> None:
    """Copy the small networks into a folder, and train the linear model."""
    shutil.copytree(NETWORKS, root)
    train_topics(root)


def train_topics(root: Path) -> None:
    """Train a linear model of three labels, `topics`, into a folder."""
    from training import sentiment

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "topics.csv"
        make_topics().to_csv(data, index=False)
        sentiment.train(
            data,
            name="topics",
            root=root,
            text_column="message",
            label_column="topic",
            say=quiet,
        )


def quiet(line: str) -> None:
    """Say nothing."""


@contextmanager
def no_coverage() -> Iterator[None]:
    """Measure no coverage for a while."""
    measuring = coverage.Coverage.current()
    if measuring is None:
        yield
        return
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()


def make_once(
    name: str, make: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a folder that all processes of pytest-xdist share; the first to ask makes it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / name
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with no_coverage():
                make(base / f"{name}.part")
            (base / f"{name}.part").rename(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def component_manifests() -> Iterator[None]:
    """Let Streamlit look for components among the installed packages once, not in every test."""
    with pytest.MonkeyPatch.context() as patch:
        scan = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


def make_moods(rows: int = 180) -> pd.DataFrame:
    """Return texts with three labels, each given by a single word."""
    rng = np.random.default_rng(3)
    words = {"angry": ["furious", "rage"], "calm": ["quiet", "still"], "glad": ["merry", "cheer"]}
    moods = list(words)
    fillers = ["today", "again", "the", "sea", "was", "we", "and", "they", "said", "it"]
    made = []
    for place in range(rows):
        mood = moods[place % 3]
        text = [*rng.choice(fillers, 5), rng.choice(words[mood]), f"n{place}"]
        made.append({"sentiment": mood, "review": " ".join(rng.permutation(text))})
    return pd.DataFrame(made)


def make_topics(rows: int = 120) -> pd.DataFrame:
    """Return messages about three topics, each told by several words."""
    rng = np.random.default_rng(5)
    words = {
        "food": ["bread", "soup", "cheese", "apple", "butter"],
        "music": ["violin", "song", "drum", "concert", "melody"],
        "travel": ["train", "ship", "ticket", "luggage", "harbour"],
    }
    fillers = ["a", "the", "we", "bought", "heard", "new", "old", "fast", "today", "not", "and"]
    made = []
    for place in range(rows):
        topic = sorted(words)[place % 3]
        parts = [*rng.choice(words[topic], 2), *rng.choice(fillers, 4)]
        made.append({"topic": topic, "message": " ".join([*rng.permutation(parts), f"n{place}"])})
    return pd.DataFrame(made)


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained artifact folder that the settings name; tests may damage it."""
    root = tmp_path / "artifacts"
    shutil.copytree(trained, root)
    use_artifacts(root, monkeypatch)
    return root


@pytest.fixture
def every_model(
    trained: Path, trained_texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of all trained models that the settings name; tests may damage it."""
    root = tmp_path / "artifacts"
    for source in (trained, trained_texts):
        shutil.copytree(source, root, dirs_exist_ok=True)
    use_artifacts(root, monkeypatch)
    return root


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Record answers beside the models in use, and write the last ones when the test ends."""
    monkeypatch.delenv("MLAPP_DATABASE_URL")
    records.close()
    yield
    records.close()


@pytest.fixture
def fresh(every_model: Path, recording: None) -> Path:
    """The folder of all models, where answers are recorded beside them, from none on."""
    return every_model


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact folder that is not there, and that the settings name."""
    root = tmp_path / "artifacts"
    use_artifacts(root, monkeypatch)
    return root


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifacts that ship with the project, which the settings name."""
    use_artifacts(SHIPPED, monkeypatch)
    return SHIPPED


def use_artifacts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the settings at a folder, with empty caches."""
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(root))
    monkeypatch.delenv("MLAPP_PINS", raising=False)
    repository.cache_clear()


def open_regression(
    root: Path, name: str = "regression", version: int | None = None
) -> RegressionModel:
    """Open a version of a model that gives a number, by default the newest."""
    model = open_model(root, name, version)
    assert isinstance(model, RegressionModel)
    return model


def open_sentiment(
    root: Path, name: str = "sentiment", version: int | None = None
) -> SentimentModel:
    """Open a text classifier, by default its newest version."""
    model = open_model(root, name, version)
    assert isinstance(model, SentimentModel)
    return model


def network_of(model: SentimentModel) -> Network:
    """Return the network that computes a text classifier's scores."""
    assert isinstance(model.scorer, Network)
    return model.scorer


if TYPE_CHECKING:

    class Answer(TestResponse):
        """An answer whose body a test takes for JSON where it reads `json`."""

        json: Any


class Client(FlaskClient):
    """Asks an application without a server."""

    def get(self, *args: Any, **kw: Any) -> "Answer":
        return cast("Answer", super().get(*args, **kw))

    def post(self, *args: Any, **kw: Any) -> "Answer":
        return cast("Answer", super().post(*args, **kw))


def client_of(app: Flask) -> Client:
    """Return a client of an application."""
    return Client(app, app.response_class)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the chapter's own data, which is not shipped."""
    if not os.environ.get("MLAPP_TEST_DATA"):
        pytest.skip("MLAPP_TEST_DATA does not name the folder of the chapter's data")
    return Path(os.environ["MLAPP_TEST_DATA"])


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium to drive."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A running Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page of a browser without a past."""
    with browser.new_context() as context:
        context.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield context.new_page()


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Start `streamlit run Home.py` on an artifact folder; return its address."""
    with ExitStack() as stack:
        yield lambda artifacts: stack.enter_context(run_dashboard(artifacts, tmp_path))


@pytest.fixture(scope="module")
def shipped_dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a dashboard on the models that ship, for tests that change nothing in it."""
    with run_dashboard(SHIPPED, tmp_path_factory.mktemp("log")) as address:
        yield address


@contextmanager
def run_dashboard(artifacts: Path, folder: Path) -> Iterator[str]:
    """Run `streamlit run Home.py` on an artifact folder, with its log in a folder."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "Home.py"]
    options = ["--server.headless=true", "--server.address=127.0.0.1", f"--server.port={port}"]
    with (folder / "dashboard.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            env=os.environ | {"MLAPP_ARTIFACTS": str(artifacts)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(f"{address}/_stcore/health"), "the dashboard to answer")
            yield address
        finally:
            server.terminate()
            server.wait(timeout=30)


def free_port() -> int:
    """Return a port of loopback that nothing listens on, and that no connection is ever given."""
    while True:
        # Below the range from which the system, and so Ray, hands out ports in the meantime.
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def answers(address: str) -> bool:
    """Return whether a server answers."""
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def run_python(code: str, folder: Path) -> Any:
    """Run code in a fresh process that serves a folder; return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"MLAPP_ARTIFACTS": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def wait_until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Ask again and again until something holds; fail after a while."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.05)


def children(parent: int, command: str = "") -> list[int]:
    """Return the numbers of a process's children, of those alone whose command holds a text."""
    found = subprocess.run(
        ["pgrep", "-P", str(parent), "-f", command], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split()]


class Server:
    """A running `mlapp serve`, with its address, process and log."""

    def __init__(self, folder: Path, log: Path, *options: str, **environment: str) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = log
        command = [sys.executable, "-m", "mlapp.cli", "serve", "--port", str(self.port), *options]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"MLAPP_ARTIFACTS": str(folder)} | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self.is_ready, "the service", seconds=180)
        except BaseException as error:
            self.process.kill()
            self.process.wait()
            error.add_note(log.read_text())
            raise

    def is_ready(self) -> bool:
        """Return whether the service answers; fail when it has ended."""
        assert self.process.poll() is None, "the service ended"
        return answers(f"{self.address}/readyz")

    def workers(self) -> list[int]:
        """Return the process numbers of the workers."""
        return children(self.process.pid)

    def has_replaced(self, worker: int) -> bool:
        """Return whether a worker is gone, and there are two."""
        found = self.workers()
        return len(found) == 2 and worker not in found

    def logged(self, text: str) -> bool:
        """Return whether the log holds a text."""
        return text in self.log.read_text()

    def stop(self) -> None:
        """Ask it to stop, and wait."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def models(trained: Path, trained_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all trained models; only to be read."""
    root = tmp_path_factory.mktemp("served")
    for source in (trained, trained_texts):
        shutil.copytree(source, root, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def workers(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service alone, on two workers."""
    log = tmp_path_factory.mktemp("log") / "workers.log"
    server = Server(models, log, "--api-only", "--workers", "2")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def together(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Dashboard and service in one process."""
    server = Server(models, tmp_path_factory.mktemp("log") / "together.log")
    yield server
    server.stop()


@pytest.fixture
def own(trained: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a service of the test's own, on a folder of its own."""
    root = tmp_path / "artifacts"
    shutil.copytree(trained, root)
    started: list[Server] = []

    def start(*options: str, **environment: str) -> Server:
        log = tmp_path / f"own-{len(started)}.log"
        started.append(Server(root, log, "--api-only", *options, **environment))
        return started[-1]

    yield start
    for server in started:
        server.stop()
