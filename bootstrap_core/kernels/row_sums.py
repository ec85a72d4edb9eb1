"""Sums of some rows of a matrix of int8, held in registers while they grow, compiled by numba.

A matrix lies in blocks of columns, each of which fills the registers; in the last one zeros stand behind its columns.
Importing this imports numba.
"""

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["SLACK", "add_rows", "in_blocks"]

LANES = 16
"""Columns that one register holds the sums of, as int16."""
MOST_REGISTERS = 8
SLACK = LANES * MOST_REGISTERS
"""Numbers that have to lie behind an array of sums: zeros are added to them."""
FLUSH = 255
"""Rows of int8 that int16 holds the sum of, whatever they are."""

WORD = ir.IntType(64)
OF_WEIGHTS, OF_SUMS, OF_TOTALS = (ir.VectorType(ir.IntType(bits), LANES) for bits in (8, 16, 32))


def in_blocks(matrix: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """The matrix `[rows, columns]` as blocks `[B, rows, width]`."""
    rows, columns = matrix.shape
    registers = -(-columns // LANES)
    n_blocks = -(-registers // MOST_REGISTERS)
    width = LANES * -(-registers // n_blocks)
    padded = np.zeros((rows, n_blocks * width), np.int8)
    padded[:, :columns] = matrix
    return np.ascontiguousarray(padded.reshape(rows, n_blocks, width).transpose(1, 0, 2))


@intrinsic
def _add_few(typing_context, weight, width, first, members, start, stop, totals, at):
    """Add `weight[first + width * m:][:width]` for each `m` of `members[start:stop]` to `totals[at:]`; all are flat."""

    def generate(context, builder, signature, arguments):
        weight, width, first, members, start, stop, totals, at = arguments
        weight, members, totals = (
            context.make_array(signature.args[i])(context, builder, array).data
            for i, array in ((0, weight), (3, members), (6, totals))
        )

        def vector(kind, array, index):
            return builder.bitcast(builder.gep(array, [index]), kind.as_pointer())

        def add(registers):
            """The loop for rows of so many registers."""
            before, head, body, after = (builder.block, *(builder.append_basic_block() for _ in range(3)))
            builder.branch(head)
            builder.position_at_end(head)
            k, *sums = (builder.phi(kind) for kind in (WORD, *[OF_SUMS] * registers))
            k.add_incoming(start, before)
            for total in sums:
                total.add_incoming(ir.Constant(OF_SUMS, [0] * LANES), before)
            builder.cbranch(builder.icmp_signed("<", k, stop), body, after)

            builder.position_at_end(body)
            member = builder.sext(builder.load(builder.gep(members, [k])), WORD)
            row = builder.add(first, builder.mul(member, width))
            for j, total in enumerate(sums):
                part = builder.load(vector(OF_WEIGHTS, weight, builder.add(row, WORD(LANES * j))), align=1)
                total.add_incoming(builder.add(total, builder.sext(part, OF_SUMS)), body)
            k.add_incoming(builder.add(k, WORD(1)), body)
            builder.branch(head)

            builder.position_at_end(after)
            for j, total in enumerate(sums):
                place = vector(OF_TOTALS, totals, builder.add(at, WORD(LANES * j)))
                builder.store(builder.add(builder.load(place, align=4), builder.sext(total, OF_TOTALS)), place, align=4)

        end = builder.append_basic_block()
        switch = builder.switch(width, end)
        for registers in range(1, MOST_REGISTERS + 1):
            case = builder.append_basic_block()
            switch.add_case(WORD(LANES * registers), case)
            builder.position_at_end(case)
            add(registers)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(weight, WORD_TYPE, WORD_TYPE, members, WORD_TYPE, WORD_TYPE, totals, WORD_TYPE), generate


WORD_TYPE = types.int64


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
