"""Spiking layers as operators that torch can compile and export, over the compiled loops of `neuron_loops`.

Spikes travel as int8. Since torch gives integers no gradient, a float tensor of the same shape that holds nothing (one
element, seen through strides of 0) goes beside them, the *link*: their gradient is its gradient, and of its type.

Weights are multiples of `WEIGHT_STEP`, so products with spikes are sums of 8-bit integers, and exact.
"""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import STATE
from bootstrap_core.kernels.dense_products import correlate, weigh
from bootstrap_core.kernels.gradient_products import GradientProduct
from bootstrap_core.kernels.half import gradient_dtype
from bootstrap_core.kernels.neuron_run import NeuronRun, link, over_channels
from bootstrap_core.kernels.operators import operator
from bootstrap_core.kernels.patches import channels_second

__all__ = [
    "cuba",
    "cuba_backward",
    "fire",
    "spiking_dense",
    "spiking_dense_backward",
    "unpack",
]


# --- Neurons alone: z float, spikes float


def _as_it_lies(x: Tensor, like: Tensor) -> Tensor:
    """`[T, N, C, ...]`, or `[T, R, C]` where `like` has its channels last in memory."""
    return x.permute(0, 1, 3, 4, 2).flatten(1, 3) if _is_channels_last(like) else x


def _empty_as_it_lies(z: Tensor, dtype: torch.dtype) -> Tensor:
    """Contiguous, but for `z` that has its channels last in memory: then so."""
    return torch.empty_like(z, dtype=dtype) if _is_channels_last(z) else z.new_empty(z.shape, dtype=dtype)


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 5 and not x.is_contiguous() and x.permute(0, 1, 3, 4, 2).is_contiguous()


