"""Texts scored in other processes, beside the threads of this one.

Threads that score texts wait for the interpreter a fifth of the time; processes do not. Each takes
about a second to start and 150 MB, so they are for large files. This module imports little, so that
they can start before everything else does.
"""

import multiprocessing
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import TYPE_CHECKING

from mlapp.errors import Fault
from mlapp.signals import blocked

if TYPE_CHECKING:
    import pyarrow as pa

    from mlapp.families.contract import Model
    from mlapp.manifest import Artifact
    from mlapp.scoring.batch import Plan, Scored


class Processes:
    """Processes with their own copy of a model; the threads of `batch.score_table` share them.

    A batch is scored here while no process is ready, or if the process that has it ends.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()  # of `_free`
        self._all: list[_Helper] = []
        self._free: list[_Helper] = []

    def start(self, count: int) -> None:
        """Start `count` processes, unless some are started, without waiting for them."""
        if self._all:
            return
        resource_tracker.ensure_running()  # when it starts, it would let SIGINT through again
        with blocked(signal.SIGINT):  # which a terminal sends to all
            self._all = [_Helper() for _ in range(count)]

    def open(self, artifact: "Artifact") -> None:
        """Let them open a model, without waiting for it."""
        for helper in self._all:
            helper.open(artifact)
        self._free = list(self._all)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes."""
        for helper in self._all:
            helper.close()

    def score(
        self,
        model: "Model",
        plan: "Plan",
        batch: "pa.RecordBatch",
        faults: Mapping[int, Fault] | None = None,
    ) -> "Scored":
        """Score a batch as `score_batch` does, in a process if one is free."""
        from mlapp.scoring.batch import score_batch

        helper = self._take()
        if helper is None:
            return score_batch(model, plan, batch, faults)
        try:
            scored = helper.score(plan, batch, faults)
        except (EOFError, OSError):  # it has ended, and is not used again
            return score_batch(model, plan, batch, faults)
        with self._mutex:
            self._free.append(helper)
        return scored

    def is_ready(self) -> bool:
        """Return whether a process is free and has opened the model."""
        with self._mutex:
            return any(helper.is_ready() for helper in self._free)

    def _take(self) -> "_Helper | None":
        with self._mutex:
            for place, helper in enumerate(self._free):
                if helper.is_ready():
                    return self._free.pop(place)
        return None


class _Helper:
    """A process, and the connection to it."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process: SpawnProcess = spawn.Process(
            target=_serve, args=(theirs,), name="mlapp-score", daemon=True
        )
        self._process.start()
        theirs.close()  # so that its end is noticed
        self._sending: threading.Thread | None = None
        self._ready = False

    def open(self, artifact: "Artifact") -> None:
        """Let the process open a model."""
        # A model is larger than what a pipe holds, and the process reads it after its imports.
        self._sending = threading.Thread(target=self._send, args=[artifact], daemon=True)
        self._sending.start()

    def _send(self, artifact: "Artifact") -> None:
        with suppress(OSError):  # it has ended
            self._connection.send(artifact)

    def is_ready(self) -> bool:
        """Return whether it has opened the model, or has ended."""
        if not self._ready and self._connection.poll():
            with suppress(EOFError, OSError):
                self._connection.recv()
            self._ready = True
        return self._ready

    def score(
        self, plan: "Plan", batch: "pa.RecordBatch", faults: Mapping[int, Fault] | None
    ) -> "Scored":
        """Let the process score a batch.

        Raises:
            EOFError, OSError: it has ended.
        """
        self._connection.send((plan, batch, faults))
        found = self._connection.recv()
        if isinstance(found, Exception):
            raise found
        scored: Scored = found
        return scored

    def close(self) -> None:
        self._process.terminate()
        self._process.join()
        if self._sending:
            self._sending.join()
        self._connection.close()


def _serve(connection: Connection) -> None:
    """Open the model that arrives and score batches, until the connection is closed."""
    from mlapp import families
    from mlapp.families.cores import use_one_core
    from mlapp.scoring.batch import score_batch

    use_one_core()
    with suppress(EOFError, OSError):
        model = families.from_artifact(connection.recv())
        connection.send("ready")
        while True:
            plan, batch, faults = connection.recv()
            answer: Scored | Exception
            try:
                answer = score_batch(model, plan, batch, faults)
            except Exception as error:  # raised again where the batch came from
                answer = error
            connection.send(answer)
