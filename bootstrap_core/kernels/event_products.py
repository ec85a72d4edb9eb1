"""Products with matrices of spikes that follow the spikes: their time is that of the spikes, not of the matrix.

Compiled by numba. Importing this imports numba; see `dense_products`, which calls it.
"""

import numpy as np

from bootstrap_core.kernels import row_sums
from bootstrap_core.kernels.bits import CACHE, widened
from bootstrap_core.kernels.compiler import compiler

__all__ = ["add_columns", "add_rows", "find"]

ROWS = 256
"""Rows at a time: a byte tells which, and their gradient stays in the second-level cache."""

AT_ONCE = 128
"""Rows of sums that are made at once, if a weight is larger than what stays in the cache."""

f32 = np.float32
_compiled = compiler(fastmath={"contract"})


@_compiled
def find(row, places):
    """Where `row` is not 0; how many."""
    n = 0
    for i in range(len(row)):
        places[n] = i
        n += row[i] != 0
    return n


@_compiled
def add_rows(spikes, weight, start, stop, out):
    """`out[r] = spikes[r] @ weight`, float32, for rows `start` to `stop` of `spikes` `[R, I]`; `weight` in blocks.

    Of a large weight, a part that stays in the cache is added for some rows before the next part is.
    """
    n_blocks, inputs, width = weight.shape
    apart, size = n_blocks * width, CACHE // width
    at_once = AT_ONCE if weight.size > CACHE else 1
    places, ends = np.empty((at_once, min(size, inputs) + 1), np.int32), np.empty(at_once, np.int64)
    total = np.empty(at_once * apart, np.int32)
    for first in range(start, stop, at_once):
        rows = range(min(at_once, stop - first))
        total[:] = 0
        for part in range(0, inputs, size):
            for r in rows:
                ends[r] = find(spikes[first + r, part : part + size], places[r])
            for block in range(n_blocks):
                for r in rows:
                    row_sums.add_rows(weight, block, part, places[r], 0, ends[r], total, r * apart + block * width)
        for r in rows:
            row = out[first + r]
            for j in range(len(row)):
                row[j] = f32(total[r * apart + j])


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
def add_columns(spikes, grad, start, stop, out):
    """`out[start:stop] = spikes.T[start:stop] @ grad`, `[I, O]` float32, of `[R, I]`, int8, and `[R, O]`.

    `grad` is float32, or bfloat16 as uint16. Each sum is made in the order of the rows, however many threads.
    """
    members = np.empty((stop - start, ROWS), np.uint8)
    counts = np.empty(stop - start, np.int32)
    places = np.empty(stop - start + 1, np.int32)
    out[start:stop] = f32(0.0)
    for first in range(0, len(spikes), ROWS):
        block = grad[first : first + ROWS]
        counts[:] = 0
        for r in range(len(block)):
            for k in range(find(spikes[first + r, start:stop], places)):
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
