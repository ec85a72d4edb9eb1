"""Input neurons: each pixel drives a neuron with one current, the same at each step.

Definition: `functional.truncate_current` and `functional.cuba`, or `functional.piecewise`. A current is a multiple of
1/64 and determines the spikes: they are computed once for each current that occurs, and looked up for each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import BIAS_MANT_MAX, BIAS_MANT_MIN, MANT, STATE
from bootstrap_core.functional.cuba import exponential_surrogate
from bootstrap_core.functional.quantize import quantize_weight, truncate_current
from bootstrap_core.ops.activation import activate
from bootstrap_core.ops.library import InputScaling, Prepared, call, pointer, runs_native
from bootstrap_core.ops.neurons import MOST_REACHED, LayerRun, NeuronConstants, by_image
from bootstrap_core.ops.spikes import Spikes, SteadyInput, empty_link


@dataclass(frozen=True)
class InputCurrent(Prepared):
    """Current of a pixel in 0..1: `weight * (pixel - mean) / std + bias`, truncated to 1/64.

    `weight` and `bias` are `[1]`; they are rounded to their grid of 2/64 first.
    """

    weight: Tensor
    bias: Tensor
    mean: float
    std: float

    @cached_property
    def record(self) -> InputScaling:
        """Record for the native library, with weight and bias on their grid."""
        weight, bias = quantize_weight(torch.cat([self.weight.detach(), self.bias.detach()])).tolist()
        return InputScaling(self.mean, self.std, weight, bias, MANT, BIAS_MANT_MIN, BIAS_MANT_MAX)

    @property
    def learns(self) -> bool:
        """True if weight or bias need a gradient."""
        return torch.is_grad_enabled() and (self.weight.requires_grad or self.bias.requires_grad)


@dataclass(frozen=True)
class _Numbered:
    """Pixels, and the number of each pixel's current, counted from the lowest current of the batch.

    Attributes:
        pixels, numbers: `[N, inputs]`, float32 and int32; maps have their channels last.
        lowest: the lowest current, in units of 1/64.
        n: number of currents from the lowest to the highest.
    """

    pixels: Tensor
    numbers: Tensor
    lowest: int
    n: int

    def currents(self) -> Tensor:
        """Return all currents in ascending order, `[1, n]`."""
        return torch.arange(self.lowest, self.lowest + self.n, dtype=torch.float32).div_(MANT)[None]


def _number_currents(images: Tensor, given: InputCurrent) -> _Numbered:
    lying = images if images.dim() == 2 else images.movedim(1, -1)
    pixels = lying.detach().contiguous().view(len(images), -1)
    numbers, span = torch.empty(pixels.shape, dtype=torch.int32), torch.empty(2, dtype=torch.int32)
    call("snn_input_currents", pixels.data_ptr(), pixels.numel(), given.record, numbers.data_ptr(), span.data_ptr())
    lowest, n = span.tolist()
    return _Numbered(pixels, numbers, lowest, n)


def input_current(images: Tensor, given: InputCurrent) -> Tensor:
    """Return the current of each pixel, float32; computed in float64, so that the truncation is exact."""
    if _is_plain(images) and not given.learns:
        numbered = _number_currents(images, given)
        return _as_images(_look_up(numbered.currents(), numbered.numbers)[0], images)
    weight, bias = quantize_weight(given.weight), quantize_weight(given.bias)
    x = (images.double() - given.mean) / given.std
    return truncate_current(weight * x + bias).float()


def input_rates(images: Tensor, given: InputCurrent, centers: Tensor, slopes: Tensor) -> Tensor:
    """Return the rate of each pixel: the fitted activation of its current, float32; see `activation.activate`.

    Differentiable in the weight and bias of the input, and in the images.
    """
    if not _is_plain(images):
        return activate(input_current(images, given), centers, slopes)
    numbered = _number_currents(images, given)
    with torch.enable_grad():
        currents = numbered.currents().requires_grad_()
        table = activate(currents, centers, slopes)
    rates = _as_images(_look_up(table.detach(), numbered.numbers)[0], images)
    if not given.learns:
        return rates
    (gradients,) = torch.autograd.grad(table.sum(), currents)
    source = given.weight, given.bias, given.mean, given.std
    steady = SteadyInput(numbered.numbers, numbered.pixels, gradients.view(-1, 1), *source)
    return _ToInput.apply(given.weight, given.bias, rates, steady, False)  # type: ignore[no-any-return, no-untyped-call]


def _is_plain(images: Tensor) -> bool:
    return images.dtype == torch.float32 and not images.requires_grad and images.numel() > 0 and runs_native(images)


def _as_images(x: Tensor, images: Tensor) -> Tensor:
    """Return `[N, inputs]`, channels last, in the shape of the images."""
    if images.dim() == 2:
        return x
    n, channels, *size = images.shape
    return x.view(n, *size, channels).movedim(-1, 1)


def input_spikes(images: Tensor, given: InputCurrent, neurons: NeuronConstants, steps: int) -> Spikes:
    """Return the spikes of input neurons, whose current enters the voltage as the hardware's bias does.

    Args:
        neurons: constants of the neurons; their current decay is not used.
    """
    if _is_plain(images) and len(neurons.voltage_decay) == 1 and not neurons.learns_decays:
        numbered = _number_currents(images, given)
        table = _table_of(numbered, neurons, steps)
        if table.run.reached < MOST_REACHED:
            shape = tuple(images.shape[1:])
            words = _look_up(table.run.words.view(-1, numbered.n), numbered.numbers)
            words = words.view(len(words), len(images), *shape[1:], shape[0])
            steady = link = None
            if given.learns:
                steady, link = _steady(numbered, table, given, neurons), empty_link((steps, *images.shape))
                link = _ToInput.apply(given.weight, given.bias, link, steady, True)  # type: ignore[no-untyped-call]
            return Spikes(steps, shape, words=words, link=link, steady=steady, reached=table.run.reached)
    current = input_current(images, given)
    direct = replace(neurons, current_decay=torch.ones_like(neurons.current_decay))
    return direct.fire_definition(current.expand(steps, *current.shape))


@dataclass(frozen=True)
class _Table:
    """Spikes and voltage of a neuron for each current; voltage `[T, currents]` in float units."""

    run: LayerRun
    voltage: Tensor


def _table_of(numbered: _Numbered, neurons: NeuronConstants, steps: int) -> _Table:
    """Return the table for the currents of a batch; it is kept for the next batch with the same ones."""
    key = numbered.lowest, numbered.n, steps
    tables: dict[tuple[int, int, int], _Table] = neurons.input_tables
    table = tables.get(key)  # another thread may clear the cache at any time
    if table is None:
        currents = numbered.currents()
        alike = replace(
            neurons,
            current_decay=torch.ones(1, dtype=torch.float32),
            voltage_decay=neurons.voltage_decay.detach(),
            bias=None,
        )
        run = LayerRun(alike, (1, 1, 1, numbered.n), steps)
        layer = run.layer(trains=True)
        run.reached = call("snn_neurons", layer, alike.record(numbered.n), pointer(currents), True)
        assert run.voltage is not None
        table = _Table(run, run.voltage.view(steps, numbered.n).float().div_(STATE))
        tables.clear()
        tables[key] = table
    return table


def _steady(numbered: _Numbered, table: _Table, given: InputCurrent, neurons: NeuronConstants) -> SteadyInput:
    """Return the derivative of each spike with respect to its current."""
    steps = len(table.voltage)
    slopes = exponential_surrogate(
        table.voltage, threshold=neurons.threshold, tau_grad=neurons.tau_grad, scale_grad=neurons.scale_grad
    )
    # d voltage[t] / d current = 1 + keep + ... + keep^t: the leak is differentiated, the reset is not
    keep = 1 - neurons.voltage_decay.detach().float()
    response = torch.cumsum(torch.cat([torch.ones(1, dtype=torch.float32), keep.expand(steps - 1)]).cumprod(0), 0)
    slopes *= response[:, None]
    if neurons.shift:  # the gradient of a spike arrives a step later
        slopes = torch.cat([torch.zeros_like(slopes[:1]), slopes[:-1]])
    source = given.weight, given.bias, given.mean, given.std
    return SteadyInput(numbered.numbers, numbered.pixels, slopes.t().contiguous(), *source)


def _look_up(table: Tensor, numbers: Tensor) -> Tensor:
    """Look up all numbers in each row of a table `[K, currents]` of 32-bit values: `[K, *numbers.shape]`."""
    out = torch.empty(len(table), *numbers.shape, dtype=table.dtype)
    sizes = *table.shape, pointer(numbers), numbers.numel()
    call("snn_look_up", pointer(table), *sizes, out.data_ptr())
    return out


def input_gradients(grad: Tensor, steady: SteadyInput) -> tuple[Tensor, Tensor]:
    """Return the gradients of the input's weight and bias from the gradient of its spikes, `[T, N, ...]`."""
    rows = by_image(grad)
    rows = rows if rows.dtype == torch.bfloat16 else rows.float()
    images, steps = rows.shape[:2]
    sums = torch.zeros(2, dtype=torch.float64)
    pointers = map(pointer, (rows, steady.currents, steady.pixels, steady.slopes))
    sizes = images, steps, steady.currents.shape[1], rows.dtype == torch.bfloat16
    call("snn_input_gradient", *pointers, *sizes, pointer(sums))
    return steady.gradients(*sums.tolist())


class _ToInput(torch.autograd.Function):
    """Pass rates, or with `in_time` a link of spikes, on; their gradient goes to the input's weight and bias."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, passed: Tensor, steady: SteadyInput, in_time: bool) -> Tensor:
        ctx.steady, ctx.in_time = steady, in_time
        return passed.view_as(passed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *input_gradients(grads[0] if ctx.in_time else grads[0][None], ctx.steady), None, None, None
