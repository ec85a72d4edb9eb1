"""Weights on their grid as an operator that torch can compile and export; see `grid_loop`."""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.kernels import grid_loop
from bootstrap_core.kernels.neuron_run import as_array
from bootstrap_core.kernels.operators import operator
from bootstrap_core.kernels.threads import split

__all__ = ["quantize_in_place", "quantize_weight"]


EASE = 4
"""Weights that take as long as a number of `split`'s work."""


@operator("quantize_weight")
def quantize_weight(weight: Tensor) -> Tensor:
    """`functional.quantize_weight` of float32 on the CPU."""
    out = torch.empty(weight.shape)
    given, found = as_array(weight), out.view(-1).numpy()
    split(grid_loop.quantize, given.size, given, found, work=given.size // EASE)
    return out


def quantize_in_place(weight: Tensor) -> None:
    """`quantize_weight` of contiguous weights that nobody else has, without a gradient."""
    numbers = weight.view(-1).numpy()
    split(grid_loop.quantize_in_place, numbers.size, numbers, work=numbers.size // EASE)


@quantize_weight.register_fake
def _(weight: Tensor) -> Tensor:
    return torch.empty(weight.shape, device=weight.device)


def _backward(ctx: Any, grad: Tensor) -> Tensor:
    return grad


quantize_weight.register_autograd(_backward)
