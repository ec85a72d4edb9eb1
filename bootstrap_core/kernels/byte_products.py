"""Products of spikes with int8 weights, summed in registers, for CPUs that add up four products of bytes at once.

A register holds the sums of 16 outputs, or 8. To each lane an instruction adds four inputs times their weights, so
weights lie four inputs by four; some rows of spikes are multiplied at a time, and share the weights that are loaded.
What a row reads lies anywhere in memory, four bytes here and four there: convolutions are products too, with nothing
copied. Importing this imports numba.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from llvmlite import binding, ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from torch import Tensor

from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.registers import INT, WORD, add_to, arrays, by_width, everywhere, sums_of, vector

__all__ = ["BYTES", "ROWS", "add_products", "has_byte_products", "in_fours"]

CPU = binding.get_host_cpu_features()
IS_WIDE = bool(CPU.get("avx512vnni"))
LANES, ROWS = (16, 8) if IS_WIDE else (8, 4)
"""Of a register; and of spikes that are multiplied at a time, so that all registers are in use."""
MOST_REGISTERS = 3
"""Of one row."""
BYTES = 4
"""Inputs of one lane."""

OF_SUMS, FOUR = ir.VectorType(ir.IntType(32), LANES), ir.IntType(8 * BYTES)
INSTRUCTION = f"llvm.x86.avx512.vpdpbusd.{8 * BYTES * LANES}"


def has_byte_products() -> bool:
    """Whether this CPU has the instruction."""
    return IS_WIDE or bool(CPU.get("avxvnni"))


def in_fours(matrix: Tensor) -> npt.NDArray[np.int8]:
    """The matrix `[outputs, inputs]`, int8, as blocks `[B, inputs / 4, width * 4]`, zeros behind outputs and inputs."""
    outputs, inputs = matrix.shape
    registers = -(-outputs // LANES)
    n_blocks = -(-registers // MOST_REGISTERS)
    width = LANES * -(-registers // n_blocks)
    padded = F.pad(matrix, (0, -inputs % BYTES, 0, n_blocks * width - outputs))
    fours = padded.reshape(n_blocks, width, -1, BYTES).transpose(1, 2)
    aligned = torch.empty(fours.shape, dtype=torch.int8).copy_(fours)  # to cache lines, as numpy's arrays are not
    return aligned.flatten(2).numpy()


@intrinsic
def _add_few(typing_context, spikes, first, rows, m, taps, weight, block, width, totals, places, at):
    """`add_products` for the rows `m` to `m + ROWS` and one block of weights."""

    def generate(context, builder, signature, arguments):
        _, first, _, m, _, _, block, width, _, _, at = arguments
        spikes, rows, taps, weight, totals, places = arrays(context, builder, signature, arguments, 0, 2, 4, 5, 8, 9)
        n_taps = context.make_array(signature.args[4])(context, builder, arguments[4]).nitems

        of_three = ir.FunctionType(OF_SUMS, [OF_SUMS] * 3)
        multiply_add = get_or_insert_function(builder.module, of_three, INSTRUCTION)

        def entry(array, r):
            return builder.load(builder.gep(array, [builder.add(m, WORD(r))]))

        read = [builder.gep(spikes, [builder.add(first, entry(rows, r))]) for r in range(ROWS)]
        fours = builder.gep(weight, [builder.mul(builder.mul(block, n_taps), builder.mul(width, WORD(BYTES)))])

        def work(registers):
            def add(k, sums):
                tap = builder.load(builder.gep(taps, [k]))
                row = builder.mul(k, WORD(BYTES * LANES * registers))
                factors = [
                    builder.load(vector(builder, OF_SUMS, fours, builder.add(row, WORD(BYTES * LANES * j))), align=1)
                    for j in range(registers)
                ]
                for r, place in enumerate(read):
                    four = builder.load(builder.bitcast(builder.gep(place, [tap]), FOUR.as_pointer()), align=1)
                    inputs = everywhere(builder, four, LANES)
                    for total, factor in zip(sums[r * registers :], factors, strict=False):
                        yield builder.call(multiply_add, [total, inputs, factor])

            for i, total in enumerate(sums_of(builder, OF_SUMS, ROWS * registers, WORD(0), n_taps, add)):
                r, j = divmod(i, registers)
                to = builder.add(entry(places, r), builder.add(at, WORD(LANES * j)))
                add_to(builder, totals, to, total)

        by_width(builder, width, LANES, LANES * MOST_REGISTERS, work)
        return context.get_dummy_value()

    return types.void(spikes, INT, rows, INT, taps, weight, INT, INT, totals, places, INT), generate


@compiler()
def add_products(spikes, first, rows, taps, weight, totals, places):
    """Add to `totals[places[m]:]`, int32 and flat, what row m weighs, and zeros up to the whole width of all blocks.

    Row m reads four spikes, uint8 and flat, from `first + rows[m] + tap` on for each of the `taps`; `weight` is that of
    `in_fours`. There must be a multiple of `ROWS` of rows.
    """
    n_blocks, _, width = weight.shape
    width //= BYTES
    for block in range(n_blocks):
        for m in range(0, len(rows), ROWS):
            _add_few(spikes, first, rows, m, taps, weight, block, width, totals, places, block * width)
