"""Scan a pickle before it is loaded, for content that would take torch's loader forever, or all memory."""

import io
import pickletools
from itertools import islice
from typing import Any

from specs.files.limits import TORCH_PICKLE_OPERATIONS, TUPLE_ITEMS

TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"}
MARK = -1
OUTER_OPERATIONS = 8
"""Operations of a pickle among which the class of its object is."""


def pickle_problem(pickled: bytes, *, n_pickles: int = 1) -> str:
    """Return the problem of the first `n_pickles` pickles of a file, in words; empty if there is none.

    The scan stops where a pickle is damaged. It follows tuples through the stack and the memo: a tuple that holds
    another twice, which holds another twice, and so on, is a short pickle, but as a key it takes Python forever to
    hash. No object is made.
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
                    return "a pickle that allocates memory (bytearray)"
                if _follow(operation, argument, stack, memo) > TUPLE_ITEMS:
                    return f"nested tuples of more than {TUPLE_ITEMS:,} items"
        except (ValueError, IndexError, KeyError):
            break  # torch stops here, too, with an error of its own
        left -= n
    return ""


def outer_class(pickled: bytes, *, n_pickles: int = 1) -> str:
    """Return the class of the object in the last of `n_pickles` pickles, as in `torch.nn.modules.linear.Linear`.

    Empty if the object is a dict or a list, or the pickle is damaged or of another protocol than torch's. No object is
    made.
    """
    text = io.BytesIO(pickled)
    try:
        for _ in range(n_pickles - 1):
            for _ in pickletools.genops(text):
                pass
        for operation, argument, _ in islice(pickletools.genops(text), OUTER_OPERATIONS):
            if operation.name == "GLOBAL":
                return str(argument).replace(" ", ".").removeprefix("__builtin__.")
            if operation.name in ("EMPTY_DICT", "EMPTY_LIST"):
                break
    except (ValueError, IndexError, KeyError):
        pass
    return ""


def _follow(operation: Any, argument: Any, stack: list[int], memo: dict[int, int]) -> int:
    """Apply an operation to a stack with the sizes of objects; return the size of the object that it makes.

    The size of a tuple is 1 plus the sizes of its items; the size of any other object is 1.
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
