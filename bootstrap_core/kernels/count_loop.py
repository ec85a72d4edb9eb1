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
def add_up_at(z, fired, places, start, stop, totals, team):
    """`totals[:, start:stop]` are `z[:, at].sum(0)` and `fired[:, at].sum(0)`, int32, at `places[start:stop]`.

    Of whole numbers `[T, M]`.
    """
    if in_parts(team):
        return
    for first in range(start, stop, BLOCK):
        some = places[first : min(stop, first + BLOCK)]
        weighed, spikes = totals[0, first : first + len(some)], totals[1, first : first + len(some)]
        weighed[:], spikes[:] = 0, 0
        for t in range(len(z)):
            _add_at(z[t], some, weighed)
            _add_at(fired[t], some, spikes)


@compiler()
def _add_at(row, places, totals):
    for j in range(len(places)):
        totals[j] = np.int32(totals[j] + np.int32(row[np.uintp(places[j])]))
