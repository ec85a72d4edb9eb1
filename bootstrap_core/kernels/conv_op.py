"""Convolutions of spikes and their neurons as an operator that torch can compile and export.

Inside, channels come last: spikes have the shape `[T, N, C, H, W]` but lie as `[T, N, H, W, C]`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.kernels import conv_loops, subset_sums
from bootstrap_core.kernels.dense_products import as_integers
from bootstrap_core.kernels.exact_products import PackedConvolution
from bootstrap_core.kernels.gradient_products import GradientProduct
from bootstrap_core.kernels.half import gradient_dtype
from bootstrap_core.kernels.neuron_run import NeuronRun, as_array, link, over_channels
from bootstrap_core.kernels.operators import operator
from bootstrap_core.kernels.patches import (
    as_matrix,
    as_weight,
    channels_last,
    channels_second,
    images_at_once,
    layout,
    out_size,
    runs_of,
)
from bootstrap_core.kernels.threads import split

__all__ = ["matrix_grad", "out_shape", "spike_convolution_gradients", "spiking_conv", "spiking_conv_backward"]


def out_shape(spikes: Tensor, weight: Tensor, geometry: list[int]) -> tuple[int, ...]:
    """`[T, N, O, OH, OW]` behind spikes `[T, N, C, H, W]`."""
    return (*spikes.shape[:2], len(weight), *out_size(spikes.shape[3:], geometry))


@operator("spiking_conv")
def spiking_conv(
    spikes: Tensor,
    arrives: Tensor,
    weight: Tensor,
    geometry: list[int],
    groups: int,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes (int8) and their link `[T, N, O, OH, OW]`, and the weighted input in steps of a weight `[T, N, P, O]`.

    Args:
        spikes, arrives: spikes `[T, N, C, H, W]`, int8, and their link.
        weight: `[O, C / groups, KH, KW]`, on its grid.
        geometry: kernel, stride, padding and dilation of the rows, then of the columns.
        groups: as torch has them.
        current_decay, voltage_decay, bias: see `NeuronRun`; without gradients for the decays.
        threshold, tau_grad, scale_grad, subtract: see `functional.cuba`.
    """
    shape = out_shape(spikes, weight, geometry)
    convolution = PackedConvolution(as_integers(weight), *layout(geometry), groups)
    z = convolution.weigh(channels_last(spikes)).float().view(shape[0], shape[1] * math.prod(shape[3:]), len(weight))
    fired = torch.empty(z.shape, dtype=torch.int8)
    NeuronRun.behind(weight, z, current_decay, voltage_decay, bias, threshold, subtract).forward(fired)
    return channels_second(fired, shape), link(shape, weight), z.view(*shape[:2], math.prod(shape[3:]), len(weight))


