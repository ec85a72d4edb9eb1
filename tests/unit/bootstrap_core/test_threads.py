import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from bootstrap_core.kernels import threads


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


@pytest.mark.parametrize(("size", "align"), [(100, 1), (101, 8), (5, 8), (0, 1)])
def test_split_covers_everything_once(size: int, align: int, two_threads: str) -> None:
    seen, bounds = np.zeros(size, int), list[int]()

    def run(start: int, stop: int) -> None:
        seen[start:stop] += 1
        bounds.append(start)

    threads.split(run, size, work=1 << 20, align=align)
    assert (seen == 1).all()
    assert all(start % align == 0 for start in bounds)


def test_a_sum_is_of_all_parts(two_threads: str) -> None:
    def add(start: int, stop: int, out: np.ndarray) -> None:
        out += np.arange(start, stop).sum()

    assert threads.split_sum(add, 1000, (2,), work=1 << 20).tolist() == [499_500.0] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_too(two_threads: str) -> None:
    assert threads.each(lambda x: x, range(2)) == [0, 1]
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if len(set(threads.each(meet, [threading.Barrier(2)] * 2))) == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
