"""A process that writes records for a service, whose requests then do not wait for it.

It has a lower priority than requests, ignores the signals that end a service, and ends when the
process that started it does. If it has ended before, another is started for the next transaction.
"""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import IO, Any, Literal, TypeAlias

from mlapp.errors import RecordsUnavailable
from mlapp.records.transactions import Target, Transaction, write
from mlapp.settings import Settings, read_settings
from mlapp.signals import blocked

NICENESS = 10
END_SECONDS = 5  # for it to end when it is not needed any more
PIPE_BYTES = 1 << 20  # of tasks that the system holds until it has time to read them
ENDED = "the process that writes records has ended, or cannot be started"

Task: TypeAlias = Literal["write", "delete"]

_log = logging.getLogger(__name__)


class WritingProcess:
    """The process, and the pipes to and from it; for one thread at a time.

    Tasks are done in the order in which they were sent, also when this process ends before.
    """

    def __init__(self) -> None:
        """Prepare it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._outcomes: SimpleQueue[str | None] = SimpleQueue()

    def start(self) -> None:
        """Start it, unless it is started, without waiting for it.

        Raises:
            OSError: the system cannot start it.
        """
        if self._process is None:
            self._process = _start()

    def send(self, transaction: Transaction) -> None:
        """Let it write a transaction, as `transactions.write` does, without waiting for that.

        Raises:
            RecordsUnavailable: it has ended, or cannot be started.
        """
        self._send("write", transaction)

    def send_deletion(self, time: int) -> None:
        """Let it delete records from before a time in milliseconds since 1970, likewise.

        Raises:
            RecordsUnavailable: it has ended, or cannot be started.
        """
        self._send("delete", time)

    def settle(self, wait: bool) -> bool:
        """Return whether the first task that was sent and is not settled is done, and settle it.

        Args:
            wait: whether to wait until that is known; if not, False means that it is not yet.

        Raises:
            RecordsUnavailable: it is settled, but not done, or that is not known.
        """
        try:
            reason = self._outcomes.get(wait and self._process is not None)
        except Empty:
            if self._process is None:
                raise RecordsUnavailable(ENDED) from None
            return False
        if reason == ENDED:
            self.close()
        if reason is not None:
            raise RecordsUnavailable(reason)
        return True

    def close(self) -> None:
        """End it."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin and process.stdout  # as asked for
        if self._listener is None:  # it has had no task
            process.kill()
        with suppress(OSError):  # what is left in the buffer
            process.stdin.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._listener is not None:
            self._listener.join()
        self._listener, self._outcomes = None, SimpleQueue()
        process.stdout.close()

    def _send(self, task: Task, argument: Any) -> None:
        try:
            self.start()
            assert self._process and self._process.stdin and self._process.stdout  # as asked for
            if self._listener is None:
                to_and_from = self._process.stdout, self._outcomes
                self._listener = threading.Thread(target=_listen, args=to_and_from, daemon=True)
                self._listener.start()
            pickle.dump((task, argument), self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except OSError as error:
            self.close()
            raise RecordsUnavailable(f"{ENDED}: {error}") from error


def _listen(source: IO[bytes], outcomes: "SimpleQueue[str | None]") -> None:
    """Pass on the outcomes of tasks until the process ends."""
    with suppress(EOFError, OSError, pickle.UnpicklingError):
        while True:
            outcomes.put(pickle.load(source))
    outcomes.put(ENDED)


def start_early(settings: Settings) -> WritingProcess:
    """Return a process for `writer.start`; where answers are recorded, it is started already.

    A command calls this before its other imports, which take as long as the process to start.
    """
    process = WritingProcess()
    if settings.log_answers:
        with suppress(OSError):  # it is tried again with the first transaction
            process.start()
    return process


def _start() -> "subprocess.Popen[bytes]":
    # Its modules are to be those of this process, wherever they came from.
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
    with blocked(signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    if sys.platform == "linux":
        import fcntl

        assert process.stdin  # as asked for
        with suppress(OSError):  # users may have a limit
            fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return process


def serve() -> None:
    """Do the tasks of standard input until its end; answer None to each, or why it is not done.

    They are read while others are done, so that they outlast the process that sends them. Tasks
    that wait behind one that fails fail, too.
    """
    if hasattr(os, "nice"):
        os.nice(NICENESS)  # before the imports, which take longer than a request may
    tasks: SimpleQueue[tuple[Task, Any] | None] = SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, tasks), daemon=True).start()
    target = sys.stdout.fileno()
    sys.stdout = sys.stderr  # what a library prints must not get between
    database, reason = _open(read_settings()), None
    while (task := tasks.get()) is not None:
        if reason is None:
            reason = _do(database, *task)
        with suppress(BrokenPipeError):  # whoever asked has been killed
            os.write(target, pickle.dumps(reason))
        if tasks.empty():
            reason = None
    database.close()


def _read(source: IO[bytes], tasks: "SimpleQueue[tuple[Task, Any] | None]") -> None:
    with suppress(EOFError, pickle.UnpicklingError):  # at the end, or cut off
        while True:
            tasks.put(pickle.load(source))
    tasks.put(None)


def _open(settings: Settings) -> Target:
    if settings.database_url is None:  # SQLAlchemy takes longer to import than the file to write
        from mlapp.records.file import RecordsFile

        return RecordsFile(settings)
    from mlapp.records.database import Database

    return Database(settings)


def _delete_before(time: int) -> None:
    from mlapp.records.database import Database
    from mlapp.records.deleting import delete_before

    database = Database(read_settings())
    try:
        delete_before(database, time)
    finally:
        database.close()


def _do(database: Target, task: Task, argument: Any) -> str | None:
    """Do a task; return why it is not done, if it is not."""
    try:
        if task == "write":
            write(database, argument)
        else:
            _delete_before(argument)
    except RecordsUnavailable as error:
        return str(error)
    except Exception as error:  # the next one may be done
        _log.exception("unexpected error in the records")
        return f"unexpected error: {error!r}"
    return None
