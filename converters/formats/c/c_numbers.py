"""Integers of a network in the order of its C source, and the answers for its self-test."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from bootstrap_core.fixed_point import (
    BIAS_MANT_MIN,
    DECAY_ONE,
    MANT,
    MANT_PER_WEIGHT,
    SIGMA,
    SIGMA_PER_MESSAGE,
    STATE_MAX,
    STATE_PER_MANT,
    STATE_PER_WEIGHT,
)
from bootstrap_core.inference.integer_network import IntegerNetwork
from converters.chip.form import ChipLayer, Numbers
from converters.formats.c.c_plan import Plan, Population, Stage, Synapses
from specs.errors import StateOverflowError
from specs.shapes import pads_of

EXAMPLES, EXAMPLE_BYTES = 4, 1 << 16
"""Number of pictures or recordings of the self-test, and the bytes that several of them may take together."""
INT32_MAX = (1 << 31) - 1


@dataclass(frozen=True)
class Array:
    """Constant array of the source: its name and type in C, its numbers, and a comment."""

    name: str
    type: str
    values: list[int]
    note: str = ""
    is_weights: bool = False


@dataclass(frozen=True)
class LayerRecord:
    """Record of a layer's neurons in C, with the arrays that it points to."""

    name: str
    numbers: tuple[int, ...]
    arrays: tuple[Array | None, ...]

    @property
    def fields(self) -> list[str]:
        """Its numbers, then the names of its arrays; NULL for one that is not needed."""
        return [*map(str, self.numbers), *(array.name if array else "NULL" for array in self.arrays)]


def layer_record(plan: Plan, each: Population) -> LayerRecord:
    """Return the constants of a population of neurons."""
    layer = plan.form.layers[each.index]
    name, of_neurons, neurons = f"{each.name}_layer", (each.size, each.channels), layer.neurons
    assert neurons is not None
    bias = bias_of(layer, each.name) if each.index else None  # that of the input is in the currents of its pixels
    if neurons.current_decay is None or neurons.voltage_decay is None:
        threshold, unit = neurons.threshold_mant * SIGMA // MANT, MANT_PER_WEIGHT if each.index else SIGMA // MANT
        return LayerRecord(name, (*of_neurons, threshold, unit), (bias,))
    keep_current = _keeping(f"{each.name}_keep_current", neurons.current_decay) if each.has_current else None
    threshold, unit = neurons.threshold_mant * STATE_PER_MANT, STATE_PER_WEIGHT if each.index else 1
    options = int(neurons.subtracts), int(len(neurons.voltage_decay) > 1)
    keep_voltage = _keeping(f"{each.name}_keep_voltage", neurons.voltage_decay)
    return LayerRecord(name, (*of_neurons, threshold, unit, *options), (keep_current, keep_voltage, bias))


def _keeping(name: str, decay: Numbers) -> Array:
    return Array(name, "uint16_t", (DECAY_ONE - decay).tolist())


def bias_of(layer: ChipLayer, name: str) -> Array | None:
    """Return the bias of an affine readout, or of neurons; None if there is none."""
    return None if layer.bias is None else Array(f"{name}_bias", "int16_t", layer.bias.tolist())


def weights_of(synapses: Synapses) -> Array:
    """Return the weights of synapses, in steps of 2/64, in the order in which the source reads them.

    Dense: a row of outputs for each input, in the order of the source population. Convolution: `[input channel, kernel
    height, kernel width, output channels of the group]`. Identity: one for each channel.
    """
    steps, source, window = synapses.weight // MANT_PER_WEIGHT, synapses.source, synapses.edge.window
    if synapses.edge.is_identity:
        note = "weight of each channel"
    elif window is None:
        steps, note = _by_input(synapses, steps), f"{source.size} inputs x {len(steps)} outputs"
    else:
        grouped = steps.reshape(window.groups, -1, *steps.shape[1:])  # [groups, outputs, inputs, height, width]
        steps = grouped.transpose(0, 2, 3, 4, 1)
        note = f"{source.channels} channels x {window.kernel[0]}x{window.kernel[1]} x {grouped.shape[1]} outputs"
    return Array(synapses.name, "int8_t", steps.reshape(-1).tolist(), f"{note}, in 2/64", is_weights=True)


def _by_input(synapses: Synapses, dense: Numbers) -> Numbers:
    """Return numbers of dense synapses `[outputs, inputs]` as a row of outputs for each place of the source."""
    source = synapses.source
    maps = dense.reshape(-1, source.channels, source.height, source.width)
    return maps.transpose(2, 3, 1, 0)


def conv_numbers(synapses: Synapses, outputs: Population) -> list[int]:
    """Return the numbers of the record `conv_shape` of the source."""
    source, window = synapses.source, synapses.edge.window
    assert window is not None
    top, left, *_ = pads_of(window.padding)
    sizes = (source.channels, source.height, source.width, outputs.channels, outputs.height, outputs.width)
    return [*sizes, *window.kernel, *window.stride, top, left, *window.dilation, window.groups]


def delays_of(stage: Stage) -> Array:
    """Return the delays of a stage's own synapses, in steps: one for each channel, or for each of its weights."""
    steps = stage.delays
    assert steps is not None
    steps, what = (_by_input(stage.own, steps), "weight") if stage.delays_each_weight else (steps, "channel")
    note = f"delay of each {what}, in steps"
    return Array(f"{stage.outputs.name}_delays", "uint8_t", steps.reshape(-1).tolist(), note)


