"""The arithmetic of a neuron's states, whole in int32 or in float64, of one number or of a register of them.

In LLVM's instructions, and as functions for compiled loops. Importing this imports numba.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bootstrap_core.fixed_point import DECAY_ONE
from bootstrap_core.kernels.registers import constant, element_of

__all__ = ["arrived", "leak", "left_of", "state_units"]

DOUBLE = ir.DoubleType()
SIGN, SHIFT, BELOW = 31, DECAY_ONE.bit_length() - 1, DECAY_ONE - 1


def left_of(builder, state, keep):
    """What is left of a state, toward zero: `state * keep`; if both are int32, `state * keep / 4096`, in 32 bits."""
    if element_of(state.type) == DOUBLE:
        return _truncated(builder, builder.fmul(state, keep))
    sign, shift, below = (constant(state.type, number) for number in (SIGN, SHIFT, BELOW))
    upward = builder.and_(builder.ashr(state, sign), below)  # for what is below zero
    rest = builder.add(builder.mul(builder.and_(state, below), keep), upward)
    return builder.add(builder.mul(builder.ashr(state, shift), keep), builder.ashr(rest, shift))


def state_units(builder, z, unit):
    """A weighted input in units of the state: in float64 `z * unit` toward zero, or in int32 `z << unit`."""
    number = element_of(z.type)
    if element_of(unit.type) == DOUBLE:
        widen = builder.sitofp if isinstance(number, ir.IntType) else builder.fpext
        return _truncated(builder, builder.fmul(z if number == DOUBLE else widen(z, unit.type), unit))
    return builder.shl(z if isinstance(number, ir.IntType) else builder.fptosi(z, unit.type), unit)


def _truncated(builder, x):
    lanes = f"v{x.type.count}" if isinstance(x.type, ir.VectorType) else ""
    kind = ir.FunctionType(x.type, [x.type])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.trunc.{lanes}f64"), [x])


@intrinsic
def leak(typing_context, state, keep):
    """`left_of` int32."""

    def generate(context, builder, signature, arguments):
        return left_of(builder, *arguments)

    return types.int32(types.int32, types.int32), generate


@intrinsic
def arrived(typing_context, z, unit):
    """`state_units` in int32."""

    def generate(context, builder, signature, arguments):
        return state_units(builder, *arguments)

    return types.int32(z, types.int32), generate
