"""What functions that hold sums in registers are made of, in LLVM's instructions.

Importing this imports numba's compiler.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types

__all__ = [
    "INT",
    "WORD",
    "add_to",
    "arrays",
    "as_many",
    "by_width",
    "carried",
    "constant",
    "element_of",
    "everywhere",
    "store_past_cache",
    "sums_of",
    "vector",
]

WORD, INT = ir.IntType(64), types.int64
"""An index, for LLVM and for numba."""


def arrays(context, builder, signature, arguments, *places):
    """Where the memory of these arguments, arrays, begins."""
    return [context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in places]


def vector(builder, kind, array, index):
    """Where a register's numbers lie in an array."""
    return builder.bitcast(builder.gep(array, [index]), kind.as_pointer())


def element_of(kind):
    """The type of one number, of which `kind` may be a register."""
    return kind.element if isinstance(kind, ir.VectorType) else kind


def as_many(kind, element):
    """The type of as many numbers as `kind` has."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def constant(kind, number):
    """A number of this type, or of a register's in each lane."""
    return kind([number] * kind.count) if isinstance(kind, ir.VectorType) else kind(number)


def store_past_cache(builder, numbers, place):
    """Write a register where a line of the cache begins, or its half, and do not keep it there."""
    store = builder.store(numbers, place, align=numbers.type.count * 4)
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))


def add_to(builder, totals, at, added):
    """Add what a register holds to an array, from index `at` on."""
    place = vector(builder, added.type, totals, at)
    builder.store(builder.add(builder.load(place, align=4), added), place, align=4)


def everywhere(builder, number, lanes):
    """A register that has the number in each lane."""
    one = builder.insert_element(
        ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined), number, ir.IntType(32)(0)
    )
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))


def by_width(builder, width, lanes, most, work: Callable[[int], None]):
    """`work(n)` for as many `lanes` as the width has, up to `most` columns, which is known when it runs."""
    end = builder.append_basic_block()
    switch = builder.switch(width, end)
    for n in range(1, most // lanes + 1):
        case = builder.append_basic_block()
        switch.add_case(WORD(lanes * n), case)
        builder.position_at_end(case)
        work(n)
        builder.branch(end)
    builder.position_at_end(end)


def carried(builder, initial, start, stop, step):
    """What is left of the `initial` registers after k from `start` to `stop`: `step(k, them)` gives the next ones."""
    before, head, body, after = (builder.block, *(builder.append_basic_block() for _ in range(3)))
    builder.branch(head)
    builder.position_at_end(head)
    k, *held = (builder.phi(each.type) for each in (start, *initial))
    for register, first in zip((k, *held), (start, *initial), strict=True):
        register.add_incoming(first, before)
    builder.cbranch(builder.icmp_signed("<", k, stop), body, after)
    builder.position_at_end(body)
    for register, following in zip(held, list(step(k, held)), strict=True):
        register.add_incoming(following, body)
    k.add_incoming(builder.add(k, WORD(1)), body)
    builder.branch(head)
    builder.position_at_end(after)
    return held


def sums_of(builder, kind, registers, start, stop, add):
    """`carried` by registers that begin with zeros."""
    return carried(builder, [ir.Constant(kind, None)] * registers, start, stop, add)
