"""Matrices of floats turned round in registers, compiled by numba. Importing this imports numba."""

from math import prod

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from bootstrap_core.kernels.compiler import compiler
from bootstrap_core.kernels.registers import INT, WORD, arrays, vector
from bootstrap_core.kernels.teams import in_parts
from bootstrap_core.kernels.threads import split

__all__ = ["transpose", "turned"]

SIDE = 8
"""Of a square that registers turn round."""
OF_FLOATS = ir.VectorType(ir.FloatType(), SIDE)
ROWS = 8 * SIDE
"""Of a matrix that are turned at a time."""


@intrinsic
def _turn_square(typing_context, source, first, apart, out, to, out_apart):
    """A square of `SIDE` rows, which begin `apart`, from `source[first:]` to `out[to:]`; both are flat."""

    def generate(context, builder, signature, arguments):
        _, first, apart, _, to, out_apart = arguments
        source, out = arrays(context, builder, signature, arguments, 0, 3)

        def row(array, begin, distance, i):
            return vector(builder, OF_FLOATS, array, builder.add(begin, builder.mul(distance, WORD(i))))

        rows = [builder.load(row(source, first, apart, i), align=4) for i in range(SIDE)]
        for half in (1, 2, 4):
            rows = _turn_halves(builder, rows, half)
        for i in range(SIDE):
            builder.store(rows[i], row(out, to, out_apart, i), align=4)
        return context.get_dummy_value()

    return types.void(source, INT, INT, out, INT, INT), generate


def _turn_halves(builder, rows, half):
    """Of each square of 2 * `half` columns, the quarters right above and left below change places."""
    turned = list(rows)
    for i in range(SIDE):
        if not i & half:
            upper = [SIDE + k - half if k & half else k for k in range(SIDE)]
            lower = [SIDE + k if k & half else k + half for k in range(SIDE)]
            for j, places in ((i, upper), (i + half, lower)):
                mask = ir.Constant(ir.VectorType(ir.IntType(32), SIDE), places)
                turned[j] = builder.shuffle_vector(rows[i], rows[i + half], mask)
    return turned


@compiler()
def transpose(source, first, apart, rows, columns, out, to, out_apart):
    """`rows` by `columns` of a matrix whose rows begin `apart`, from `source[first:]`, to columns in `out[to:]`.

    There, rows begin `out_apart`. Both are flat, float32. A number that is written out is to be given as `np.int64`, or
    numba compiles all for that number.
    """
    whole_rows, whole_columns = rows - rows % SIDE, columns - columns % SIDE
    for i in range(0, whole_rows, SIDE):
        for j in range(0, whole_columns, SIDE):
            _turn_square(source, first + i * apart + j, apart, out, to + j * out_apart + i, out_apart)
    for i in range(rows):
        for j in range(whole_columns if i < whole_rows else 0, columns):
            out[to + j * out_apart + i] = source[first + i * apart + j]


@compiler()
def _turn(matrices, rows, columns, start, stop, out, team):
    """`out` `[B, C, R]` of `matrices` `[B, R, C]`, parts `start` to `stop`, of `ROWS` rows each; flat."""
    if in_parts(team):
        return
    parts = (rows + ROWS - 1) // ROWS
    for part in range(start, stop):
        matrix, first = part // parts, part % parts * ROWS
        at, to = (matrix * rows + first) * columns, matrix * rows * columns + first
        transpose(matrices, at, columns, min(ROWS, rows - first), columns, out, to, rows)


def turned(matrices: Tensor) -> Tensor:
    """`matrices.mT.contiguous()`, for `[R, C]` or `[B, R, C]`, as float32."""
    *many, rows, columns = matrices.shape
    given = matrices.detach().float().contiguous().view(-1).numpy()
    out = torch.empty(*many, columns, rows, dtype=torch.float32)
    n_parts = prod(many) * -(-rows // ROWS)
    split(_turn, n_parts, given, rows, columns, out.view(-1).numpy(), work=given.size)
    return out
