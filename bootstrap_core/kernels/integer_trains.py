"""Exact inference on spike trains, image by image, compiled by numba: states never leave the cache.

A train is the spikes of one neuron over at most `WORD_STEPS` steps: bit t of an unsigned integer. Synapses follow the
spikes instead of multiplying matrices, and inputs with the same train are added up once for all its steps. States
are int32 and wrap where the hardware's 24 bits end; every function returns whether one left them, and the results are
then worthless.

Importing this imports numba. Functions take arrays of fixed types; see `integer_stages`, which calls them.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from bootstrap_core.fixed_point import STATE_MAX, STATE_MIN, STATE_PER_WEIGHT
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
    "never_fires",
    "unpack_trains",
    "weigh_counts",
    "weighed_trains",
]

WORD_STEPS = 32
UNIT = np.int32(STATE_PER_WEIGHT.bit_length() - 1)
"""Weights are in units of a power of two, this one, in units of the states."""
HALF, OUTSIDE = np.int32(STATE_MAX + 1), np.int32(2 * STATE_MIN)
FLUSH = 255
"""Rows of int8 that int16 holds the sum of, whatever they are."""
MAX_GROUPS = 24

i16, i32, u32, i64 = np.int16, np.int32, np.uint32, np.int64
_compiled = njit(nogil=True, cache=True, error_model="numpy")
_any_order = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
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
def _run_kept(u, v, z, unit, bias, keep_u, keep_v, limit, subtract, steps, trains):
    outside = i32(0)
    for t in range(steps):
        arriving, flag = z[t % len(z)], u32(1 << t)
        for c in range(len(bias)):
            x = i32(leak(u[c], keep_u[c]) + arrived(arriving[c], unit))
            y = i32(i32(leak(v[c], keep_v[c]) + x) + bias[c])
            outside = i32(outside | i32(i32(i32(x + HALF) | i32(y + HALF)) & OUTSIDE))
            fired = y > limit
            u[c] = x
            v[c] = i32(i32(y - limit) & subtract) if fired else y
            trains[c] = u32(trains[c] | (flag if fired else u32(0)))
    return outside


@_compiled
def _run_anew(v, z, unit, bias, keep_v, limit, subtract, steps, trains):
    """Of neurons that keep no current: with fewer arrays the loop is faster."""
    outside = i32(0)
    for t in range(steps):
        arriving, flag = z[t % len(z)], u32(1 << t)
        for c in range(len(bias)):
            x = arrived(arriving[c], unit)
            y = i32(i32(leak(v[c], keep_v[c]) + x) + bias[c])
            outside = i32(outside | i32(i32(i32(x + HALF) | i32(y + HALF)) & OUTSIDE))
            fired = y > limit
            v[c] = i32(i32(y - limit) & subtract) if fired else y
            trains[c] = u32(trains[c] | (flag if fired else u32(0)))
    return outside


@_compiled
def _run(z, unit, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, trains):
    """An image's neurons, with `z << unit` `[steps, n]` (or `[1, n]` for all of them) as weighted input.

    Returns bits above 24 of any state.
    """
    trains[:] = 0
    if forgets:
        return _run_anew(v, z, unit, bias, keep_v, limit, subtract, steps, trains)
    return _run_kept(u, v, z, unit, bias, keep_u, keep_v, limit, subtract, steps, trains)


@_compiled
def constant_trains(z, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out):
    """Trains `[N, n]` of neurons with the same weighted input `z` `[N, n]`, in state units, at each step."""
    outside = i32(0)
    for i in range(len(z)):
        outside |= _run(
            z[i : i + 1], i32(0), bias, forgets, keep_u, keep_v, limit, subtract, steps, u[i], v[i], out[i]
        )  # fmt: skip
    return outside


@_compiled
def input_trains(pixels, mean, std, weight, bias, lowest, highest, table, out):
    """Trains of input neurons: the pixel's current as a mantissa, looked up in the table of all mantissas' trains."""
    for image in range(len(pixels)):
        for i in range(pixels.shape[1]):
            current = (weight * ((np.float64(pixels[image, i]) - mean) / std) + bias) * 64
            out[image, i] = table[i64(min(max(np.trunc(current), lowest), highest)) - i64(lowest)]


@_compiled
def _add_rows(weight, rows, start, stop, total):
    """Add rows of int8 to `total`, int32: eight at a time, by way of int16."""
    n = weight.shape[1]
    short = np.empty(n, np.int16)
    while start < stop:
        end = min(stop, start + FLUSH)
        short[:] = 0
        while start + 8 <= end:
            a, b, c, d = weight[rows[start]], weight[rows[start + 1]], weight[rows[start + 2]], weight[rows[start + 3]]
            e, f, g, h = (
                weight[rows[start + 4]], weight[rows[start + 5]], weight[rows[start + 6]], weight[rows[start + 7]]
            )  # fmt: skip
            for j in range(n):
                left = i16(i16(i16(a[j]) + i16(b[j])) + i16(i16(c[j]) + i16(d[j])))
                right = i16(i16(i16(e[j]) + i16(f[j])) + i16(i16(g[j]) + i16(h[j])))
                short[j] = i16(short[j] + i16(left + right))
            start += 8
        while start < end:
            row = weight[rows[start]]
            for j in range(n):
                short[j] = i16(short[j] + i16(row[j]))
            start += 1
        for j in range(n):
            total[j] = i32(total[j] + i32(short[j]))


@_compiled
def _group(trains, members, counts, words):
    """Inputs by their train: `members[k, :counts[k]]` have the train `words[k]`. -1 if there are too many trains."""
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
            words[k], counts[k] = word, 0
            n_groups += 1
        members[k, counts[k]] = i
        counts[k] += 1
    return n_groups


@_compiled
def _spread(trains, steps, members, counts):
    """Inputs by the step they fire in: `members[t, :counts[t]]`."""
    counts[:steps] = 0
    for i in range(len(trains)):
        word = trains[i]
        while word != 0:
            t = _lowest_bit(word)
            members[t, counts[t]] = i
            counts[t] += 1
            word = u32(word & u32(word - u32(1)))


@_compiled
def _weigh_steps(trains, weight, steps, groups, members, counts, words, partial, z):
    """Weighted input `z` `[steps, n]` of one image, in steps of a weight; `groups`: try to add inputs by train."""
    z[:steps] = 0
    n_groups = _group(trains, members, counts, words) if groups else -1
    if n_groups < 0:
        _spread(trains, steps, members, counts)
        for t in range(steps):
            _add_rows(weight, members[t], 0, counts[t], z[t])
        return
    for k in range(n_groups):
        partial[:] = 0
        _add_rows(weight, members[k], 0, counts[k], partial)
        word = words[k]
        while word != 0:
            row = z[_lowest_bit(word)]
            word = u32(word & u32(word - u32(1)))
            for j in range(len(partial)):
                row[j] = i32(row[j] + partial[j])


@_compiled
def dense_trains(trains, weight, groups, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out):
    """Trains `[N, outputs]` behind dense synapses `[inputs, outputs]`, int8."""
    n_inputs, n = weight.shape
    members = np.empty((max(WORD_STEPS, MAX_GROUPS), n_inputs), np.int32)
    counts, words = np.empty(max(WORD_STEPS, MAX_GROUPS), np.int64), np.empty(MAX_GROUPS, np.uint32)
    partial, z = np.empty(n, np.int32), np.empty((steps, n), np.int32)
    outside = i32(0)
    for image in range(len(trains)):
        _weigh_steps(trains[image], weight, steps, groups, members, counts, words, partial, z)
        outside |= _run(
            z, UNIT, bias, forgets, keep_u, keep_v, limit, subtract, steps, u[image], v[image], out[image]
        )  # fmt: skip
    return outside


@_compiled
def never_fires(trains, weight, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v):
    """Whether neurons that never fire, behind dense synapses, stay within 24 bits: 0 if they do."""
    n_inputs, n = weight.shape
    members, counts = np.empty((WORD_STEPS, n_inputs), np.int32), np.empty(WORD_STEPS, np.int64)
    z = np.empty(n, np.int32)
    outside = i32(0)
    for image in range(len(trains)):
        _spread(trains[image], steps, members, counts)
        for t in range(steps):
            z[:] = 0
            _add_rows(weight, members[t], 0, counts[t], z)
            for j in range(n):
                x = i32(leak(u[image, j], keep_u[j]) + arrived(z[j], UNIT))
                y = i32(i32(leak(v[image, j], keep_v[j]) + x) + bias[j])
                outside = i32(outside | i32(i32(i32(x + HALF) | i32(y + HALF)) & OUTSIDE))
                u[image, j], v[image, j] = x, y
    return outside


@_compiled
def add_conv(trains, slabs, rows, columns, z):
    """Add to `z`, in steps of a weight, a convolution of one image's trains `[H, W, C]`, all channels last.

    An input position reaches a box of outputs. `columns[x]` is (class of x, first output column, how many), and
    `rows[y, a]` is (tap of the kernel, output row), ended by a row of -1. `slabs[class, tap, c]` has the weights to all
    channels of the columns reached, side by side: one run of memory. `z` `[steps, output rows, width * channels]`.
    """
    height, width, inputs = trains.shape
    channels = z.shape[2] // columns[0, 3]
    for y in range(height):
        for x in range(width):
            low, high = columns[x, 1] * channels, (columns[x, 1] + columns[x, 2]) * channels
            for c in range(inputs):
                word = trains[y, x, c]
                if word == 0:
                    continue
                for a in range(rows.shape[1]):
                    if rows[y, a, 0] < 0:
                        break
                    slab = slabs[columns[x, 0], rows[y, a, 0], c, : high - low]
                    rest = word
                    while rest != 0:
                        reached = z[_lowest_bit(rest), rows[y, a, 1], low:high]
                        rest = u32(rest & u32(rest - u32(1)))
                        for j in range(len(slab)):
                            reached[j] += slab[j]


@_compiled
def conv_trains(trains, slabs, rows, columns, z, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out):
    """Trains `[N, n]` behind a convolution of trains `[N, H, W, C]`; see `add_conv`."""
    flat = z.reshape(len(z), -1)
    outside = i32(0)
    for image in range(len(trains)):
        flat[:steps] = 0
        add_conv(trains[image], slabs, rows, columns, z)
        outside |= _run(
            flat, UNIT, bias, forgets, keep_u, keep_v, limit, subtract, steps, u[image], v[image], out[image]
        )  # fmt: skip
    return outside


@_compiled
def add_dense(trains, weight, steps, z):
    """Add to `z` `[steps, n]`, in steps of a weight, dense synapses `[inputs, n]` of one image's trains `[inputs]`."""
    members, counts = np.empty((steps, len(weight)), np.int32), np.empty(steps, np.int64)
    _spread(trains, steps, members, counts)
    for t in range(steps):
        _add_rows(weight, members[t], 0, counts[t], z[t])


@_compiled
def weighed_trains(z, bias, forgets, keep_u, keep_v, limit, subtract, steps, u, v, out):
    """Trains `[N, n]` of neurons with the weighted input `z` `[N, steps, n]`, in steps of a weight."""
    outside = i32(0)
    for i in range(len(z)):
        outside |= _run(z[i], UNIT, bias, forgets, keep_u, keep_v, limit, subtract, steps, u[i], v[i], out[i])
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
