"""Currents of input neurons in one pass over the pixels, compiled by numba. Importing this imports numba.

Loops run over slices, from 0 on, or the compiler does not make vectors of them.
"""

import numpy as np

from bootstrap_core.kernels import curve_loop
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.teams import in_parts

__all__ = ["add_gradients", "add_rate_gradients", "currents", "rates", "rates_of"]

BLOCK = 1024
"""Pixels at a time: their currents stay in the cache until they are rates."""

f32, f64 = np.float32, np.float64


@compiler()
def _currents_of(images, mean, std, weight, bias, mant, lowest, highest, step, out):
    """`currents` of all of `images`."""
    for j in range(len(images)):
        current = np.trunc((weight * ((f64(images[j]) - mean) / std) + bias) * mant)
        current = lowest if current < lowest else current
        out[j] = (highest if current > highest else current) * step


@compiler()
def currents(images, mean, std, weight, bias, mant, lowest, highest, step, start, stop, out, team):
    """`out`: `weight * (image - mean) / std + bias` in parts of 1 / `mant`, truncated and clamped, times `step`.

    Of pixels `start` to `stop`, as all here.
    """
    if in_parts(team):
        return
    some, into = images[start:stop], out[start:stop]
    _currents_of(some, mean, std, weight, bias, mant, lowest, highest, step, into)


@compiler()
def rates(images, scaling, z, a, slope, steepness, floor, start, stop, out, gradients, team):
    """`rates_of` some pixels."""
    if in_parts(team):
        return
    some, into, of_some = images[start:stop], out[start:stop], gradients[start:stop]
    rates_of(some, scaling, z, a, slope, steepness, floor, into, of_some)


@compiler()
def rates_of(images, scaling, z, a, slope, steepness, floor, out, gradients):
    """Rates that `curve_loop.apply` gives to the `currents` of `images`, and its gradients at these.

    `scaling` has what `currents` takes from `mean` to `highest`; the currents never leave the cache.
    """
    mean, std, weight, bias, mant, lowest, highest = scaling
    drive = np.empty(BLOCK, np.float32)
    for first in range(0, len(images), BLOCK):
        end = min(len(images), first + BLOCK)
        some = drive[: end - first]
        _currents_of(images[first:end], mean, std, weight, bias, mant, lowest, highest, 1 / mant, some)
        curve_loop.apply(some, z, a, slope, steepness, floor, out[first:end], gradients[first:end])


@compiler(fastmath={"contract", "reassoc", "nsz"})
def add_rate_gradients(grad, gradients, images, mean, std, start, stop, out, team):
    """`add_gradients` of rates, whose gradients at the currents are `gradients`."""
    if in_parts(team):
        return
    g, s, x = grad[start:stop], gradients[start:stop], images[start:stop]
    by_image = of_bias = 0.0
    for j in range(len(g)):
        of_current = f64(g[j] * s[j])
        by_image += of_current * f64(x[j])
        of_bias += of_current
    out[team[1], 0] += (by_image - mean * of_bias) / std
    out[team[1], 1] += of_bias


@compiler(fastmath={"contract", "reassoc", "nsz"})
def add_gradients(grad, images, mean, std, start, stop, out, team):
    """Adds the gradients of weight and bias to the row of its part, of `out` `[parts, 2]`, float64."""
    if in_parts(team):
        return
    g, x = grad[start:stop], images[start:stop]
    by_image = of_bias = 0.0
    for j in range(len(g)):
        by_image += f64(g[j]) * f64(x[j])
        of_bias += f64(g[j])
    out[team[1], 0] += (by_image - mean * of_bias) / std
    out[team[1], 1] += of_bias
