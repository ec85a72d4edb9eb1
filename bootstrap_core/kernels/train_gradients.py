"""Gradients of dense weights behind trains, compiled by numba: what a train brings is found once for all its inputs.

The gradient of a weight is the sum of its output's gradients over the steps in which its input spiked. Of an image, it
is looked up once for each train, in tables as those of `subset_sums`; then every input adds the sums of its trains in
some images at once.

Importing this imports numba.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from bootstrap_core.kernels.bits import widened
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.registers import INT, WORD, arrays, carried, vector
from bootstrap_core.kernels.shared_trains import SLOTS, find_active, tell_apart
from bootstrap_core.kernels.subset_sums import (
    ENTRIES,
    LANES,
    SUMS,
    TABLES,
    bits_of_rows,
    copy_lanes,
    table_maker,
    table_reader,
)
from bootstrap_core.kernels.teams import in_parts

__all__ = ["BITS", "LANES", "TOGETHER", "add_up", "sort_groups"]

STEPS_OF_TABLE = 4
STEPS, ALL_ENTRIES = STEPS_OF_TABLE * TABLES, ENTRIES * TABLES
"""Steps whose trains are told apart at once, and entries of their tables."""
BITS = bits_of_rows(STEPS_OF_TABLE)
TOGETHER = 4
"""Images whose sums an input adds at once."""

_compiled = compiler()
_make_table, _look_up = table_maker(STEPS_OF_TABLE), table_reader(adds=False)


@_compiled
def sort_groups(trains, start, stop, words, ends, reached, which, team):
    """The trains of groups `start` to `stop` of `TOGETHER` images, of `trains` `[N, I]`, with bits as of `BITS`.

    Of a group, `words` are the trains of its images one after another, behind one that is silent, the k-th image's up
    to `ends[group, k]`. `reached` are the `ends[group, TOGETHER]` inputs that spike in any of the images, and `which`
    `[groups, I, TOGETHER]` their trains in each.
    """
    if in_parts(team):
        return
    images, inputs = trains.shape
    slots, counts = np.empty(SLOTS, np.int32), np.empty(inputs, np.int64)
    active, of_active = np.empty(inputs + 1, np.int32), np.empty(inputs, np.int32)
    place = np.empty(inputs, np.int32)
    for group in range(start, stop):
        place[:] = -1
        words[group, 0], end, n_reached = 0, 1, 0
        for k in range(TOGETHER):
            image = group * TOGETHER + k
            if image < images:
                n = find_active(trains[image], active)
                n_trains = tell_apart(trains[image], active[:n], slots, words[group, end:], counts, of_active)
                for a in range(n):
                    i = active[a]
                    if place[i] < 0:
                        place[i], reached[group, n_reached] = n_reached, i
                        for other in range(TOGETHER):
                            which[group, n_reached, other] = 0
                        n_reached += 1
                    which[group, place[i], k] = end + of_active[a]
                end += n_trains
            ends[group, k] = end
        ends[group, TOGETHER] = n_reached


@_compiled
def _gather(grad, image, first, stop, rows, to):
    """An image's gradients of the outputs `first` to `stop` in `rows[to:]`, flat, as `[blocks, STEPS, LANES]`.

    Where they lie, steps are a power of two apart and push each other out of the cache.
    """
    (steps, images, outputs), flat = grad.shape, grad.reshape(-1)
    whole = (stop - first) // LANES
    for t in range(steps):
        begin, at = (t * images + image) * outputs + first, to + t * LANES
        for block in range(whole):
            copy_lanes(flat, begin + block * LANES, rows, at + block * STEPS * LANES)
        for j in range(whole * LANES, stop - first):
            rows[at + whole * (STEPS - 1) * LANES + j] = widened(flat[begin + j])


@intrinsic
def _add_each(typing_context, reached, which, inputs, n, sums, totals, at):
    """Add to `totals[at:]`, for `n` inputs that are `reached`, the `sums` that `which` names, for all images together.

    `inputs` is where these inputs begin; all arrays are flat, and sums and totals have `LANES` numbers each.
    """

    def generate(context, builder, signature, arguments):
        _, _, inputs, n, _, _, at = arguments
        reached, which, sums, totals = arrays(context, builder, signature, arguments, 0, 1, 4, 5)

        def number(array, index):
            return builder.sext(builder.load(builder.gep(array, [index])), WORD)

        def lanes(array, index):
            return vector(builder, SUMS, array, builder.mul(index, WORD(LANES)))

        def add(i, held):
            i = builder.add(inputs, i)
            names = [builder.add(builder.mul(i, WORD(TOGETHER)), WORD(k)) for k in range(TOGETHER)]
            parts = [builder.load(lanes(sums, number(which, name)), align=4) for name in names]
            total = builder.fadd(builder.fadd(*parts[:2]), builder.fadd(*parts[2:]))
            place = lanes(totals, builder.add(at, number(reached, i)))
            builder.store(builder.fadd(builder.load(place, align=4), total), place, align=4)
            return held

        carried(builder, [], WORD(0), n, add)
        return context.get_dummy_value()

    return types.void(reached, which, INT, INT, sums, totals, INT), generate


@_compiled
def add_up(words, ends, reached, which, grad, parts, are_first, start, stop, out, team):
    """Adds the weight's gradient to `out` `[parts, B, I, LANES]`, `start` to `stop` of the first two axes, as one.

    Args:
        words, ends, reached, which: see `sort_groups`.
        grad: `[steps, N, O]`, float32, or bfloat16 as uint16, for `B * LANES` outputs or somewhat fewer.
        parts: of the groups, each summed by itself.
        are_first: whether nothing is in `out` yet.
    """
    if in_parts(team):
        return
    n_blocks, inputs = out.shape[1:3]
    (steps, images, outputs), groups = grad.shape, len(words)
    flat_words, flat_reached, flat_which = words.reshape(-1), reached.reshape(-1), which.reshape(-1)
    totals, apart = out.reshape(-1), n_blocks * STEPS * LANES
    rows, tables = np.zeros(TOGETHER * apart, np.float32), np.zeros(ALL_ENTRIES * LANES, np.float32)
    sums = np.zeros(words.shape[1] * LANES, np.float32)
    if are_first:
        totals[start * inputs * LANES : stop * inputs * LANES] = 0
    for part in range(start // n_blocks, (stop - 1) // n_blocks + 1):
        first_item, last_item = max(start, part * n_blocks), min(stop, (part + 1) * n_blocks)
        output = (first_item - part * n_blocks) * LANES
        last_output = min(outputs, output + (last_item - first_item) * LANES)
        for group in range(groups * part // parts, groups * (part + 1) // parts):
            n_images = min(TOGETHER, images - group * TOGETHER)
            for k in range(n_images):
                _gather(grad, group * TOGETHER + k, output, last_output, rows, k * apart)
            for item in range(first_item, last_item):
                first = 1
                for k in range(n_images):
                    at = k * apart + (item - first_item) * STEPS * LANES
                    for table in range((steps - 1) // STEPS_OF_TABLE + 1):
                        first_row = at + table * STEPS_OF_TABLE * LANES
                        _make_table(rows, first_row, tables, table * ENTRIES * LANES)
                    n = ends[group, k] - first
                    _look_up(flat_words, group * words.shape[1] + first, n, tables, sums, first * LANES)
                    first += n
                n = ends[group, TOGETHER]
                _add_each(flat_reached, flat_which, group * inputs, n, sums, totals, item * inputs)
