"""A product with weights whose gradients are products in bfloat16, as an operator that torch can compile and export."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.kernels.half import gradient_dtype
from bootstrap_core.kernels.operators import operator

__all__ = ["linear", "linear_gradients"]


@operator("half_linear")
def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x, weight)


@_linear.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return torch.empty(len(x), len(weight), device=x.device)


@operator("half_linear_backward")
def _products(grad: Tensor, x: Tensor, weight: Tensor, of_x: bool, of_weight: bool) -> tuple[Tensor, Tensor]:
    half = grad.to(torch.bfloat16)
    return (
        (half @ weight.to(torch.bfloat16)).float() if of_x else torch.empty(0),
        (half.t() @ x.to(torch.bfloat16)).float() if of_weight else torch.empty(0),
    )


@_products.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, of_x: bool, of_weight: bool) -> tuple[Tensor, Tensor]:
    return torch.empty(x.shape if of_x else 0), torch.empty(weight.shape if of_weight else 0)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    of_x, of_weight = ctx.needs_input_grad
    grad_x, grad_weight = _products(grad, *ctx.saved_tensors, of_x, of_weight)
    return grad_x if of_x else None, grad_weight if of_weight else None


_linear.register_autograd(_backward, setup_context=_setup)


def linear_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, of_x: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `linear` by its input and its weight, as far as wanted."""
    half = gradient_dtype(x.numel() * len(weight)) != torch.float32 and x.dtype == torch.float32
    if half:
        grad_x, grad_weight = _products(grad, x, weight, of_x, of_weight)
        return grad_x if of_x else None, grad_weight if of_weight else None
    return grad @ weight if of_x else None, grad.t() @ x if of_weight else None


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """`F.linear`, with gradients from products in bfloat16 where `half` says so; for rates `[N, I]` on the CPU."""
    plain = x.dim() != 2 or x.dtype != torch.float32 or x.device.type != "cpu"
    if plain or not torch.is_grad_enabled() or gradient_dtype(x.numel() * len(weight)) == torch.float32:
        return F.linear(x, weight)
    product: Tensor = _linear(x, weight)
    return product
