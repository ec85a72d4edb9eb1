"""What compiled loops ask of the machine: numbers by their bits, memory ahead of time. Importing this imports numba."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["CACHE", "CACHE_LINE", "as_float", "lowest_bit", "n_bits", "narrowed", "prefetch", "shifted", "widened"]

INT = ir.IntType(32)

CACHE, CACHE_LINE = 1 << 17, 64
"""Bytes that stay in the second-level cache beside others, and of one line."""


@intrinsic
def lowest_bit(typing_context, word):
    """Index of the lowest bit that is set."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint32(types.uint32), generate


@intrinsic
def n_bits(typing_context, word):
    """Number of bits that are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint32(types.uint32), generate


@intrinsic
def as_float(typing_context, bits):
    """The float32 with these 32 bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def shifted(typing_context, number, places):
    """An int32 times a power of two, in 32 bits; `<<` would widen both."""

    def generate(context, builder, signature, arguments):
        return builder.shl(*arguments)

    return types.int32(types.int32, types.int32), generate


@intrinsic
def widened(typing_context, number):
    """float32 of a float32, or of a bfloat16, which is the upper half of one, as uint16."""

    def widen(context, builder, signature, arguments):
        return builder.bitcast(builder.shl(builder.zext(arguments[0], INT), INT(16)), ir.FloatType())

    def keep(context, builder, signature, arguments):
        return arguments[0]

    return types.float32(number), widen if number == types.uint16 else keep


@intrinsic
def narrowed(typing_context, number, array):
    """A float32 in the type of the elements of `array`: float32, or bfloat16 as uint16, to nearest, half to even."""

    def narrow(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], INT)
        odd = builder.and_(builder.lshr(bits, INT(16)), INT(1))
        rounded = builder.add(builder.add(bits, INT(0x7FFF)), odd)
        return builder.trunc(builder.lshr(rounded, INT(16)), ir.IntType(16))

    def keep(context, builder, signature, arguments):
        return arguments[0]

    return array.dtype(types.float32, array), narrow if array.dtype == types.uint16 else keep


@intrinsic
def prefetch(typing_context, array, index):
    """Fetch the cache line of `array[index]`, of a flat contiguous array, while others are worked on."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), INT, INT, INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [place, INT(0), INT(3), INT(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate
