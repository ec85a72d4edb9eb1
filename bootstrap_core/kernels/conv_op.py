"""Convolutions of spikes as an operator that torch can compile and export; see `conv_loops`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.kernels import conv_loops
from bootstrap_core.kernels.threads import split

__all__ = ["spike_conv", "spike_conv_backward"]

IMAGES = 128
"""Images and steps at a time in the backward pass: their products stay in the cache."""


def _images(x: Tensor) -> Any:
    return x.detach().flatten(0, 1).contiguous().numpy()


def _taps(weight: Tensor) -> Tensor:
    """`[O, C, KH, KW]` to `[KH * KW, C, O]`."""
    return weight.detach().flatten(2).permute(2, 1, 0)


def _out_shape(spikes: Tensor, weight: Tensor, geometry: list[int]) -> tuple[int, ...]:
    size = [
        (extent + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for extent, (kernel, stride, padding, dilation) in zip(spikes.shape[-2:], _axes(geometry), strict=True)
    ]
    return (*spikes.shape[:2], weight.shape[0], *size)


def _axes(geometry: list[int]) -> list[list[int]]:
    return [geometry[:4], geometry[4:]]


@torch.library.custom_op("snnzoo::spike_conv", mutates_args=())
def spike_conv(spikes: Tensor, arrives: Tensor, weight: Tensor, geometry: list[int]) -> Tensor:
    """Weighted input `[T, N, O, OH, OW]`, float32, of spikes `[T, N, C, H, W]`, int8, and their link.

    Args:
        spikes, arrives: see `spiking_ops`.
        weight: `[O, C, KH, KW]`, on its grid.
        geometry: kernel, stride, padding and dilation of the rows, then of the columns.
    """
    z = torch.empty(_out_shape(spikes, weight, geometry))
    x, total, taps = _images(spikes), z.flatten(0, 1).numpy(), _taps(weight * (1 / WEIGHT_STEP)).round().int()
    w, axes = taps.contiguous().numpy(), np.array(_axes(geometry))
    split(lambda start, stop: conv_loops.weigh(x, w, axes, start, stop, total), len(x), work=z.numel())
    return z.mul_(WEIGHT_STEP)


@spike_conv.register_fake
def _(spikes: Tensor, arrives: Tensor, weight: Tensor, geometry: list[int]) -> Tensor:
    return torch.empty(_out_shape(spikes, weight, geometry), device=spikes.device)


@torch.library.custom_op("snnzoo::spike_conv_backward", mutates_args=())
def spike_conv_backward(
    grad: Tensor, spikes: Tensor, weight: Tensor, geometry: list[int], arrives: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the spikes (empty without `arrives`) and the weight."""
    x, g, axes = _images(spikes), _images(grad), np.array(_axes(geometry))
    n_parts = min(max(1, torch.get_num_threads()), max(1, len(x)))
    sums = torch.zeros(n_parts, *_taps(weight).shape)
    parts = sums.numpy()
    bounds = [len(x) * i // n_parts for i in range(n_parts + 1)]

    def add(first: int, last: int) -> None:
        for part in range(first, last):
            conv_loops.weight_grad(x, g, axes, bounds[part], bounds[part + 1], parts[part])

    split(add, n_parts, work=grad.numel())
    grad_weight = sums.sum(0).permute(2, 1, 0).reshape(weight.shape)  # [taps, C, O] -> [O, C, KH, KW]
    grad_spikes = torch.empty(spikes.shape if arrives else 0)
    if arrives:
        _input_grad(grad.flatten(0, 1), weight, axes, grad_spikes.flatten(0, 1))
    return grad_spikes, grad_weight


def _input_grad(grad: Tensor, weight: Tensor, axes: Any, out: Tensor) -> None:
    """Writes the gradient of spikes `[M, C, H, W]`: a matrix product for all taps, then each to its place."""
    outputs, rows, columns = grad.shape[1:]
    channels, n_taps = weight.shape[1], weight[0, 0].numel()
    matrix = _taps(weight).permute(2, 0, 1).reshape(outputs, n_taps * channels)
    for g, part in zip(grad.split(IMAGES), out.split(IMAGES), strict=True):
        positions = g.flatten(2).transpose(1, 2).reshape(-1, outputs)  # [M, O, OH, OW] -> [M * OH * OW, O]
        products = (positions @ matrix).reshape(len(g), rows * columns, n_taps, channels).numpy()
        _scatter(products, axes, rows, columns, part.numpy())


def _scatter(products: Any, axes: Any, rows: int, columns: int, out: Any) -> None:
    split(
        lambda start, stop: conv_loops.scatter(products, axes, rows, columns, start, stop, out),
        len(out),
        work=products.size,
    )


@spike_conv_backward.register_fake
def _(grad: Tensor, spikes: Tensor, weight: Tensor, geometry: list[int], arrives: bool) -> tuple[Tensor, Tensor]:
    return torch.empty(spikes.shape if arrives else 0, device=grad.device), torch.empty_like(weight)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    spikes, _, weight, geometry = inputs
    ctx.save_for_backward(spikes, weight)
    ctx.geometry = geometry


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad
    grad_spikes, grad_weight = spike_conv_backward(grad, *ctx.saved_tensors, ctx.geometry, needs[1])
    return None, grad_spikes if needs[1] else None, grad_weight if needs[2] else None, None


spike_conv.register_autograd(_backward, setup_context=_setup)
