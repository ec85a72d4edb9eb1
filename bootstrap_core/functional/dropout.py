"""Dropout masks."""

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

__all__ = ["dropout_mask"]

BITS = np.uint16
"""Type of the random number of each input; a 64-bit number of NumPy's generators contains four."""


def dropout_mask(shape: Sequence[int], p: float, device: torch.device) -> Tensor:
    """Return a dropout mask, float32: 0 with probability `p`, else 1 / (1 - p).

    On the CPU, torch's global generator only seeds a NumPy generator: drawing all numbers with torch takes longer than
    the product with the weights. There `p` is rounded to a multiple of 2^-16.

    >>> dropout_mask((2, 3), 0.0, torch.device("cpu"))
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    if device.type != "cpu" or torch.compiler.is_compiling():
        return torch.nn.functional.dropout(torch.ones(shape, device=device), p)
    size, per_number = prod(shape), np.uint64().nbytes // BITS().nbytes
    seed = int(torch.randint(1 << 62, ()))
    drawn = np.random.SFC64(seed).random_raw(-(-size // per_number)).view(BITS)[:size]
    kept = drawn >= round(p * (np.iinfo(BITS).max + 1))
    return torch.from_numpy(kept).view(*shape).float().mul_(1 / (1 - p))
