"""Compiled functions on as many threads as torch has."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

__all__ = ["split", "workers"]

LEAST = 1 << 15
"""Work below this much is not worth waking a thread."""


def workers() -> ThreadPoolExecutor:
    """As many threads as torch has; of this process, since a fork leaves them behind."""
    return _workers(torch.get_num_threads(), os.getpid())


@lru_cache(maxsize=2)
def _workers(n: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix=f"snnzoo-{process}")


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
