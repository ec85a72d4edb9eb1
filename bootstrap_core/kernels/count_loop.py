"""Sums of small integers along the first axis, in one pass over memory. Importing this imports numba."""

import numpy as np

from bootstrap_core.kernels.compiler import compiler

__all__ = ["add_up"]

BLOCK = 1024
"""Columns at a time: their sums stay in the cache while the rows pass."""


@compiler()
def add_up(rows, start, stop, totals):
    """`totals[start:stop] = rows[:, start:stop].sum(0)`, int32, of integers `[R, C]`."""
    for first in range(start, stop, BLOCK):
        total = totals[first : min(stop, first + BLOCK)]
        total[:] = 0
        for r in range(len(rows)):
            row = rows[r, first : first + len(total)]
            for j in range(len(total)):
                total[j] = np.int32(total[j] + np.int32(row[j]))
