"""Which inputs have the same train, compiled by numba.

A train is the spikes of one input over some steps, a bit each of a word, in any order. Neurons that are driven steadily
fire in step: of hundreds of inputs that are not silent, many have the same train, and what it brings is found once.

Importing this imports numba.
"""

import numpy as np

from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.teams import in_parts

__all__ = ["MOST_SHARED", "SLOTS", "find_active", "take_words", "tell_apart"]

MOST_SHARED = 256
"""Trains that are found again; inputs with yet other ones have each one of their own."""
SLOTS, HASH, HASH_SHIFT = 1 << 10, np.uint32(2654435761), np.uint32(32 - 10)
"""Of the table that trains are found in; its slot for a train is what the shift leaves of its product with `HASH`."""

u32 = np.uint32
_compiled = compiler()


@_compiled
def take_words(table, indices, start, stop, words, team):
    """Trains of images `start` to `stop`: `words` are those of the `table` that `indices` name, both `[N, I]`."""
    if in_parts(team):
        return
    for image in range(start, stop):
        row, of_row = words[image], indices[image]
        for i in range(len(row)):
            row[i] = table[of_row[i]]


@_compiled
def find_active(trains, active):
    """Where `trains`, or spikes, `[I]` are not 0, in `active` `[I + 1]`; how many."""
    n = 0
    for i in range(len(trains)):
        active[n] = i
        n += trains[i] != 0
    return n


@_compiled
def tell_apart(trains, active, slots, words, counts, which):
    """The different trains of active inputs, `words`; how many of these have each, and `which` of them each has.

    `slots` is room for `SLOTS`, the others for as many as are active. Returns how many there are.
    """
    slots[:] = -1
    n = 0
    for a in range(len(active)):
        word = trains[active[a]]
        slot = u32(u32(word * HASH) >> HASH_SHIFT)
        k = slots[slot]
        while k >= 0 and words[k] != word:
            slot = u32(slot + u32(1)) & u32(SLOTS - 1)
            k = slots[slot]
        if k < 0:
            k = n
            words[k], counts[k] = word, 0
            if k < MOST_SHARED:
                slots[slot] = k
            n += 1
        counts[k] += 1
        which[a] = k
    return n
