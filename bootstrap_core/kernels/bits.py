"""What compiled loops ask of the machine: numbers by their bits, memory ahead of time. Importing this imports numba."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bootstrap_core.kernels.registers import as_many, constant

__all__ = [
    "CACHE",
    "lowest_bit",
    "magnitude_bits",
    "n_bits",
    "narrow",
    "narrowed",
    "number_of",
    "prefetch",
    "wait_for_streams",
    "widen",
    "widened",
]

INT, FLOAT = ir.IntType(32), ir.FloatType()
HALF_BITS = 16

CACHE = 1 << 17
"""Bytes that stay in the second-level cache beside others."""


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


def widen(builder, numbers):
    """float32 of float32, or of bfloat16, which is the upper half of one, as uint16; one number, or a register's."""
    if numbers.type in (FLOAT, as_many(numbers.type, FLOAT)):
        return numbers
    bits = as_many(numbers.type, INT)
    upper = builder.shl(builder.zext(numbers, bits), constant(bits, HALF_BITS))
    return builder.bitcast(upper, as_many(bits, FLOAT))


def narrow(builder, numbers, element):
    """float32 as float32, or as bfloat16 in 16 bits, to nearest, half to even; one number, or a register's."""
    if element == FLOAT:
        return numbers
    kind = as_many(numbers.type, INT)
    bits, half = builder.bitcast(numbers, kind), constant(kind, HALF_BITS)
    odd = builder.and_(builder.lshr(bits, half), constant(kind, 1))
    rounded = builder.add(builder.add(bits, constant(kind, 0x7FFF)), odd)
    return builder.trunc(builder.lshr(rounded, half), as_many(kind, element))


@intrinsic
def widened(typing_context, number):
    """See `widen`."""

    def generate(context, builder, signature, arguments):
        return widen(builder, arguments[0])

    return types.float32(number), generate


@intrinsic
def narrowed(typing_context, number, array):
    """A float32 in the type of the elements of `array`, see `narrow`."""

    def generate(context, builder, signature, arguments):
        return narrow(builder, arguments[0], context.get_value_type(array.dtype))

    return array.dtype(types.float32, array), generate


@intrinsic
def magnitude_bits(typing_context, number):
    """The bits of a float32 without its sign, int32: larger for larger ones, infinity, and what is no number."""

    def generate(context, builder, signature, arguments):
        return builder.and_(builder.bitcast(arguments[0], INT), INT(0x7FFFFFFF))

    return types.int32(types.float32), generate


@intrinsic
def number_of(typing_context, bits):
    """The float32 that has these bits, int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], FLOAT)

    return types.float32(types.int32), generate


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


@intrinsic
def wait_for_streams(typing_context):
    """Until all threads see what was written past the cache."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate
