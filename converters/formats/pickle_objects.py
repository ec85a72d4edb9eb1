"""Objects in checkpoints that are loaded besides tensors, by an allow-list: options of argparse, and NumPy's numbers.

Training programs store them beside the weights. torch makes no other objects, and runs no code of a file.
"""

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np
import torch

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
