"""Input neurons and the dense layer behind them as one operator; see `steady_inputs`.

The spikes of the input, which most of a first layer's work is about, never exist.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.fixed_point import MANT, STATE, STATE_PER_WEIGHT
from bootstrap_core.functional.surrogate import exponential_surrogate
from bootstrap_core.kernels import steady_inputs
from bootstrap_core.kernels.dense_products import as_integers, contiguous_rows
from bootstrap_core.kernels.half import gradient_dtype
from bootstrap_core.kernels.input_op import input_current
from bootstrap_core.kernels.neuron_run import ALIGN, NeuronRun, as_array, link, over_channels
from bootstrap_core.kernels.threads import split, split_sum

__all__ = ["steady_dense", "steady_dense_backward"]


class _Tables:
    """What follows from an input neuron's current, for each mantissa between the lowest and the highest."""

    def __init__(self, current: Tensor, steps: int, voltage_decay: Tensor, threshold: float, subtract: bool) -> None:
        mantissas = (current.detach() * MANT).to(torch.int32).flatten(1)
        lowest, highest = (int(bound) for bound in torch.aminmax(mantissas))
        self.indices = (mantissas - lowest).numpy()
        currents = torch.arange(lowest, highest + 1) / MANT
        z = currents.expand(steps, 1, len(currents))
        spikes, entered, voltage = (torch.empty(z.shape) for _ in range(3))
        NeuronRun(z, STATE, torch.ones(1), voltage_decay, None, threshold, subtract).forward(spikes, entered, voltage)
        fired = spikes[:, 0].T.to(torch.int8).contiguous().numpy()  # [currents, T]
        words = np.packbits(np.concatenate([np.zeros_like(fired[:1]), fired]).astype(bool), axis=1)
        # one opaque value a train, compared as bytes: the silent one sorts first
        _, first, train_of = np.unique(words.view(f"V{words.shape[1]}").ravel(), return_index=True, return_inverse=True)
        self.trains = np.concatenate([np.zeros_like(fired[:1]), fired])[first]
        self.train_of = train_of.ravel()[1:]
        self.voltage = voltage[:, 0]

    def slopes(self, voltage_decay: Tensor, threshold: float, tau_grad: float, scale_grad: float) -> Any:
        """What a gradient of the spike at each step is worth to the current, `[currents, T]`."""
        surrogate = exponential_surrogate(self.voltage, threshold=threshold, tau_grad=tau_grad, scale_grad=scale_grad)
        # d voltage[t] / d current = 1 + keep + ... + keep^t: the leak is differentiated, the reset is not
        keep = (1 - voltage_decay.detach().double()).expand(len(surrogate))
        response = torch.cumsum(torch.cumprod(torch.cat([torch.ones_like(keep[:1]), keep[1:]]), 0), 0)
        return (surrogate * response[:, None].float()).T.contiguous().numpy()


