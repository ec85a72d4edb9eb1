"""Sums of whole numbers along the first axis, in one pass over memory. Importing this imports numba."""

import numpy as np

from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.teams import in_parts

__all__ = ["add_up", "add_up_at"]

BLOCK = 1024
"""Columns at a time: their sums stay in the cache while the rows pass."""


@compiler()
def add_up(rows, start, stop, totals, team):
    """`totals[start:stop] = rows[:, start:stop].sum(0)`, int32, of integers `[R, C]`."""
    if in_parts(team):
        return
    for first in range(start, stop, BLOCK):
        total = totals[first : min(stop, first + BLOCK)]
        total[:] = 0
        for r in range(len(rows)):
            row = rows[r, first : first + len(total)]
            for j in range(len(total)):
                total[j] = np.int32(total[j] + np.int32(row[j]))


@compiler()
def add_up_at(rows, places, start, stop, totals, team):
    """`totals[start:stop] = rows[:, places[start:stop]].sum(0)`, int32, of whole numbers `[R, C]`."""
    if in_parts(team):
        return
    for first in range(start, stop, BLOCK):
        some = places[first : min(stop, first + BLOCK)]
        total = totals[first : first + len(some)]
        total[:] = 0
        for r in range(len(rows)):
            row = rows[r]
            for j in range(len(some)):
                total[j] = np.int32(total[j] + np.int32(row[np.uintp(some[j])]))
