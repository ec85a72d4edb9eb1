"""Currents of input neurons in one pass over the pixels, compiled by numba. Importing this imports numba.

Loops run over slices, from 0 on, or the compiler does not make vectors of them.
"""

import numpy as np
from numba import njit

__all__ = ["add_gradients", "currents"]

f32, f64 = np.float32, np.float64


@njit(nogil=True, cache=True, error_model="numpy")
def currents(images, mean, std, weight, bias, mant, lowest, highest, start, stop, out):
    """`out[start:stop]`, float32: `weight * (image - mean) / std + bias`, truncated to 1 / `mant` and clamped."""
    x, y, step = images[start:stop], out[start:stop], 1 / mant
    for j in range(len(x)):
        current = np.trunc((weight * ((f64(x[j]) - mean) / std) + bias) * mant)
        current = lowest if current < lowest else current
        y[j] = f32((highest if current > highest else current) * step)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def add_gradients(grad, images, mean, std, start, stop, out):
    """Adds to `out` `[2]`, float64, the gradients of weight and bias."""
    g, x = grad[start:stop], images[start:stop]
    by_image = of_bias = 0.0
    for j in range(len(g)):
        by_image += f64(g[j]) * f64(x[j])
        of_bias += f64(g[j])
    out[0] += (by_image - mean * of_bias) / std
    out[1] += of_bias