@operator("cuba")
def cuba(
    z: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`functional.cuba`: spikes, current and voltage, float32, like `z` `[T, N, C, ...]`."""
    spikes, current, voltage = (torch.empty(z.shape, dtype=torch.float32) for _ in range(3))
    neurons = NeuronRun(z, STATE, current_decay, voltage_decay, bias, threshold, subtract)
    neurons.forward(spikes, current, voltage)
    return spikes, current, voltage


@cuba.register_fake
def _(z: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    spikes, current, voltage = (torch.empty(z.shape, dtype=torch.float32, device=z.device) for _ in range(3))
    return spikes, current, voltage


@operator("cuba_backward")
def cuba_backward(
    grad: Tensor,
    z: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
    decays: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `z`, both decays (empty without `decays`) and the bias (empty without one)."""
    layered, incoming = _as_it_lies(z, z), _as_it_lies(grad, z)
    out = torch.empty(layered.shape, dtype=torch.float32)
    neurons = NeuronRun(layered, STATE, current_decay, voltage_decay, bias, threshold, subtract)
    sums = neurons.backward(incoming, tau_grad, scale_grad, out, decays=decays, bias=bias is not None)
    per_neuron = sums.reshape(3, *layered.shape[1:]) if sums.numel() else sums
    return (
        channels_second(out, z.shape) if _is_channels_last(z) else out,
        over_channels(per_neuron[0], current_decay) if decays else torch.empty(0),
        over_channels(per_neuron[1], voltage_decay) if decays else torch.empty(0),
        torch.empty(0) if bias is None else over_channels(per_neuron[2], bias),
    )


@cuba_backward.register_fake
def _(
    grad: Tensor, z: Tensor, current_decay: Tensor, voltage_decay: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    decays = rest[-1]
    return (
        _empty_as_it_lies(z, torch.float32),
        torch.empty(current_decay.shape if decays else 0, device=z.device),
        torch.empty(voltage_decay.shape if decays else 0, device=z.device),
        torch.empty(0 if bias is None else bias.shape, device=z.device),
    )


def _cuba_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, current_decay, voltage_decay, bias, *constants = inputs
    ctx.save_for_backward(z, current_decay, voltage_decay, bias)
    ctx.constants = constants
    ctx.mark_non_differentiable(*output[1:])


def _cuba_backward(ctx: Any, grad: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    bias, needs = ctx.saved_tensors[3], ctx.needs_input_grad
    grad_z, grad_cd, grad_vd, grad_bias = cuba_backward(
        grad, *ctx.saved_tensors, *ctx.constants, bool(needs[1] or needs[2])
    )
    return (
        grad_z.to(ctx.saved_tensors[0].dtype),
        grad_cd if needs[1] else None,
        grad_vd if needs[2] else None,
        grad_bias if bias is not None and needs[3] else None,
        *[None] * 4,
    )


cuba.register_autograd(_cuba_backward, setup_context=_cuba_setup)


# --- Dense synapses and their neurons: spikes int8 in and out


@operator("spiking_dense")
def spiking_dense(
    spikes: Tensor,
    arrives: Tensor,
    weight: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
    survivor: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes (int8) and their link `[T, N, O]`, and what the weighted input is in steps of a weight, float32.

    Args:
        spikes, arrives: spikes `[T, N, I]`, int8, and their link.
        weight: `[O, I]`, on its grid.
        current_decay, voltage_decay, bias: see `NeuronRun`; without gradients for the decays.
        mask: `[N, I]`, int8: inputs that dropout lets through; or None.
        threshold, tau_grad, scale_grad, subtract: see `functional.cuba`.
        survivor: by how much an input that dropout lets through counts.
    """
    taken = spikes if mask is None else spikes * mask
    z = weigh(taken, weight)
    fired = torch.empty(z.shape, dtype=torch.int8)
    neuron = current_decay, voltage_decay, bias, threshold, subtract
    NeuronRun.behind(weight, z, *neuron, survivor=survivor).forward(fired)
    return fired, link(z.shape, weight), z


@spiking_dense.register_fake
def _(spikes: Tensor, arrives: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    shape = (*spikes.shape[:-1], weight.shape[0])
    fired = torch.empty(shape, dtype=torch.int8, device=spikes.device)
    z = torch.empty(shape, device=spikes.device)
    return fired, link(shape, weight), z


@operator("spiking_dense_backward")
def spiking_dense_backward(
    grad: Tensor,
    spikes: Tensor,
    weight: Tensor,
    z: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
    survivor: float,
    arrives: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the arriving spikes (empty without `arrives`), the weight, and the bias (empty without one).

    That of the spikes has the type of the products, the others are float32.
    """
    steps, n, outputs = z.shape
    grad_z = torch.empty(z.shape, dtype=gradient_dtype(z.numel() * weight.shape[1]))
    neuron = current_decay, voltage_decay, bias, threshold, subtract
    neurons = NeuronRun.behind(weight, z, *neuron, survivor=survivor)
    sums = neurons.backward(grad, tau_grad, scale_grad, grad_z, decays=False, bias=bias is not None)
    rows, taken = grad_z.reshape(steps * n, outputs), spikes if mask is None else spikes * mask
    grad_weight = correlate(taken, grad_z)
    grad_spikes = torch.empty(0)
    if arrives:
        grad_spikes = GradientProduct(weight, len(rows), rows.dtype)(rows).reshape(spikes.shape)
        if mask is not None:
            grad_spikes.mul_(mask).mul_(survivor)
    return (
        grad_spikes,
        grad_weight if survivor == 1 else grad_weight.mul_(survivor),
        torch.empty(0) if bias is None else over_channels(sums[2].reshape(n, outputs), bias),
    )


@spiking_dense_backward.register_fake
def _(
    grad: Tensor, spikes: Tensor, weight: Tensor, z: Tensor, cd: Tensor, vd: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = gradient_dtype(z.numel() * weight.shape[1]) if rest[-1] else torch.float32
    return (
        torch.empty(spikes.shape if rest[-1] else 0, device=z.device, dtype=dtype),
        torch.empty(weight.shape, device=z.device),
        torch.empty(0 if bias is None else bias.shape, device=z.device),
    )


def _dense_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    spikes, _, weight, current_decay, voltage_decay, bias, mask, *constants = inputs
    fired, _, z = output
    ctx.save_for_backward(spikes, weight, z, current_decay, voltage_decay, bias, mask)
    ctx.constants = constants
    ctx.mark_non_differentiable(fired, z)
    ctx.set_materialize_grads(False)


def _dense_backward(ctx: Any, _: Tensor | None, grad: Tensor | None, __: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 12
    needs = ctx.needs_input_grad
    grad_spikes, grad_weight, grad_bias = spiking_dense_backward(grad, *ctx.saved_tensors, *ctx.constants, needs[1])
    return (
        None,
        grad_spikes if needs[1] else None,
        grad_weight if needs[2] else None,
        None,
        None,
        grad_bias if needs[5] else None,
        *[None] * 6,
    )


spiking_dense.register_autograd(_dense_backward, setup_context=_dense_setup)


# --- From weighted input to spikes, and from spikes to tensors


@operator("fire")
def fire(
    z: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
) -> tuple[Tensor, Tensor]:
    """`functional.cuba` without its states: spikes (int8) and their link, like `z` `[T, N, C, ...]`."""
    layered = _as_it_lies(z, z)
    fired = torch.empty(layered.shape, dtype=torch.int8)
    NeuronRun(layered, STATE, current_decay, voltage_decay, bias, threshold, subtract).forward(fired)
    return channels_second(fired, z.shape) if _is_channels_last(z) else fired, link(z.shape, z.new_empty(1, 1))


@fire.register_fake
def _(z: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _empty_as_it_lies(z, torch.int8), link(z.shape, z.new_empty(1, 1))


def _fire_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, current_decay, voltage_decay, bias, *constants = inputs
    ctx.save_for_backward(z, current_decay, voltage_decay, bias)
    ctx.constants = constants
    ctx.mark_non_differentiable(output[0])
    ctx.set_materialize_grads(False)


def _fire_backward(ctx: Any, _: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    return (None,) * 8 if grad is None else _cuba_backward(ctx, grad)


fire.register_autograd(_fire_backward, setup_context=_fire_setup)


@operator("unpack")
def unpack(spikes: Tensor, arrives: Tensor) -> Tensor:
    """Spikes as float32, with the gradient of their link."""
    return spikes.float()


@unpack.register_fake
def _(spikes: Tensor, arrives: Tensor) -> Tensor:
    return torch.empty_like(spikes, dtype=torch.float32)


unpack.register_autograd(lambda ctx, grad: (None, grad))
