"""Input neurons, the synapses behind them and their neurons as one operator; see `steady_synapses`.

The spikes of the input, which most of a first layer's work is about, never leave it.
"""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.kernels.half import gradient_dtype
from bootstrap_core.kernels.input_op import input_mantissas
from bootstrap_core.kernels.neuron_run import NeuronRun, link, over_channels
from bootstrap_core.kernels.operators import operator
from bootstrap_core.kernels.patches import channels_second, out_size
from bootstrap_core.kernels.steady_synapses import InputTables, SteadyConv, SteadyDense, SteadySynapse

__all__ = ["steady", "steady_backward"]


def _synapse(tables: InputTables, geometry: list[int]) -> SteadySynapse:
    return SteadyConv(tables, geometry) if geometry else SteadyDense(tables)


def _out_shape(images: Tensor, weight: Tensor, geometry: list[int], steps: int) -> tuple[int, ...]:
    return (steps, len(images), len(weight), *(out_size(images.shape[2:], geometry) if geometry else ()))


@operator("steady")
def steady(
    images: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    mean: float,
    std: float,
    weight: Tensor,
    geometry: list[int],
    steps: int,
    input_voltage_decay: Tensor,
    input_threshold: float,
    input_tau_grad: float,
    input_scale_grad: float,
    input_subtract: bool,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes (int8) and their link `[T, N, O, ...]`, and the weighted input in steps of a weight `[T, N, ..., O]`.

    Args:
        images, input_weight, input_bias, mean, std: of the current of the input neurons, see `input_current`; without
            a gradient for the images `[N, I]`, or `[N, C, H, W]`.
        weight: `[O, I]`, or `[O, C, KH, KW]`, on its grid.
        geometry: of a convolution, see `patches`; else empty.
        steps: T.
        input_voltage_decay, input_threshold, input_tau_grad, input_scale_grad, input_subtract: of the input neurons.
        current_decay, voltage_decay, bias: see `NeuronRun`.
        threshold, tau_grad, scale_grad, subtract: see `functional.cuba`.
    """
    mantissas = input_mantissas(images, input_weight, input_bias, mean, std)
    tables = InputTables(mantissas, steps, input_voltage_decay, input_threshold, input_subtract)
    z, shape = _synapse(tables, geometry).weigh(weight), _out_shape(images, weight, geometry, steps)
    fired = torch.empty(z.shape, dtype=torch.int8)
    NeuronRun.behind(weight, z, current_decay, voltage_decay, bias, threshold, subtract).forward(fired)
    if geometry:
        fired, z = channels_second(fired, shape), z.view(steps, len(images), -1, len(weight))
    return fired, link(shape, weight), z


@steady.register_fake
def _(
    images: Tensor,
    iw: Tensor,
    ib: Tensor,
    mean: float,
    std: float,
    weight: Tensor,
    geometry: list[int],
    steps: int,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    shape, device = _out_shape(images, weight, geometry, steps), weight.device
    last = (*shape[:2], *shape[3:], shape[2])
    fired = torch.empty(last, dtype=torch.int8, device=device)
    z = torch.empty(last, device=device)
    if geometry:
        fired, z = channels_second(fired, shape), z.flatten(2, 3)
    return fired, link(shape, weight), z


@operator("steady_backward")
def steady_backward(
    grad: Tensor,
    z: Tensor,
    images: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    mean: float,
    std: float,
    weight: Tensor,
    geometry: list[int],
    input_voltage_decay: Tensor,
    input_threshold: float,
    input_tau_grad: float,
    input_scale_grad: float,
    input_subtract: bool,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    tau_grad: float,
    scale_grad: float,
    subtract: bool,
    inputs: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input's weight and bias `[2]` (zeros without `inputs`), the weight, and the bias (empty without
    one), all float32."""
    steps, outputs = len(z), len(weight)
    mantissas = input_mantissas(images, input_weight, input_bias, mean, std)
    tables = InputTables(mantissas, steps, input_voltage_decay, input_threshold, input_subtract)
    synapse, z = _synapse(tables, geometry), z.view(steps, -1, outputs)
    dtype = torch.float32 if geometry else gradient_dtype(z.numel() * weight[0].numel())
    grad_z = torch.empty(z.shape, dtype=dtype)
    neurons = NeuronRun.behind(weight, z, current_decay, voltage_decay, bias, threshold, subtract)
    incoming = grad.permute(0, 1, 3, 4, 2).flatten(1) if geometry else grad
    sums = neurons.backward(incoming, tau_grad, scale_grad, grad_z, decays=False, bias=bias is not None)
    slopes = tables.slopes(input_tau_grad, input_scale_grad) if inputs else None
    grad_weight, (by_pixel, whole) = synapse.gradients(grad_z, weight, images, slopes)
    return (
        torch.tensor([(by_pixel - mean * whole) / std, whole], dtype=torch.float32),
        grad_weight,
        torch.empty(0) if bias is None else over_channels(sums[2].reshape(-1, outputs), bias),
    )


@steady_backward.register_fake
def _(
    grad: Tensor,
    z: Tensor,
    images: Tensor,
    iw: Tensor,
    ib: Tensor,
    mean: float,
    std: float,
    weight: Tensor,
    geometry: list[int],
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    bias = rest[7]
    return (
        torch.empty(2, device=z.device),
        torch.empty(weight.shape, device=z.device),
        torch.empty(0 if bias is None else bias.shape, device=z.device),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    images, input_weight, input_bias, mean, std, weight, geometry, _, input_voltage_decay, *input_constants = inputs[
        :13
    ]
    current_decay, voltage_decay, bias, *constants = inputs[13:]
    fired, _, z = output
    ctx.save_for_backward(
        z, images, input_weight, input_bias, weight, input_voltage_decay, current_decay, voltage_decay, bias
    )
    ctx.constants = (mean, std), geometry, input_constants, constants
    ctx.mark_non_differentiable(fired, z)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, _: Tensor | None, grad: Tensor | None, __: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 20
    z, images, input_weight, input_bias, weight, input_voltage_decay, *neuron = ctx.saved_tensors
    scaling, geometry, input_constants, constants = ctx.constants
    needs = ctx.needs_input_grad
    of_input, grad_weight, grad_bias = steady_backward(
        grad,
        z,
        images,
        input_weight,
        input_bias,
        *scaling,
        weight,
        geometry,
        input_voltage_decay,
        *input_constants,
        *neuron,
        *constants,
        needs[1] or needs[2],
    )
    return (
        None,
        of_input[:1] if needs[1] else None,
        of_input[1:] if needs[2] else None,
        None,
        None,
        grad_weight if needs[5] else None,
        *[None] * 9,
        grad_bias if needs[15] else None,
        *[None] * 4,
    )


steady.register_autograd(_backward, setup_context=_setup)
