"""Pickles of torch: what is loaded besides tensors, and a scan before that.

Loaded are options of argparse and NumPy's numbers, which training programs store beside the weights. torch makes no
other objects, and runs no code of a file. The scan refuses what would take torch's loader forever, or all memory.
"""

import argparse
import io
import pickletools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from threading import Lock
from typing import Any

import numpy as np
import torch

from specs.files.limits import TORCH_PICKLE_OPERATIONS, TUPLE_ITEMS

TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"}
MARK = -1

_lock = Lock()


@contextmanager
def allowed_objects() -> Iterator[None]:
    """Let `torch.load(..., weights_only=True)` make the objects of the allow-list, in the `with` block."""
    with _lock, torch.serialization.safe_globals(list(ALLOWED)):  # torch's list is one for all threads
        yield


class _NumberType:
    """Type of a NumPy number as pickles describe it: a code such as "f8", then a state with the order of its bytes.

    It stands for `numpy.dtype`, whose own state a damaged file could set to anything.
    """

    def __init__(self, code: str, *flags: bool) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.order = str(state[1])


def _number(kind: _NumberType, raw: bytes) -> np.generic:
    """Return the NumPy number of some bytes. Raises `ValueError` for other types and sizes."""
    if not re.fullmatch("[<>=|][biufc](1|2|4|8|16)", kind.order + kind.code) or not isinstance(raw, bytes):
        raise ValueError("a NumPy value that is not a number")
    (number,) = np.frombuffer(raw, np.dtype(kind.order + kind.code))
    return number  # type: ignore[no-any-return]


ALLOWED = (
    argparse.Namespace,
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_number, "numpy._core.multiarray.scalar"),
)
"""Classes and functions that stand for names in a pickle."""


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
