"""Texts scored in other processes, beside the threads of this one.

Threads that score texts wait for the interpreter a fifth of the time; processes do not. Each takes
about a second to start and 150 MB, so they are for large files.
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

import pyarrow as pa

from mlapp import families
from mlapp.errors import Fault
from mlapp.families.contract import Model
from mlapp.families.cores import use_one_core
from mlapp.manifest import Artifact
from mlapp.scoring.batch import Plan, Scored, score_batch
from mlapp.signals import blocked


class Processes:
    """Processes with their own copy of a model; the threads of `batch.score_table` share them.

    A batch is scored here while no process is ready, or if the process that has it ends.
    """

    def __init__(self, artifact: Artifact, count: int) -> None:
        """Start `count` processes, without waiting for them."""
        self._mutex = threading.Lock()  # of `_free`
        resource_tracker.ensure_running()  # when it starts, it would let SIGINT through again
        with blocked(signal.SIGINT):  # which a terminal sends to all
            self._all = [_Helper(artifact) for _ in range(count)]
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
        model: Model,
        plan: Plan,
        batch: pa.RecordBatch,
        faults: Mapping[int, Fault] | None = None,
    ) -> Scored:
        """Score a batch as `score_batch` does, in a process if one is free."""
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

    def __init__(self, artifact: Artifact) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process: SpawnProcess = spawn.Process(
            target=_serve, args=(theirs, artifact), name="mlapp-score", daemon=True
        )
        self._process.start()
        theirs.close()  # so that its end is noticed
        self._ready = False

    def is_ready(self) -> bool:
        """Return whether it has opened the model, or has ended."""
        if not self._ready and self._connection.poll():
            with suppress(EOFError, OSError):
                self._connection.recv()
            self._ready = True
        return self._ready

    def score(
        self, plan: Plan, batch: pa.RecordBatch, faults: Mapping[int, Fault] | None
    ) -> Scored:
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
        self._connection.close()


def _serve(connection: Connection, artifact: Artifact) -> None:
    """Score the batches that arrive, until the connection is closed."""
    use_one_core()
    model = families.from_artifact(artifact)
    with suppress(EOFError, OSError):
        connection.send("ready")
        while True:
            plan, batch, faults = connection.recv()
            answer: Scored | Exception
            try:
                answer = score_batch(model, plan, batch, faults)
            except Exception as error:  # raised again where the batch came from
                answer = error
            connection.send(answer)
