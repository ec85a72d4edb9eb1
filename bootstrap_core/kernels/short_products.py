"""Products of gradients with int8 weights in 16 bits, summed in registers, for CPUs that add up pairs of them at once.

A row of gradients becomes whole numbers of 16 bits, the largest of them as large as these hold, or the sums of 32. An
instruction adds two of them times their weights to each lane, twice as many products as in float32; then only a row's
unit is missing. Importing this imports numba.
"""

import numpy as np
import numpy.typing as npt
from llvmlite import binding, ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_INT_MIN
from bootstrap_core.kernels.bits import CACHE, magnitude_bits, number_of
from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.registers import INT, WORD, arrays, everywhere, sums_of, vector
from bootstrap_core.kernels.teams import in_parts
from bootstrap_core.kernels.threads import split

__all__ = ["COLUMNS", "ROWS", "has_short_products", "in_pairs", "largest_of", "multiply"]

CPU = binding.get_host_cpu_features()
LANES, ROWS, REGISTERS = 8, 6, 2
"""Of a register; rows that are multiplied at a time, and registers of each, so that all are in use."""
COLUMNS = LANES * REGISTERS
INSTRUCTION = "llvm.x86.avx2.pmadd.wd"
OF_SHORTS, OF_SUMS, OF_FLOATS = (
    ir.VectorType(kind, n)
    for kind, n in ((ir.IntType(16), 2 * LANES), (ir.IntType(32), LANES), (ir.FloatType(), LANES))
)
SHORT, LOWER = np.int32(16), np.int32(0xFFFF)
LARGEST_SHORT, LARGEST_SUM = (1 << 15) - 1, (1 << 31) - 1
NOT_FINITE = np.int32(0x7F800000)
"""The bits from which on a number is infinite or none."""
f32 = np.float32
_compiled = compiler()


def has_short_products() -> bool:
    """Whether this CPU has the instruction."""
    return bool(CPU.get("avx2"))


