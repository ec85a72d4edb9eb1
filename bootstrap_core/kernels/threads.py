"""Compiled functions on as many threads as torch has."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier
from typing import Any

import numpy as np
import torch

__all__ = ["split", "split_sum", "workers"]

LEAST = 1 << 15
"""Work below this much is not worth waking a thread."""


def workers() -> ThreadPoolExecutor:
    """As many threads as torch has; of this process, since a fork leaves them behind. In them, torch has one."""
    return _workers(torch.get_num_threads(), os.getpid())


@lru_cache(maxsize=2)
def _workers(n: int, process: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(n, f"snnzoo-{process}", torch.set_num_threads, (1,))
    all_started = Barrier(n)
    list(pool.map(lambda _: all_started.wait(), range(n)))
    torch.set_num_threads(n)  # threads started later take what was set last
    return pool


def split(run: Callable[[int, int], object], size: int, *, work: int, align: int = 1) -> None:
    """`run(start, stop)` over 0 to `size`, in parts of a multiple of `align`, one for each of torch's threads.

    `work` says how much there is in all; `run` must release the interpreter lock to gain anything.
    """
    n = torch.get_num_threads() if work >= LEAST else 1
    n = max(1, min(n, size // align))
    bounds = [size * i // n // align * align for i in range(n)] + [size]
    waiting = [workers().submit(run, bounds[i], bounds[i + 1]) for i in range(1, n)]
    run(bounds[0], bounds[1])
    for part in waiting:
        part.result()


def split_sum(
    run: Callable[[int, int, Any], object], size: int, shape: tuple[int, ...], *, work: int, dtype: Any = np.float64
) -> Any:
    """The sum of arrays of `shape`, one for each thread: `run(start, stop, out)` adds its part to `out`."""
    n_parts = max(1, min(torch.get_num_threads(), size)) if work >= LEAST else 1
    parts = np.zeros((n_parts, *shape), dtype)
    bounds = [size * i // n_parts for i in range(n_parts + 1)]

    def add(first: int, last: int) -> None:
        for part in range(first, last):
            run(bounds[part], bounds[part + 1], parts[part])

    split(add, n_parts, work=work)
    return parts.sum(0)
