"""The piecewise-linear activation in one pass over memory, compiled by numba. Importing this imports numba."""

import numpy as np

from bootstrap_core.kernels.bits import narrowed, widened
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.teams import in_parts

__all__ = ["CENTERS", "apply", "piecewise"]

CENTERS = 7
"""Of every curve, the last of them at infinity if it has fewer: a loop over them would not become vectors."""

f32 = np.float32
LARGEST = np.finfo(np.float32).max
"""Stands for infinity, which times a slope of 0 is not 0."""


@compiler()
def _behind(v, values, z, before):
    """Of values that the centres `z` have, the last one's below `v`; `before` if there is none."""
    found = values[0] if v > z[0] else before
    found = values[1] if v > z[1] else found
    found = values[2] if v > z[2] else found
    found = values[3] if v > z[3] else found
    found = values[4] if v > z[4] else found
    found = values[5] if v > z[5] else found
    return values[6] if v > z[6] else found


@compiler()
def _point(v, z, a, slope):
    """Rate at `v`, and the slope there."""
    none = f32(0.0)
    v = v if v > z[0] else z[0]
    v = LARGEST if v > LARGEST else v
    s = _behind(v, slope, z, none)
    return _behind(v, a, z, none) + s * (v - _behind(v, z, z, none)), s


@compiler()
def piecewise(x, z, a, slope, steepness, floor, start, stop, rates, gradients, team):
    """`apply` to numbers `start` to `stop`."""
    if in_parts(team):
        return
    apply(x[start:stop], z, a, slope, steepness, floor, rates[start:stop], gradients[start:stop])


@compiler()
def apply(x, z, a, slope, steepness, floor, rates, gradients):
    """Rates and gradients of `x`; see `functional.piecewise`, whose arithmetic this is.

    `z`, `a` and the `slope` behind it are of each centre, tuples of `CENTERS`; `steepness` is the gradient of a slope
    of 1, without the `floor`. `x`, `rates` and `gradients` are float32, or bfloat16 as uint16; `gradients` is empty if
    nobody wants them.
    """
    if len(gradients) == 0:
        for j in range(len(x)):
            rates[j] = narrowed(_point(widened(x[j]), z, a, slope)[0], rates)
        return
    for j in range(len(x)):
        rate, s = _point(widened(x[j]), z, a, slope)
        rates[j] = narrowed(rate, rates)
        gradients[j] = narrowed(s * steepness + floor, gradients)
