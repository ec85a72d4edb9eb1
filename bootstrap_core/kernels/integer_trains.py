"""Exact inference on spike trains, image by image, compiled by numba: states never leave the cache.

A train is the spikes of one neuron over at most `WORD_STEPS` steps: bit t of an unsigned integer. Synapses follow the
spikes instead of multiplying matrices, and inputs with the same train are added up once for all its steps. States
are int32 and wrap where the hardware's 24 bits end; every function returns whether one left them, and the results are
then worthless.

Importing this imports numba. Functions take arrays of fixed types; see `integer_stages`, which calls them.
"""

import numpy as np

from bootstrap_core.fixed_point import DECAY_ONE, STATE_MAX, STATE_MIN, STATE_PER_WEIGHT
from bootstrap_core.kernels.bits import lowest_bit, n_bits
from bootstrap_core.kernels.byte_products import add_products
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.neuron_registers import FORGETTING, HOLDING, KEEPING, LANES, run_few
from bootstrap_core.kernels.row_sums import SLACK, add_rows
from bootstrap_core.kernels.state_arithmetic import arrived, leak
from bootstrap_core.kernels.teams import in_parts
from bootstrap_core.kernels.train_sums import WORD_STEPS, add_block, add_image, make_room, sort

__all__ = [
    "WORD_STEPS",
    "add_conv",
    "add_dense",
    "constant_trains",
    "conv_trains",
    "count_spikes",
    "count_trains",
    "delay_trains",
    "dense_trains",
    "input_trains",
    "multiplied_trains",
    "never_fires",
    "unpack_trains",
    "weigh_counts",
    "weighed_trains",
]

UNIT = np.int32(STATE_PER_WEIGHT.bit_length() - 1)
"""Weights are in units of a power of two, this one, in units of the states."""

i32, u32 = np.int32, np.uint32
_compiled = compiler()
_any_order = compiler(fastmath={"reassoc", "contract"})
"""For sums of floats that are whole numbers and exact."""


@_compiled
def _kind(forgets, keep_v):
    """Of neurons, for `run_few`."""
    leaks = False
    for c in range(len(keep_v)):
        leaks |= keep_v[c] != DECAY_ONE
    return KEEPING if not forgets else FORGETTING if leaks else HOLDING


@_compiled
def _run(z, at, apart, unit, image, first, stop, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, trains):
    """The neurons `first` to `stop` of an image, with `z[at + t * apart :] << unit` as weighted input of step t.

    `z` is flat; `u`, `v` and `trains` are `[N, n]`. Returns whether a state left 24 bits.
    """
    outside, kind, c = False, _kind(forgets, keep_v), first
    while c + LANES <= stop:
        outside |= run_few(
            kind, c, z, at + c - first, apart, unit, bias, keep_u, keep_v, limit, subtract, steps,
            image * len(bias) + c, u, v, trains,
        )  # fmt: skip
        c += LANES
    while c < stop:
        current, voltage, train = i32(0) if forgets else u[image, c], v[image, c], u32(0)
        for t in range(steps):
            kept = i32(0) if forgets else leak(current, keep_u[c])
            current = i32(kept + arrived(z[at + t * apart + c - first], unit))
            voltage = i32(i32(leak(voltage, keep_v[c]) + current) + bias[c])
            outside |= _is_outside(current) or _is_outside(voltage)
            if voltage > limit:
                voltage = i32(i32(voltage - limit) & subtract)
                train = u32(train | u32(1 << t))
        if not forgets:
            u[image, c] = current
        v[image, c], trains[image, c] = voltage, train
        c += 1
    return outside


@_compiled
def _is_outside(state):
    return state < STATE_MIN or state > STATE_MAX


@_compiled
def constant_trains(z, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out):
    """Trains `[N, n]` of neurons with the same weighted input `z` `[N, n]`, in state units, at each step."""
    outside, n, flat = False, len(bias), z.reshape(-1)
    for i in range(len(z)):
        outside |= _run(
            flat, i * n, 0, i32(0), i, 0, n, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out
        )  # fmt: skip
    return outside


@_compiled
def _mantissas(pixels, mean, std, weight, bias, lowest, highest, out):
    """Of currents, from the lowest on."""
    for i in range(len(pixels)):
        current = (weight * ((np.float64(pixels[i]) - mean) / std) + bias) * 64
        current = current if current > lowest else lowest
        current = current if current < highest else highest
        out[i] = i32(i32(current) - i32(lowest))


@_compiled
def input_trains(pixels, mean, std, weight, bias, lowest, highest, table, out):
    """Trains of input neurons: the pixel's current as a mantissa, looked up in the table of all mantissas' trains."""
    places = np.empty(pixels.shape[1], np.int32)
    for image in range(len(pixels)):
        _mantissas(pixels[image], mean, std, weight, bias, lowest, highest, places)
        for i in range(len(places)):
            out[image, i] = table[u32(places[i])]


