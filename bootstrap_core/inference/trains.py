"""Trains of spikes as they lie in memory: words of up to 32 steps, channels last. Needs numba."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from bootstrap_core.kernels.integer_trains import WORD_STEPS
from specs.fields import Shape

__all__ = ["Words", "as_rows", "channels_first", "channels_last", "first_steps", "flat", "in_words", "mask", "rows"]

Words = npt.NDArray[np.uint32]


def in_words(steps: int) -> list[int]:
    """T in words."""
    whole, rest = divmod(steps, WORD_STEPS)
    return [WORD_STEPS] * whole + [rest] * (rest > 0)


def first_steps(trains: Sequence[Words], steps: int) -> list[Words]:
    """The beginning of trains, in parts of the time, that so many steps are."""
    return [words & mask(part) for words, part in zip(trains, in_words(steps), strict=False)]


def mask(steps: int) -> np.uint32:
    """A train that fires in each of so many steps."""
    return np.uint32((1 << steps) - 1)


def channels_last(shape: Shape) -> Shape:
    """`(C, H, W)` to `(H, W, C)`."""
    return (*shape[1:], shape[0])


def flat(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`[N, C, H, W]` to `[N, H * W * C]`, or `[N, C]` as it is."""
    last = x if x.ndim == 2 else x.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(last).reshape(len(x), prod(x.shape[1:]))


def as_rows(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`[N, n]`, in the order in which it lies."""
    return x.reshape(len(x), prod(x.shape[1:]))


def rows(x: Words) -> Words:
    """`[N, n]`, in the order of a flattened `[C, H, W]`."""
    return np.ascontiguousarray(channels_first(x)).reshape(len(x), prod(x.shape[1:]))


def channels_first(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`[N, H, W, C]` to `[N, C, H, W]`, or `[N, C]` as it is."""
    return x if x.ndim == 2 else x.transpose(0, 3, 1, 2)
