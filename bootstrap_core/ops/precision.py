"""Number type of matrix products in training: float32, or bfloat16 where a recipe allows it."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from specs.training import Precision

HALF_FROM = 1 << 24
"""Number of multiplications from which a product is faster in bfloat16, rounding of its factors included."""

LEAST_OUTPUTS = 16
"""Estimated number of outputs behind each spike, used to choose the type of the spikes' gradient."""

_precision = ContextVar("precision", default=Precision.AUTO)


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Set the precision of matrix products in training, for the code inside the `with` block."""
    token = _precision.set(precision)
    try:
        yield
    finally:
        _precision.reset(token)


def product_dtype(precision: Precision, device: str = "cpu") -> torch.dtype:
    """Return the type for a precision: `auto` is bfloat16 on machines that multiply it faster than float32."""
    faster = multiplies_half() if device == "cpu" else True
    half = precision is Precision.BFLOAT16 or (precision is Precision.AUTO and faster)
    return torch.bfloat16 if half else torch.float32


def gradient_dtype(multiplications: int) -> torch.dtype:
    """Return the type of a gradient that enters a product with this number of multiplications, on the CPU."""
    return product_dtype(_precision.get()) if multiplications >= HALF_FROM else torch.float32


def link_dtype(states: Tensor | None) -> torch.dtype:
    """Return the type of the gradient of a layer's spikes; `states` has one number for each spike."""
    return gradient_dtype(LEAST_OUTPUTS * states.numel()) if states is not None else torch.float32


@cache
def multiplies_half() -> bool:
    """Return whether this CPU multiplies bfloat16 faster than float32.

    AMD's CPUs with AVX-512 BF16 do. Intel's do only with AMX; their AVX-512 BF16 is slower than float32.
    """
    in_vectors = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return multiplies_tiles() or (in_vectors and not _is_intel())


def multiplies_tiles() -> bool:
    """Return whether this CPU multiplies tiles of bfloat16 (AMX), several times as fast as vectors of it."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def _is_intel() -> bool:
    names = platform.processor()
    with suppress(OSError):
        names += Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    return "GenuineIntel" in names
