"""Compiled functions on as many threads as torch has."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

__all__ = ["split"]

LEAST = 1 << 15
"""Work below this much is not worth waking a thread."""


@cache
def _pool(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="snnzoo")


def split(run: Callable[[int, int], object], size: int, *, work: int, align: int = 1) -> None:
    """`run(start, stop)` over 0 to `size`, in parts of a multiple of `align`, one for each of torch's threads.

    `work` says how much there is in all; `run` must release the interpreter lock to gain anything.
    """
    n = torch.get_num_threads() if work >= LEAST else 1
    n = max(1, min(n, size // align))
    bounds = [size * i // n // align * align for i in range(n)] + [size]
    waiting = [_pool(n).submit(run, bounds[i], bounds[i + 1]) for i in range(1, n)]
    run(bounds[0], bounds[1])
    for part in waiting:
        part.result()
