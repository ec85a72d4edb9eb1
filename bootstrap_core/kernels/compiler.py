"""How numba compiles all loops. Importing this imports numba."""

from collections.abc import Callable
from typing import Any

from numba import njit

__all__ = ["compiler"]


def compiler(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorates a loop: compiled when first called, without the interpreter's lock, and kept for later processes.

    Where numba finds no folder to keep it in, each process compiles it anew. `options` are those of `numba.njit`.
    """
    options = {"nogil": True, "error_model": "numpy", **options}

    def compiled(loop: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, **options)(loop)
        except RuntimeError:  # neither the package's folder nor the user's own can be written
            return njit(**options)(loop)

    return compiled
