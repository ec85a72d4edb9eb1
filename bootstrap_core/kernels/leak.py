"""The leak of a state, in the arithmetic of its type, for compiled loops. Importing this imports numba."""

import numpy as np
from numba import types
from numba.extending import overload

__all__ = ["leak"]

i32 = np.int32


def leak(x, keep):
    """What is left of a state, toward zero: `x * keep` of floats; `x * keep / 4096` of int32, within 32 bits."""
    raise NotImplementedError("for compiled loops")


@overload(leak)
def _leak(x, keep):
    def of_float(x, keep):
        return np.trunc(x * keep)

    def of_whole(x, keep):
        rest = i32(i32(i32(x & i32(4095)) * keep) + (i32(4095) if x < 0 else i32(0)))  # up, for what is below zero
        return i32(i32(i32(x >> i32(12)) * keep) + i32(rest >> i32(12)))

    return of_whole if isinstance(x, types.Integer) else of_float
