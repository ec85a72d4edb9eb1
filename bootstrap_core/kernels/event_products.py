"""Products with matrices of spikes that follow the spikes: their time is that of the spikes, not of the matrix.

Compiled by numba. Importing this imports numba; see `dense_products`, which calls it.
"""

import numpy as np

from bootstrap_core.kernels.bits import widened
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.shared_trains import find_active
from bootstrap_core.kernels.teams import in_parts

__all__ = ["add_columns"]

ROWS = 256
"""Rows at a time: a byte tells which, and their gradient stays in the second-level cache."""

f32 = np.float32
_compiled = compiler(fastmath={"contract"})


@_compiled
def _take_four(a, b, c, d, total):
    """Add four rows to `total`."""
    for j in range(len(total)):
        pairs = f32(widened(a[j]) + widened(b[j])) + f32(widened(c[j]) + widened(d[j]))
        total[j] = f32(total[j] + f32(pairs))


@_compiled
def _take(a, total):
    """Add a row to `total`."""
    for j in range(len(total)):
        total[j] = f32(total[j] + widened(a[j]))


@_compiled
def add_columns(spikes, grad, start, stop, out, team):
    """`out[start:stop] = spikes.T[start:stop] @ grad`, `[I, O]` float32, of `[R, I]`, int8, and `[R, O]`.

    `grad` is float32, or bfloat16 as uint16. Each sum is made in the order of the rows, however many threads.
    """
    if in_parts(team):
        return
    members = np.empty((stop - start, ROWS), np.uint8)
    counts = np.empty(stop - start, np.int32)
    places = np.empty(stop - start + 1, np.int32)
    out[start:stop] = f32(0.0)
    for first in range(0, len(spikes), ROWS):
        block = grad[first : first + ROWS]
        counts[:] = 0
        for r in range(len(block)):
            for k in range(find_active(spikes[first + r, start:stop], places)):
                i = places[k]
                members[i, counts[i]] = r
                counts[i] += 1
        for i in range(stop - start):
            rows, total = members[i], out[start + i]
            k = 0
            while k + 4 <= counts[i]:
                _take_four(block[rows[k]], block[rows[k + 1]], block[rows[k + 2]], block[rows[k + 3]], total)
                k += 4
            while k < counts[i]:
                _take(block[rows[k]], total)
                k += 1
