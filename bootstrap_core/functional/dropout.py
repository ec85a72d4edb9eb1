"""Dropout masks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod

import numpy as np
import torch
from torch import Tensor

BITS = np.uint16
"""Type of the random number of each input; a 64-bit number of NumPy's generators contains four."""

_generator = ContextVar("generator", default=torch.default_generator)


@contextmanager
def masks_from(generator: torch.Generator) -> Iterator[None]:
    """Draw dropout masks from `generator`, on the CPU, in the `with` block; elsewhere torch's global one draws them."""
    token = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(token)


@contextmanager
def same_masks_again() -> Iterator[None]:
    """Reset the generator after the `with` block, so that the code behind it draws the same masks once more."""
    generator = _generator.get()
    state = generator.get_state()
    try:
        yield
    finally:
        generator.set_state(state)


def dropout_mask(shape: Sequence[int], p: float, device: torch.device) -> Tensor:
    """Return a dropout mask, float32: 0 with probability `p`, else 1 / (1 - p).

    torch's generator only seeds another one. On the CPU this is a NumPy generator: drawing all numbers with torch takes
    longer than the product with the weights. There `p` is rounded to a multiple of 2^-16.

    >>> dropout_mask((2, 3), 0.0, torch.device("cpu"))
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    if torch.compiler.is_compiling():
        return torch.nn.functional.dropout(torch.ones(shape, device=device), p)
    seed = int(torch.randint(1 << 62, (), generator=_generator.get()))
    if device.type == "cpu":
        size, per_number = prod(shape), np.uint64().nbytes // BITS().nbytes
        drawn = np.random.SFC64(seed).random_raw(-(-size // per_number)).view(BITS)[:size]
        kept = torch.from_numpy(drawn >= round(p * (np.iinfo(BITS).max + 1))).view(*shape)
    else:
        kept = torch.rand(*shape, device=device, generator=torch.Generator(device).manual_seed(seed)) >= p
    return kept.float().mul_(1 / (1 - p))