@_compiled
def _run_part(
    z, at, apart, image, first, stop, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out, totals
):  # fmt: skip
    """`_run`, for `z` in steps of a weight: it is added to `totals` `[N, n]`, unless these are empty."""
    if totals.size:
        for t in range(steps):
            for c in range(first, stop):
                totals[image, c] = i32(totals[image, c] + i32(z[at + t * apart + c - first]))
    return _run(
        z, at, apart, UNIT, image, first, stop, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out
    )  # fmt: skip


@_compiled
def dense_trains(trains, weight, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out, totals):
    """Trains `[N, outputs]` behind dense synapses, int8 in blocks.

    What they weigh in all steps is added to `totals` `[N, outputs]`, unless that is empty.
    """
    n_blocks, n_inputs, width = weight.shape
    room = make_room(len(trains), n_inputs, steps, width)
    at_once = len(room.n_shared)
    z = np.empty(steps * width, np.int32)
    outside = False
    for first in range(0, len(trains), at_once):
        some = trains[first : first + at_once]
        for k in range(len(some)):
            sort(some[k], k, room)
        for block in range(n_blocks):
            start, stop = block * width, min(len(bias), (block + 1) * width)
            for k in range(len(some)):
                z[:] = 0
                add_block(weight, block, k, room, z, width, 0)
                outside |= _run_part(
                    z, 0, width, first + k, start, stop,
                    bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out, totals,
                )  # fmt: skip
    return outside


@_compiled
def never_fires(trains, weight, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v):
    """Whether neurons that never fire, behind dense synapses, stay within 24 bits: 0 if they do."""
    n = len(bias)
    room = make_room(1, trains.shape[1], steps, weight.shape[2])
    z = np.empty(steps * n + SLACK, np.int32)
    outside = False
    for image in range(len(trains)):
        z[:] = 0
        add_image(trains[image], weight, n, room, z)
        for t in range(steps):
            for j in range(n):
                x = i32(leak(u[image, j], keep_u[j]) + arrived(z[t * n + j], UNIT))
                y = i32(i32(leak(v[image, j], keep_v[j]) + x) + bias[j])
                outside |= _is_outside(x) or _is_outside(y)
                u[image, j], v[image, j] = x, y
    return outside


@_compiled
def _list_spikes(trains, taps, columns, steps, members, starts):
    """Of a row of outputs, the rows of the weight that spikes bring, by step and column of inputs.

    `taps` are the rows of inputs that its taps read, -1 for none. Those of step t and the p-th of `columns` are
    `members[starts[t, p] : starts[t, p + 1]]`, as if p were the tap.
    """
    inputs, n_columns = trains.shape[2], len(columns)
    ends = np.empty(steps, np.int64)
    for t in range(steps):
        ends[t] = t * n_columns * len(taps) * inputs
    for p in range(n_columns):
        for t in range(steps):
            starts[t, p] = ends[t]
        for a in range(len(taps)):
            if taps[a] < 0:
                continue
            first = (p * len(taps) + a) * inputs
            for c in range(inputs):
                word = trains[taps[a], columns[p], c]
                while word != 0:
                    t = lowest_bit(word)
                    members[ends[t]] = first + c
                    ends[t] += 1
                    word = u32(word & u32(word - u32(1)))
    for t in range(steps):
        starts[t, n_columns] = ends[t]


@_compiled
def _weigh_row(trains, weight, taps, columns, windows, n, steps, members, starts, z, apart, at):
    """Add to `z[at + t * apart :]` the weighted input of a row of outputs with n channels, at step t."""
    _list_spikes(trains, taps, columns, steps, members, starts)
    n_blocks, _, width = weight.shape
    for x in range(len(windows)):
        first, last, shift = windows[x, 0], windows[x, 1], windows[x, 2] * len(taps) * trains.shape[2]
        for block in range(n_blocks):
            for t in range(steps):
                place = at + t * apart + x * n + block * width
                add_rows(weight, block, shift, members, starts[t, first], starts[t, last], z, place)


@_compiled
def _lists_for(trains, rows, columns, steps):
    """Room for `_list_spikes`."""
    n_columns = len(columns)
    size = steps * n_columns * rows.shape[1] * trains.shape[-1]
    return np.empty(size, np.int32), np.empty((steps, n_columns + 1), np.int64)


@_compiled
def add_conv(trains, weight, rows, columns, windows, n, steps, z):
    """Add to `z`, in steps of a weight, a convolution of one image's trains `[H, W, C]`, all channels last.

    `weight`, in blocks, has a row for each column and row of the kernel and each input, in this order. `rows[y]` are
    the rows of inputs that a row of outputs reads, by tap, -1 for none. `columns` are the columns of inputs in an order
    in which those that an output reads are neighbours: `windows[x]` is (the first of them, the one after the last, tap
    of the first less its place). `z` is flat, of `[steps, rows of outputs, len(windows), n]`.
    """
    members, starts = _lists_for(trains, rows, columns, steps)
    size = len(windows) * n
    for y in range(len(rows)):
        _weigh_row(
            trains, weight, rows[y], columns, windows, n, steps, members, starts, z, len(rows) * size, y * size
        )  # fmt: skip