def number_problems(plan: Plan) -> Iterator[str]:
    """Yield what could leave 32 bits for some input.

    That is a weighted input, or logits within the T steps of the network. Sums of messages have 64 bits.
    """
    if plan.sends_messages:
        return
    for stage in plan.stages:
        i = stage.outputs.index
        if (most := _most_weighed(stage, plan)) > INT32_MAX:
            yield f"block {i}: sums of up to {most:,}, which leave 32 bits (use fewer bits)"
    if (most := most_steps(plan)) < plan.time_steps:
        steps = plan.time_steps
        yield f"time_steps: {steps}, as logits could leave 32 bits after {most} (use fewer bits or time steps)"


def most_steps(plan: Plan) -> int:
    """Return the largest number of steps whose logits fit 32 bits for every input.

    In a sigma-delta network, the sum of a neuron's messages differs from its activation by its residue, and by rounding
    of up to 1 in each step.
    """
    if plan.sends_messages:
        return INT32_MAX - 2 * (STATE_MAX // SIGMA_PER_MESSAGE + 1)
    if plan.affine:
        return INT32_MAX // (2 * _most_weighed(plan.affine, plan) - BIAS_MANT_MIN)
    return INT32_MAX // (plan.group * (plan.entering.largest if plan.last is plan.input else 1))


def _most_weighed(stage: Stage, plan: Plan) -> int:
    """Return a bound on the weighted input of a stage in one step, in weight steps."""
    of_channels = []
    for synapses in stage.synapses:
        largest = plan.entering.largest if synapses.source is plan.input else 1
        steps = abs(synapses.weight) // MANT_PER_WEIGHT
        of_channels.append(largest * steps.reshape(len(steps), -1).sum(1))
    return int(sum(of_channels).max())


@dataclass(frozen=True)
class Example:
    """Picture or recording of the self-test: its pixels or numbers of events, and the answers of the source."""

    inputs: list[int]
    logits: list[int]


def examples_of(exact: IntegerNetwork, plan: Plan, images: Tensor | None) -> list[Example]:
    """Return the examples of the self-test: the first of `images`, or noise if they are None or do not fit.

    Images are uint8 `[N, ...]`. Recordings of events or frames, integers `[N, T, ...]`, are cut to as many steps as
    fit. Examples on which a state leaves 24 bits are left out; if none is left, a black one is taken.
    """
    size = plan.n_inputs
    steps = max(1, min(plan.time_steps, EXAMPLE_BYTES // size)) if plan.entering.is_timed else 1
    n = max(1, min(EXAMPLES, EXAMPLE_BYTES // (size * steps)))
    if images is not None and images[0].numel() == size * (images.shape[1] if plan.entering.is_timed else 1):
        images = images.reshape(len(images), -1, *plan.entering.shape)[:n, :steps]
        images = images if plan.entering.is_timed else images.to(torch.uint8)
    else:
        images = _noise(plan, n, steps)
    found = []
    for inputs in images:
        with suppress(StateOverflowError):
            found.append(_example(exact, plan, inputs))
    return found or [_example(exact, plan, torch.zeros_like(images[0]))]


def _noise(plan: Plan, n: int, steps: int) -> Tensor:
    """Return integers `[n, steps, ...]`: each picture half as bright, each recording half as busy as the one before."""
    generator = torch.Generator().manual_seed(0)
    shape = (n, steps, *plan.entering.shape)
    half = torch.arange(n, dtype=torch.uint8).reshape(-1, *[1] * (len(shape) - 1))
    if not plan.entering.is_timed:
        return torch.randint(256, shape, dtype=torch.uint8, generator=generator) >> half
    if plan.sends_messages:
        entering = plan.entering
        return (
            torch.randint(entering.least, 1 + entering.largest, shape, dtype=torch.int16, generator=generator) >> half
        )
    events = torch.randint(1, 1 + min(plan.entering.largest, 255), shape, dtype=torch.uint8, generator=generator)
    return events * (torch.rand(shape, generator=generator) < 0.5 ** (1 + half))


def _example(exact: IntegerNetwork, plan: Plan, inputs: Tensor) -> Example:
    """Return the example of one picture `[1, ...]`, or of one recording `[T, ...]`."""
    logits = logits_over_time(exact, inputs[:, None] if plan.entering.is_timed else inputs, plan)[-1]
    return Example(inputs.flatten().tolist(), logits.flatten().tolist())


def logits_over_time(exact: IntegerNetwork, inputs: Tensor, plan: Plan) -> Tensor:
    """Return the logits after each step as the source computes them, int64 `[T, N, classes]`.

    Their unit is 1/(`step_unit` x steps); that of values of sigma-delta neurons, and of logits of the last step alone,
    is 1/`step_unit`. Inputs are images `[N, ...]`, or events or frames `[T, N, ...]`.
    """
    _, trace = exact.run(inputs)
    if trace.values is not None:
        return (trace.values.double() * plan.step_unit).round().long().flatten(2)
    outputs = trace.spikes[-1]
    assert outputs is not None
    return (outputs.double() * plan.step_unit).round().long().flatten(2).cumsum(0)
