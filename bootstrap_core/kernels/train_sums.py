"""What dense synapses weigh of trains, compiled by numba: rows of the weight that come up together are added up once.

A train is a word whose bit t is the spike of step t. Where many inputs share a train, their rows of the weight are
summed once, and this sum is added at each of the train's steps; rows of the other inputs are added step by step. All
sums are whole.

Importing this imports numba.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bootstrap_core.kernels.bits import lowest_bit, n_bits, wait_for_streams
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.registers import INT, arrays, store_past_cache, vector
from bootstrap_core.kernels.row_sums import add_rows, add_totals
from bootstrap_core.kernels.shared_trains import MOST_SHARED, SLOTS, find_active, tell_apart
from bootstrap_core.kernels.teams import in_parts

__all__ = ["WORD_STEPS", "Room", "add_block", "add_image", "make_room", "sort", "weigh"]

WORD_STEPS = 32
"""Of a train."""
AT_ONCE, MOST_ROWS = 8, 1 << 20
"""Images whose inputs are sorted at once, to be weighed by a block of the weight that stays in the cache; fewer, if
their inputs times steps are more than this."""
COST_OF_SUM, FEW = 2, 4
"""Of adding a sum, in rows of the weight: it has four bytes for each of theirs; and rows that a step is not worth."""
LANES = 8
"""Of a register."""
OF_INTS, OF_FLOATS = (ir.VectorType(kind, LANES) for kind in (ir.IntType(32), ir.FloatType()))
f32, u32, i64 = np.float32, np.uint32, np.int64
_compiled = compiler()
_inlined = compiler(inline="always")


class Room(NamedTuple):
    """Memory to sort the inputs of some images, by trains and by steps, and to weigh them.

    Attributes:
        inputs, ends: those that share a train, one train after another, and then the rest of them, `n_inputs` for an
            image; and where those of each train end, `[images, trains]`.
        rows, row_ends: of the rest, those that fire at each step, `n_inputs` for a step, and where they end,
            `[images, T]`.
        sums, sum_ends: the shared trains with a spike at each step, `MOST_SHARED` for a step, and where they end.
        n_shared, n_active: how many trains are shared, and how many inputs are not silent, `[images]`.
        partial: sums of a block's rows, for each shared train.
        active, which, slots, words, counts, place: scratch.
    """

    inputs: Any
    ends: Any
    rows: Any
    row_ends: Any
    sums: Any
    sum_ends: Any
    n_shared: Any
    n_active: Any
    partial: Any
    active: Any
    which: Any
    slots: Any
    words: Any
    counts: Any
    place: Any


@_inlined
def make_room(images, n_inputs, steps, width):
    """For so many inputs and steps, a block of that width, and as many of so many images as are sorted at once."""
    images = max(1, min(images, AT_ONCE, MOST_ROWS // (steps * n_inputs)))
    return Room(
        np.empty(images * n_inputs, np.int32),
        np.empty((images, MOST_SHARED + 1), np.int64),
        np.empty(images * steps * n_inputs, np.int32),
        np.empty((images, steps), np.int64),
        np.empty(images * steps * MOST_SHARED, np.int32),
        np.empty((images, steps), np.int64),
        np.empty(images, np.int64),
        np.empty(images, np.int64),
        np.empty(MOST_SHARED * width, np.int32),
        np.empty(n_inputs + 1, np.int32),
        np.empty(n_inputs, np.int32),
        np.empty(SLOTS, np.int32),
        np.empty(n_inputs, np.uint32),
        np.empty(n_inputs, np.int64),
        np.empty(n_inputs, np.int64),
    )


@_inlined
def _saved(word, count):
    """Rows that are not added if so many inputs with this train share a sum; and those that are without it."""
    spikes = i64(n_bits(word))
    return count * spikes - count - COST_OF_SUM * spikes, count * spikes


@_inlined
def _choose(n, words, counts, steps, first, place, ends):
    """Of `n` trains, those that are worth a sum: they become the first `words`, with their inputs from `first` on.

    `place[k]` is where the k-th train went, and behind these all others; `ends` is where the inputs of each begin.
    Returns how many are chosen.
    """
    left = i64(0)
    for k in range(n):
        saved, rows = _saved(words[k], counts[k])
        left += 0 if saved > 0 else rows
    chosen = i64(0)
    for k in range(n):
        if k < MOST_SHARED and (left < FEW * steps or _saved(words[k], counts[k])[0] > 0):
            place[k], words[chosen], ends[chosen] = chosen, words[k], first
            first += counts[k]
            chosen += 1
        else:
            place[k] = -1
    for k in range(n):
        place[k] = chosen if place[k] < 0 else place[k]
    ends[chosen] = first
    return chosen


@_inlined
def _share(trains, active, image, room):
    """Sorts the active inputs of an image by the trains that are worth a sum, the rest behind them: how many trains."""
    ends, inputs = room.ends[image], room.inputs
    n = tell_apart(trains, active, room.slots, room.words, room.counts, room.which)
    n = _choose(n, room.words, room.counts, room.row_ends.shape[1], image * len(trains), room.place, ends)
    for a in range(len(active)):
        k = room.place[room.which[a]]
        inputs[ends[k]] = active[a]
        ends[k] += 1
    return n


@_inlined
def _by_step(word, i, members, ends):
    """Put `i` among the members of each step of a train."""
    while word != 0:
        t = lowest_bit(word)
        members[ends[t]] = i
        ends[t] += 1
        word = u32(word & u32(word - u32(1)))


@_inlined
def sort(trains, image, room):
    """The inputs of an image, the `image`-th that there is room for, by its trains `[I]`."""
    steps = room.row_ends.shape[1]
    active = room.active[: find_active(trains, room.active)]
    n = _share(trains, active, image, room) if steps > 1 else 0
    row_ends, sum_ends = room.row_ends[image], room.sum_ends[image]
    for t in range(steps):
        step = image * steps + t
        row_ends[t], sum_ends[t] = step * len(trains), step * MOST_SHARED
    for k in range(n):
        _by_step(room.words[k], k, room.sums, sum_ends)
    left = room.inputs[room.ends[image, n - 1] : room.ends[image, n]] if n else active
    for i in left:
        _by_step(trains[i], i, room.rows, row_ends)
    room.n_shared[image], room.n_active[image] = n, len(active)


@_inlined
def add_block(weight, block, image, room, z, apart, at):
    """Add to `z[at + t * apart :]` what a block of the weight makes of an image's sorted inputs at step t."""
    (n_inputs, width), steps = weight.shape[1:], room.row_ends.shape[1]
    first = begin = image * n_inputs
    n_shared, partial = room.n_shared[image], room.partial
    partial[: n_shared * width] = 0
    for k in range(n_shared):
        end = room.ends[image, k]
        add_rows(weight, block, 0, room.inputs, begin, end, partial, k * width)
        begin = end
    are_left = begin - first < room.n_active[image]
    for t in range(steps):
        step = image * steps + t
        add_totals(partial, width, room.sums, step * MOST_SHARED, room.sum_ends[image, t], z, at)
        if are_left:
            add_rows(weight, block, 0, room.rows, step * n_inputs, room.row_ends[image, t], z, at)
        at += apart


