"""Rates of input neurons times weights, compiled by numba: only pixels apart from the most common value are multiplied.

Most pixels of a digit are background. What it gives all together is a row more, the sum of the weight's rows, and
other pixels add what they differ by. Rows lie in blocks of columns, see `row_sums.blocks_shape`. Importing this
imports numba.
"""

import numpy as np

from bootstrap_core.kernels import input_loop
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.row_sums import TRIPLED, mix_three
from bootstrap_core.kernels.teams import in_parts
from bootstrap_core.kernels.transposes import transpose

__all__ = ["TOGETHER", "correlate", "take_blocks", "take_columns", "weigh"]

IMAGES = 64
"""Whose pixels stay in the second-level cache beside a block of weights."""
THREES = 8
"""Inputs, three by three, whose gradients are put in their places together."""
TOGETHER = 3 * THREES

f32, i32, i64 = np.float32, np.int32, np.int64
_compiled, _inlined = compiler(), compiler(inline="always")


@compiler(fastmath={"contract", "reassoc", "nsz"})
def _sum(numbers):
    total = f32(0.0)
    for i in range(len(numbers)):
        total += numbers[i]
    return total


@_compiled
def take_columns(weight, outputs, inputs, start, stop, blocks, team):
    """Blocks `start` to `stop` of the columns of `weight` `[O, I]`, and behind each their sum: `[B, I + 1, TRIPLED]`.

    Both are flat.
    """
    if in_parts(team):
        return
    size = (inputs + 1) * TRIPLED
    for block in range(start, stop):
        first, columns = block * TRIPLED, min(TRIPLED, outputs - block * TRIPLED)
        for j in range(block * size, (block + 1) * size if columns < TRIPLED else 0):
            blocks[j] = f32(0.0)
        transpose(weight, first * inputs, inputs, columns, inputs, blocks, block * size, i64(TRIPLED))
        for j in range(columns):
            row = weight[(first + j) * inputs : (first + j + 1) * inputs]
            blocks[block * size + inputs * TRIPLED + j] = _sum(row)


@_inlined
def _look(image, common, scaling, curve, room, members, factors, at, out):
    """How many pixels are apart from `common`: `members[at:]`, and what their rates differ by in `factors[3 * at:]`.

    Beside the rate that is its gradient by the input's weight (times the pixel) and by its bias. Behind them is a
    member I, with those of `common` themselves. `out` has all rates; in the `room` are three arrays `[I + 1]`.
    """
    (pixels, rates, gradients), n, inputs = room, 0, len(image)
    for i in range(inputs):
        members[at + n], pixels[n] = i, image[i]
        n += image[i] != common
    members[at + n], pixels[n] = inputs, common
    input_loop.rates_of(pixels[: n + 1], scaling, *curve, rates[: n + 1], gradients[: n + 1])
    rate, by_weight, by_bias = rates[n], gradients[n] * common, gradients[n]
    for i in range(inputs):
        out[i] = rate
    for k in range(n):
        out[members[at + k]] = rates[k]
        factors[3 * (at + k)] = rates[k] - rate
        factors[3 * (at + k) + 1] = gradients[k] * pixels[k] - by_weight
        factors[3 * (at + k) + 2] = gradients[k] - by_bias
    factors[3 * (at + n)], factors[3 * (at + n) + 1], factors[3 * (at + n) + 2] = rate, by_weight, by_bias
    return n


@_compiled
def weigh(images, common, scaling, curve, blocks, start, stop, rates, weighed, z, team):
    """Of images `start` to `stop`: `rates` `[N, I]`, and what they weigh, `z` `[N, O]`, in one go with its derivatives.

    Args:
        images, common: `[N, I]`, and the value that most of their pixels have.
        scaling, curve: see `input_loop.rates`.
        blocks: see `take_columns`.
        weighed: `[3, B, N, TRIPLED]`, flat: `z` in blocks, and its derivatives by the input's weight, times the pixels,
            and by its bias.
    """
    if in_parts(team):
        return
    n_images, n_rows = images.shape[0], images.shape[1] + 1
    n_blocks, apart = len(blocks) // (n_rows * TRIPLED), len(weighed) // 3
    room = np.empty(n_rows, f32), np.empty(n_rows, f32), np.empty(n_rows, f32)
    members, factors, counts = np.empty(IMAGES * n_rows, i32), np.empty(IMAGES * n_rows * 3, f32), np.empty(IMAGES, i64)
    for first in range(start, stop, IMAGES):
        n = min(IMAGES, stop - first)
        for k in range(n):
            image, out, at = images[first + k], rates[first + k], k * n_rows
            counts[k] = 1 + _look(image, common, scaling, curve, room, members, factors, at, out)
        for block in range(n_blocks):
            row, to = block * n_rows * TRIPLED, (block * n_images + first) * TRIPLED
            for k in range(n):
                at = to + k * TRIPLED
                mix_three(blocks, row, members, factors, k * n_rows, counts[k], weighed, at, apart)
                for j in range(min(TRIPLED, z.shape[1] - block * TRIPLED)):
                    z[first + k, block * TRIPLED + j] = weighed[at + j]


@_compiled
def take_blocks(matrix, start, stop, blocks, team):
    """Rows `start` to `stop` of `matrix` `[N, O]` in `blocks` `[B, N, TRIPLED]`, with zeros behind the last column."""
    if in_parts(team):
        return
    for row in range(start, stop):
        for block in range(len(blocks)):
            given, taken = matrix[row, block * TRIPLED : (block + 1) * TRIPLED], blocks[block, row]
            for j in range(len(given)):
                taken[j] = given[j]
            for j in range(len(given), TRIPLED):
                taken[j] = f32(0.0)


@_inlined
def _find_three(rates, i, stop, members, factors, at):
    """In how many images one of the inputs i to i + 2 has a rate: `members[at:]`, with their rates, `factors[3 * at:]`.

    Inputs from `stop` on have none.
    """
    n = 0
    for k in range(len(rates)):
        a = rates[k, i] if i < stop else f32(0.0)
        b = rates[k, i + 1] if i + 1 < stop else f32(0.0)
        c = rates[k, i + 2] if i + 2 < stop else f32(0.0)
        members[at + n] = k
        factors[3 * (at + n)], factors[3 * (at + n) + 1], factors[3 * (at + n) + 2] = a, b, c
        n += (a != 0) | (b != 0) | (c != 0)
    return n


@_compiled
def correlate(rates, blocks, outputs, start, stop, out, team):
    """`out` `[O, I]`, flat, the gradient of the weights of inputs `start` to `stop`: `grad.T @ rates`.

    `rates` is `[N, I]`, of which zeros are passed over; `blocks` the gradient's columns, `[B, N, TRIPLED]`, flat.
    """
    if in_parts(team):
        return
    images, inputs = rates.shape
    members, factors = np.empty(THREES * (images + 1), i32), np.empty(THREES * (images + 1) * 3, f32)
    counts, sums = np.empty(THREES, i64), np.empty(TOGETHER * TRIPLED, f32)
    for first in range(start, stop, TOGETHER):
        last = min(stop, first + TOGETHER)
        for three in range(THREES):
            counts[three] = _find_three(rates, first + 3 * three, last, members, factors, three * (images + 1))
        for column in range(0, outputs, TRIPLED):
            for three in range(THREES):
                at, to = three * (images + 1), three * 3 * TRIPLED
                mix_three(blocks, column * images, members, factors, at, counts[three], sums, to, TRIPLED)
            columns = min(TRIPLED, outputs - column)
            transpose(sums, i64(0), i64(TRIPLED), last - first, columns, out, column * inputs + first, inputs)
