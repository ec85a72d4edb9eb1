"""Convolutions behind input neurons, whose current is the same at each step, compiled by numba.

Most inputs have one value, that of the background: what they weigh and learn is taken for all, and then put right for
the others, one after another, at each place that sees them. Importing this imports numba; see `steady_synapses`, which
calls it.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bootstrap_core.kernels.bits import lowest_bit, wait_for_streams
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.registers import INT, WORD, arrays, everywhere, store_past_cache, sums_of, vector
from bootstrap_core.kernels.subset_sums import LANES, copy_lanes
from bootstrap_core.kernels.teams import in_parts

__all__ = ["KINDS", "gradients", "weigh"]

HALF = LANES // 2
KINDS = 2
"""Of factors of a step: its spike, and what a gradient of that is worth to the current."""

ROW, HALF_ROW = (ir.VectorType(ir.FloatType(), lanes) for lanes in (LANES, HALF))
f32, u32, i64 = np.float32, np.uint32, np.int64
_compiled, _inlined = compiler(), compiler(inline="always")


@intrinsic
def _stream(typing_context, given, first, out, at):
    """`out[at:][:LANES] = given[first:]`, past the cache: a whole line of it. Both are flat and float32, as below."""

    def generate(context, builder, signature, arguments):
        _, first, _, at = arguments
        given, out = arrays(context, builder, signature, arguments, 0, 2)
        numbers = builder.load(vector(builder, ROW, given, first), align=4)
        store_past_cache(builder, numbers, vector(builder, ROW, out, at))
        return context.get_dummy_value()

    return types.void(given, INT, out, INT), generate


@intrinsic
def _add_times(typing_context, given, first, factor, out, at):
    """`out[at:][:LANES] += given[first:] * factor`."""

    def generate(context, builder, signature, arguments):
        _, first, factor, _, at = arguments
        given, out = arrays(context, builder, signature, arguments, 0, 3)
        place = vector(builder, ROW, out, at)
        given = builder.load(vector(builder, ROW, given, first), align=4)
        times = builder.fmul(given, everywhere(builder, factor, LANES), flags=["contract"])
        builder.store(builder.fadd(builder.load(place, align=4), times, flags=["contract"]), place, align=4)
        return context.get_dummy_value()

    return types.void(given, INT, types.float32, out, INT), generate


@intrinsic
def _add_products(typing_context, a, a_apart, b, second, b_apart, n, out):
    """`out[:LANES]` += the sum of `a * b[second:]`, and of n such products, each time so far apart."""

    def generate(context, builder, signature, arguments):
        _, a_apart, _, second, b_apart, n, _ = arguments
        a, b, out = arrays(context, builder, signature, arguments, 0, 2, 6)

        def add(k, sums):
            places = (a, builder.mul(k, a_apart)), (b, builder.add(second, builder.mul(k, b_apart)))
            one, other = (builder.load(vector(builder, ROW, *place), align=4) for place in places)
            yield builder.fadd(sums[0], builder.fmul(one, other, flags=["contract"]), flags=["contract"])

        (total,) = sums_of(builder, ROW, 1, WORD(0), n, add)
        place = vector(builder, ROW, out, WORD(0))
        builder.store(builder.fadd(builder.load(place, align=4), total), place, align=4)
        return context.get_dummy_value()

    return types.void(a, INT, b, INT, INT, INT, out), generate


@intrinsic
def _mix_two(typing_context, rows, first, second, apart, steps, factors, begin, out, to):
    """Sums over steps of rows times factors, of two places: `out[to:]` `[2, KINDS, LANES]`.

    Rows are the `LANES` numbers of `rows` from `first` and from `second` on, and each time `apart`; the factors
    `[steps, KINDS]` begin at `begin`. All are flat and float32.
    """

    def generate(context, builder, signature, arguments):
        _, first, second, apart, steps, _, begin, _, to = arguments
        rows, factors, out = arrays(context, builder, signature, arguments, 0, 5, 7)
        halves = [builder.add(place, WORD(half)) for place in (first, second) for half in (0, HALF)]

        def add(t, sums):
            row, step = builder.mul(t, apart), builder.add(begin, builder.mul(t, WORD(KINDS)))
            numbers = [builder.load(vector(builder, HALF_ROW, rows, builder.add(row, at)), align=4) for at in halves]
            factor = [builder.load(builder.gep(factors, [builder.add(step, WORD(kind))])) for kind in range(KINDS)]
            times = [everywhere(builder, number, HALF) for number in factor]
            for i, total in enumerate(sums):
                place, kind, half = i // (2 * KINDS), i // 2 % KINDS, i % 2
                product = builder.fmul(numbers[2 * place + half], times[kind], flags=["contract"])
                yield builder.fadd(total, product, flags=["contract"])

        sums = sums_of(builder, HALF_ROW, KINDS * len(halves), WORD(0), steps, add)
        for i, total in enumerate(sums):
            builder.store(total, vector(builder, HALF_ROW, out, builder.add(to, WORD(HALF * i))), align=4)
        return context.get_dummy_value()

    return types.void(rows, INT, INT, INT, INT, factors, INT, out, INT), generate


@intrinsic
def _settle(typing_context, mixed, at, of_common, by, weight, row, pixel, common, learned, arrived):
    """What a tap brings that sees a pixel, where that of the common one was counted.

    `mixed[at:]` `[KINDS, LANES]` is of the pixel's current, `of_common[by:]` of the common one's. Adds to
    `learned[row:][:LANES]` the gradient of the weight, `weight[row:]`, and to `arrived` `[2, LANES]` the gradient of
    the current, and that times the pixel.
    """

    def generate(context, builder, signature, arguments):
        _, at, _, by, _, row, pixel, common, _, _ = arguments
        mixed, of_common, weight, learned, arrived = arrays(context, builder, signature, arguments, 0, 2, 4, 8, 9)
        pixel, common = (everywhere(builder, number, LANES) for number in (pixel, common))

        def load(array, index):
            return builder.load(vector(builder, ROW, array, index), align=4)

        def add(array, index, number):
            builder.store(builder.fadd(load(array, index), number), vector(builder, ROW, array, index), align=4)

        spikes, slopes = (load(mixed, builder.add(at, WORD(kind * LANES))) for kind in range(KINDS))
        common_spikes, common_slopes = (load(of_common, builder.add(by, WORD(kind * LANES))) for kind in range(KINDS))
        weights = load(weight, row)
        add(learned, row, builder.fsub(spikes, common_spikes))
        add(arrived, WORD(0), builder.fmul(weights, builder.fsub(slopes, common_slopes)))
        times_pixel = builder.fsub(builder.fmul(slopes, pixel), builder.fmul(common_slopes, common))
        add(arrived, WORD(LANES), builder.fmul(weights, times_pixel))
        return context.get_dummy_value()

    numbers = types.float32, types.float32
    return types.void(mixed, INT, of_common, INT, weight, INT, *numbers, learned, arrived), generate


@_inlined
def _clear(numbers):
    for j in range(len(numbers)):
        numbers[j] = f32(0.0)


@_inlined
def _add_train(word, factor, weights, row, z, at, stride):
    """Add a row of the weight, times a factor, at each step of a train."""
    while word != 0:
        _add_times(weights, row, factor, z, at + i64(lowest_bit(word)) * stride)
        word = u32(word & u32(word - u32(1)))


@_compiled
def _copy_rows(given, first, width, out, at, out_width, places):
    """Of each place a row of `width` numbers as one of `out_width`: as many as both have."""
    for place in range(places):
        for j in range(min(width, out_width)):
            out[at + place * out_width + j] = given[first + place * width + j]


@_compiled
def weigh(currents, common, ends, seers, trains, steps, weight, whole, first_step, start, stop, out, team):
    """Writes to `out` `[T, N, P, O]`, float32, what a weight makes of so many steps, of images `start` to `stop`.

    Args:
        currents: of the inputs of each image, `[N, I]`, rows of tables.
        common: the current that most of them have.
        ends, seers: the places and taps that see an input, `[..., 2]`; those of input i end at `ends[i]`.
        trains: of each current, uint32: bit t is the spike of step `first_step + t`.
        steps: how many of them there are.
        weight: `[K, W]`, float32 and whole, zeros behind its outputs; W is a multiple of `LANES`.
        whole: the sum of the weights of each place's taps, `[P, W]`.
    """
    if in_parts(team):
        return
    (_, images, places, outputs), width = out.shape, weight.shape[1]
    weights, wholes, flat, of_common = weight.reshape(-1), whole.reshape(-1), out.reshape(-1), trains[common]
    stride = places * width + LANES  # steps are no power of two apart, and do not push each other out of the cache
    z = np.empty(steps * stride, f32)
    for image in range(start, stop):
        _clear(z)
        for at in range(0, places * width, LANES):
            _add_train(of_common, f32(1.0), wholes, at, z, at, stride)
        begin = 0
        for i in range(len(ends)):
            current = currents[image, i]
            if current != common:
                for k in range(begin, ends[i]):
                    for column in range(0, width, LANES):
                        row, at = seers[k, 1] * width + column, seers[k, 0] * width + column
                        _add_train(trains[current], f32(1.0), weights, row, z, at, stride)
                        _add_train(of_common, f32(-1.0), weights, row, z, at, stride)
            begin = ends[i]
        for t in range(steps):
            at = ((first_step + t) * images + image) * places * outputs
            if outputs == width:
                for j in range(0, places * width, LANES):
                    _stream(z, t * stride + j, flat, at + j)
            else:
                _copy_rows(z, t * stride, width, flat, at, outputs, places)
    wait_for_streams()


@_compiled
def gradients(currents, pixels, common, ends, seers, fires, factors, weight, whole, grad, start, stop, out, team):
    """Adds to its part's row of `out` `[parts, K * W + 2]` what images `start` to `stop` bring.

    That is the gradient of the weight `[K, W]`, and then the sums of (gradient of a current) * pixel and of the
    gradient. Arguments as of `weigh`, and

    Args:
        pixels: `[N, I]`, float32.
        common: the pixel that most of them are, and its current.
        fires: whether that makes spikes.
        factors: of each current and step its spike and its slope, `[currents * T * KINDS]`, float32.
        weight, whole: `[K, W]` and `[P, W]`, float32.
        grad: `[T, N, P, O]`, float32.
    """
    if in_parts(team):
        return
    (steps, images, places, outputs), width = grad.shape, weight.shape[1]
    (common_pixel, common_current), of_current, of_row = common, steps * KINDS, KINDS * LANES
    weights, flat, total = weight.reshape(-1), grad.reshape(-1), out[team[1]]
    stride, blocks = places * width + LANES, width // LANES
    rows, of_common = np.zeros(steps * stride, f32), np.empty((places * blocks + 1) * of_row, f32)
    mixed, learned, arrived = np.empty(2 * of_row, f32), np.empty(weight.size, f32), np.empty(2 * LANES, f32)
    for image in range(start, stop):
        for t in range(steps):
            at = (t * images + image) * places * outputs
            if outputs == width:
                for j in range(0, places * width, LANES):
                    copy_lanes(flat, at + j, rows, t * stride + j)
            else:
                _copy_rows(flat, at, outputs, rows, t * stride, width, places)
        for block in range(0, places * blocks, 2):
            at, other = block * LANES, min(block + 1, places * blocks - 1) * LANES
            begin = i64(common_current) * of_current
            _mix_two(rows, at, other, stride, steps, factors, begin, of_common, block * of_row)
        _clear(learned)
        _clear(arrived)
        _add_products(whole.reshape(-1), LANES, of_common, LANES, of_row, places * blocks, arrived)
        _add_times(arrived, 0, common_pixel, arrived, LANES)
        begin = 0
        for i in range(len(ends)):
            pixel, end = pixels[image, i], ends[i]
            for block in range(blocks):
                if fires:
                    for k in range(begin, end):
                        by = (seers[k, 0] * blocks + block) * of_row
                        _add_times(of_common, by, f32(1.0), learned, seers[k, 1] * width + block * LANES)
                for k in range(begin, end if pixel != common_pixel else begin, 2):
                    other = min(k + 1, end - 1)
                    one, two = seers[k, 0] * blocks + block, seers[other, 0] * blocks + block
                    factor = i64(currents[image, i]) * of_current
                    _mix_two(rows, one * LANES, two * LANES, stride, steps, factors, factor, mixed, 0)
                    row = seers[k, 1] * width + block * LANES
                    _settle(mixed, 0, of_common, one * of_row, weights, row, pixel, common_pixel, learned, arrived)
                    if other > k:
                        row, by = seers[other, 1] * width + block * LANES, two * of_row
                        _settle(mixed, of_row, of_common, by, weights, row, pixel, common_pixel, learned, arrived)
            begin = end
        for j in range(len(learned)):
            total[j] += learned[j]
        for j in range(LANES):
            total[len(learned)] += arrived[LANES + j]
            total[len(learned) + 1] += arrived[j]
