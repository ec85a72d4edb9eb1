"""The piecewise-linear activation in one pass over memory, compiled by numba. Importing this imports numba."""

import numpy as np
from numba import njit

__all__ = ["piecewise"]

BLOCK = 1024
"""Elements at a time: they stay in the cache from one segment of the curve to the next."""


@njit(nogil=True, cache=True, error_model="numpy")
def piecewise(z, z_centers, a_centers, slopes, gain, floor, start, stop, rates, gradients):
    """Rates and gradients of `z[start:stop]`; see `functional.piecewise`, whose arithmetic this is.

    `gradients` is empty if nobody wants them.
    """
    last = len(z_centers) - 1
    wanted = len(gradients) > 0
    for first in range(start, stop, BLOCK):
        end = min(stop, first + BLOCK)
        x, rate = z[first:end], rates[first:end]
        rate[:] = 0.0
        for k in range(last):
            z_k, a_k, slope = z_centers[k], a_centers[k], slopes[k]
            for j in range(len(x)):
                rate[j] = a_k + slope * (x[j] - z_k) if x[j] > z_k else rate[j]
        z_k, a_k = z_centers[last], a_centers[last]
        for j in range(len(x)):
            rate[j] = a_k if x[j] > z_k else rate[j]
        if wanted:
            gradient = gradients[first:end]
            gradient[:] = floor
            for k in range(last):
                z_k, steep = z_centers[k], np.float32(np.float32(slopes[k] * gain) + floor)
                for j in range(len(x)):
                    gradient[j] = steep if x[j] > z_k else gradient[j]
            z_k = z_centers[last]
            for j in range(len(x)):
                gradient[j] = floor if x[j] > z_k else gradient[j]
