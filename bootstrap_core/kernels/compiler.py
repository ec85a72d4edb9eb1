"""How numba compiles all loops. Importing this imports numba."""

from collections.abc import Callable
from typing import Any

from numba import njit

__all__ = ["compiler"]


def compiler(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorates a loop: compiled when first called, without the interpreter's lock, and kept for later processes.

    One whose name begins with `_` can only be called by others that numba compiles, which spares a fifth of the time.
    Where numba finds no folder to keep them in, each process compiles them anew. `options` are those of `numba.njit`.
    """
    options = {"nogil": True, "error_model": "numpy", **options}

    def compiled(loop: Callable[..., Any]) -> Any:
        own = {**options, "no_cpython_wrapper": loop.__name__.startswith("_")}
        try:
            return njit(cache=True, **own)(loop)
        except RuntimeError:  # neither the package's folder nor the user's own can be written
            return njit(**own)(loop)

    return compiled
