"""Sums of rows of a matrix, held in registers while they grow, compiled by numba.

A matrix of int8 lies in blocks of columns, each of which fills the registers; in the last one zeros stand behind its
columns. Two columns share a number of 16 bits, so that no weight has to be widened before it is added: registers sum up
both halves as they are, and the upper halves alone, which tells the lower ones, as 16 bits wrap. For that weights lie
without a sign, 128 more than they are. Importing this imports numba.
"""

import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.registers import INT, WORD, add_to, arrays, by_width, everywhere, sums_of, vector
from bootstrap_core.kernels.teams import in_parts
from bootstrap_core.kernels.threads import split

__all__ = [
    "LANES_OF_FLOATS",
    "MOST_FLOATS",
    "SLACK",
    "TRIPLED",
    "add_rows",
    "add_totals",
    "blocks_shape",
    "in_blocks",
    "mix_three",
]

LANES, LANES_OF_FLOATS = 16, 8
"""Columns that one register holds the sums of, as int16, and as float32 or int32."""
MOST_REGISTERS = 8
PAIR = 2 * LANES
"""Columns that two registers hold the sums of: the numbers of one are both bytes, those of the other the upper ones."""
SLACK, MOST_FLOATS = LANES * MOST_REGISTERS, LANES_OF_FLOATS * MOST_REGISTERS
"""Numbers that have to lie behind an array of sums, as zeros are added to them; columns of floats or int32 at once."""
TRIPLED = LANES_OF_FLOATS * 3
"""Columns of floats whose sums, three of each, leave registers for a row and its factors."""
FLUSH = 255
"""Rows of bytes that 16 bits hold the sum of, whatever they are."""
BYTE, OFFSET, SIGN = 8, 128, np.uint8(128)
"""Bits of one; what is added to a weight to make it one, which turns its sign's bit; and that bit."""
EASE = 4
"""Weights that take as long as a number of `split`'s work."""

OF_SUMS, OF_TOTALS = (ir.VectorType(ir.IntType(bits), LANES) for bits in (16, 32))
OF_FLOATS, OF_INTS = (ir.VectorType(kind, LANES_OF_FLOATS) for kind in (ir.FloatType(), ir.IntType(32)))


