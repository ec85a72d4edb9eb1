"""Neurons whose states stay in registers for all steps of a train, in integers, compiled by numba.

The arithmetic is that of `state_arithmetic`. Importing this imports numba.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bootstrap_core.fixed_point import STATE_MAX, STATE_MIN
from bootstrap_core.kernels.registers import INT, WORD, arrays, carried, constant, everywhere, vector
from bootstrap_core.kernels.state_arithmetic import left_of, state_units

__all__ = ["FORGETTING", "HOLDING", "KEEPING", "LANES", "run_few"]

LANES = 16
HOLDING, FORGETTING, KEEPING = range(3)
"""Neurons that keep no current, those whose voltage does not leak first; and those that keep both."""

NUMBER = ir.IntType(32)
OF_INTS, OF_FLOATS = (ir.VectorType(kind, LANES) for kind in (NUMBER, ir.FloatType()))
ZERO = constant(OF_INTS, 0)


@intrinsic
def run_few(
    typing_context, kind, c, z, at, apart, unit, bias, keep_u, keep_v, limit, subtract, steps, first, u, v, trains
):  # fmt: skip
    """Run `LANES` neurons from c on for `steps`; their trains. Returns whether a state left 24 bits.

    `kind` is one of the three. The weighted input of step t, int32 or float32, is `z << unit` from `at + t * apart` on;
    `u` and `v`, from `first` on, are moved on, and where a spike leaves something of a voltage, `subtract` is -1,
    else 0.
    """

    def generate(context, builder, signature, arguments):
        kind, c, _, at, apart, unit, _, _, _, limit, subtract, steps, first, _, _, _ = arguments
        z, bias, keep_u, keep_v, u, v, trains = arrays(context, builder, signature, arguments, 2, 6, 7, 8, 13, 14, 15)
        outside = cgutils.alloca_once(builder, ir.IntType(LANES))
        unit, limit, subtract = (everywhere(builder, number, LANES) for number in (unit, limit, subtract))
        of_z = OF_FLOATS if signature.args[2].dtype == types.float32 else OF_INTS

        def load(array, index):
            return builder.load(vector(builder, OF_INTS, array, index), align=4)

        def store(value, array):
            builder.store(value, vector(builder, OF_INTS, array, first), align=4)

        def run(leaks, keeps):
            offset, keep_voltage = load(bias, c), load(keep_v, c)
            keep_current = load(keep_u, c) if keeps else None

            def step(t, states):
                voltage, train, left, *current = states
                place = vector(builder, of_z, z, builder.add(at, builder.mul(t, apart)))
                arriving = builder.load(place, align=4)
                x = state_units(builder, arriving, unit)
                for before in current:
                    x = builder.add(left_of(builder, before, keep_current), x)
                kept = left_of(builder, voltage, keep_voltage) if leaks else voltage
                y = builder.add(builder.add(kept, x), offset)
                for state in (x, y):
                    left = builder.or_(left, builder.add(state, constant(OF_INTS, STATE_MAX + 1)))
                fired = builder.icmp_signed(">", y, limit)
                yield builder.select(fired, builder.and_(builder.sub(y, limit), subtract), y)
                flag = everywhere(builder, builder.shl(NUMBER(1), builder.trunc(t, NUMBER)), LANES)
                yield builder.or_(train, builder.select(fired, flag, ZERO))
                yield left
                yield from [x] * keeps

            initial = [load(v, first), ZERO, ZERO, *[load(u, first) for _ in range(keeps)]]
            voltage, train, left, *current = carried(builder, initial, WORD(0), steps, step)
            store(voltage, v)
            store(train, trains)
            for state in current:
                store(state, u)
            above = builder.icmp_signed("!=", builder.and_(left, constant(OF_INTS, 2 * STATE_MIN)), ZERO)
            builder.store(builder.bitcast(above, ir.IntType(LANES)), outside)

        end, holding, forgetting, keeping = (builder.append_basic_block() for _ in range(4))
        switch = builder.switch(kind, keeping)
        switch.add_case(WORD(HOLDING), holding)
        switch.add_case(WORD(FORGETTING), forgetting)
        for block, leaks, keeps in ((holding, False, False), (forgetting, True, False), (keeping, True, True)):
            builder.position_at_end(block)
            run(leaks, keeps)
            builder.branch(end)
        builder.position_at_end(end)
        return builder.icmp_unsigned("!=", builder.load(outside), ir.IntType(LANES)(0))

    numbers = types.int32
    return types.boolean(
        INT, INT, z, INT, INT, numbers, bias, keep_u, keep_v, numbers, numbers, INT, INT, u, v, trains
    ), generate