@_compiled
def add_image(trains, weight, n, room, z):
    """Add to `z`, flat of `[steps, n]`, what the whole weight makes of an image's trains; see `row_sums.SLACK`."""
    sort(trains, 0, room)
    for block in range(len(weight)):
        add_block(weight, block, 0, room, z, n, block * weight.shape[2])


@intrinsic
def _stream(typing_context, sums, first, out, at):
    """`LANES` of the sums from `first` on to `out[at:]`, float32, a multiple of them; past the cache. All are flat."""

    def generate(context, builder, signature, arguments):
        _, first, _, at = arguments
        sums, out = arrays(context, builder, signature, arguments, 0, 2)
        numbers = builder.sitofp(builder.load(vector(builder, OF_INTS, sums, first), align=4), OF_FLOATS)
        store_past_cache(builder, numbers, vector(builder, OF_FLOATS, out, at))
        return context.get_dummy_value()

    return types.void(sums, INT, out, INT), generate


@_inlined
def _write_sums(weight, n_images, room, z, first_step, first_image, out):
    """`out[first_step + t, first_image + k]` is what the weight makes of the k-th sorted image at step t.

    `z` is room for the steps of all images and a block. Since steps are far apart in `out`, and often a power of two,
    they are written past the cache, if whole registers fill them.
    """
    (_, images, outputs), flat, steps = out.shape, out.reshape(-1), room.row_ends.shape[1]
    n_blocks, _, width = weight.shape
    for block in range(n_blocks):
        n = min(width, outputs - block * width)
        z[:] = 0
        for k in range(n_images):
            add_block(weight, block, k, room, z, width, k * steps * width)
        for t in range(steps):
            for k in range(n_images):
                first = (k * steps + t) * width
                at = ((first_step + t) * images + first_image + k) * outputs + block * width
                if outputs % LANES == 0:
                    for j in range(0, n, LANES):
                        _stream(z, first + j, flat, at + j)
                else:
                    for j in range(n):
                        flat[at + j] = f32(z[first + j])


@_compiled
def weigh(trains, steps, weight, first_step, start, stop, out, team):
    """What `weight`, in blocks, makes of trains `[N, I]` of so many steps, of images `start` to `stop`.

    It is written to `out` `[T, N, O]`, float32, from `first_step` on; its memory begins with a line of the cache.
    """
    if in_parts(team):
        return
    width = weight.shape[2]
    room = make_room(stop - start, trains.shape[1], steps, width)
    at_once = len(room.n_shared)
    z = np.empty(at_once * steps * width, np.int32)
    for first in range(start, stop, at_once):
        n = min(at_once, stop - first)
        for k in range(n):
            sort(trains[first + k], k, room)
        _write_sums(weight, n, room, z, first_step, first, out)
    wait_for_streams()
