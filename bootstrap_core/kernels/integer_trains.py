"""Exact inference on spike trains, image by image, compiled by numba: states never leave the cache.

A train is the spikes of one neuron over at most `WORD_STEPS` steps: bit t of an unsigned integer. Synapses follow the
spikes instead of multiplying matrices, and inputs with the same train are added up once for all its steps. States
are int32 and wrap where the hardware's 24 bits end; every function returns whether one left them, and the results are
then worthless.

Importing this imports numba. Functions take arrays of fixed types; see `integer_stages`, which calls them.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bootstrap_core.fixed_point import DECAY_ONE, STATE_MAX, STATE_MIN, STATE_PER_WEIGHT
from bootstrap_core.kernels.bits import CACHE
from bootstrap_core.kernels.byte_products import add_products
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.neuron_registers import FORGETTING, HOLDING, KEEPING, LANES, run_few
from bootstrap_core.kernels.row_sums import SLACK, add_rows, add_totals
from bootstrap_core.kernels.state_loops import arrived, leak

__all__ = [
    "WORD_STEPS",
    "add_conv",
    "add_dense",
    "constant_trains",
    "conv_trains",
    "count_spikes",
    "count_trains",
    "dense_trains",
    "input_trains",
    "multiplied_trains",
    "never_fires",
    "unpack_trains",
    "weigh_counts",
    "weighed_trains",
]

WORD_STEPS = 32
UNIT = np.int32(STATE_PER_WEIGHT.bit_length() - 1)
"""Weights are in units of a power of two, this one, in units of the states."""
MAX_GROUPS = 24
AT_ONCE = 16
"""Images whose inputs are weighed at once, if a weight is larger than what stays in the cache."""

i32, u32 = np.int32, np.uint32
_compiled = compiler()
_any_order = compiler(fastmath={"reassoc", "contract"})
"""For sums of floats that are whole numbers and exact."""


@intrinsic
def _lowest_bit(typing_context, word):
    """Index of the lowest bit that is set."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint32(types.uint32), generate


