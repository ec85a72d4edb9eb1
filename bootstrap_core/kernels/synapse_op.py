"""Synapses of packed spikes as operators that torch can compile and export: the weighted input alone, float32.

For blocks whose neurons wait for more: for a norm, or for the synapses of other blocks.
"""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.kernels.conv_op import out_shape, spike_convolution_gradients
from bootstrap_core.kernels.dense_products import as_integers, correlate, weigh
from bootstrap_core.kernels.exact_products import PackedConvolution
from bootstrap_core.kernels.gradient_products import GradientProduct
from bootstrap_core.kernels.half import gradient_dtype
from bootstrap_core.kernels.operators import operator
from bootstrap_core.kernels.patches import channels_last, channels_second, layout

__all__ = ["convolve_spikes", "multiply_spikes"]


@operator("multiply_spikes")
def multiply_spikes(spikes: Tensor, arrives: Tensor, weight: Tensor) -> Tensor:
    """`[T, N, O]` of spikes `[T, N, I]`, int8, and their link, for a weight `[O, I]` on its grid."""
    return weigh(spikes, weight).mul_(WEIGHT_STEP)


@multiply_spikes.register_fake
def _(spikes: Tensor, arrives: Tensor, weight: Tensor) -> Tensor:
    return torch.empty(*spikes.shape[:-1], len(weight), device=spikes.device)


@operator("multiply_spikes_backward")
def _multiply_backward(grad: Tensor, spikes: Tensor, weight: Tensor, arrives: bool) -> tuple[Tensor, Tensor]:
    """Of the spikes (empty unless it `arrives`), in the type of the products, and of the weight, float32."""
    grad = grad.to(gradient_dtype(grad.numel() * weight.shape[1]))
    rows = grad.flatten(0, 1)
    arriving = GradientProduct(weight, len(rows), rows.dtype)(rows).view(spikes.shape) if arrives else torch.empty(0)
    return arriving, correlate(spikes, grad)


@_multiply_backward.register_fake
def _(grad: Tensor, spikes: Tensor, weight: Tensor, arrives: bool) -> tuple[Tensor, Tensor]:
    dtype = gradient_dtype(grad.numel() * weight.shape[1]) if arrives else torch.float32
    shape = spikes.shape if arrives else (0,)
    return torch.empty(shape, dtype=dtype, device=grad.device), torch.empty(weight.shape, device=grad.device)


@operator("convolve_spikes")
def convolve_spikes(spikes: Tensor, arrives: Tensor, weight: Tensor, geometry: list[int], groups: int) -> Tensor:
    """`[T, N, O, OH, OW]`, channels last in memory, of spikes `[T, N, C, H, W]`, int8, and their link.

    For a weight `[O, C / groups, KH, KW]` on its grid; `geometry` as of `patches`.
    """
    convolution = PackedConvolution(as_integers(weight), *layout(geometry), groups)
    z = convolution.weigh(channels_last(spikes)).float().mul_(WEIGHT_STEP)
    return channels_second(z, out_shape(spikes, weight, geometry))


@convolve_spikes.register_fake
def _(spikes: Tensor, arrives: Tensor, weight: Tensor, geometry: list[int], groups: int) -> Tensor:
    shape = out_shape(spikes, weight, geometry)
    return channels_second(torch.empty(*shape[:2], *shape[3:], shape[2], device=spikes.device), shape)


@operator("convolve_spikes_backward")
def _convolve_backward(
    grad: Tensor, spikes: Tensor, weight: Tensor, geometry: list[int], groups: int, arrives: bool, learns: bool
) -> tuple[Tensor, Tensor]:
    """Of the spikes, in the type of the products, and of the weight, float32: empty unless it `arrives`, `learns`."""
    steps, _, outputs = grad.shape[:3]
    rows = grad.permute(0, 1, 3, 4, 2).reshape(steps, -1, outputs)
    rows = rows.to(gradient_dtype(grad.numel() * weight[0].numel()))
    return spike_convolution_gradients(rows, spikes, weight, geometry, groups, arrives, learns)


@_convolve_backward.register_fake
def _(
    grad: Tensor, spikes: Tensor, weight: Tensor, geometry: list[int], groups: int, arrives: bool, learns: bool
) -> tuple[Tensor, Tensor]:
    steps, n, channels, height, width = spikes.shape
    dtype = gradient_dtype(grad.numel() * weight[0].numel())
    images = torch.empty(steps, n, height, width, channels, dtype=dtype, device=grad.device).permute(0, 1, 4, 2, 3)
    return (
        images if arrives else torch.empty(0, device=grad.device),
        torch.empty(weight.shape if learns else 0, device=grad.device),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    spikes, _, weight, *ctx.rest = inputs
    ctx.save_for_backward(spikes, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    spikes, weight = ctx.saved_tensors
    _, of_spikes, of_weight, *others = ctx.needs_input_grad
    if ctx.rest:
        grad_spikes, grad_weight = _convolve_backward(grad, spikes, weight, *ctx.rest, of_spikes, of_weight)
    else:
        grad_spikes, grad_weight = _multiply_backward(grad, spikes, weight, of_spikes)
    return None, grad_spikes if of_spikes else None, grad_weight if of_weight else None, *[None] * len(others)


multiply_spikes.register_autograd(_backward, setup_context=_setup)
convolve_spikes.register_autograd(_backward, setup_context=_setup)
