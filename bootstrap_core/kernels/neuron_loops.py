"""CUBA neurons over time, forward and backward in one pass over memory each, compiled by numba.

Neurons are taken in blocks whose state stays in the cache while time runs; each block is independent, so the work is
split between threads anywhere. Arrays are flat and contiguous; `step` is the distance from one time step to the next in
`z` and in `grad`, and 0 where one step stands for all. Loops over a block are functions of their own with few arrays,
or the compiler could not tell that these do not overlap, and would not make vectors of them. Importing this imports
numba; see `neuron_run`, which calls it.
"""

import numpy as np

from bootstrap_core.kernels.bits import CACHE_LINE, as_float, narrowed, prefetch, widened
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.state_loops import arrived, leak
from bootstrap_core.kernels.teams import in_parts

__all__ = ["backward", "forward"]

BLOCK = 512
"""Neurons at a time: their states and a few steps fit the caches of a core."""

LOG2_E = np.float32(1.4426950408889634)
LOWEST_EXPONENT = np.float32(-125.0)

f32, i32 = np.float32, np.int32
_compiled = compiler()
_contracted = compiler(fastmath={"contract"})
_inlined = compiler(inline="always")


@_inlined
def _exp2(x):
    """2**x for x <= 0, to 2e-7 and what float32 rounds off x, in arithmetic that runs on whole vectors."""
    x = x if x > LOWEST_EXPONENT else LOWEST_EXPONENT
    whole = i32(x - f32(0.5))  # rounds toward zero: to the nearest of a negative number
    r = x - f32(whole)
    p = f32(0.00134004)  # fitted in Chebyshev points of [-0.5, 0.5]
    p = p * r + f32(0.00967604)
    p = p * r + f32(0.05550327)
    p = p * r + f32(0.24022107)
    p = p * r + f32(0.69314721)
    p = p * r + f32(1.00000008)
    return p * as_float(i32(i32(whole + i32(127)) << i32(23)))


@_compiled
def _spread(values, first, inner, out, n):
    """Values of the channels `[C]` (or of all, `[1]`) for the `n` neurons from `first` on."""
    if len(values) == 1:
        out[:n] = values[0]
    elif inner == 1:
        channel = first % len(values)
        for j in range(n):
            out[j] = values[channel]
            channel += 1
            if channel == len(values):
                channel = 0
    else:
        start = 0
        while start < n:
            channel, place = divmod(first + start, inner)
            stop = min(n, start + inner - place)
            out[start:stop] = values[channel % len(values)]
            start = stop


@_compiled
def _advance(z, unit, keep_u, keep_v, offset, u, v, n):
    """One step of current and voltage, before any spike."""
    for j in range(n):
        u[j] = leak(u[j], keep_u[j]) + arrived(z[j], unit)
        v[j] = leak(v[j], keep_v[j]) + u[j] + offset[j]


@_compiled
def _advance_anew(z, unit, keep_v, offset, u, v, n):
    """The same, of neurons that keep no current: with fewer arrays the loop is a third faster."""
    for j in range(n):
        u[j] = arrived(z[j], unit)
        v[j] = leak(v[j], keep_v[j]) + u[j] + offset[j]


@_compiled
def _fired(v, limit, spikes, n):
    for j in range(n):
        spikes[j] = v[j] > limit


@_compiled
def _reset(v, limit, subtract, n):
    zero = v.dtype.type(0)
    if subtract:
        for j in range(n):
            v[j] -= limit if v[j] > limit else zero
    else:
        for j in range(n):
            v[j] = zero if v[j] > limit else v[j]


@_compiled
def _float(state, out, n):
    """A state in float units."""
    for j in range(n):
        out[j] = f32(f32(state[j]) * f32(1 / 4096))


@_contracted
def _slopes(v, center, rate, scale, out, n):
    """Surrogate gradient at voltages in float units; `rate` is by the power of two."""
    for j in range(n):
        out[j] = scale * _exp2(abs(v[j] - center) * rate)


@_compiled
def _step_back(grad, slope, keep_u, keep_v, gu, gv, out, n):
    """One step back through the spike and the leaks; writes the gradient of the weighted input."""
    for j in range(n):
        gv[j] = f32(slope[j] * widened(grad[j])) + f32(keep_v[j] * gv[j])
        gu[j] = f32(gv[j] + f32(keep_u[j] * gu[j]))
        out[j] = narrowed(gu[j], out)


@_compiled
def _step_back_anew(grad, slope, keep_v, gv, out, n):
    """The same, of neurons that keep no current."""
    for j in range(n):
        gv[j] = f32(slope[j] * widened(grad[j])) + f32(keep_v[j] * gv[j])
        out[j] = narrowed(gv[j], out)


