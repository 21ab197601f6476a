import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlapp.families.cores import spread, use_one_core


def test_work_is_spread_over_the_cores_and_its_results_are_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    both = threading.Barrier(2, timeout=30)  # passes only if two threads are there at once

    def work(item: int) -> int:
        both.wait()
        return item * item

    assert spread(work, [3, 4]) == [9, 16]


def test_work_of_a_pool_that_uses_all_cores_stays_on_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with ThreadPoolExecutor(1, initializer=use_one_core) as pool:
        ran = pool.submit(spread, lambda _: threading.get_ident(), [1, 2, 3]).result()
        assert set(ran) == {pool.submit(threading.get_ident).result()}
