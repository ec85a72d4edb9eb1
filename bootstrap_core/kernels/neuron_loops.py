"""CUBA neurons over time, forward and backward in one pass over memory each, compiled by numba.

Neurons are taken in blocks whose state stays in the cache while time runs; each block is independent, so the work is
split between threads anywhere. Arrays are flat and contiguous; `step` is the distance from one time step to the next in
`z` and in `grad`, and 0 where one step stands for all; steps lie so far apart that the machine does not foresee them,
and the next one's numbers are fetched beside each. Importing this imports numba; see `neuron_run`, which calls it, and
`neuron_steps`, of which it is made.
"""

import numpy as np

from bootstrap_core.kernels.bits import prefetch
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.neuron_steps import (
    LANES,
    advance,
    advance_anew,
    fire,
    in_units,
    reset,
    slopes,
    step_back,
    step_back_anew,
)
from bootstrap_core.kernels.teams import in_parts

__all__ = ["backward", "forward"]

BLOCK = 512
"""Neurons at a time: their states and a few steps fit the caches of a core."""

LOG2_E = 1.4426950408889634

f32 = np.float32
_compiled = compiler()
_inlined = compiler(inline="always")


@_compiled
def _spread(values, first, inner, out, n):
    """Values of the channels `[C]` (or of all, `[1]`) for the `n` neurons from `first` on."""
    if len(values) == 1:
        for j in range(n):
            out[j] = values[0]
        return
    channel, place = divmod(first, inner)
    channel %= len(values)
    for j in range(n):
        out[j] = values[channel]
        place += 1
        if place == inner:
            place = 0
            channel = channel + 1 if channel + 1 < len(values) else 0


@_inlined
def _are_zero(numbers):
    all_zero = True
    for i in range(len(numbers)):
        all_zero &= numbers[i] == 0
    return all_zero


@_inlined
def _advance(forgets, z, at, unit, ku, kv, b, u, v, j):
    if forgets:
        advance_anew(z, at, unit, ku, kv, b, u, v, j)
    else:
        advance(z, at, unit, ku, kv, b, u, v, j)


@_inlined
def _block(first, stop):
    """Where the next block begins, and how many neurons it has, a multiple of `LANES`: at the end some once more.

    Those are of the same part: none has fewer, see `neuron_run.ALIGN`.
    """
    n = min(BLOCK, stop - first)
    return (first, n - n % LANES) if n >= LANES else (stop - LANES, LANES)


@_compiled
def forward(
    z, step, steps, size, inner, unit, one, keep_u, keep_v, offset, limit, subtract, start, stop,
    spikes, states, us, vs, team,
):  # fmt: skip
    """Neurons `start` to `stop` of `size`, from rest; `size` is at least `LANES`.

    `z * unit` is the weighted input in state units, truncated; `one` keeps all of a state. Where `keep_u`, `keep_v`,
    `offset` and `limit` are whole, int32, all is: `z`, which is shifted by `unit` then, and the states. Writes `spikes`
    `[steps, size]` and, with `states`, `us` and `vs`, the current and the voltage before the reset, in float units.
    """
    if in_parts(team):
        return
    forgets = _are_zero(keep_u)
    u, v = np.empty(BLOCK, offset.dtype), np.empty(BLOCK, offset.dtype)
    ku, kv, b = np.empty_like(u), np.empty_like(u), np.empty_like(u)
    while start < stop:
        first, n = _block(start, stop)
        start = first + n
        _spread(keep_u, first, inner, ku, n)
        _spread(keep_v, first, inner, kv, n)
        _spread(offset, first, inner, b, n)
        for j in range(n):
            u[j] = v[j] = 0
        for t in range(steps):
            at = t * size + first
            arriving, ahead = t * step + first, min(t + 1, steps - 1)
            for j in range(0, n, LANES):
                prefetch(z, ahead * step + first + j)
                prefetch(spikes, ahead * size + first + j)
                _advance(forgets, z, arriving + j, unit, ku, kv, b, u, v, j)
                if states:
                    in_units(u, j, us, at + j)
                    in_units(v, j, vs, at + j)
                fire(v, j, limit, subtract, spikes, at + j)


@_compiled
def backward(
    z, step, steps, size, inner, unit, one, keep_u, keep_v, offset, limit, subtract, start, stop,
    grad, grad_step, threshold, tau, height, out, sums, decays, bias, team,
):  # fmt: skip
    """Gradient of the weighted input, `out` `[steps, size]`, from that of the spikes; the states are run again.

    `sums` `[3, size]`: with `decays` the gradients of the current and the voltage decay, with `bias` that of the bias,
    summed over time. `grad` and `out` are float32, or bfloat16 as uint16.
    """
    if in_parts(team):
        return
    forgets = _are_zero(keep_u)
    u, v = np.empty(BLOCK, offset.dtype), np.empty(BLOCK, offset.dtype)
    ku, kv, b = np.empty_like(u), np.empty_like(u), np.empty_like(u)
    ku32, kv32 = np.empty(BLOCK, f32), np.empty(BLOCK, f32)
    slope = np.empty(steps * BLOCK, f32)
    current = np.empty(steps * BLOCK if decays else 0, f32)
    kept = np.empty_like(current)
    gu, gv = np.empty(BLOCK, f32), np.empty(BLOCK, f32)
    center, rate, top = f32(threshold), f32(-LOG2_E / tau), f32(height)
    while start < stop:
        first, n = _block(start, stop)
        start = first + n
        _spread(keep_u, first, inner, ku, n)
        _spread(keep_v, first, inner, kv, n)
        _spread(offset, first, inner, b, n)
        for j in range(n):
            u[j] = v[j] = 0
            gu[j] = gv[j] = f32(0.0)
            ku32[j], kv32[j] = ku[j] / one, kv[j] / one
        for t in range(steps):
            arriving, ahead = t * step + first, min(t + 1, steps - 1)
            for j in range(0, n, LANES):
                prefetch(z, ahead * step + first + j)
                _advance(forgets, z, arriving + j, unit, ku, kv, b, u, v, j)
                slopes(v, j, center, rate, top, slope, t * BLOCK + j)
                reset(v, j, limit, subtract)
                if decays:
                    in_units(u, j, current, t * BLOCK + j)
                    in_units(v, j, kept, t * BLOCK + j)
        if decays or bias:
            for i in range(len(sums)):
                for j in range(first, first + n):
                    sums[i, j] = f32(0.0)
        for t in range(steps - 1, -1, -1):
            at, at_grad, ahead = t * size + first, t * grad_step + first, max(t - 1, 0)
            for j in range(0, n, LANES):
                prefetch(grad, ahead * grad_step + first + j)
                prefetch(out, ahead * size + first + j)
                if forgets and not decays:
                    step_back_anew(grad, at_grad + j, slope, t * BLOCK + j, ku32, kv32, gu, gv, j, out, at + j)
                else:
                    step_back(grad, at_grad + j, slope, t * BLOCK + j, ku32, kv32, gu, gv, j, out, at + j)
            if decays and t > 0:
                for j in range(n):
                    sums[0, first + j] -= gu[j] * current[(t - 1) * BLOCK + j]
                    sums[1, first + j] -= gv[j] * kept[(t - 1) * BLOCK + j]
            if bias:
                for j in range(n):
                    sums[2, first + j] += gv[j]