def in_pairs(weight: Tensor) -> npt.NDArray[np.int32]:
    """The weight `[O, I]`, int8, of `COLUMNS` or more, as blocks `[B, pairs, COLUMNS]`, see `_take_pairs`."""
    outputs, inputs = weight.shape
    blocks = np.empty((-(-inputs // COLUMNS), -(-outputs // 2), COLUMNS), np.int32)
    split(_take_pairs, len(blocks), weight.contiguous().numpy(), blocks, work=weight.numel())
    return blocks


def largest_of(weight: Tensor) -> int:
    """What numbers may be at most, so that no sum leaves 32 bits, of products with the weight `[O, I]`, int8."""
    reach = -WEIGHT_INT_MIN * len(weight)
    if reach * LARGEST_SHORT > LARGEST_SUM:
        reach = max(1, int(weight.int().abs().sum(0).max()))
    return min(LARGEST_SHORT, LARGEST_SUM // reach)


@_compiled
def _take_pairs(weight, start, stop, blocks, team):
    """Blocks `start` to `stop`: a number has two rows of the weight, the second in its upper half.

    The last block has the last columns, of which that before it may have some too.
    """
    if in_parts(team):
        return
    outputs, inputs = weight.shape
    for block in range(start, stop):
        first = min(block * COLUMNS, inputs - COLUMNS)
        for o in range(0, outputs, 2):
            lower, pairs = weight[o, first : first + COLUMNS], blocks[block, o // 2]
            for j in range(COLUMNS):
                pairs[j] = np.int32(lower[j]) & LOWER
            if o + 1 < outputs:
                upper = weight[o + 1, first : first + COLUMNS]
                for j in range(COLUMNS):
                    pairs[j] |= np.int32(upper[j]) << SHORT


@intrinsic
def _multiply_few(typing_context, rows, first, units, m, weight, block, pairs, out, to, apart):
    """`out[to + r * apart:][:COLUMNS]`, for `ROWS` rows r, is what a block of the weight makes of one of `rows`.

    That has `pairs` numbers, from `first + r * pairs` on, of `units[m + r]`. All are flat.
    """

    def generate(context, builder, signature, arguments):
        _, first, _, m, _, block, pairs, _, to, apart = arguments
        rows, units, weight, out = arrays(context, builder, signature, arguments, 0, 2, 4, 7)
        of_two = ir.FunctionType(OF_SUMS, [OF_SHORTS, OF_SHORTS])
        multiply_pairs = get_or_insert_function(builder.module, of_two, INSTRUCTION)
        read = [builder.gep(rows, [builder.add(first, builder.mul(pairs, WORD(r)))]) for r in range(ROWS)]
        columns = builder.gep(weight, [builder.mul(builder.mul(block, pairs), WORD(COLUMNS))])

        def add(k, sums):
            at = builder.mul(k, WORD(COLUMNS))
            places = [builder.add(at, WORD(j)) for j in range(0, COLUMNS, LANES)]
            factors = [builder.load(vector(builder, OF_SHORTS, columns, place), align=4) for place in places]
            for r, row in enumerate(read):
                pair = builder.bitcast(everywhere(builder, builder.load(builder.gep(row, [k])), LANES), OF_SHORTS)
                for total, factor in zip(sums[r * REGISTERS :], factors, strict=False):
                    yield builder.add(total, builder.call(multiply_pairs, [pair, factor]))

        for i, total in enumerate(sums_of(builder, OF_SUMS, ROWS * REGISTERS, WORD(0), pairs, add)):
            r, j = divmod(i, REGISTERS)
            unit = everywhere(builder, builder.load(builder.gep(units, [builder.add(m, WORD(r))])), LANES)
            place = builder.add(to, builder.add(builder.mul(apart, WORD(r)), WORD(j * LANES)))
            numbers = builder.fmul(builder.sitofp(total, OF_FLOATS), unit)
            builder.store(numbers, vector(builder, OF_FLOATS, out, place), align=4)
        return context.get_dummy_value()

    return types.void(rows, INT, units, INT, weight, INT, INT, out, INT, INT), generate


@_compiled
def _round(row, largest, out):
    """`row` in whole numbers, at most the `largest`; and of what. Not a number, of all, where one is not finite."""
    bits = np.int32(0)
    for j in range(len(row)):
        bits = max(bits, magnitude_bits(row[j]))
    unit = number_of(bits) / f32(largest)
    steps = f32(1.0) / unit
    if bits >= NOT_FINITE or magnitude_bits(steps) >= NOT_FINITE:
        out[:] = 0
        return f32(np.nan) if bits >= NOT_FINITE else f32(0.0)
    for j in range(len(row)):
        out[j] = np.int16(np.rint(row[j] * steps))
    return unit


@_compiled
def multiply(grad, weight, largest, step, start, stop, out, team):
    """`out` `[R, I]`, rows `start` to `stop`: `grad` `[R, O]`, float32, times the weight, of which 1 is a `step`.

    Args:
        weight, largest: see `in_pairs` and `largest_of`.
        start, stop: `ROWS` apart or more.
    """
    if in_parts(team):
        return
    (blocks, pairs, _), outputs, inputs = weight.shape, grad.shape[1], out.shape[1]
    at_once = max(2, CACHE // (4 * pairs * ROWS)) * ROWS
    shorts, units = np.zeros((at_once, 2 * pairs), np.int16), np.empty(at_once, f32)
    rows, flat_weight, flat_out = shorts.reshape(-1).view(np.int32), weight.reshape(-1), out.reshape(-1)
    n_parts = (stop - start + at_once - 1) // at_once
    for part in range(n_parts):
        first = start + (stop - start) * part // n_parts
        n = start + (stop - start) * (part + 1) // n_parts - first  # not below ROWS, as the parts are alike
        for m in range(n):
            units[m] = _round(grad[first + m], largest, shorts[m, :outputs]) * step
        for block in range(blocks):
            column = min(block * COLUMNS, inputs - COLUMNS)
            for some in range(0, n, ROWS):
                m = min(some, n - ROWS)
                at, to = m * pairs, (first + m) * inputs + column
                _multiply_few(rows, at, units, m, flat_weight, block, pairs, flat_out, to, inputs)
