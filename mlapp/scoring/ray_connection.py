"""A connection to Ray, to a running cluster or one started on this machine, and its errors."""

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlapp.errors import ClusterError, InvalidTable, MlappError, OutputError

STORE = 1 << 28  # bytes of shared memory for each worker, where Ray is started here


@contextmanager
def connect(
    address: str | None = None, workers: int | None = None, show: bool = False
) -> Iterator[int]:
    """Connect to a running Ray cluster, or start Ray on this machine until the end.

    If the process is already connected, it stays connected, and `address` is ignored.

    Args:
        address: of a cluster: `auto`, `HOST:PORT` or `ray://HOST:PORT`; None starts one here.
        workers: how many processes work; by default one for each core.
        show: whether what they print is shown.

    Yields:
        The number of workers.

    Raises:
        ClusterError: Ray is not installed, or no cluster is at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "Ray is not installed; it comes with the extra scale: pip install 'mlapp[scale]'"
        ) from error
    found = ray.is_initialized()
    if not found:
        quiet: dict[str, Any] = {"log_to_driver": show, "logging_level": logging.ERROR}
        try:
            if address is None:
                count = workers or os.cpu_count() or 1
                ray.init(
                    "local",
                    num_cpus=count,
                    object_store_memory=count * STORE,
                    include_dashboard=False,
                    **quiet,
                )
            else:
                # Ray itself would wait for minutes.
                if match := re.fullmatch(r"(?:ray://)?(.+):([0-9]+)", address):
                    socket.create_connection((match[1].strip("[]"), int(match[2])), 10).close()
                ray.init(address, **quiet)
        except Exception as error:  # Ray's exceptions share no base
            message = f"No Ray cluster answers at {address}" if address else "Ray cannot be started"
            raise ClusterError(f"{message}: {error}") from error
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield workers or max(1, int(resources.get("CPU", 1)))
    finally:
        if not found:
            ray.shutdown()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn Ray's exceptions into the error that a worker raised, or else into a ClusterError.

    Raises:
        InvalidTable, OutputError: a worker raised it.
        ClusterError: any other reason.
    """
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MlappError) and not isinstance(cause, ray.exceptions.RayError):
                known = isinstance(cause, InvalidTable | OutputError)
                # Ray adds a traceback after the first line.
                raise (type(cause) if known else ClusterError)(str(cause).split("\n")[0]) from error
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise ClusterError(f"Ray failed: {last_line(error)}") from error


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message, without the traceback of a worker before it."""
    return str(error).strip().rpartition("\n")[2]