@_compiled
def _fetch(x, first, n):
    """What the next step needs of `x`: steps lie so far apart that the machine does not foresee it."""
    for j in range(first, first + n, CACHE_LINE // x.itemsize):
        prefetch(x, j)


@_compiled
def forward(
    z, step, steps, size, inner, unit, one, keep_u, keep_v, offset, limit, subtract, start, stop,
    spikes, states, us, vs, team,
):  # fmt: skip
    """Neurons `start` to `stop` of `size`, from rest.

    `z * unit` is the weighted input in state units, truncated; `one` keeps all of a state. Where `keep_u`, `keep_v`,
    `offset` and `limit` are whole, int32, all is: `z`, which is shifted by `unit` then, and the states. Writes `spikes`
    `[steps, size]` and, with `states`, `us` and `vs`, the current and the voltage before the reset, in float units.
    """
    if in_parts(team):
        return
    forgets = not np.any(keep_u)
    u, v = np.empty(BLOCK, offset.dtype), np.empty(BLOCK, offset.dtype)
    ku, kv, b = np.empty_like(u), np.empty_like(u), np.empty_like(u)
    for first in range(start, stop, BLOCK):
        n = min(BLOCK, stop - first)
        _spread(keep_u, first, inner, ku, n)
        _spread(keep_v, first, inner, kv, n)
        _spread(offset, first, inner, b, n)
        u[:n] = 0
        v[:n] = 0
        for t in range(steps):
            at = t * size + first
            if t + 1 < steps:
                _fetch(z, (t + 1) * step + first, n)
                _fetch(spikes, at + size, n)
            arriving = z[t * step + first : t * step + first + n]
            if forgets:
                _advance_anew(arriving, unit, kv, b, u, v, n)
            else:
                _advance(arriving, unit, ku, kv, b, u, v, n)
            if states:
                _float(u, us[at : at + n], n)
                _float(v, vs[at : at + n], n)
            _fired(v, limit, spikes[at : at + n], n)
            _reset(v, limit, subtract, n)


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
    forgets = not np.any(keep_u)
    u, v = np.empty(BLOCK, offset.dtype), np.empty(BLOCK, offset.dtype)
    ku, kv, b = np.empty_like(u), np.empty_like(u), np.empty_like(u)
    ku32, kv32, voltage = np.empty(BLOCK, f32), np.empty(BLOCK, f32), np.empty(BLOCK, f32)
    slope = np.empty((steps, BLOCK), f32)
    current = np.empty((steps if decays else 1, BLOCK), f32)
    kept = np.empty((steps if decays else 1, BLOCK), f32)
    gu, gv = np.empty(BLOCK, f32), np.empty(BLOCK, f32)
    rate, scale, center = f32(-LOG2_E / tau), f32(height), f32(threshold)
    for first in range(start, stop, BLOCK):
        n = min(BLOCK, stop - first)
        _spread(keep_u, first, inner, ku, n)
        _spread(keep_v, first, inner, kv, n)
        _spread(offset, first, inner, b, n)
        for j in range(n):
            u[j] = v[j] = 0
            ku32[j], kv32[j] = ku[j] / one, kv[j] / one
            gu[j] = gv[j] = f32(0.0)
        for t in range(steps):
            if t + 1 < steps:
                _fetch(z, (t + 1) * step + first, n)
            else:
                _fetch(grad, t * grad_step + first, n)
            arriving = z[t * step + first : t * step + first + n]
            if forgets:
                _advance_anew(arriving, unit, kv, b, u, v, n)
            else:
                _advance(arriving, unit, ku, kv, b, u, v, n)
            _float(v, voltage, n)
            _slopes(voltage, center, rate, scale, slope[t], n)
            _reset(v, limit, subtract, n)
            if decays:
                _float(u, current[t], n)
                _float(v, kept[t], n)
        for t in range(steps - 1, -1, -1):
            if t > 0:
                _fetch(grad, (t - 1) * grad_step + first, n)
                _fetch(out, (t - 1) * size + first, n)
            incoming = grad[t * grad_step + first : t * grad_step + first + n]
            outgoing = out[t * size + first : t * size + first + n]
            if forgets and not decays:
                _step_back_anew(incoming, slope[t], kv32, gv, outgoing, n)
            else:
                _step_back(incoming, slope[t], ku32, kv32, gu, gv, outgoing, n)
            if decays and t > 0:
                for j in range(n):
                    sums[0, first + j] -= gu[j] * current[t - 1, j]
                    sums[1, first + j] -= gv[j] * kept[t - 1, j]
            if bias:
                for j in range(n):
                    sums[2, first + j] += gv[j]
