"""Weights on their grid in one pass over memory, compiled by numba. Importing this imports numba."""

import numpy as np

from bootstrap_core.fixed_point import WEIGHT_INT_MAX, WEIGHT_INT_MIN, WEIGHT_STEP
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.teams import in_parts

__all__ = ["count_steps", "quantize", "quantize_in_place"]

f32 = np.float32
LOWEST, HIGHEST, STEP, STEPS_PER_ONE = f32(WEIGHT_INT_MIN), f32(WEIGHT_INT_MAX), f32(WEIGHT_STEP), f32(1 / WEIGHT_STEP)
ROUNDS = f32(3 << 22)
"""Added to a small number it leaves no bits for fractions: the sum is rounded, half to even."""


@compiler(inline="always")
def _on_grid(weight):
    steps = weight * STEPS_PER_ONE
    steps = LOWEST if steps < LOWEST else steps
    steps = HIGHEST if steps > HIGHEST else steps
    return np.copysign(((steps + ROUNDS) - ROUNDS) * STEP, steps)


@compiler()
def quantize(weight, start, stop, out, team):
    """Writes `functional.quantize_weight` of `weight[start:stop]`, float32, to `out`; signs of zeros too."""
    if in_parts(team):
        return
    given, found = weight[start:stop], out[start:stop]
    for j in range(len(given)):
        found[j] = _on_grid(given[j])


@compiler()
def count_steps(weight, start, stop, out, team):
    """Writes `weight[start:stop]`, which is on its grid, to `out`, int8, in steps of it."""
    if in_parts(team):
        return
    given, found = weight[start:stop], out[start:stop]
    for j in range(len(given)):
        found[j] = np.int8(np.int32(given[j] * STEPS_PER_ONE))


@compiler()
def quantize_in_place(weight, start, stop, team):
    """`quantize` with `weight` as `out`, as vectors: the compiler dares that of one array, of two that overlap not."""
    if in_parts(team):
        return
    numbers = weight[start:stop]
    for j in range(len(numbers)):
        numbers[j] = _on_grid(numbers[j])
