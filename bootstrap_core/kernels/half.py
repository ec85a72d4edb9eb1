"""Where products are made in bfloat16: those of the backward pass, and ANN batches that a recipe lets round.

Spikes and weights are exact in it; a gradient is off by 2**-9 of itself at most, at random, which sums average away.
"""

import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

__all__ = ["gradient_dtype", "is_large", "multiplies_half", "multiplies_tiles"]

HALF_FROM = 1 << 26
"""Multiplications from which a product is worth it."""


@cache
def multiplies_half() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32.

    AMD's do so in vectors, twice as fast; Intel's in tiles alone, and in vectors, where a virtual machine hides the
    tiles, at six tenths of the speed. Other CPUs, for torch, not at all.
    """
    return multiplies_tiles() or (_multiplies_half_vectors() and not _is_intel())


def _multiplies_half_vectors() -> bool:
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def _is_intel() -> bool:
    names = platform.processor()
    with suppress(OSError):
        names += Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    return "GenuineIntel" in names


@cache
def multiplies_tiles() -> bool:
    """Whether this CPU multiplies whole tiles of bfloat16 (AMX), some ten times faster than float32."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def is_large(multiplications: int) -> bool:
    """Whether a product of so many is worth rounding its gradients."""
    return multiplications >= HALF_FROM


def gradient_dtype(multiplications: int) -> torch.dtype:
    """What a gradient becomes for products of so many multiplications: bfloat16 or float32."""
    return torch.bfloat16 if is_large(multiplications) and multiplies_half() else torch.float32