@torch.library.custom_op("snnzoo::steady_dense", mutates_args=())
def steady_dense(
    images: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    mean: float,
    std: float,
    weight: Tensor,
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
    """Spikes (int8) and their link `[T, N, O]`, and the weighted input in steps of a weight, int32.

    Args:
        images, input_weight, input_bias, mean, std: of the current of the input neurons, see `input_current`; without
            a gradient for the images `[N, I]`.
        weight: `[O, I]`, on its grid.
        steps: T.
        input_voltage_decay, input_threshold, input_tau_grad, input_scale_grad, input_subtract: of the input neurons.
        current_decay, voltage_decay, bias, threshold, tau_grad, scale_grad, subtract: see `functional.cuba`.
    """
    current = input_current(images, input_weight, input_bias, mean, std)
    tables = _Tables(current, steps, input_voltage_decay, input_threshold, input_subtract)
    n, columns = len(images), contiguous_rows(as_integers(weight).t()).numpy()
    z = torch.empty(steps, n, len(weight), dtype=torch.int32)
    total = z.numpy()
    split(
        lambda start, stop: steady_inputs.weigh(
            tables.indices, tables.train_of, tables.trains, columns, start, stop, total
        ),
        n,
        work=z.numel(),
    )
    fired = torch.empty(z.shape, dtype=torch.int8)
    NeuronRun(z, STATE_PER_WEIGHT, current_decay, voltage_decay, bias, threshold, subtract).forward(fired)
    return fired, link(z.shape, weight), z


@steady_dense.register_fake
def _(
    images: Tensor, iw: Tensor, ib: Tensor, mean: float, std: float, weight: Tensor, steps: int, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (steps, len(images), len(weight))
    fired = torch.empty(shape, dtype=torch.int8, device=weight.device)
    z = torch.empty(shape, dtype=torch.int32, device=weight.device)
    return fired, link(shape, weight), z


@torch.library.custom_op("snnzoo::steady_dense_backward", mutates_args=())
def steady_dense_backward(
    grad: Tensor,
    z: Tensor,
    images: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    mean: float,
    std: float,
    weight: Tensor,
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
    steps, n, outputs = z.shape
    current = input_current(images, input_weight, input_bias, mean, std)
    tables = _Tables(current, steps, input_voltage_decay, input_threshold, input_subtract)
    grad_z = torch.empty(z.shape, dtype=gradient_dtype(z.numel() * weight.shape[1]))
    neurons = NeuronRun(z, STATE_PER_WEIGHT, current_decay, voltage_decay, bias, threshold, subtract)
    sums = neurons.backward(grad, tau_grad, scale_grad, grad_z, decays=False, bias=bias is not None)
    rows, work = as_array(grad_z).reshape(z.shape), z.numel()

    columns = torch.empty(weight.shape[1], outputs)
    out = columns.numpy()
    split(
        lambda start, stop: steady_inputs.weight_grad(
            tables.indices, tables.train_of, tables.trains, rows, start, stop, out
        ),
        outputs,
        work=work,
        align=min(ALIGN, outputs),
    )
    of_input = torch.zeros(2)
    if inputs:
        slopes = tables.slopes(input_voltage_decay, input_threshold, input_tau_grad, input_scale_grad)
        fan_in, pixels, common = (
            contiguous_rows(weight.detach().t()).numpy(),
            images.numpy(),
            np.float32(images.min().item()),
        )
        by_pixel, whole = split_sum(
            lambda start, stop, out: steady_inputs.input_sums(
                tables.indices, pixels, common, slopes, fan_in, rows, start, stop, out
            ),
            n,
            (2,),
            work=work,
        )
        of_input = torch.tensor([(by_pixel - mean * whole) / std, whole], dtype=torch.float32)
    return (
        of_input,
        columns.t(),
        torch.empty(0) if bias is None else over_channels(sums[2].reshape(n, outputs), bias),
    )


@steady_dense_backward.register_fake
def _(
    grad: Tensor, z: Tensor, images: Tensor, iw: Tensor, ib: Tensor, mean: float, std: float, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    bias = rest[7]
    return (
        torch.empty(2, device=z.device),
        torch.empty(weight.shape[::-1], device=z.device).t(),
        torch.empty(0 if bias is None else bias.shape, device=z.device),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    images, input_weight, input_bias, mean, std, weight, _, input_voltage_decay, *input_constants = inputs[:12]
    current_decay, voltage_decay, bias, *constants = inputs[12:]
    fired, _, z = output
    ctx.save_for_backward(
        z, images, input_weight, input_bias, weight, input_voltage_decay, current_decay, voltage_decay, bias
    )
    ctx.constants = (mean, std), input_constants, constants
    ctx.mark_non_differentiable(fired, z)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, _: Tensor | None, grad: Tensor | None, __: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 19
    z, images, input_weight, input_bias, weight, input_voltage_decay, *neuron = ctx.saved_tensors
    scaling, input_constants, constants = ctx.constants
    needs = ctx.needs_input_grad
    of_input, grad_weight, grad_bias = steady_dense_backward(
        grad,
        z,
        images,
        input_weight,
        input_bias,
        *scaling,
        weight,
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
        *[None] * 8,
        grad_bias if needs[14] else None,
        *[None] * 4,
    )


steady_dense.register_autograd(_backward, setup_context=_setup)
