"""A connection to Ray: a running cluster, or one started on this machine; and its errors in words."""

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
    """Connect to a running Ray cluster, or start Ray on this machine; leave or stop it at the end.

    Where the process is connected already, it stays so, and `address` is not looked at.

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
def _translated() -> Iterator[None]:
    """Turn what Ray raises into what a worker said, or else into words about Ray."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MlappError) and not isinstance(cause, ray.exceptions.RayError):
                known = isinstance(cause, InvalidTable | OutputError)
                # Behind the first line Ray adds words of its own.
                raise (type(cause) if known else ClusterError)(str(cause).split("\n")[0]) from error
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise ClusterError(f"Ray gave up: {last_line(error)}") from error


def last_line(error: BaseException) -> str:
    """Return what an error says, without what was where on a worker."""
    return str(error).strip().rpartition("\n")[2]
