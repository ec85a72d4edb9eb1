"""Convolutions of spikes and their neurons as an operator that torch can compile and export; see `conv_loops`.

Inside, channels come last: spikes have the shape `[T, N, C, H, W]` but lie as `[T, N, H, W, C]`.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.fixed_point import STATE_PER_WEIGHT, WEIGHT_STEP
from bootstrap_core.kernels import conv_loops
from bootstrap_core.kernels.half import gradient_dtype
from bootstrap_core.kernels.neuron_run import NeuronRun, as_array, link, over_channels
from bootstrap_core.kernels.threads import split, split_sum
from specs.shapes import axis_output

__all__ = ["spiking_conv", "spiking_conv_backward"]

LARGEST_WEIGHT, LARGEST_SHORT = 1 << 7, (1 << 15) - 1
AXIS = ("kernel", "stride", "padding", "dilation")


def _axes(geometry: list[int]) -> list[dict[str, int]]:
    return [dict(zip(AXIS, part, strict=True)) for part in (geometry[:4], geometry[4:])]


def _out_shape(spikes: Tensor, weight: Tensor, geometry: list[int]) -> tuple[int, ...]:
    places = [axis_output(size, **axis) for size, axis in zip(spikes.shape[3:], _axes(geometry), strict=True)]
    return (*spikes.shape[:2], len(weight), *places)


class _Reach:
    """Which places of the input an output sees by each tap, and the other way round; see `conv_loops`."""

    def __init__(self, size: tuple[int, int], geometry: tuple[int, ...]) -> None:
        seen_by: list[Any] = []
        for extent, axis in zip(size, _axes(list(geometry)), strict=True):
            outputs, taps = np.arange(axis_output(extent, **axis)), np.arange(axis["kernel"])
            seen = outputs[:, None] * axis["stride"] - axis["padding"] + taps * axis["dilation"]
            seen_by.append(np.where((seen >= 0) & (seen < extent), seen, -1))
        rows, columns = seen_by[0][:, None, :, None], seen_by[1][None, :, None, :]
        places = np.where((rows >= 0) & (columns >= 0), rows * size[1] + columns, -1)
        self.sources = places.reshape(places.shape[0] * places.shape[1], -1)  # [P, K]
        counts = np.zeros(size[0] * size[1], np.int64)
        hits = np.zeros((2, len(counts), self.sources.shape[1]), np.int64)
        for output, tap in np.argwhere(self.sources >= 0):
            source = self.sources[output, tap]
            hits[:, source, counts[source]] = output, tap
            counts[source] += 1
        self.onward = counts, hits[0], hits[1]


_reach = lru_cache(maxsize=64)(_Reach)


def _reach_of(spikes: Tensor, geometry: list[int]) -> _Reach:
    height, width = spikes.shape[3:]
    return _reach((height, width), tuple(geometry))


def _channels_last(x: Tensor) -> Tensor:
    """`[T, N, C, H, W]` as `[T * N, H * W * C]`; no copy of what lies so."""
    return x.detach().permute(0, 1, 3, 4, 2).reshape(x.shape[0] * x.shape[1], -1)


def _channels_second(x: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """The inverse: a view of the shape `[T, N, C, H, W]`."""
    steps, n, channels, height, width = shape
    return x.view(steps, n, height, width, channels).permute(0, 1, 4, 2, 3)


def _taps(weight: Tensor) -> Tensor:
    """`[O, C, KH, KW]` to `[K, C, O]`."""
    return weight.detach().flatten(2).permute(2, 1, 0)


def _sums(weight: Tensor) -> torch.dtype:
    """The shortest integers that hold the weighted input in steps of a weight."""
    return torch.int16 if weight[0].numel() * LARGEST_WEIGHT <= LARGEST_SHORT else torch.int32


@torch.library.custom_op("snnzoo::spiking_conv", mutates_args=())
def spiking_conv(
    spikes: Tensor,
    arrives: Tensor,
    weight: Tensor,
    geometry: list[int],
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
        weight: `[O, C, KH, KW]`, on its grid.
        geometry: kernel, stride, padding and dilation of the rows, then of the columns.
        current_decay, voltage_decay, bias: see `functional.cuba`; without gradients for the decays.
        threshold, tau_grad, scale_grad, subtract: see `functional.cuba`.
    """
    shape, reach = _out_shape(spikes, weight, geometry), _reach_of(spikes, geometry)
    z = torch.empty(shape[0] * shape[1], len(reach.sources), len(weight), dtype=_sums(weight))
    taps = (_taps(weight) * (1 / WEIGHT_STEP)).round().to(z.dtype).contiguous().numpy()
    x, total = _channels_last(spikes).numpy(), z.numpy()
    split(
        lambda start, stop: conv_loops.weigh(x, taps, reach.onward, start, stop, total),
        len(x),
        work=z.numel(),
    )
    fired, layered = torch.empty(z.shape, dtype=torch.int8), z.view(shape[0], -1, len(weight))
    NeuronRun(layered, STATE_PER_WEIGHT, current_decay, voltage_decay, bias, threshold, subtract).forward(fired)
    return _channels_second(fired, shape), link(shape, weight), z.view(*shape[:2], -1, len(weight))


