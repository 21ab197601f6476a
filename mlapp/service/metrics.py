"""The service's metrics, for Prometheus, over all worker processes.

Each worker counts in its own memory-mapped files. Their space is reserved when they are created:
a write to a mapped page that does not fit on the disk would kill the process.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import prometheus_client.values
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import MultiProcessValue

from mlapp.families.contract import Model
from mlapp.records.bins import SECONDS

PREFIX = "mlapp-metrics-"
OWNER = "owner.lock"  # in the folder; locked until all of its processes have ended
FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the variable by which prometheus_client finds the files
RESERVED = 1 << 23  # bytes of each of a worker's files
MOST_SERIES = 2_000  # combinations of labels that fit in such a file; all others share one
_SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def shared_folder() -> Iterator[None]:
    """Create the folder that worker processes count in, and remove it when they have ended.

    It is in shared memory if there is any, apart from the files of requests. Folders of processes
    that were killed are removed, too.
    """
    place = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for each in place.glob(f"{PREFIX}*/{OWNER}"):
        _remove_abandoned(each)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place) as folder:
        own = Path(folder, f"new-{OWNER}")
        _lock(own)
        own.rename(Path(folder, OWNER))  # locked before another process can find it
        os.environ[FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER]


def join_workers() -> None:
    """Count in the shared folder from now on, in files that no other live process uses.

    A new worker takes over the files of one that has ended, so that counts continue.

    Raises:
        OSError: the files do not fit.
    """
    folder = Path(os.environ[FOLDER])
    slot = 0
    while _lock(folder / f"{slot}.lock") is None:
        slot += 1
    for kind in ("counter", "histogram"):
        with (folder / f"{kind}_{slot}.db").open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVED)
    prometheus_client.values.ValueClass = MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def _remove_abandoned(owner: Path) -> None:
    """Remove the folder of a lock that no process holds."""
    with suppress(OSError):  # another user's, or just removed
        if (handle := _lock(owner)) is not None:
            shutil.rmtree(owner.parent, ignore_errors=True)
            os.close(handle)


def _lock(path: Path) -> int | None:
    """Lock a file until this process and its forks end, however they end.

    Returns:
        The file descriptor, whose closing unlocks it, too; None if another process has the lock.
    """
    import fcntl  # not on Windows, where there are no workers

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


class Metrics:
    """The metrics of requests, predictions and records."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "mlapp_request_seconds",
            "Time from a request to its answer; its count is the number of requests.",
            ["route", "status", "model", "version"],
            buckets=SECONDS.edges,
            registry=self.registry,
        )
        self.predictions = Counter(
            "mlapp_predictions",
            "Rows or texts predicted.",
            ["model", "version"],
            registry=self.registry,
        )
        self.file_rows = Counter(
            "mlapp_file_rows",
            "Rows of files: scored, of these with a notice (noticed), and refused.",
            ["model", "version", "outcome"],
            registry=self.registry,
        )
        self.records = Counter(
            "mlapp_records",
            "Answers recorded (written), those that could not be (lost), and those that a candidate"
            " gave beside them (shadowed), or could not (unshadowed).",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("written", "lost", "shadowed", "unshadowed"):
            self.records.labels(outcome)
        self._series: dict[tuple[Any, ...], Any] = {}

    def observe(self, route: str, status: str, model: Model | None, seconds: float) -> None:
        """Count a request and the time that it took."""
        self._find(self.seconds, model, route=route, status=status).observe(seconds)

    def count(self, model: Model, rows: int) -> None:
        """Count predictions."""
        self._find(self.predictions, model).inc(rows)

    def count_file(self, model: Model, outcome: str, rows: int) -> None:
        """Count rows of a file, by outcome."""
        self._find(self.file_rows, model, outcome=outcome).inc(rows)

    def count_records(self, outcome: str, rows: int) -> None:
        """Count records by what became of them."""
        self.records.labels(outcome).inc(rows)

    def expose(self, *shared: Collector) -> bytes:
        """Return all metrics in the text format of Prometheus, over all workers.

        Args:
            shared: of metrics that every process finds the same.
        """
        registry = self.registry
        if FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        own = CollectorRegistry()
        for each in shared:
            own.register(each)
        return generate_latest(registry) + generate_latest(own)

    def _find(self, metric: Any, model: Model | None, **labels: str) -> Any:
        """Return a metric's series for a model."""
        name, version = (model.manifest.name, model.manifest.version) if model else ("", "")
        key = (metric, name, version, *labels.values())
        if found := self._series.get(key):
            return found
        if len(self._series) >= MOST_SERIES:  # over time there may be many versions
            name, version = "other", ""
            key = (metric, name, version, *labels.values())
        found = self._series[key] = metric.labels(model=name, version=version, **labels)
        return found


class Refusals(Collector):
    """The models whose version to be served cannot be opened."""

    def __init__(self, refused: Mapping[str, bool]) -> None:
        """Take, for each model's name, whether it is so."""
        self._refused = refused

    def collect(self) -> Iterator[Metric]:
        """Yield the one metric."""
        gauge = GaugeMetricFamily(
            "mlapp_model_refused",
            "1 where the version that should be served cannot be opened.",
            labels=["model"],
        )
        for name, value in self._refused.items():
            gauge.add_metric([name], value)
        yield gauge
