"""Records, written by a thread: a request hands over what it has, and does not wait.

The thread collects what has come a little at a time, and writes it twice a second, in one
transaction. Where that fails, it goes on trying; records wait in memory meanwhile, and those that
find no room are counted as lost. A transaction whose outcome is not known is repeated unchanged,
and recognised if it was done.
"""

import atexit
import bisect
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from mlapp.errors import Fault, InvalidSettings, RecordsUnavailable
from mlapp.families.contract import Answers, Batch, Labels, Model, Numbers
from mlapp.records import bins
from mlapp.records.bins import Binning, Series
from mlapp.records.shadow import Shadow, Shadowed
from mlapp.records.transactions import Key, Transaction, write
from mlapp.settings import read_settings

if TYPE_CHECKING:  # SQLAlchemy takes longer to import than a row takes to predict
    from mlapp.records.database import Database

WRITE_EVERY = 0.5  # seconds between two transactions, each of which costs as much as 100 rows
COLLECT_EVERY = 0.025  # seconds between two collections, in which requests wait for the interpreter
PURGE_EVERY = 3600.0  # seconds
HOUR = 3_600_000  # milliseconds
MOST_ROWS = 100_000  # that wait in memory
MOST_BYTES = 1 << 26  # of inputs that wait in memory

_log = logging.getLogger(__name__)


class Record(NamedTuple):
    """What is known of a request that was answered.

    Attributes:
        id: the identifier of its answers.
        time: when it was answered, in milliseconds since 1970.
        model: what answered.
        channel: where it came from.
        seconds: that the model took.
        batch: what was asked.
        answers: the answers.
        keys: what the client calls each instance, if it does.
    """

    id: str
    time: int
    model: Model
    channel: str
    seconds: float
    batch: Batch
    answers: Answers
    keys: Sequence[str | None] | None = None


class Refusal(NamedTuple):
    """What is known of a request that was not answered."""

    time: int
    model: Model
    channel: str
    status: int
    faults: Sequence[Fault]


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


