"""Work spread over the cores, unless its caller is one of several that use them already."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_here = threading.local()


def use_one_core() -> None:
    """Let what this thread spreads from now on stay on it: the initializer of a pool's threads."""
    _here.uses_one_core = True


def spread(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return the results of work on each item, in order.

    Args:
        work: lets other threads run for most of the time, as a library in C does.
        items: of the work.
    """
    threads = min(len(items), os.cpu_count() or 1)
    if threads < 2 or getattr(_here, "uses_one_core", False):
        return list(map(work, items))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
