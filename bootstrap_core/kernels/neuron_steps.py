"""One step of some neurons at once, forward and back, in LLVM's instructions: what `neuron_loops` is made of.

Arrays are flat, and read and written `LANES` numbers at a time. States are int32 or float64, see `state_arithmetic`.
Importing this imports numba.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bootstrap_core.fixed_point import STATE
from bootstrap_core.kernels.bits import narrow, widen
from bootstrap_core.kernels.registers import INT, constant, everywhere, vector
from bootstrap_core.kernels.state_arithmetic import left_of, state_units

__all__ = ["LANES", "advance", "advance_anew", "fire", "in_units", "reset", "slopes", "step_back", "step_back_anew"]

LANES = 16
"""A line of the cache, in float32."""

FLOATS, INTS = (ir.VectorType(kind, LANES) for kind in (ir.FloatType(), ir.IntType(32)))
LOWEST_EXPONENT, TO_WHOLE, MANTISSA_BITS = -125.0, 1.5 * 2**23, 23
"""The lowest x of 2**x; what float32 adds to x to round it; and where the exponent begins."""
EXP2 = (1.00000008, 0.69314721, 0.24022107, 0.05550327, 0.00967604, 0.00134004)
"""Factors of the powers of x in 2**x, fitted in Chebyshev points of [-0.5, 0.5]."""


class _Lanes:
    """The arguments of an operation, whose arrays are read and written in registers."""

    def __init__(self, context, builder, signature, arguments):
        self.context, self.builder, self.types, self.arguments = context, builder, signature.args, arguments

    def _place(self, i, at):
        """In the i-th argument, an array."""
        number = self.context.get_value_type(self.types[i].dtype)
        array = self.context.make_array(self.types[i])(self.context, self.builder, self.arguments[i]).data
        return vector(self.builder, ir.VectorType(number, LANES), array, at)

    def load(self, i, at):
        """From the i-th argument."""
        return self.builder.load(self._place(i, at), align=self.types[i].dtype.bitwidth // 8)

    def store(self, values, i, at):
        """To the i-th argument."""
        self.builder.store(values, self._place(i, at), align=self.types[i].dtype.bitwidth // 8)

    def everywhere(self, i):
        """The i-th argument, a number, in each lane."""
        return everywhere(self.builder, self.arguments[i], LANES)

    def done(self):
        """The result of an operation that has none."""
        return self.context.get_dummy_value()


class _Whole:
    """Sums of states in int32, and which are above others."""

    add, sub, is_above = ir.IRBuilder.add, ir.IRBuilder.sub, ir.IRBuilder.icmp_signed


class _Double:
    """The same in float64."""

    add, sub, is_above = ir.IRBuilder.fadd, ir.IRBuilder.fsub, ir.IRBuilder.fcmp_ordered


def _arithmetic(states):
    return _Whole if states.type.element == INTS.element else _Double


def _advance(keeps):
    """The intrinsic below, of neurons that keep some of their current, or none."""

    @intrinsic
    def advance(typing_context, z, at, unit, keep_u, keep_v, offset, u, v, j):
        """Current and voltage, from j on, before any spike; `z` from `at` on arrives."""

        def generate(context, builder, signature, arguments):
            lanes = _Lanes(context, builder, signature, arguments)
            _, at, _, _, _, _, _, _, j = arguments
            current = state_units(builder, lanes.load(0, at), lanes.everywhere(2))
            add = _arithmetic(current).add
            if keeps:
                current = add(builder, left_of(builder, lanes.load(6, j), lanes.load(3, j)), current)
            kept = left_of(builder, lanes.load(7, j), lanes.load(4, j))
            voltage = add(builder, add(builder, kept, current), lanes.load(5, j))
            lanes.store(current, 6, j)
            lanes.store(voltage, 7, j)
            return lanes.done()

        return types.void(z, INT, unit, keep_u, keep_v, offset, u, v, INT), generate

    return advance


advance, advance_anew = _advance(True), _advance(False)
"""The second is of neurons that keep no current."""


def _spike(builder, voltage, limit, subtract):
    """Which voltages are above the limit, and what is left of all."""
    arithmetic = _arithmetic(voltage)
    fired = arithmetic.is_above(builder, ">", voltage, limit)
    left = builder.select(subtract, arithmetic.sub(builder, voltage, limit), constant(voltage.type, 0))
    return fired, builder.select(fired, left, voltage)


@intrinsic
def reset(typing_context, v, j, limit, subtract):
    """Voltages above the limit lose it, or all."""

    def generate(context, builder, signature, arguments):
        lanes, (_, j, _, subtract) = _Lanes(context, builder, signature, arguments), arguments
        _, left = _spike(builder, lanes.load(0, j), lanes.everywhere(2), subtract)
        lanes.store(left, 0, j)
        return lanes.done()

    return types.void(v, INT, limit, types.boolean), generate


@intrinsic
def fire(typing_context, v, j, limit, subtract, spikes, at):
    """`reset`; writes 1 for those above the limit, int8 or float32, and 0 for others."""

    def generate(context, builder, signature, arguments):
        lanes, (_, j, _, subtract, _, at) = _Lanes(context, builder, signature, arguments), arguments
        fired, left = _spike(builder, lanes.load(0, j), lanes.everywhere(2), subtract)
        one = ir.VectorType(context.get_value_type(spikes.dtype), LANES)
        lanes.store((builder.uitofp if one == FLOATS else builder.zext)(fired, one), 4, at)
        lanes.store(left, 0, j)
        return lanes.done()

    return types.void(v, INT, limit, types.boolean, spikes, INT), generate


def _units(builder, state):
    """A state in float units."""
    state = builder.sitofp(state, FLOATS) if state.type == INTS else builder.fptrunc(state, FLOATS)
    return builder.fmul(state, constant(FLOATS, 1 / STATE))


@intrinsic
def in_units(typing_context, state, j, out, at):
    """States in float units, to `out` from `at` on."""

    def generate(context, builder, signature, arguments):
        lanes, (_, j, _, at) = _Lanes(context, builder, signature, arguments), arguments
        lanes.store(_units(builder, lanes.load(0, j)), 2, at)
        return lanes.done()

    return types.void(state, INT, out, INT), generate


def _exp2(builder, x):
    """2**x for x <= 0, to 2e-7 and what float32 rounds off x."""
    lowest, shift = (constant(FLOATS, number) for number in (LOWEST_EXPONENT, TO_WHOLE))
    x = builder.select(builder.fcmp_ordered(">", x, lowest), x, lowest)
    whole = builder.fadd(x, shift)  # rounded to the nearest, which is in its lowest bits
    rest = builder.fsub(x, builder.fsub(whole, shift))
    power = constant(FLOATS, EXP2[-1])
    for factor in EXP2[-2::-1]:
        power = _fused(builder, power, rest, constant(FLOATS, factor))
    exponent = builder.shl(builder.bitcast(whole, INTS), constant(INTS, MANTISSA_BITS))
    return builder.bitcast(builder.add(builder.bitcast(power, INTS), exponent), FLOATS)


def _fused(builder, a, b, c):
    """`a * b + c`, rounded once where the machine has an instruction for it."""
    return builder.fadd(builder.fmul(a, b, flags=["contract"]), c, flags=["contract"])


@intrinsic
def slopes(typing_context, v, j, center, rate, height, out, at):
    """Surrogate gradient at the voltages from j on, `height * 2 ** (rate * |v - center|)` in float units, to `out`."""

    def generate(context, builder, signature, arguments):
        lanes, (_, j, _, _, _, _, at) = _Lanes(context, builder, signature, arguments), arguments
        apart = builder.fsub(_units(builder, lanes.load(0, j)), lanes.everywhere(2))
        size = builder.bitcast(builder.and_(builder.bitcast(apart, INTS), constant(INTS, 0x7FFFFFFF)), FLOATS)
        slope = _exp2(builder, builder.fmul(size, lanes.everywhere(3)))
        lanes.store(builder.fmul(slope, lanes.everywhere(4)), 5, at)
        return lanes.done()

    return types.void(v, INT, types.float32, types.float32, types.float32, out, INT), generate


def _step_back(keeps):
    """As `_advance`."""

    @intrinsic
    def step_back(typing_context, grad, at, slope, at_slope, keep_u, keep_v, gu, gv, j, out, to):
        """Through the spike and the leaks, with the gradients of both states; writes that of the weighted input."""

        def generate(context, builder, signature, arguments):
            lanes = _Lanes(context, builder, signature, arguments)
            _, at, _, at_slope, _, _, _, _, j, _, to = arguments
            spiked = builder.fmul(lanes.load(2, at_slope), widen(builder, lanes.load(0, at)))
            of_voltage = builder.fadd(spiked, builder.fmul(lanes.load(5, j), lanes.load(7, j)))
            of_current = of_voltage
            if keeps:
                of_current = builder.fadd(of_voltage, builder.fmul(lanes.load(4, j), lanes.load(6, j)))
                lanes.store(of_current, 6, j)
            lanes.store(of_voltage, 7, j)
            lanes.store(narrow(builder, of_current, context.get_value_type(out.dtype)), 9, to)
            return lanes.done()

        return types.void(grad, INT, slope, INT, keep_u, keep_v, gu, gv, INT, out, INT), generate

    return step_back


step_back, step_back_anew = _step_back(True), _step_back(False)
"""The second is of neurons that keep no current."""