@spiking_conv.register_fake
def _(
    spikes: Tensor, arrives: Tensor, weight: Tensor, geometry: list[int], *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    shape, device = out_shape(spikes, weight, geometry), spikes.device
    fired = torch.empty(*shape[:2], *shape[3:], shape[2], dtype=torch.int8, device=device).permute(0, 1, 4, 2, 3)
    z = torch.empty(*shape[:2], shape[3] * shape[4], shape[2], device=device)
    return fired, link(shape, weight), z


@operator("spiking_conv_backward")
def spiking_conv_backward(
    grad: Tensor,
    spikes: Tensor,
    weight: Tensor,
    z: Tensor,
    geometry: list[int],
    groups: int,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
    arrives: bool,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the arriving spikes, the weight, and the bias: empty without `arrives`, `learns` and a bias.

    That of the spikes has the type of the products, the others are float32.
    """
    steps, n, places, outputs = z.shape
    grad_z = torch.empty(steps, n * places, outputs, dtype=gradient_dtype(z.numel() * weight[0].numel()))
    layered = z.view(grad_z.shape)
    neurons = NeuronRun.behind(weight, layered, current_decay, voltage_decay, bias, threshold, subtract)
    incoming = grad.permute(0, 1, 3, 4, 2).flatten(1)  # one step that stands for all stays one
    sums = neurons.backward(incoming, tau_grad, scale_grad, grad_z, decays=False, bias=bias is not None)
    grad_spikes, grad_weight = spike_convolution_gradients(grad_z, spikes, weight, geometry, groups, arrives, learns)
    return (
        grad_spikes,
        grad_weight,
        torch.empty(0) if bias is None else over_channels(sums[2].reshape(n * places, outputs), bias),
    )


def spike_convolution_gradients(
    grad: Tensor, spikes: Tensor, weight: Tensor, geometry: list[int], groups: int, arrives: bool, learns: bool
) -> tuple[Tensor, Tensor]:
    """Of the spikes, in the type of `grad` `[T, R, O]`, and the weight, float32: empty unless it `arrives`, `learns`.

    That of the weight in float32 is made by tables, if spikes are that, int8, and many; the others by oneDNN, many
    times faster than products of patches, but for those with a stride, of the spikes, and of the weight in bfloat16.
    """
    plain, strides = groups == 1, max(layout(geometry)[0]) > 1
    scatters = plain and arrives and strides
    looks_up = plain and learns and grad.dtype == torch.float32 and _has_tables(spikes, weight, geometry)
    gathers = plain and learns and grad.dtype == torch.bfloat16 and strides
    others = arrives and not scatters, learns and not (looks_up or gathers)
    of_spikes, of_weight = _by_onednn(grad, spikes, weight, geometry, groups, *others)
    if scatters:
        of_spikes = _scattered(grad, weight, geometry, spikes.shape)
    if looks_up:
        of_weight = _looked_up(grad, spikes, weight, geometry)
    if gathers:
        of_weight = matrix_grad(_gathered(spikes, geometry, grad.dtype), grad, weight)
    return of_spikes, of_weight


def _by_onednn(
    grad: Tensor, spikes: Tensor, weight: Tensor, geometry: list[int], groups: int, arrives: bool, learns: bool
) -> tuple[Tensor, Tensor]:
    """As `spike_convolution_gradients`."""
    if not (arrives or learns):
        return torch.empty(0), torch.empty(0)
    outgoing = channels_second(grad, out_shape(spikes, weight, geometry)).flatten(0, 1)
    images = channels_last(spikes).to(grad.dtype).permute(0, 3, 1, 2)
    constants = None, *layout(geometry), False, [0, 0], groups, [arrives, learns, False]
    of_images, of_weight, _ = torch.ops.aten.convolution_backward(outgoing, images, weight.to(grad.dtype), *constants)
    return (
        of_images.contiguous(memory_format=torch.channels_last).unflatten(0, spikes.shape[:2])
        if arrives
        else torch.empty(0),
        of_weight.float().contiguous() if learns else torch.empty(0),
    )


def _has_tables(spikes: Tensor, weight: Tensor, geometry: list[int]) -> bool:
    """Whether the weight's gradient is made by tables of sums."""
    steps, n, places = *spikes.shape[:2], math.prod(out_size(spikes.shape[3:], geometry))
    return spikes.dtype == torch.int8 and subset_sums.is_faster(steps * n, places, weight[0].numel())


def _looked_up(grad: Tensor, spikes: Tensor, weight: Tensor, geometry: list[int]) -> Tensor:
    """The gradient of the weight, from spikes int8 and `grad` in float32."""
    images = channels_last(spikes)
    size, places = images.shape[1:], math.prod(out_size(images.shape[1:3], geometry))
    by_image = grad.reshape(len(images), places, len(weight))
    return as_weight(subset_sums.weight_grad(images.flatten(1), by_image, size, tuple(geometry)), weight)


def _gathered(spikes: Tensor, geometry: list[int], dtype: torch.dtype) -> Tensor:
    """`patches` of spikes `[T, N, C, H, W]`, int8, as `dtype`."""
    images = channels_last(spikes)
    size, places = images.shape[1:], math.prod(out_size(images.shape[1:3], geometry))
    runs = runs_of(tuple(size), tuple(geometry))
    taps = geometry[0] * geometry[4] * size[2]
    seen, flat = torch.empty(len(images), places * taps, dtype=dtype), images.reshape(len(images), -1).numpy()
    out, one = as_array(seen).reshape(seen.shape), as_array(torch.ones(1, dtype=dtype))[0]
    split(conv_loops.gather, len(flat), flat, runs, one, out, work=seen.numel())
    return seen.view(-1, taps)


def _scattered(grad: Tensor, weight: Tensor, geometry: list[int], shape: torch.Size) -> Tensor:
    """The gradient of the spikes from that of their patches, of some images at a time."""
    steps, n, channels, height, width = shape
    runs, matrix = runs_of((height, width, channels), tuple(geometry)), as_matrix(weight)
    places = math.prod(out_size((height, width), geometry))
    rows = grad.view(steps * n, places, len(weight))
    product = GradientProduct(matrix, steps * n * places, grad.dtype)
    total = torch.empty(steps * n, height * width * channels, dtype=grad.dtype)
    n_at_once = images_at_once(grad.dtype.itemsize * places * matrix.shape[1])

    def write(some: Tensor, into: Tensor) -> None:
        seen = product(some.flatten(0, 1))  # [n * P, K * C]
        patches, out = as_array(seen).reshape(len(some), places * matrix.shape[1]), as_array(into).reshape(into.shape)
        split(conv_loops.scatter, len(some), patches, runs, out, work=seen.numel())

    for some, into in zip(rows.split(n_at_once), total.split(n_at_once), strict=True):
        write(some, into)
    return channels_second(total, shape)


def matrix_grad(seen: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of `weight` `[O, C, KH, KW]`, float32, from patches `[T * R, K * C]` and that of `z`, `[T, R, O]`."""
    by_step = torch.bmm(grad.transpose(1, 2), seen.view(len(grad), -1, seen.shape[1]))  # [T, O, K * C]
    return as_weight(by_step.sum(0, dtype=torch.float32), weight)


@spiking_conv_backward.register_fake
def _(
    grad: Tensor, spikes: Tensor, weight: Tensor, z: Tensor, geometry: list[int], *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    steps, n, channels, height, width = spikes.shape
    bias, arrives, learns, device = rest[3], *rest[-2:], z.device
    dtype = gradient_dtype(z.numel() * weight[0].numel())
    grad_spikes = torch.empty(steps, n, height, width, channels, dtype=dtype, device=device).permute(0, 1, 4, 2, 3)
    return (
        grad_spikes if arrives else torch.empty(0, device=device),
        torch.empty(weight.shape if learns else 0, device=device),
        torch.empty(0 if bias is None else bias.shape, device=device),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    spikes, _, weight, geometry, groups, current_decay, voltage_decay, bias, *constants = inputs
    fired, _, z = output
    ctx.save_for_backward(spikes, weight, z, current_decay, voltage_decay, bias)
    ctx.layout, ctx.constants = (geometry, groups), constants
    ctx.mark_non_differentiable(fired, z)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, _: Tensor | None, grad: Tensor | None, __: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 12
    spikes, weight, z, *neuron = ctx.saved_tensors
    needs = ctx.needs_input_grad
    grad_spikes, grad_weight, grad_bias = spiking_conv_backward(
        grad, spikes, weight, z, *ctx.layout, *neuron, *ctx.constants, needs[1], needs[2]
    )
    return (
        None,
        grad_spikes if needs[1] else None,
        grad_weight if needs[2] else None,
        *[None] * 4,
        grad_bias if needs[7] else None,
        *[None] * 4,
    )


spiking_conv.register_autograd(_backward, setup_context=_setup)