class Writer:
    """Writes the records of a process. All methods may be called from many threads.

    Attributes:
        written, lost: how many were.
    """

    def __init__(
        self,
        open_database: Callable[[], "Database"],
        keep_inputs: bool = False,
        days: int | None = None,
        notify: Callable[[str, int], object] = lambda *_: None,
        root: Path | None = None,
        shadows: Mapping[str, int] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            open_database: returns where records go; the thread calls it, since its libraries take
                time to import.
            keep_inputs: whether they hold the values that were asked about.
            days: for which they are kept; None keeps them for ever.
            notify: called with `written` or `lost` and a number of records.
            root: the artifact folder, if candidates answer along.
            shadows: the candidates that do, by the model's name.
        """
        self.written = self.lost = 0
        self._open_database, self._opening = open_database, threading.Lock()
        self._database: Database | None = None
        self._keep_inputs, self._days, self._notify = keep_inputs, days, notify
        self._queue: deque[Record | Refusal | Run | Shadowed] = deque()
        self._shadow = Shadow(root, shadows, self.add, notify) if root and shadows else None
        self._held = 0  # rows in the queue and in transactions
        self._counted: Counter[Key] = Counter()  # of batches that leave no records
        self._mutex = threading.Lock()  # of `_held`, `_counted`, `written` and `lost`
        self._writing = threading.Lock()
        self._doubtful, self._waiting = Transaction(), Transaction()
        self._binnings: dict[tuple[str, int], dict[Series, Binning]] = {}
        self._failing = False
        self._purged: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlapp-records", daemon=True)
        self._thread.start()

    @property
    def database(self) -> "Database":
        """Where records go."""
        with self._opening:
            if self._database is None:
                self._database = self._open_database()
            return self._database

    def add(self, entry: Record | Refusal | Run | Shadowed) -> None:
        """Take what is to be recorded; where there is no room for it, it is lost."""
        is_shadow = type(entry) is Shadowed
        rows = len(entry.answers) if isinstance(entry, (Record, Shadowed)) else 1
        with self._mutex:
            if full := self._held >= MOST_ROWS:
                self.lost += 0 if is_shadow else rows
            else:
                self._held += rows
        if full:
            self._notify("unshadowed" if is_shadow else "lost", rows)
        else:
            self._queue.append(entry)

    def count(self, model: Model, batch: Batch, answers: Answers) -> None:
        """Count the instances of a batch, and the answers to them, which leave no record each."""
        hour = time.time_ns() // 1_000_000 // HOUR
        counts = self._count(model, hour, [batch], answers)
        with self._mutex:
            self._counted.update(counts)

    def flush(self) -> bool:
        """Write what there is; return whether all of it is written."""
        with self._writing:
            self._collect()
            return self._write()

    def close(self) -> None:
        """Write what there is, or count it as lost, and stop."""
        self._stop.set()
        self._thread.join()
        self.flush()
        if self._shadow:
            self._shadow.close()
        if not self.flush():
            rows = len(self._doubtful) + len(self._waiting)
            _log.warning("%d records were not written, and are lost", rows)
            self._lose(rows)
            self._forget(len(self._doubtful.shadows) + len(self._waiting.shadows))
            self._doubtful, self._waiting = Transaction(), Transaction()
        if self._database:
            self._database.close()

    def _work(self) -> None:
        _ = self.database
        due, pause = 0.0, WRITE_EVERY
        while not self._stop.wait(pause):
            pause = COLLECT_EVERY if self._queue else WRITE_EVERY
            try:
                if time.monotonic() < due:
                    with self._writing:
                        self._collect()
                else:
                    due = time.monotonic() + WRITE_EVERY
                    self.flush()
                    self._purge()
            except Exception:  # the thread must not end
                _log.exception("unexpected error while writing records")

    # --- collecting ------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Turn what has come into rows and counts."""
        with self._mutex:
            added, self._counted = Transaction(counts=self._counted), Counter()
        groups: dict[tuple[int, int], list[Record]] = {}
        for _ in range(len(self._queue)):
            entry = self._queue.popleft()
            if type(entry) is Record:
                if self._shadow:
                    self._shadow.take(entry)
                groups.setdefault((id(entry.model), entry.time // HOUR), []).append(entry)
            elif isinstance(entry, Run):
                added.runs.append(tuple(entry))
            elif isinstance(entry, Shadowed):
                added.shadows += entry.rows()
            elif isinstance(entry, Refusal):
                self._count_refusal(added, entry)
        for (_, hour), records in groups.items():
            try:
                self._collect_group(added, hour, records)
            except Exception:  # a family's own batch or answers
                _log.exception("answers of %s cannot be recorded", records[0].model.manifest.name)
                self._lose(sum(len(each.answers) for each in records))
        waiting = self._waiting.bytes + self._doubtful.bytes
        if self._failing and added.bytes + waiting > MOST_BYTES:
            self._lose(len(added))
            self._forget(len(added.shadows))
        else:
            self._waiting.take(added)

    def _collect_group(self, added: Transaction, hour: int, records: list[Record]) -> None:
        """Add the records of one model and one hour."""
        model = records[0].model
        key = model.manifest.name, model.manifest.version
        answers = merge([each.answers for each in records])
        rows = list(_rows(records, answers, self._keep_inputs))
        for each in records:
            bucket = bisect.bisect_right(bins.SECONDS.edges, each.seconds)
            added.counts[*key, hour, "seconds", each.channel, bucket] += 1
        batches = [each.batch for each in records]
        added.counts.update(self._count(model, hour, batches, answers))
        added.answers += rows
        added.bytes += sum(len(row[-1] or "") for row in rows)

    def _count(
        self, model: Model, hour: int, batches: Sequence[Batch], answers: Answers
    ) -> Counter[Key]:
        """Return the counts of instances and of the answers to them."""
        key, counts = (model.manifest.name, model.manifest.version), Counter[Key]()
        if key not in self._binnings:
            self._binnings[key] = bins.binnings(model)
        for series, values in bins.columns(model, batches, answers).items():
            if binning := self._binnings[key].get(series):
                for place, times in binning.count(values).items():
                    counts[*key, hour, *series, place] += times
        return counts

    def _count_refusal(self, added: Transaction, refusal: Refusal) -> None:
        manifest, hour = refusal.model.manifest, refusal.time // HOUR
        key = manifest.name, manifest.version, hour
        added.counts[*key, "error", refusal.channel, refusal.status] += 1
        names = set(refusal.model.takes.names)
        for fault in refusal.faults:
            if fault.input in names:
                added.counts[*key, "input", fault.input, bins.REFUSED] += 1
        self._forget(1)

    # --- writing ---------------------------------------------------------------------------------

    def _write(self) -> bool:
        """Write the transactions that wait; return whether all were written."""
        while self._doubtful or self._waiting:
            if not self._doubtful:
                self._doubtful, self._waiting = self._waiting, Transaction()
            rows, held = len(self._doubtful), self._doubtful.held
            try:
                write(self.database, self._doubtful)
            except RecordsUnavailable as error:
                if not self._failing:
                    _log.warning("Records wait in memory: %s", error)
                self._failing = True
                return False
            self._doubtful = Transaction()
            self._forget(held)
            with self._mutex:
                self.written += rows
            self._notify("written", rows)
        if self._failing:
            _log.warning("Records are written again; %d were lost since the start", self.lost)
        self._failing = False
        return True

    def _lose(self, rows: int) -> None:
        with self._mutex:
            self._held -= rows
            self.lost += rows
        self._notify("lost", rows)

    def _forget(self, rows: int) -> None:
        with self._mutex:
            self._held -= rows

    def _purge(self) -> None:
        """Delete what is too old, now and then, and where there are records."""
        due = self._purged is None or time.monotonic() > self._purged + PURGE_EVERY
        if self._days and due and self.written:
            from mlapp.records.queries import purge

            try:
                purge(self.database, self._days)
            except RecordsUnavailable as error:
                _log.warning("Old records are not deleted: %s", error)
            self._purged = time.monotonic()


def merge(parts: Sequence[Answers]) -> Answers:
    """Return the answers of several requests to one model as those of one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Numbers):
        values = [each.values for each in parts if isinstance(each, Numbers)]
        return Numbers(first.output, np.concatenate(values))
    labels = [each for each in parts if isinstance(each, Labels)]
    extras = {name: np.concatenate([each.extras[name] for each in labels]) for name in first.extras}
    probabilities = np.concatenate([each.probabilities for each in labels])
    return Labels(first.output, probabilities, extras)


def _rows(
    records: Sequence[Record], found: Answers, keep_inputs: bool
) -> Iterable[tuple[Any, ...]]:
    """Yield the rows of `answers` for requests to one model.

    Args:
        records: the requests.
        found: the answers to all of them.
        keep_inputs: whether the rows hold what was asked.
    """
    name, version = records[0].model.manifest.name, records[0].model.manifest.version
    tensors = found.tensors()
    values = zip(
        *(
            tensors[column].tolist() if column in tensors else repeat(None, len(found))
            for column in ("prediction", "lower", "upper", "label", "probability")
        ),
        strict=True,
    )
    for record in records:
        count = len(record.answers)
        fixed = (record.time, name, version, record.channel, count, record.seconds)
        for place in range(count):
            key = record.keys[place] if record.keys else None
            key = key and key.replace("\0", "")  # which PostgreSQL does not take
            kept = orjson.dumps(record.batch.row(place)).decode() if keep_inputs else None
            yield (record.id, place, *fixed, *next(values), key, kept)


# --- the process's own ---------------------------------------------------------------------------

_lock = threading.Lock()
_opened: list[Writer | None] = []  # one or none
_observers: list[Callable[[str, int], None]] = []  # one or none


def writer() -> Writer | None:
    """Return the writer of this process as the environment says; None where nothing is recorded."""
    if _opened:
        return _opened[0]
    with _lock:
        if not _opened:
            _opened.append(_open())
            atexit.register(close)
        return _opened[0]


def observe(observer: Callable[[str, int], None]) -> None:
    """Let a function count records: it is called with `written` or `lost` and a number."""
    _observers[:] = [observer]


def close() -> None:
    """Write what there is, and let the next answer open the database again."""
    with _lock:
        closed, _opened[:] = _opened[:], []
        atexit.unregister(close)
    for each in closed:
        if each:
            each.close()


def _open() -> Writer | None:
    settings = read_settings()
    if not settings.log_answers:
        return None

    def open_database() -> "Database":
        from mlapp.records.database import Database

        return Database(settings)

    if settings.database_url:  # the default is valid
        try:
            open_database()
        except InvalidSettings as error:
            _log.warning("Nothing is recorded: %s", error)
            return None
    return Writer(
        open_database,
        settings.log_inputs,
        settings.log_days,
        _tell,
        settings.artifacts,
        settings.shadows,
    )


def _tell(outcome: str, rows: int) -> None:
    for observer in _observers:
        observer(outcome, rows)