@spiking_conv.register_fake
def _(
    spikes: Tensor, arrives: Tensor, weight: Tensor, geometry: list[int], *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    shape, device = _out_shape(spikes, weight, geometry), spikes.device
    fired = torch.empty(*shape[:2], *shape[3:], shape[2], dtype=torch.int8, device=device).permute(0, 1, 4, 2, 3)
    z = torch.empty(*shape[:2], shape[3] * shape[4], shape[2], dtype=_sums(weight), device=device)
    return fired, link(shape, weight), z


@torch.library.custom_op("snnzoo::spiking_conv_backward", mutates_args=())
def spiking_conv_backward(
    grad: Tensor,
    spikes: Tensor,
    weight: Tensor,
    z: Tensor,
    geometry: list[int],
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
    arrives: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the arriving spikes (empty without `arrives`), the weight, and the bias (empty without one)."""
    steps, n, places, outputs = z.shape
    grad_z = torch.empty(steps * n, places, outputs, dtype=gradient_dtype(z.numel() * weight[0].numel()))
    layered = z.view(steps, n * places, outputs)
    neurons = NeuronRun(layered, STATE_PER_WEIGHT, current_decay, voltage_decay, bias, threshold, subtract)
    incoming = _channels_last(grad).view(steps, -1)
    sums = neurons.backward(incoming, tau_grad, scale_grad, grad_z, decays=False, bias=bias is not None)
    g = as_array(grad_z).reshape(grad_z.shape)
    reach = _reach_of(spikes, geometry)
    return (
        _input_grad(g, weight, reach, spikes.shape) if arrives else torch.empty(0),
        _weight_grad(g, spikes, weight, reach),
        torch.empty(0) if bias is None else over_channels(sums[2].reshape(n * places, outputs), bias),
    )


def _weight_grad(g: Any, spikes: Tensor, weight: Tensor, reach: _Reach) -> Tensor:
    x, taps = _channels_last(spikes).numpy(), _taps(weight)
    sums = split_sum(
        lambda start, stop, out: conv_loops.weight_grad(x, g, reach.onward, start, stop, out),
        len(x),
        taps.shape,
        work=g.size,
        dtype=np.float32,
    )
    return torch.from_numpy(sums).permute(2, 1, 0).reshape(weight.shape)  # [K, C, O] -> [O, C, KH, KW]


def _input_grad(g: Any, weight: Tensor, reach: _Reach, shape: torch.Size) -> Tensor:
    """Float32, `[T, N, C, H, W]`."""
    matrix = _taps(weight).permute(2, 0, 1).flatten(1)  # [O, K * C]
    padded = torch.nn.functional.pad(matrix, (0, 0, 0, -len(matrix) % 4)).contiguous().numpy()
    out = torch.empty(shape[0] * shape[1], shape[3] * shape[4], shape[2])
    rows = out.numpy()
    split(
        lambda start, stop: conv_loops.input_grad(g, padded, reach.sources, start, stop, rows), len(rows), work=g.size
    )
    return _channels_second(out, shape)


@spiking_conv_backward.register_fake
def _(
    grad: Tensor, spikes: Tensor, weight: Tensor, z: Tensor, geometry: list[int], *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    steps, n, channels, height, width = spikes.shape
    bias, arrives, device = rest[2], rest[-1], z.device
    grad_spikes = torch.empty(steps, n, height, width, channels, device=device).permute(0, 1, 4, 2, 3)
    return (
        grad_spikes if arrives else torch.empty(0, device=device),
        torch.empty(weight.shape, device=device),
        torch.empty(0 if bias is None else bias.shape, device=device),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    spikes, _, weight, geometry, current_decay, voltage_decay, bias, *constants = inputs
    fired, _, z = output
    ctx.save_for_backward(spikes, weight, z, current_decay, voltage_decay, bias)
    ctx.geometry, ctx.constants = geometry, constants
    ctx.mark_non_differentiable(fired, z)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, _: Tensor | None, grad: Tensor | None, __: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 11
    spikes, weight, z, *neuron = ctx.saved_tensors
    needs = ctx.needs_input_grad
    grad_spikes, grad_weight, grad_bias = spiking_conv_backward(
        grad, spikes, weight, z, ctx.geometry, *neuron, *ctx.constants, needs[1]
    )
    return (
        None,
        grad_spikes if needs[1] else None,
        grad_weight if needs[2] else None,
        *[None] * 3,
        grad_bias if needs[6] else None,
        *[None] * 4,
    )


spiking_conv.register_autograd(_backward, setup_context=_setup)