def in_blocks(matrix: Tensor) -> npt.NDArray[np.uint8]:
    """The matrix `[rows, columns]`, int8, as blocks `[B, rows, width]`.

    Of each `PAIR` of columns, 128 larger, the first `LANES` are lower bytes of numbers, and the others upper ones.
    """
    rows, columns = matrix.shape
    pairs = -(-columns // PAIR)
    n_blocks = -(-PAIR * pairs // SLACK)
    width = -(-pairs // n_blocks) * PAIR
    # torch aligns to cache lines, as numpy does not
    blocks = torch.empty(n_blocks, rows, width, dtype=torch.uint8).numpy()
    split(_take_pairs, rows, matrix.contiguous().numpy(), blocks, work=matrix.numel() // EASE)
    return blocks


@compiler()
def _take_pairs(matrix, start, stop, blocks, team):
    """Rows `start` to `stop` of `matrix`, int8, as `in_blocks` has them."""
    if in_parts(team):
        return
    columns, width = matrix.shape[1], blocks.shape[2]
    for block in range(len(blocks)):
        for row in range(start, stop):
            given, out = matrix[row], blocks[block, row]
            for at in range(0, width, PAIR):
                for half in range(2):
                    first = block * width + at + half * LANES
                    for j in range(LANES):
                        weight = np.uint8(given[first + j]) if first + j < columns else np.uint8(0)
                        out[at + 2 * j + half] = weight ^ SIGN


def blocks_shape(rows: int, columns: int) -> tuple[int, int, int]:
    """Of a matrix `[rows, columns]` of floats in blocks `[B, rows, TRIPLED]`, with zeros behind the last column."""
    return -(-columns // TRIPLED), rows, TRIPLED


def _member(builder, members, k):
    """Which row is the k-th to be added."""
    return builder.sext(builder.load(builder.gep(members, [k])), WORD)


@intrinsic
def _add_few(typing_context, weight, width, first, members, start, stop, totals, at):
    """Add the row at `weight[first + width * m:]` for each `m` of `members[start:stop]` to `totals[at:]`; flat."""

    def generate(context, builder, signature, arguments):
        _, width, first, _, start, stop, _, at = arguments
        weight, members, totals = arrays(context, builder, signature, arguments, 0, 3, 6)
        a_byte = OF_SUMS([BYTE] * LANES)

        def add(k, sums):
            row = builder.add(first, builder.mul(_member(builder, members, k), width))
            for j in range(0, len(sums), 2):
                place = vector(builder, OF_SUMS, weight, builder.add(row, WORD(LANES * j)))
                both = builder.load(place, align=1)
                yield builder.add(sums[j], both)
                yield builder.add(sums[j + 1], builder.lshr(both, a_byte))

        def work(pairs):
            n = builder.trunc(builder.sub(stop, start), ir.IntType(16))
            offset = everywhere(builder, builder.mul(n, ir.IntType(16)(OFFSET)), LANES)
            sums = sums_of(builder, OF_SUMS, 2 * pairs, start, stop, add)
            for j in range(0, len(sums), 2):
                lower = builder.sub(sums[j], builder.shl(sums[j + 1], a_byte))
                for k, total in enumerate((lower, sums[j + 1])):
                    added = builder.sext(builder.sub(total, offset), OF_TOTALS)
                    add_to(builder, totals, builder.add(at, WORD(LANES * (j + k))), added)

        by_width(builder, width, PAIR, SLACK, work)
        return context.get_dummy_value()

    return types.void(weight, INT, INT, members, INT, INT, totals, INT), generate


@intrinsic
def _add_few_totals(typing_context, rows, apart, first, members, start, stop, width, totals, at):
    """Add `rows[first + apart * m:][:width]` for each `m` of `members[start:stop]` to `totals[at:]`; all are int32."""

    def generate(context, builder, signature, arguments):
        _, apart, first, _, start, stop, width, _, at = arguments
        rows, members, totals = arrays(context, builder, signature, arguments, 0, 3, 7)

        def add(k, sums):
            row = builder.add(first, builder.mul(_member(builder, members, k), apart))
            for j, total in enumerate(sums):
                place = vector(builder, OF_INTS, rows, builder.add(row, WORD(LANES_OF_FLOATS * j)))
                yield builder.add(total, builder.load(place, align=4))

        def work(registers):
            for j, total in enumerate(sums_of(builder, OF_INTS, registers, start, stop, add)):
                add_to(builder, totals, builder.add(at, WORD(LANES_OF_FLOATS * j)), total)

        by_width(builder, width, LANES_OF_FLOATS, MOST_FLOATS, work)
        return context.get_dummy_value()

    return types.void(rows, INT, INT, members, INT, INT, INT, totals, INT), generate


@intrinsic
def mix_three(typing_context, rows, first, members, factors, at, n, out, to, apart):
    """`out[to + apart * c:][:TRIPLED]` for c below 3, the sum of `rows[first + TRIPLED * m:][:TRIPLED]` times factors.

    That for the `n` members m from `members[at]` on, which have three factors each, from `factors[3 * at]` on. All are
    flat.
    """

    def generate(context, builder, signature, arguments):
        _, first, _, _, at, n, _, to, apart = arguments
        rows, members, factors, out = arrays(context, builder, signature, arguments, 0, 2, 3, 6)
        columns = range(0, TRIPLED, LANES_OF_FLOATS)

        def add(k, sums):
            k = builder.add(at, k)
            row = builder.add(first, builder.mul(_member(builder, members, k), WORD(TRIPLED)))
            numbers = [
                builder.load(vector(builder, OF_FLOATS, rows, builder.add(row, WORD(j))), align=4) for j in columns
            ]
            for c in range(3):
                factor = builder.gep(factors, [builder.add(builder.mul(k, WORD(3)), WORD(c))])
                times = everywhere(builder, builder.load(factor), LANES_OF_FLOATS)
                for number, total in zip(numbers, sums[c * len(numbers) :], strict=False):
                    yield builder.fadd(total, builder.fmul(number, times, flags=["contract"]), flags=["contract"])

        sums = sums_of(builder, OF_FLOATS, 3 * len(columns), WORD(0), n, add)
        for c in range(3):
            for j, total in zip(columns, sums[c * len(columns) :], strict=False):
                place = builder.add(to, builder.add(builder.mul(apart, WORD(c)), WORD(j)))
                builder.store(total, vector(builder, OF_FLOATS, out, place), align=4)
        return context.get_dummy_value()

    return types.void(rows, INT, members, factors, INT, INT, out, INT, INT), generate


@compiler()
def add_rows(weight, block, shift, members, start, stop, totals, at):
    """Add the rows `shift + m` for each `m` of `members[start:stop]` to `totals[at:]`, int32 and flat, see `SLACK`.

    Columns are those of a block of `weight`, see `in_blocks`.
    """
    rows, width = weight.shape[1:]
    while start < stop:
        end = min(stop, start + FLUSH)
        _add_few(weight, width, (block * rows + shift) * width, members, start, end, totals, at)
        start = end


@compiler()
def add_totals(rows, apart, members, start, stop, totals, at):
    """Add `rows[m * apart:][:apart]` for each `m` of `members[start:stop]` to `totals[at:]`; all are int32 and flat.

    `apart` is a multiple of `LANES_OF_FLOATS`.
    """
    for first in range(0, apart, MOST_FLOATS):
        width = min(MOST_FLOATS, apart - first)
        _add_few_totals(rows, apart, first, members, start, stop, width, totals, at + first)
