"""The piecewise-linear activation in one pass over memory, compiled by numba. Importing this imports numba."""

import numpy as np
from numba import njit

from bootstrap_core.kernels.bits import narrowed, widened

__all__ = ["CENTERS", "piecewise"]

BLOCK = 1024
"""Elements at a time: they stay in the cache from the rates to the gradients."""

CENTERS = 7
"""Of every curve, the last of them at infinity if it has fewer: a loop over them would not become vectors."""

f32 = np.float32
LARGEST = np.finfo(np.float32).max
"""Stands for infinity, which times a slope of 0 is not 0."""


@njit(nogil=True, cache=True, error_model="numpy")
def piecewise(x, z, a, slope, steepness, floor, start, stop, rates, gradients):
    """Rates and gradients of `x[start:stop]`; see `functional.piecewise`, whose arithmetic this is.

    `z`, `a`, and the slope and the gradient behind them are of each centre, tuples of `CENTERS`. `x`, `rates` and
    `gradients` are float32, or bfloat16 as uint16; `gradients` is empty if nobody wants them.
    """
    for first in range(start, stop, BLOCK):
        end = min(stop, first + BLOCK)
        given, rate = x[first:end], rates[first:end]
        for j in range(len(given)):
            v = widened(given[j])
            v = LARGEST if v > LARGEST else v
            r = a[0] + slope[0] * (v - z[0]) if v > z[0] else f32(0.0)
            r = a[1] + slope[1] * (v - z[1]) if v > z[1] else r
            r = a[2] + slope[2] * (v - z[2]) if v > z[2] else r
            r = a[3] + slope[3] * (v - z[3]) if v > z[3] else r
            r = a[4] + slope[4] * (v - z[4]) if v > z[4] else r
            r = a[5] + slope[5] * (v - z[5]) if v > z[5] else r
            rate[j] = narrowed(a[6] + slope[6] * (v - z[6]) if v > z[6] else r, rate)
        if len(gradients) > 0:
            gradient = gradients[first:end]
            for j in range(len(given)):
                v = widened(given[j])
                g = steepness[0] if v > z[0] else floor
                g = steepness[1] if v > z[1] else g
                g = steepness[2] if v > z[2] else g
                g = steepness[3] if v > z[3] else g
                g = steepness[4] if v > z[4] else g
                g = steepness[5] if v > z[5] else g
                gradient[j] = narrowed(steepness[6] if v > z[6] else g, gradient)
