import os
import threading
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch

from bootstrap_core.kernels import threads
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.teams import in_parts


@pytest.fixture(params=["torch's threads", "threads of our own"])
def two_threads(request, monkeypatch) -> Iterator[str]:
    """Torch with two threads; then as if it had no OpenMP."""
    if request.param == "threads of our own":
        monkeypatch.setattr(threads, "_parallel_region", lambda: None)
    elif threads._parallel_region() is None:
        pytest.skip("this torch has no OpenMP")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield request.param
    torch.set_num_threads(before)


def meet(barrier: threading.Barrier) -> int:
    barrier.wait(timeout=60)
    return threading.get_ident()


def test_two_items_run_at_once_in_two_threads(two_threads: str) -> None:
    assert len(set(threads.each(meet, [threading.Barrier(2)] * 2))) == 2


def test_threads_of_our_own_leave_torch_one_thread_in_each(two_threads: str) -> None:
    pool = threads._workers(2, os.getpid())
    try:
        assert list(pool.map(lambda _: torch.get_num_threads(), range(2))) == [1, 1]
    finally:
        pool.shutdown()
        threads._workers.cache_clear()


def test_results_come_in_the_order_of_the_items(two_threads: str) -> None:
    assert threads.each(lambda x: x * x, range(100)) == [x * x for x in range(100)]
    assert threads.each(lambda x: x, []) == []


@pytest.mark.parametrize("bad", [0, 7])
def test_a_failure_in_any_thread_is_raised(bad: int, two_threads: str) -> None:
    def fail(item: int) -> None:
        if item == bad:
            raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match=f"item {bad}"):
        threads.each(fail, range(8))


def test_products_of_torch_inside_are_right(two_threads: str) -> None:
    x = torch.randn(4, 300, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(threads.each(lambda i: x[i] @ x[i], range(4)), x @ x, strict=True):
        torch.testing.assert_close(found, expected)


@compiler()
def mark(seen, start, stop, starts, team):
    """Counts what is gone over, and notes where each part starts."""
    if in_parts(team):
        return
    starts[team[1]] = start
    for i in range(start, stop):
        seen[i] += 1


@compiler()
def add_up(numbers, start, stop, sums, team):
    if in_parts(team):
        return
    for i in range(start, stop):
        sums[team[1], 0] += numbers[i]


@compiler()
def take_memory(sizes, start, stop, team):
    if in_parts(team):
        return
    for i in range(start, stop):
        sizes[i] = len(np.empty(sizes[i], np.uint8))


@pytest.mark.parametrize(("size", "align"), [(100, 1), (101, 8), (5, 8), (0, 1), (1, 1)])
def test_split_covers_everything_once(size: int, align: int, two_threads: str) -> None:
    seen, starts = np.zeros(size, int), np.full(2, -1)
    threads.split(mark, size, seen, starts, work=1 << 20, align=align)
    assert (seen == 1).all()
    assert starts.tolist() == ([0, size // 2 // align * align] if size >= 2 * align else [0, -1])


@pytest.mark.parametrize("n", [3, 8])
def test_more_parts_than_threads_are_all_done(n: int, two_threads: str, monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: n)
    seen, starts = np.zeros(1000, int), np.full(n, -1)
    threads.split(mark, 1000, seen, starts, work=1 << 20)
    assert (seen == 1).all()
    assert starts.tolist() == [1000 * part // n for part in range(n)]


def test_a_thread_can_do_all_alone(two_threads: str) -> None:
    for run in (threads.alone, partial(threads.split, work=0)):
        seen, starts = np.zeros(50, int), np.full(2, -1)
        run(mark, 50, seen, starts)
        assert (seen == 1).all()
        assert starts.tolist() == [0, -1]


def test_a_sum_is_of_all_parts(two_threads: str) -> None:
    numbers = np.arange(1000.0)
    assert threads.split_sum(add_up, 1000, numbers, shape=(2,), work=1 << 20).tolist() == [499_500.0, 0.0]


@pytest.mark.parametrize("bad", [0, 1])
def test_a_thread_without_memory_is_an_error(bad: int, two_threads: str) -> None:
    sizes = np.full(2, 10)
    sizes[bad] = 1 << 60
    with pytest.raises(MemoryError):
        threads.split(take_memory, 2, sizes, work=1 << 20)
    threads.split(take_memory, 2, np.full(2, 10), work=1 << 20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_too(two_threads: str) -> None:
    assert threads.each(lambda x: x, range(2)) == [0, 1]
    child = os.fork()
    if child == 0:
        try:
            seen, starts = np.zeros(50, int), np.full(2, -1)
            threads.split(mark, 50, seen, starts, work=1 << 20)
            split = (seen == 1).all() and starts.tolist() == [0, 25]
            os._exit(0 if split and len(set(threads.each(meet, [threading.Barrier(2)] * 2))) == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
