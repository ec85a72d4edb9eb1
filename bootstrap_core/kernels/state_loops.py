"""The arithmetic of a neuron's states, in floats or in int32, for compiled loops. Importing this imports numba."""

import numpy as np
from numba import types
from numba.extending import overload

from bootstrap_core.kernels.bits import shifted

__all__ = ["arrived", "leak"]

i32 = np.int32


def _by_type(of_whole, of_float):
    """One of two functions of two numbers: the type of the second says which."""

    def chosen(x, y):
        return of_whole(x, y) if isinstance(y, np.integer) else of_float(x, y)

    overload(chosen)(lambda x, y: of_whole if isinstance(y, types.Integer) else of_float)
    return chosen


def _product(x, y):
    return np.trunc(x * y)


def _share(x, y):
    rest = i32(i32(i32(x & i32(4095)) * y) + (i32(4095) if x < 0 else i32(0)))  # up, for what is below zero
    return i32(i32(i32(x >> i32(12)) * y) + i32(rest >> i32(12)))


def _shift(x, y):
    return shifted(i32(x), y)


leak = _by_type(_share, _product)
"""What is left of a state, toward zero: `x * y` of floats; `x * y / 4096` of int32, within 32 bits."""

arrived = _by_type(_shift, _product)
"""A weighted input in state units: `x * y` toward zero; for a whole y, `x` shifted by it, within 32 bits."""
