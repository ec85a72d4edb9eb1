"""Currents of input neurons in one pass over the pixels, compiled by numba. Importing this imports numba."""

import numpy as np
from numba import njit

__all__ = ["add_gradients", "currents"]


@njit(nogil=True, cache=True, error_model="numpy")
def currents(images, mean, std, weight, bias, mant, lowest, highest, start, stop, out):
    """`out[start:stop]`, float32: `weight * (image - mean) / std + bias`, truncated to 1 / `mant` and clamped."""
    for j in range(start, stop):
        current = np.trunc((weight * ((images[j] - mean) / std) + bias) * mant)
        out[j] = min(max(current, lowest), highest) / mant


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def add_gradients(grad, images, mean, std, start, stop, out):
    """Adds to `out` `[2]`, float64, the gradients of weight and bias."""
    by_image = of_bias = 0.0
    for j in range(start, stop):
        by_image += grad[j] * images[j]
        of_bias += grad[j]
    out[0] += (by_image - mean * of_bias) / std
    out[1] += of_bias
