"""Products whose result is known, for their gradients: what spikes have weighed, the ANN beside them does not again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.kernels.convolution_op import convolution_gradients
from bootstrap_core.kernels.linear_op import linear_gradients

__all__ = ["known_convolution", "known_linear"]

Gradients = Callable[..., tuple[Tensor | None, Tensor | None]]
"""Of input and weight, for (gradient, input, weight, whether of the input, whether of the weight)."""


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, product: Tensor, gradients: Gradients) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.gradients = gradients
        return product

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        of_x, of_weight = ctx.needs_input_grad[:2]
        return *ctx.gradients(grads[0], *ctx.saved_tensors, of_x, of_weight), None, None


def known_linear(x: Tensor, weight: Tensor, product: Tensor) -> Tensor:
    """`product`, with the gradients of `F.linear(x, weight)`; `[N, I]`, `[O, I]` and `[N, O]`."""
    return _known(x, weight, product, linear_gradients)


def known_convolution(x: Tensor, weight: Tensor, product: Tensor, geometry: list[int], groups: int) -> Tensor:
    """`product`, with the gradients of the convolution of `x` `[N, C, H, W]`; `geometry` as of `patches`."""
    return _known(x, weight, product, partial(convolution_gradients, geometry=geometry, groups=groups))


def _known(x: Tensor, weight: Tensor, product: Tensor, gradients: Gradients) -> Tensor:
    if torch.is_autocast_enabled("cpu"):
        x, weight, product = (each.to(torch.get_autocast_dtype("cpu")) for each in (x, weight, product))
    return _Known.apply(x, weight, product, gradients)  # type: ignore[no-any-return, no-untyped-call]
