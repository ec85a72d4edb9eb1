"""Currents of input neurons in one pass over the pixels, compiled by numba. Importing this imports numba.

Loops run over slices, from 0 on, or the compiler does not make vectors of them.
"""

import numpy as np

from bootstrap_core.kernels import curve_loop
from bootstrap_core.kernels.compiler import compiler

__all__ = ["add_gradients", "add_rate_gradients", "currents", "rates"]

BLOCK = 1024
"""Pixels at a time: their currents stay in the cache until they are rates."""

f32, f64 = np.float32, np.float64


@compiler()
def currents(images, mean, std, weight, bias, mant, lowest, highest, step, out):
    """`out`: `weight * (image - mean) / std + bias` in parts of 1 / `mant`, truncated and clamped, times `step`."""
    for j in range(len(images)):
        current = np.trunc((weight * ((f64(images[j]) - mean) / std) + bias) * mant)
        current = lowest if current < lowest else current
        out[j] = (highest if current > highest else current) * step


@compiler()
def rates(images, scaling, z, a, slope, steepness, floor, out, gradients):
    """Rates that `curve_loop.piecewise` gives to the `currents` of `images`, and its gradients at these.

    `scaling` has what `currents` takes from `mean` on; the currents never leave the cache.
    """
    mean, std, weight, bias, mant, lowest, highest = scaling
    drive = np.empty(BLOCK, np.float32)
    for first in range(0, len(images), BLOCK):
        end = min(len(images), first + BLOCK)
        some = drive[: end - first]
        currents(images[first:end], mean, std, weight, bias, mant, lowest, highest, 1 / mant, some)
        curve_loop.piecewise(some, z, a, slope, steepness, floor, out[first:end], gradients[first:end])


@compiler(fastmath={"contract", "reassoc", "nsz"})
def add_rate_gradients(grad, gradients, images, mean, std, start, stop, out):
    """`add_gradients` of rates, whose gradients at the currents are `gradients`."""
    g, s, x = grad[start:stop], gradients[start:stop], images[start:stop]
    by_image = of_bias = 0.0
    for j in range(len(g)):
        of_current = f64(g[j] * s[j])
        by_image += of_current * f64(x[j])
        of_bias += of_current
    out[0] += (by_image - mean * of_bias) / std
    out[1] += of_bias


@compiler(fastmath={"contract", "reassoc", "nsz"})
def add_gradients(grad, images, mean, std, start, stop, out):
    """Adds to `out` `[2]`, float64, the gradients of weight and bias."""
    g, x = grad[start:stop], images[start:stop]
    by_image = of_bias = 0.0
    for j in range(len(g)):
        by_image += f64(g[j]) * f64(x[j])
        of_bias += f64(g[j])
    out[0] += (by_image - mean * of_bias) / std
    out[1] += of_bias