@intrinsic
def _n_bits(typing_context, word):
    """Number of bits that are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint32(types.uint32), generate


@_compiled
def _kind(forgets, keep_v):
    """Of neurons, for `run_few`."""
    leaks = False
    for c in range(len(keep_v)):
        leaks |= keep_v[c] != DECAY_ONE
    return KEEPING if not forgets else FORGETTING if leaks else HOLDING


@_compiled
def _run(z, unit, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, trains):
    """An image's neurons, with `z << unit` `[steps, n]` (or `[1, n]` for all of them) as weighted input.

    Returns whether a state left 24 bits.
    """
    n, outside = len(bias), False
    apart, kind, whole = n if len(z) > 1 else 0, _kind(forgets, keep_v), n // LANES * LANES
    for c in range(0, whole, LANES):
        outside |= run_few(kind, c, z, apart, unit, bias, keep_u, keep_v, limit, subtract, steps, u, v, trains)
    for c in range(whole, n):
        current, voltage, train = i32(0) if forgets else u[c], v[c], u32(0)
        for t in range(steps):
            kept = i32(0) if forgets else leak(current, keep_u[c])
            current = i32(kept + arrived(z[t % len(z), c], unit))
            voltage = i32(i32(leak(voltage, keep_v[c]) + current) + bias[c])
            outside |= _is_outside(current) or _is_outside(voltage)
            if voltage > limit:
                voltage = i32(i32(voltage - limit) & subtract)
                train = u32(train | u32(1 << t))
        if not forgets:
            u[c] = current
        v[c], trains[c] = voltage, train
    return outside


@_compiled
def _is_outside(state):
    return state < STATE_MIN or state > STATE_MAX


@_compiled
def constant_trains(z, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out):
    """Trains `[N, n]` of neurons with the same weighted input `z` `[N, n]`, in state units, at each step."""
    outside = False
    for i in range(len(z)):
        outside |= _run(
            z[i : i + 1], i32(0), bias, forgets, keep_u, keep_v, limit, subtract, steps, u[i], v[i], out[i]
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
def _group(trains, members, ends, words):
    """Inputs by their train: those of `words[k]` are `members[k * len(trains) : ends[k]]`.

    Returns how many trains there are; -1 if they are too many.
    """
    n_groups = 0
    for i in range(len(trains)):
        word = trains[i]
        if word == 0:
            continue
        k = 0
        while k < n_groups and words[k] != word:
            k += 1
        if k == n_groups:
            if k == MAX_GROUPS:
                return -1
            words[k], ends[k] = word, k * len(trains)
            n_groups += 1
        members[ends[k]] = i
        ends[k] += 1
    return n_groups


@_compiled
def _spread(trains, steps, members, ends):
    """Inputs by the step they fire in: `members[t * len(trains) : ends[t]]`."""
    for t in range(steps):
        ends[t] = t * len(trains)
    for i in range(len(trains)):
        word = trains[i]
        while word != 0:
            t = _lowest_bit(word)
            members[ends[t]] = i
            ends[t] += 1
            word = u32(word & u32(word - u32(1)))


@_compiled
def _weigh_steps(trains, weight, n, steps, members, ends, z):
    """Add to `z[(image * steps + t) * n :]` the weighted input of an image's step t, in steps of a weight.

    A part of the weight that stays in the cache is added for all of the images before the next part is.
    """
    n_blocks, n_inputs, width = weight.shape
    size = CACHE // width
    for first in range(0, n_inputs, size):
        apart = min(size, n_inputs - first)
        for image in range(len(trains)):
            _spread(trains[image, first : first + apart], steps, members[image], ends[image])
        for block in range(n_blocks):
            for image in range(len(trains)):
                for t in range(steps):
                    at = (image * steps + t) * n + block * width
                    add_rows(weight, block, first, members[image], t * apart, ends[image, t], z, at)


@_compiled
def _lists(n_images, n_inputs, steps):
    """Room for `_weigh_steps`."""
    return np.empty((n_images, steps * n_inputs), np.int32), np.empty((n_images, steps), np.int64)


@_compiled
def _weigh_groups(trains, weight, n, steps, members, ends, words, partial, z):
    """`_weigh_steps` of one image, with inputs of the same train added up once.

    Returns whether there are few enough trains for it.
    """
    n_groups = _group(trains, members, ends, words)
    if n_groups < 0:
        return False
    n_blocks, _, width = weight.shape
    apart = n_blocks * width
    partial[: n_groups * apart] = 0
    for block in range(n_blocks):
        for k in range(n_groups):
            add_rows(weight, block, 0, members, k * len(trains), ends[k], partial, k * apart + block * width)
    _spread(words[:n_groups], steps, members, ends)
    for t in range(steps):
        add_totals(partial, apart, members, t * n_groups, ends[t], z, t * n)
    return True


@_compiled
def _run_part(z, image, part, bias, forgets, keep_u, keep_v, limit, subtract, u, v, out, totals):
    """`_run` a `part` of an image's neurons, all in one slice, which `z` `[steps, n]` reaches, in steps of a weight.

    It is added to `totals` `[N, n]`, unless these are empty.
    """
    if totals.size:
        total = totals[image, part]
        for t in range(len(z)):
            for j in range(len(total)):
                total[j] = i32(total[j] + z[t, j])
    return _run(
        z, UNIT, bias[part], forgets, keep_u[part], keep_v[part], limit, subtract, len(z),
        u[image, part], v[image, part], out[image, part],
    )  # fmt: skip


@_compiled
def dense_trains(trains, weight, groups, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out, totals):
    """Trains `[N, outputs]` behind dense synapses, int8 in blocks; `groups`: try to add inputs by train.

    What they weigh in all steps is added to `totals` `[N, outputs]`, unless that is empty.
    """
    n_images, n_inputs, n = len(trains), trains.shape[1], len(bias)
    at_once = 1 if groups or weight.size <= CACHE else max(1, min(n_images, AT_ONCE))
    members, ends = _lists(at_once, n_inputs, max(steps, MAX_GROUPS))
    words = np.empty(MAX_GROUPS, np.uint32)
    partial = np.empty(MAX_GROUPS * weight.shape[0] * weight.shape[2] if groups else 0, np.int32)
    z = np.empty(at_once * steps * n + SLACK, np.int32)
    by_image = z[: at_once * steps * n].reshape(at_once, steps, n)
    outside = False
    for first in range(0, n_images, at_once):
        some = trains[first : first + at_once]
        z[:] = 0
        if not (groups and _weigh_groups(some[0], weight, n, steps, members[0], ends[0], words, partial, z)):
            _weigh_steps(some, weight, n, steps, members, ends, z)
        for k in range(len(some)):
            outside |= _run_part(
                by_image[k], first + k, slice(0, n), bias, forgets, keep_u, keep_v, limit, subtract, u, v, out, totals
            )
    return outside


@_compiled
def never_fires(trains, weight, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v):
    """Whether neurons that never fire, behind dense synapses, stay within 24 bits: 0 if they do."""
    n_inputs, n = trains.shape[1], len(bias)
    members, ends = _lists(1, n_inputs, steps)
    z = np.empty(steps * n + SLACK, np.int32)
    outside = False
    for image in range(len(trains)):
        z[:] = 0
        _weigh_steps(trains[image : image + 1], weight, n, steps, members, ends, z)
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
                    t = _lowest_bit(word)
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
    by_step = z[: steps * size].reshape(steps, size)
    outside = False
    for image in range(len(trains)):
        for y in range(len(rows)):
            z[:] = 0
            _weigh_row(trains[image], weight, rows[y], columns, windows, n, steps, members, starts, z, size, 0)
            row = slice(y * size, (y + 1) * size)
            outside |= _run_part(by_step, image, row, bias, forgets, keep_u, keep_v, limit, subtract, u, v, out, totals)
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
    trains, weight, taps, reads, places, down, corner, line, spikes, maps, z, by_step,
    bias, forgets, keep_u, keep_v, limit, subtract, u, v, out, totals,
):  # fmt: skip
    """Trains `[N, n]` behind a convolution of trains `[N, H, W * C]`, in products; see `dense_trains` for `totals`.

    `maps` `[steps, bytes]` are zeros where trains, in rows of `line` bytes from `corner` on, go into them, and `spikes`
    is the same memory, flat; for one row of outputs, `by_step` `[steps, size]` is that of `z`. For `reads`, `taps` and
    `places` see `add_products`; of the next row of outputs they are `down` bytes further.
    """
    size = by_step.shape[1]
    outside = False
    for image in range(len(trains)):
        _unpack_map(trains[image], corner, line, maps)
        for y in range(len(bias) // size):
            z[:] = 0
            add_products(spikes, y * down, reads, taps, weight, z, places)
            row = slice(y * size, (y + 1) * size)
            outside |= _run_part(by_step, image, row, bias, forgets, keep_u, keep_v, limit, subtract, u, v, out, totals)
    return outside


@_compiled
def add_dense(trains, weight, n, steps, z):
    """Add to `z`, flat of `[steps, n]`, in steps of a weight, dense synapses, in blocks, of one image's trains."""
    members, ends = _lists(1, len(trains), steps)
    _weigh_steps(trains.reshape(1, -1), weight, n, steps, members, ends, z)


@_compiled
def weighed_trains(z, bias, forgets, keep_u, keep_v, limit, subtract, u, v, out, totals):
    """Trains `[N, n]` of neurons with the weighted input `z` `[N, steps, n]`, in steps of a weight, int32 or float32.

    For `totals` see `dense_trains`.
    """
    outside = False
    for i in range(len(z)):
        whole = slice(0, len(bias))
        outside |= _run_part(z[i], i, whole, bias, forgets, keep_u, keep_v, limit, subtract, u, v, out, totals)
    return outside


@_compiled
def unpack_trains(trains, out):
    """Spikes `[N, steps, n]`, int8, of the trains `[N, n]`."""
    for image in range(len(trains)):
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
            total += _n_bits(trains[image, i])
    return total


@_compiled
def count_trains(trains, counts):
    """Add to `counts` `[N, n]`, or `[1, n]` for all images together, the spikes of each train."""
    for image in range(len(trains)):
        row = counts[image % len(counts)]
        for i in range(trains.shape[1]):
            row[i] += _n_bits(trains[image, i])


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
