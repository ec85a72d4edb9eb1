"""Functions that numba compiles on a team of threads: all run the same function, each for a part of the work.

The threads are OpenMP's, started from within the function that is to run in them: no interpreter is on the way, whose
lock they would hand to each other for a tenth of a millisecond. Importing this imports numba.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bootstrap_core.kernels.registers import INT, WORD

__all__ = ["TEAM", "in_parts"]

TEAM = types.UniTuple(INT, 4)
"""How many parts there are, which of them this is, of what their bounds are multiples, and where OpenMP's region is.

With one part a function runs as it is called.
"""

BYTES, STATUS = ir.IntType(8).as_pointer(), ir.IntType(32)
BODY = ir.FunctionType(ir.VoidType(), [BYTES])
REGION = ir.FunctionType(ir.VoidType(), [BODY.as_pointer(), BYTES, ir.IntType(32), ir.IntType(32)])
NEXT, FAILED, FIRST_ARGUMENT = range(3)
"""What threads share: the next part to be taken, whether one has failed, and the arguments of the function."""


@intrinsic
def in_parts(typing_context, team):
    """Whether a team has run this function, so that it can return: each part from another `start` to another `stop`.

    To be asked first, in a function that has arguments of these names, int64, and `team`, as `TEAM`, which see; not in
    one that is inlined. Raises `MemoryError` if a thread has no memory left.
    """

    def generate(context, builder, signature, arguments):
        function = builder.function
        parts, region = (builder.extract_value(arguments[0], i) for i in (0, 3))
        is_shared = builder.icmp_signed(">", parts, WORD(1))
        with builder.if_then(is_shared, likely=False):
            common = builder.alloca(ir.LiteralStructType([WORD, STATUS, *(x.type for x in function.args)]))
            for i, value in enumerate((WORD(0), STATUS(0), *function.args)):
                builder.store(value, _field(builder, common, i))
            body = _body(function, common.type.pointee)
            threads = builder.trunc(parts, ir.IntType(32))
            builder.call(
                builder.inttoptr(region, REGION.as_pointer()),
                [body, builder.bitcast(common, BYTES), threads, ir.IntType(32)(0)],
            )
            failed = builder.icmp_signed("!=", builder.load(_field(builder, common, FAILED)), STATUS(0))
            with builder.if_then(failed, likely=False):
                context.call_conv.return_user_exc(builder, MemoryError, ("in one of the threads",))
        return is_shared

    return types.boolean(TEAM), generate


def _field(builder, struct, i):
    return builder.gep(struct, [ir.IntType(32)(0), ir.IntType(32)(i)])


def _body(function, common_type):
    """What each thread runs: the function, for part after part, as long as there are any."""
    body = ir.Function(function.module, BODY, f"{function.name}.body")
    body.linkage = "internal"
    builder = ir.IRBuilder(body.append_basic_block())
    common = builder.bitcast(body.args[0], common_type.as_pointer())
    given = {x.name: builder.load(_field(builder, common, FIRST_ARGUMENT + i)) for i, x in enumerate(function.args)}
    result, error = (builder.alloca(x.type.pointee) for x in function.args[:2])
    start, stop, parts, align = (given[name] for name in ("arg.start", "arg.stop", "arg.team.0", "arg.team.2"))

    def bound(part):
        whole = builder.sdiv(builder.mul(builder.sub(stop, start), part), builder.mul(parts, align))
        bound = builder.add(start, builder.mul(whole, align))
        return builder.select(builder.icmp_signed("==", part, parts), stop, bound)

    take, run, end = (body.append_basic_block() for _ in range(3))
    builder.branch(take)
    builder.position_at_end(take)
    part = builder.atomic_rmw("add", _field(builder, common, NEXT), WORD(1), "seq_cst")
    builder.cbranch(builder.icmp_signed("<", part, parts), run, end)
    builder.position_at_end(run)
    own = {
        "arg.start": bound(part),
        "arg.stop": bound(builder.add(part, WORD(1))),
        "arg.team.0": WORD(1),
        "arg.team.1": part,
    }
    others = [{**given, **own}[x.name] for x in function.args[2:]]
    status = builder.call(function, [result, error, *others], attrs=("noinline",))
    builder.atomic_rmw("or", _field(builder, common, FAILED), status, "seq_cst")
    builder.branch(take)
    builder.position_at_end(end)
    builder.ret_void()
    return body
