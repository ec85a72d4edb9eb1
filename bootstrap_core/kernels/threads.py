"""Compiled functions on as many threads as torch has: on torch's own, where they can be had.

Torch's threads wait for work by keeping their cores busy, for some milliseconds, so threads beside them would have to
share those cores: a training step of spikes took half as long again.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, lru_cache, partial
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import numpy as np
import torch

__all__ = ["alone", "each", "split", "split_sum"]

LEAST = 1 << 15
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
    if not _has_region():
        return list(_workers(torch.get_num_threads(), os.getpid()).map(run, items))
    left, results, failures = iter(enumerate(items)), dict[int, Result](), list[BaseException]()

    def body(_: object) -> None:
        try:
            for place, item in left:
                results[place] = run(item)
        except BaseException as error:
            failures.append(error)

    _parallel_region()(_BODY(body), None, n_threads, 0)
    for failure in failures:
        raise failure
    return [results[place] for place in range(len(items))]


def _has_region() -> bool:
    """Whether OpenMP's threads can be had: a fork leaves them behind."""
    return os.getpid() == _STARTED_IN and _parallel_region() is not None


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


def split(kernel: Any, size: int, *arguments: Any, work: int, align: int = 1) -> None:
    """`kernel` over 0 to `size`, in parts of a multiple of `align`, one for each of torch's threads.

    Args:
        kernel: of numba's, which `teams.in_parts` lets run on a team.
        arguments: its own, but for `start`, `stop` and, at the end, `team`.
        work: how much there is in all, as `LEAST` counts.
    """
    n = max(1, min(torch.get_num_threads() if work >= LEAST else 1, size // align))
    if n == 1:
        alone(kernel, size, *arguments)
    elif _has_region():
        _call(kernel, arguments, 0, size, (n, 0, align, _address()))
    else:
        bounds = [size * i // n // align * align for i in range(n)] + [size]
        run = partial(_call, kernel, arguments)
        list(_workers(n, os.getpid()).map(run, bounds[:-1], bounds[1:], ((1, part, 1, 0) for part in range(n))))


def split_sum(kernel: Any, size: int, *arguments: Any, shape: tuple[int, ...], work: int) -> Any:
    """The sum of float64 arrays of `shape`, one for each thread: as `split`, with a last argument, `[parts, *shape]`.

    It is zeros; the kernel adds to that of its part, `team[1]`.
    """
    sums = np.zeros((torch.get_num_threads(), *shape))
    split(kernel, size, *arguments, sums, work=work)
    return sums.sum(0)


def alone(kernel: Any, size: int, *arguments: Any) -> None:
    """`split` without any other thread."""
    _call(kernel, arguments, 0, size, (1, 0, 1, 0))


def _call(kernel: Any, arguments: tuple[Any, ...], start: int, stop: int, team: tuple[int, ...]) -> None:
    before = _arguments_before_start(kernel)
    kernel(*arguments[:before], start, stop, *arguments[before:], team)


@cache
def _arguments_before_start(kernel: Any) -> int:
    names: tuple[str, ...] = kernel.py_func.__code__.co_varnames
    return names.index("start")


@cache
def _address() -> int:
    return ctypes.cast(_parallel_region(), ctypes.c_void_p).value or 0
