"""Where products of the backward pass are made in bfloat16.

Spikes and weights are exact in it; a gradient is off by 2**-9 of itself at most, at random, which sums average away.
"""

from functools import cache

import torch

__all__ = ["gradient_dtype", "multiplies_tiles"]

HALF_FROM = 1 << 26
"""Multiplications from which a product is worth it."""


@cache
def _multiplies_half() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


@cache
def multiplies_tiles() -> bool:
    """Whether this CPU multiplies whole tiles of bfloat16 (AMX), some ten times faster than float32."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def gradient_dtype(multiplications: int) -> torch.dtype:
    """What a gradient becomes for products of so many multiplications: bfloat16 or float32."""
    return torch.bfloat16 if multiplications >= HALF_FROM and _multiplies_half() else torch.float32
