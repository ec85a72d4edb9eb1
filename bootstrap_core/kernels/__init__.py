"""The same results as the definitions in plain torch, faster. Which kernels there are depends on what is installed."""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["by_size", "describe", "engine_is_worthwhile", "have_numba", "is_worthwhile", "will_compile"]

WORTHWHILE = 1 << 13
"""Numbers from which on a kernel saves more than its first call costs: small networks never wait for a compiler."""

PATIENCE = 1 << 38
"""Multiplications that a process makes before it waits for the engine to compile: half of the time that that takes."""


@cache
def have_numba() -> bool:
    """Whether the kernels that numba compiles can be used: it is installed, with `snnzoo[fast]`."""
    return find_spec("numba") is not None


def by_size() -> bool | None:
    """What a module's `compiled` starts as: None, for where it is worthwhile; False without numba."""
    return None if have_numba() else False


def is_worthwhile(n_numbers: int, compiled: bool | None) -> bool:
    """Whether to run a kernel on so many numbers; `compiled` decides if it is not None."""
    return n_numbers >= WORTHWHILE if compiled is None else compiled


def will_compile(kernels: Iterable[str] = ("dense_trains",), module: str = "integer_trains") -> bool:
    """Whether numba has yet to compile one of these of a module here, for some seconds; later processes find it."""
    if not have_numba():
        return False
    loops = import_module(f"{__name__}.{module}")
    return not all(_is_compiled(getattr(loops, name)) for name in kernels)


def _is_compiled(kernel: Any) -> bool:
    """Whether a function of numba's is, in this process or for it."""
    module, name = kernel.py_func.__module__.rpartition(".")[2], kernel.py_func.__name__
    kept = kernel.stats.cache_path
    return bool(kernel.signatures) or (kept is not None and any(Path(kept).glob(f"{module}.{name}-*.nbi")))


class _Patience:
    """How many multiplications this process will still make rather than wait for a compiler."""

    left = PATIENCE


def engine_is_worthwhile(multiplications: int, kernels: Iterable[str]) -> bool:
    """Whether to follow spikes by these kernels where so many multiplications would do: not a few, if numba had to
    compile them for that."""
    if _Patience.left > 0 and will_compile(kernels):
        _Patience.left -= multiplications
        return _Patience.left <= 0
    return True


def describe() -> str:
    """What runs the fast paths, in a few words."""
    from bootstrap_core.kernels.exact_products import can_pack
    from bootstrap_core.kernels.half import multiplies_half, multiplies_tiles

    gradients = "bfloat16" if multiplies_half() else "float32"
    products = "int8, oneDNN" if can_pack() else "float64"
    if have_numba():
        from bootstrap_core.kernels.byte_products import has_byte_products
        from bootstrap_core.kernels.gradient_products import multiplies_shorts

        in_registers = has_byte_products() and not multiplies_tiles()
        products = f"int8, in registers in inference, else {products}" if in_registers else products
        gradients = "int16" if multiplies_shorts() and not multiplies_half() else gradients
    loops = "numba" if have_numba() else "torch alone (pip install 'snnzoo[fast]' for numba kernels)"
    return f"{loops}; products: {products}, of gradients {gradients}"
