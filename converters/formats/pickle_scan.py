"""A pickle read as text, before it is loaded: what would take torch's loader for ever, or all memory."""

import io
import pickletools
from itertools import islice
from typing import Any

from specs.files.limits import TORCH_PICKLE_OPERATIONS, TUPLE_ITEMS

__all__ = ["pickle_problem"]

TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"}
MARK = -1


def pickle_problem(pickled: bytes, *, n_pickles: int = 1) -> str:
    """What is wrong with the first pickles of a text, up to where they are damaged, in words; empty if nothing is.

    Tuples are followed through the stack and the memo: one that holds another twice, which holds another twice, and so
    on, is short as a pickle, and as a key takes Python for ever to hash. No object is made.
    """
    text, left = io.BytesIO(pickled), TORCH_PICKLE_OPERATIONS
    for _ in range(n_pickles):
        stack: list[int] = []
        memo: dict[int, int] = {}
        try:
            for n, (operation, argument, _) in enumerate(islice(pickletools.genops(text), left + 1)):
                if n == left:
                    return f"a pickle of more than {TORCH_PICKLE_OPERATIONS:,} operations"
                if argument in ("__builtin__ bytearray", "builtins bytearray"):
                    return "a pickle that asks for memory (bytearray)"
                if _follow(operation, argument, stack, memo) > TUPLE_ITEMS:
                    return f"tuples within each other that hold more than {TUPLE_ITEMS:,} items"
        except (ValueError, IndexError, KeyError):
            break  # where torch stops too, and says why
        left -= n
    return ""


def _follow(operation: Any, argument: Any, stack: list[int], memo: dict[int, int]) -> int:
    """Do to a stack of sizes what the operation does to one of objects; the size of what it makes.

    That of a tuple counts all items of those within, that of anything else is 1.
    """
    name = operation.name
    if name == "MARK":
        stack.append(MARK)
        return 0
    if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        return 0
    if name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
        return 0
    if name == "DUP":
        stack.append(stack[-1])
        return 0
    taken: list[int] = []
    for kind in reversed(operation.stack_before):
        if kind is pickletools.markobject:
            continue
        if kind is pickletools.stackslice:
            while (top := stack.pop()) != MARK:
                taken.append(top)
        else:
            taken.append(stack.pop())
    size = 1 + sum(taken) if name in TUPLES else 1
    stack += [size] * len(operation.stack_after)
    return size
