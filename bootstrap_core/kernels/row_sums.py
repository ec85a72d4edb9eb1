"""Sums of rows of a matrix, held in registers while they grow, compiled by numba.

A matrix of int8 lies in blocks of columns, each of which fills the registers; in the last one zeros stand behind its
columns. Importing this imports numba.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["LANES_OF_FLOATS", "MOST_FLOATS", "SLACK", "add_rows", "in_blocks", "mix_rows"]

LANES, LANES_OF_FLOATS = 16, 8
"""Columns that one register holds the sums of, as int16 and as float32."""
MOST_REGISTERS = 8
SLACK, MOST_FLOATS = LANES * MOST_REGISTERS, LANES_OF_FLOATS * MOST_REGISTERS
"""Numbers that have to lie behind an array of sums, as zeros are added to them; columns that are mixed at once."""
FLUSH = 255
"""Rows of int8 that int16 holds the sum of, whatever they are."""

WORD = ir.IntType(64)
OF_WEIGHTS, OF_SUMS, OF_TOTALS = (ir.VectorType(ir.IntType(bits), LANES) for bits in (8, 16, 32))
OF_FLOATS = ir.VectorType(ir.FloatType(), LANES_OF_FLOATS)
INT = types.int64


def in_blocks(matrix: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """The matrix `[rows, columns]` as blocks `[B, rows, width]`."""
    rows, columns = matrix.shape
    registers = -(-columns // LANES)
    n_blocks = -(-registers // MOST_REGISTERS)
    width = LANES * -(-registers // n_blocks)
    padded = np.zeros((rows, n_blocks * width), np.int8)
    padded[:, :columns] = matrix
    return np.ascontiguousarray(padded.reshape(rows, n_blocks, width).transpose(1, 0, 2))


def _arrays(context, builder, signature, arguments, *places):
    """Where the memory of these arguments, arrays, begins."""
    return [context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in places]


def _vector(builder, kind, array, index):
    """Where a register's numbers lie in an array."""
    return builder.bitcast(builder.gep(array, [index]), kind.as_pointer())


def _by_width(builder, width, lanes, work: Callable[[int], None]):
    """`work` for as many registers as the width fills, which is known when it runs."""
    end = builder.append_basic_block()
    switch = builder.switch(width, end)
    for registers in range(1, MOST_REGISTERS + 1):
        case = builder.append_basic_block()
        switch.add_case(WORD(lanes * registers), case)
        builder.position_at_end(case)
        work(registers)
        builder.branch(end)
    builder.position_at_end(end)


def _sums(builder, kind, registers, start, stop, add):
    """Of k from `start` to `stop`, registers that begin with zeros: `add(k, sums)` gives the next ones."""
    before, head, body, after = (builder.block, *(builder.append_basic_block() for _ in range(3)))
    builder.branch(head)
    builder.position_at_end(head)
    k, *sums = (builder.phi(each) for each in (WORD, *[kind] * registers))
    k.add_incoming(start, before)
    for total in sums:
        total.add_incoming(ir.Constant(kind, None), before)
    builder.cbranch(builder.icmp_signed("<", k, stop), body, after)
    builder.position_at_end(body)
    for total, following in zip(sums, add(k, sums), strict=True):
        total.add_incoming(following, body)
    k.add_incoming(builder.add(k, WORD(1)), body)
    builder.branch(head)
    builder.position_at_end(after)
    return sums


@intrinsic
def _add_few(typing_context, weight, width, first, members, start, stop, totals, at):
    """Add `weight[first + width * m:][:width]` for each `m` of `members[start:stop]` to `totals[at:]`; all are flat."""

    def generate(context, builder, signature, arguments):
        _, width, first, _, start, stop, _, at = arguments
        weight, members, totals = _arrays(context, builder, signature, arguments, 0, 3, 6)

        def add(k, sums):
            member = builder.sext(builder.load(builder.gep(members, [k])), WORD)
            row = builder.add(first, builder.mul(member, width))
            for j, total in enumerate(sums):
                place = _vector(builder, OF_WEIGHTS, weight, builder.add(row, WORD(LANES * j)))
                yield builder.add(total, builder.sext(builder.load(place, align=1), OF_SUMS))

        def work(registers):
            for j, total in enumerate(_sums(builder, OF_SUMS, registers, start, stop, add)):
                place = _vector(builder, OF_TOTALS, totals, builder.add(at, WORD(LANES * j)))
                builder.store(builder.add(builder.load(place, align=4), builder.sext(total, OF_TOTALS)), place, align=4)

        _by_width(builder, width, LANES, work)
        return context.get_dummy_value()

    return types.void(weight, INT, INT, members, INT, INT, totals, INT), generate


@intrinsic
def mix_rows(typing_context, rows, first, apart, n, factors, at, width, out, to):
    """`out[to:][:width]`, the sum of `rows[first + k * apart:][:width]` times `factors[at + k]` for k below n.

    All are flat and float32; `width` is a multiple of `LANES_OF_FLOATS` up to `MOST_FLOATS`.
    """

    def generate(context, builder, signature, arguments):
        _, first, apart, n, _, at, width, _, to = arguments
        rows, factors, out = _arrays(context, builder, signature, arguments, 0, 4, 7)

        def add(k, sums):
            factor = builder.load(builder.gep(factors, [builder.add(at, k)]))
            one = builder.insert_element(ir.Constant(OF_FLOATS, ir.Undefined), factor, ir.IntType(32)(0))
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES_OF_FLOATS), None)
            times = builder.shuffle_vector(one, one, everywhere)
            row = builder.add(first, builder.mul(k, apart))
            for j, total in enumerate(sums):
                place = _vector(builder, OF_FLOATS, rows, builder.add(row, WORD(LANES_OF_FLOATS * j)))
                part = builder.fmul(builder.load(place, align=4), times, flags=["contract"])
                yield builder.fadd(total, part, flags=["contract"])

        def work(registers):
            for j, total in enumerate(_sums(builder, OF_FLOATS, registers, WORD(0), n, add)):
                place = _vector(builder, OF_FLOATS, out, builder.add(to, WORD(LANES_OF_FLOATS * j)))
                builder.store(total, place, align=4)

        _by_width(builder, width, LANES_OF_FLOATS, work)
        return context.get_dummy_value()

    return types.void(rows, INT, INT, INT, factors, INT, INT, out, INT), generate


@njit(nogil=True, cache=True, error_model="numpy")
def add_rows(weight, block, shift, members, start, stop, totals, at):
    """Add the rows `shift + m` for each `m` of `members[start:stop]` to `totals[at:]`, int32 and flat, see `SLACK`.

    Columns are those of a block of `weight`, see `in_blocks`.
    """
    rows, width = weight.shape[1:]
    while start < stop:
        end = min(stop, start + FLUSH)
        _add_few(weight, width, (block * rows + shift) * width, members, start, end, totals, at)
        start = end
