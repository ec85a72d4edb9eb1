"""Currents of input neurons as an operator that torch can compile and export; see `input_loop`."""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import BIAS_MANT_MAX, BIAS_MANT_MIN, MANT
from bootstrap_core.kernels import input_loop
from bootstrap_core.kernels.operators import operator
from bootstrap_core.kernels.threads import split, split_sum

__all__ = ["input_current", "input_current_backward"]


@operator("input_current")
def input_current(images: Tensor, weight: Tensor, bias: Tensor, mean: float, std: float) -> Tensor:
    """`truncate_current(weight * (images - mean) / std + bias)`, float32, computed in float64.

    Args:
        images: `[N, ...]`, float32.
        weight, bias: `[1]`, on their grid.
        mean, std: see `InputSpec`.
    """
    x, out = images.detach().contiguous(), torch.empty(images.shape)
    flat, currents, w, b = x.view(-1).numpy(), out.view(-1).numpy(), weight.item(), bias.item()
    lowest, highest = float(BIAS_MANT_MIN), float(BIAS_MANT_MAX)
    split(
        lambda start, stop: input_loop.currents(
            flat, mean, std, w, b, float(MANT), lowest, highest, start, stop, currents
        ),
        flat.size,
        work=flat.size,
    )
    return out


@input_current.register_fake
def _(images: Tensor, weight: Tensor, bias: Tensor, mean: float, std: float) -> Tensor:
    return torch.empty(images.shape, device=images.device)


@operator("input_current_backward")
def input_current_backward(grad: Tensor, images: Tensor, mean: float, std: float) -> Tensor:
    """Gradients of weight and bias, `[2]` float32."""
    g, x = grad.contiguous().view(-1).numpy(), images.detach().contiguous().view(-1).numpy()
    sums = split_sum(
        lambda start, stop, out: input_loop.add_gradients(g, x, mean, std, start, stop, out), g.size, (2,), work=g.size
    )
    return torch.from_numpy(sums).float()


@input_current_backward.register_fake
def _(grad: Tensor, images: Tensor, mean: float, std: float) -> Tensor:
    return torch.empty(2, device=grad.device)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    images, weight, _, *ctx.scaling = inputs
    ctx.save_for_backward(images, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    images, weight = ctx.saved_tensors
    of_images = grad * (weight / ctx.scaling[1]) if ctx.needs_input_grad[0] else None
    of_weight, of_bias = input_current_backward(grad, images, *ctx.scaling).split(1)
    return of_images, of_weight, of_bias, None, None


input_current.register_autograd(_backward, setup_context=_setup)