@_compiled
def conv_trains(
    trains, weight, rows, columns, windows, n, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out, totals
):  # fmt: skip
    """Trains `[N, n]` behind a convolution of trains `[N, H, W, C]`; see `add_conv`; for `totals` `dense_trains`."""
    members, starts = _lists_for(trains, rows, columns, steps)
    size = len(windows) * n
    z = np.empty(steps * size + SLACK, np.int32)
    outside = False
    for image in range(len(trains)):
        for y in range(len(rows)):
            z[:] = 0
            _weigh_row(trains[image], weight, rows[y], columns, windows, n, steps, members, starts, z, size, 0)
            outside |= _run_part(
                z, 0, size, image, y * size, (y + 1) * size,
                bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out, totals,
            )  # fmt: skip
    return outside


@_compiled
def _unpack_map(trains, corner, line, maps):
    """Spikes of an image's trains `[H, W * C]` into `maps` `[steps, bytes]`, rows `line` bytes apart."""
    for t in range(len(maps)):
        flag = u32(1 << t)
        for y in range(len(trains)):
            row, words = maps[t, corner + y * line :], trains[y]
            for i in range(len(words)):
                row[i] = (words[i] & flag) != 0


@_compiled
def multiplied_trains(
    trains, weight, taps, reads, places, down, corner, line, spikes, maps, z, size,
    bias, forgets, keep_u, keep_v, limit, subtract, u, v, out, totals,
):  # fmt: skip
    """Trains `[N, n]` behind a convolution of trains `[N, H, W * C]`, in products; see `dense_trains` for `totals`.

    `maps` `[steps, bytes]` are zeros where trains, in rows of `line` bytes from `corner` on, go into them, and `spikes`
    is the same memory, flat; `z` is flat of `[steps, size]`, of one row of outputs. For `reads`, `taps` and `places`
    see `add_products`; of the next row of outputs they are `down` bytes further.
    """
    outside, steps = False, len(maps)
    for image in range(len(trains)):
        _unpack_map(trains[image], corner, line, maps)
        for y in range(len(bias) // size):
            z[:] = 0
            add_products(spikes, y * down, reads, taps, weight, z, places)
            outside |= _run_part(
                z, 0, size, image, y * size, (y + 1) * size,
                bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out, totals,
            )  # fmt: skip
    return outside


@_compiled
def add_dense(trains, weight, n, steps, z):
    """Add to `z`, flat of `[steps, n]`, in steps of a weight, dense synapses, in blocks, of one image's trains."""
    add_image(trains, weight, n, make_room(1, len(trains), steps, weight.shape[2]), z)


@_compiled
def weighed_trains(z, bias, forgets, keep_u, keep_v, limit, subtract, u, v, out, totals):
    """Trains `[N, n]` of neurons with the weighted input `z` `[N, steps, n]`, in steps of a weight, int32 or float32.

    For `totals` see `dense_trains`.
    """
    (n_images, steps, n), flat, outside = z.shape, z.reshape(-1), False
    for i in range(n_images):
        outside |= _run_part(
            flat, i * steps * n, n, i, 0, n, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out, totals
        )
    return outside


@_compiled
def delay_trains(trains, held, steps):
    """Put each spike of `trains` `[N, n]` a step later, the first behind what is `held` of those before; the last is
    held."""
    mask = u32((1 << steps) - 1)
    for image in range(len(trains)):
        row, before = trains[image], held[image]
        for i in range(len(row)):
            word = row[i]
            row[i] = u32(u32(u32(word << u32(1)) | before[i]) & mask)
            before[i] = u32(word >> u32(steps - 1))


@_compiled
def unpack_trains(trains, start, stop, out, team):
    """Spikes `[N, steps, n]`, int8, of the trains `[N, n]` of images `start` to `stop`."""
    if in_parts(team):
        return
    for image in range(start, stop):
        for t in range(out.shape[1]):
            row, words, flag = out[image, t], trains[image], u32(1 << t)
            for i in range(len(words)):
                row[i] = (words[i] & flag) != 0


@_compiled
def count_spikes(trains):
    """Spikes of all trains `[N, n]` together."""
    total = 0
    for image in range(len(trains)):
        for i in range(trains.shape[1]):
            total += n_bits(trains[image, i])
    return total


@_compiled
def count_trains(trains, start, stop, counts, team):
    """Add to `counts` `[N, n]`, or `[1, n]` for all images together, the spikes of each train of `start` to `stop`."""
    if in_parts(team):
        return
    for image in range(start, stop):
        row = counts[image % len(counts)]
        for i in range(trains.shape[1]):
            row[i] += n_bits(trains[image, i])


@_any_order
def weigh_counts(counts, weight, out):
    """`counts @ weight.T`, whole numbers, of `weight` `[outputs, n]`; a BLAS would wake threads, which takes longer."""
    for image in range(len(counts)):
        row = counts[image]
        for j in range(len(weight)):
            factors, total = weight[j], weight.dtype.type(0)
            for i in range(len(row)):
                total += row[i] * factors[i]
            out[image, j] = total
