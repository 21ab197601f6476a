"""Signals that a terminal or a supervisor sends to all processes of a group."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def blocked(*numbers: signal.Signals) -> Iterator[None]:
    """Block signals in this thread and, for good, in processes that it starts in the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
