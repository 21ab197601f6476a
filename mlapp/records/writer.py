"""Records, written by a thread: a request hands over what it has, and does not wait.

Twice a second the thread collects what has come, and writes it in one transaction. A service hands
it over to another process instead, which writes it even if the service is killed. Where that fails,
the thread goes on trying; records wait in memory meanwhile, and those that find no room are counted
as lost. A transaction whose outcome is not known is repeated unchanged, and recognised if it was
done.
"""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mlapp.errors import InvalidSettings, RecordsUnavailable
from mlapp.families.contract import Answers, Batch, Model
from mlapp.records import bins
from mlapp.records.collecting import Binnings, Group, count
from mlapp.records.entries import Record, Refusal, Shadowed, instances
from mlapp.records.process import WritingProcess
from mlapp.records.shadow import Shadow
from mlapp.records.transactions import HOUR, Run, Transaction, write
from mlapp.settings import read_settings

if TYPE_CHECKING:  # SQLAlchemy takes longer to import than a row takes to predict
    from mlapp.records.database import Database

WRITE_EVERY = 0.5  # seconds between two transactions, each of which costs as much as 100 rows
SLOW_SECONDS = 0.75  # a flush that takes longer waits for the database
PURGE_EVERY = 3600.0  # seconds
MOST_ROWS = 100_000  # that wait in memory
MOST_BYTES = 1 << 26  # of what was asked that wait in memory
UNDELETED = "Old records are not deleted: %s"

