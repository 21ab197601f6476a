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
from contextlib import suppress
from typing import Any, Literal, TypeAlias

from mlapp.errors import RecordsUnavailable
from mlapp.records.transactions import Target, Transaction, write
from mlapp.settings import Settings, read_settings
from mlapp.signals import blocked

NICENESS = 10
END_SECONDS = 5  # for it to end when it is not needed any more

Task: TypeAlias = Literal["write", "delete"]

_log = logging.getLogger(__name__)


class WritingProcess:
    """The process, and the pipes to and from it; for one thread at a time."""

    def __init__(self) -> None:
        """Prepare it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False  # whether it has had a task

    def start(self) -> None:
        """Start it, unless it is started, without waiting for it.

        Raises:
            OSError: the system cannot start it.
        """
        if self._process is None:
            self._process = _start()

    def write(self, transaction: Transaction) -> None:
        """Let it write a transaction, as `transactions.write` does.

        Raises:
            RecordsUnavailable: it is not written, or that is not known.
        """
        self._ask("write", transaction)

    def delete_before(self, time: int) -> None:
        """Let it delete records from before a time in milliseconds since 1970.

        Raises:
            RecordsUnavailable: not all of them are deleted, or that is not known.
        """
        self._ask("delete", time)

    def close(self) -> None:
        """End it."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if not self._asked:
            process.kill()
        try:
            process.communicate(timeout=END_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()

    def _ask(self, task: Task, argument: Any) -> None:
        self._asked = True
        try:
            self.start()
            assert self._process and self._process.stdin and self._process.stdout  # as asked for
            pickle.dump((task, argument), self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
            reason = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self.close()
            reason = f"the process that writes records has ended, or cannot be started: {error}"
            raise RecordsUnavailable(reason) from error
        if reason is not None:
            raise RecordsUnavailable(reason)


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
        return subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )


def serve() -> None:
    """Do the tasks of standard input until its end; answer None to each, or why it is not done."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)  # before the imports, which take longer than a request may
    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints must not get between
    database = _open(read_settings())
    with suppress(BrokenPipeError):  # whoever asked has been killed
        while True:
            try:
                task, argument = pickle.load(source)
            except (EOFError, pickle.UnpicklingError):  # at the end, or cut off
                break
            pickle.dump(_do(database, task, argument), target, pickle.HIGHEST_PROTOCOL)
            target.flush()
    database.close()


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
