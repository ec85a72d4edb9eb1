"""The type in which products of training are made: float32, or bfloat16 where a recipe allows it."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from specs.training import Precision

__all__ = ["gradient_dtype", "link_dtype", "multiplies_half", "product_dtype", "products_in"]

HALF_FROM = 1 << 24
"""Multiplications from which a product in bfloat16 is worth rounding its factors."""

LEAST_OUTPUTS = 16
"""That a spike reaches, in products with its gradient."""

_precision = ContextVar("precision", default=Precision.AUTO)


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Choose the type of products of training, backward passes included, for what runs inside."""
    token = _precision.set(precision)
    try:
        yield
    finally:
        _precision.reset(token)


def product_dtype(precision: Precision, device: str = "cpu") -> torch.dtype:
    """What `precision` means on this machine: `auto` is bfloat16 where it multiplies that faster than float32."""
    faster = multiplies_half() if device == "cpu" else True
    half = precision is Precision.BFLOAT16 or (precision is Precision.AUTO and faster)
    return torch.bfloat16 if half else torch.float32


def gradient_dtype(multiplications: int) -> torch.dtype:
    """The type of gradients that go into a product of so many multiplications, on the CPU."""
    return product_dtype(_precision.get()) if multiplications >= HALF_FROM else torch.float32


def link_dtype(states: Tensor | None) -> torch.dtype:
    """The type in which the gradient of a layer's spikes goes back to it; `states` has a number for each."""
    return gradient_dtype(LEAST_OUTPUTS * states.numel()) if states is not None else torch.float32


@cache
def multiplies_half() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32.

    AMD's do in vectors. Intel's do in tiles (AMX); in vectors they are slower than in float32.
    """
    in_tiles = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    in_vectors = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return in_tiles or (in_vectors and not _is_intel())


def _is_intel() -> bool:
    names = platform.processor()
    with suppress(OSError):
        names += Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    return "GenuineIntel" in names