_log = logging.getLogger(__name__)


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
        process: WritingProcess | None = None,
    ) -> None:
        """Start the thread.

        Args:
            open_database: returns where records go; called when it is needed, since its libraries
                take time to import.
            keep_inputs: whether they hold the values that were asked about.
            days: for which they are kept; None keeps them for ever.
            notify: called with `written` or `lost` and a number of records.
            root: the artifact folder, if candidates run in shadow mode.
            shadows: the candidates that do, by the model's name.
            process: what writes to the database of the settings; by default the thread does.
        """
        self.written = self.lost = 0
        self._open_database, self._opening = open_database, threading.Lock()
        self._database: Database | None = None
        self._process = process
        self._keep_inputs, self._days, self._notify = keep_inputs, days, notify
        self._groups: dict[tuple[int, int], Group] = {}  # by the model's id, and the hour
        self._others = Transaction()  # what has come beside answers
        self._shadow = (
            Shadow(root, shadows, self.add_shadowed, notify) if root and shadows else None
        )
        self._held = 0  # rows in groups and transactions
        self._mutex = threading.Lock()  # of `_groups`, `_others`, `_held`, `written` and `lost`
        self._writing = threading.Lock()
        # What the process has, and since when; None is a deletion.
        self._sent: deque[tuple[float, Transaction | None]] = deque()
        self._doubtful: deque[Transaction] = deque()  # to be repeated
        self._waiting = Transaction()
        self._binnings: dict[tuple[str, int, datetime], Binnings] = {}
        self._failing = False
        self._flushing: float | None = None  # when the flush in progress began
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

    def add(self, record: Record) -> None:
        """Take an answered request; where there is no room for it, it is lost."""
        key = id(record.model), record.time // HOUR
        try:
            asked = instances(record) if self._keep_inputs else ()
            with self._mutex:
                fits = self._held < MOST_ROWS
                if fits:
                    group = self._groups.get(key)
                    if group is None:
                        group = self._groups[key] = Group(record.model, key[1])
                    self._held += group.add(record, asked)
        except Exception:  # a family's own batch or answers
            self._log_unrecordable(record.model)
            fits = False
        if not fits:
            self._count_lost(len(record.answers))
        elif self._shadow:
            self._shadow.take(record)

    def add_refusal(self, refusal: Refusal) -> None:
        """Count a request that was not answered."""
        counts = refusal.counts()
        with self._mutex:
            self._others.counts.update(counts)

    def add_run(self, run: Run) -> None:
        """Take the run of a file; where there is no room for it, it is lost."""
        with self._mutex:
            fits = self._reserve(1)
            if fits:
                self._others.runs.append(run)
        if not fits:
            self._count_lost(1)

    def add_shadowed(self, shadowed: Shadowed) -> None:
        """Take a candidate's answers; where there is no room for them, they are missing."""
        rows = shadowed.rows()
        with self._mutex:
            fits = self._reserve(len(rows))
            if fits:
                self._others.shadows += rows
        if not fits:
            self._notify("unshadowed", len(rows))

    def count(
        self, model: Model, batch: Batch, answers: Answers, refused: Mapping[str, int]
    ) -> None:
        """Count the instances of a batch, and the answers to them, which leave no record each.

        Those that were refused are counted by the inputs that were at fault.
        """
        hour = time.time_ns() // 1_000_000 // HOUR
        binnings = self._binnings_of(model)
        counts = count(model, hour, bins.inputs(model, batch), answers, binnings)
        key = model.manifest.name, model.manifest.version, hour
        for name, rows in refused.items():
            counts[*key, "input", name, bins.REFUSED] += rows
        with self._mutex:
            self._others.counts.update(counts)

    def flush(self, wait: bool = True) -> bool:
        """Write what there is; return whether all of it is written.

        Args:
            wait: whether to wait until the process has written it.
        """
        with self._writing:
            self._flushing = time.monotonic()
            try:
                self._collect()
                return self._write(wait)
            finally:
                self._flushing = None

    def is_behind(self) -> bool:
        """Return whether records are not written yet because the database is slow or fails."""
        late = time.monotonic() - SLOW_SECONDS
        # That a transaction is written is noticed by the next flush.
        handed_over = any(since + WRITE_EVERY < late for since, _ in self._sent.copy())
        began = self._flushing
        return self._failing or handed_over or (began is not None and began < late)

    def close(self) -> None:
        """Write what there is, or count it as lost, and stop."""
        self._stop.set()
        self._thread.join()
        self.flush()
        if self._shadow:
            self._shadow.close()
        if not self.flush():
            left = [*self._doubtful, self._waiting]
            rows = sum(map(len, left))
            _log.warning("%d records were not written, and are lost", rows)
            self._lose(rows)
            self._forget(sum(len(each.shadows) for each in left))
            self._doubtful.clear()
            self._waiting = Transaction()
        if self._database:
            self._database.close()
        if self._process:
            self._process.close()

    def _work(self) -> None:
        if self._process is None:
            _ = self.database
        while not self._stop.wait(WRITE_EVERY):
            try:
                self.flush(wait=False)
                self._purge()
            except Exception:  # the thread must not end
                _log.exception("unexpected error while writing records")

    # --- collecting ------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Turn what has come into rows and counts."""
        with self._mutex:
            added, self._others = self._others, Transaction()
            groups, self._groups = self._groups, {}
        for group in groups.values():
            try:
                columns, counts = group.collect(self._binnings_of(group.model))
            except Exception:  # a family's own answers
                self._log_unrecordable(group.model)
                self._lose(len(group))
            else:
                added.answers.append(columns)
                added.counts.update(counts)
        if self._keep_inputs:
            added.bytes = sum(
                len(asked) for columns in added.answers for asked in columns.each["inputs"]
            )
        waiting = self._waiting.bytes + sum(each.bytes for each in self._doubtful)
        if self._failing and added.bytes + waiting > MOST_BYTES:
            self._lose(len(added))
            self._forget(len(added.shadows))
        else:
            self._waiting.take(added)

    def _binnings_of(self, model: Model) -> Binnings:
        manifest = model.manifest
        # A folder that was removed may come again, as another model.
        key = manifest.name, manifest.version, manifest.created
        if key not in self._binnings:
            self._binnings[key] = bins.binnings(model)
        return self._binnings[key]

    # --- writing ---------------------------------------------------------------------------------

    def _write(self, wait: bool) -> bool:
        """Write what waits, or hand it over; return whether all is written."""
        try:
            self._settle(wait or self._failing)
            while self._doubtful:
                self._repeat()
            if self._waiting:
                transaction, self._waiting = self._waiting, Transaction()
                self._begin(transaction)
            self._settle(wait)
        except RecordsUnavailable as error:
            if not self._failing:
                _log.warning("Records wait in memory: %s", error)
            self._failing = True
            return False
        if self._failing:
            _log.warning("Records are written again; %d were lost since the start", self.lost)
        self._failing = False
        return not self._sent

    def _begin(self, transaction: Transaction) -> None:
        """Write a transaction, or hand it over to the process."""
        if self._process is None:
            self._doubtful.append(transaction)
            self._repeat()
        else:
            self._sent.append((time.monotonic(), transaction))
            self._process.send(transaction)

    def _repeat(self) -> None:
        """Write the first of those that are to be repeated, and wait for that."""
        transaction = self._doubtful[0]
        if self._process is None:
            write(self.database, transaction)
        else:
            self._process.send(transaction)
            self._process.settle(wait=True)
        self._doubtful.popleft()
        self._note_written(transaction)

    def _settle(self, wait: bool) -> None:
        """Take the outcomes of what the process has; what it has not written is to be repeated."""
        failure: RecordsUnavailable | None = None
        while self._sent and self._process:
            error = None
            try:
                if not self._process.settle(wait):
                    break
            except RecordsUnavailable as raised:
                error = raised
            _, transaction = self._sent.popleft()
            if transaction is None:
                if error:
                    _log.warning(UNDELETED, error)
            elif error:
                self._doubtful.append(transaction)
                failure = failure or error
            else:
                self._note_written(transaction)
        if failure:
            raise failure

    def _note_written(self, transaction: Transaction) -> None:
        rows = len(transaction)
        self._forget(transaction.held)
        with self._mutex:
            self.written += rows
        self._notify("written", rows)

    def _reserve(self, rows: int) -> bool:
        """Return whether there is room for rows, which then count; called with the mutex."""
        fits = self._held < MOST_ROWS
        if fits:
            self._held += rows
        return fits

    def _lose(self, rows: int) -> None:
        self._forget(rows)
        self._count_lost(rows)

    def _count_lost(self, rows: int) -> None:
        with self._mutex:
            self.lost += rows
        self._notify("lost", rows)

    def _log_unrecordable(self, model: Model) -> None:
        """Log the error that is being handled."""
        _log.exception("answers of %s cannot be recorded", model.manifest.name)

    def _forget(self, rows: int) -> None:
        with self._mutex:
            self._held -= rows

    def _purge(self) -> None:
        """Delete what is too old, now and then, and where there are records."""
        due = self._purged is None or time.monotonic() > self._purged + PURGE_EVERY
        if self._days and due and self.written:
            try:
                self._delete_before(time.time_ns() // 1_000_000 - self._days * 24 * HOUR)
            except RecordsUnavailable as error:
                _log.warning(UNDELETED, error)
            self._purged = time.monotonic()

    def _delete_before(self, limit: int) -> None:
        if self._process:
            with self._writing:
                self._process.send_deletion(limit)
                self._sent.append((time.monotonic(), None))
        else:
            from mlapp.records.deleting import delete_before

            delete_before(self.database, limit)


# --- the process's own ---------------------------------------------------------------------------

_lock = threading.Lock()
_opened: list[Writer | None] = []  # one or none
_observers: list[Callable[[str, int], None]] = []  # one or none


def writer() -> Writer | None:
    """Return the writer of this process as the environment says; None where nothing is recorded."""
    return _opened[0] if _opened else start()


def start(process: WritingProcess | None = None) -> Writer | None:
    """Return the writer of this process, and start it unless it is.

    Args:
        process: what is to write, so that this process has more time for its work; it is closed
            with the writer, or at once where it is not needed.
    """
    with _lock:
        if not _opened:
            _opened.append(_open(process))
            atexit.register(close)
        elif process:
            process.close()
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


def _open(process: WritingProcess | None) -> Writer | None:
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
            if process:
                process.close()
            return None
    return Writer(
        open_database,
        settings.log_inputs,
        settings.log_days,
        _tell,
        settings.artifacts,
        settings.shadows,
        process,
    )


def _tell(outcome: str, rows: int) -> None:
    for observer in _observers:
        observer(outcome, rows)
