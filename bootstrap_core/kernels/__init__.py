"""The same results as the definitions in plain torch, faster. Which kernels there are depends on what is installed."""

from functools import cache
from importlib.util import find_spec

__all__ = ["describe", "have_numba"]


@cache
def have_numba() -> bool:
    """Whether the kernels that numba compiles can be used: it is installed, with `snnzoo[fast]`."""
    return find_spec("numba") is not None


def describe() -> str:
    """What runs the fast paths, in a few words."""
    return "numba" if have_numba() else "torch alone (pip install 'snnzoo[fast]' for numba kernels)"
