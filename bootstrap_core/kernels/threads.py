"""Compiled functions on as many threads as torch has: on torch's own, where they can be had.

Torch's threads wait for work by keeping their cores busy, for some milliseconds, so threads beside them would have to
share those cores: a training step of spikes took half as long again.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import numpy as np
import torch

__all__ = ["each", "split", "split_sum"]

LEAST = 1 << 18
"""Work, in numbers that are gone over once, below which a thread wakes later than the work would be done."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_STARTED_IN = os.getpid()
_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def each(run: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`run` of every item, a thread taking the next when it is done with one; inside, torch has one thread.

    `run` must release the interpreter lock to gain anything.
    """
    n_threads = min(torch.get_num_threads(), len(items))
    if n_threads < 2:
        return [run(item) for item in items]
    region = _parallel_region() if os.getpid() == _STARTED_IN else None  # a fork leaves OpenMP's threads behind
    if region is None:
        return list(_workers(torch.get_num_threads(), os.getpid()).map(run, items))
    left, results, failures = iter(enumerate(items)), dict[int, Result](), list[BaseException]()

    def body(_: object) -> None:
        try:
            for place, item in left:
                results[place] = run(item)
        except BaseException as error:
            failures.append(error)

    region(_BODY(body), None, n_threads, 0)
    for failure in failures:
        raise failure
    return [results[place] for place in range(len(items))]


@cache
def _parallel_region() -> Any:
    """What a compiler makes of a parallel region, for GNU's, LLVM's and Intel's OpenMP; None if torch has none.

    It calls a function with a pointer in each of so many threads.
    """
    for path in Path(torch.__file__).parent.glob("lib/libtorch_cpu.*"):
        with suppress(OSError, AttributeError):
            region = ctypes.CDLL(str(path)).GOMP_parallel  # of a library that this one needs
            region.argtypes, region.restype = [_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
            return region
    return None


@lru_cache(maxsize=2)
def _workers(n: int, process: int) -> ThreadPoolExecutor:
    """Threads of our own, of this process, since a fork leaves them behind. In them, torch has one."""
    all_started = Barrier(n)

    def start() -> None:
        torch.get_num_threads()  # a thread's first use of this takes what all threads have
        torch.set_num_threads(1)
        all_started.wait()

    pool = ThreadPoolExecutor(n, f"snnzoo-{process}", start)
    list(pool.map(lambda _: None, range(n)))
    torch.set_num_threads(n)  # of threads started later
    return pool


def split(run: Callable[[int, int], object], size: int, *, work: int, align: int = 1) -> None:
    """`run(start, stop)` over 0 to `size`, in parts of a multiple of `align`, one for each of torch's threads.

    `work` says how much there is in all; `run` must release the interpreter lock to gain anything.
    """
    n = torch.get_num_threads() if work >= LEAST else 1
    n = max(1, min(n, size // align))
    bounds = [size * i // n // align * align for i in range(n)] + [size]
    each(lambda part: run(*part), list(pairwise(bounds)))


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
