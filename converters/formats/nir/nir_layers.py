"""Turn a chain of NIR nodes into layers: linear nodes between two layers of neurons become one synapse."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from converters.formats.nir.nir_chain import Named
from converters.formats.nir.nir_file import Node
from converters.formats.nir.nir_neurons import (
    NEURON_TYPES,
    SILENT_TYPES,
    Neurons,
    TimeConstants,
    channel_values,
    neurons_of,
)
from converters.linear.linear_fold import Conv, Dense, fold_conv, fold_dense, follow, pool, scale_outputs
from specs.errors import IntegrityError, UnsupportedError
from specs.fields import MAX_DELAY, Padding, Shape
from specs.shapes import Pair, fewest_sides

MAX_FEATURES = 1 << 24
MAX_SIDE = 4096


@dataclass(frozen=True)
class Layer:
    """Synapses and the neurons behind them; the last layer may have no neurons.

    Attributes:
        names: names of the nodes that the layer was made from.
        synapse: weights times the gain of the neurons; a number if the neurons have no weights, which scales the input.
        bias: `[channels]`, or `[1]` for all channels; enters the voltage, or the output if there are no neurons.
        neurons: gain 1, bias 0, and one threshold for all channels; None for a last layer without neurons.
        before, after: shapes of input and output; if the next layer's `before` differs, there is a flatten between.
        delayed: True if spikes leave one step later.
        recurrent: weights from the neurons to themselves, times the gain, `[channels, channels]`, or None.
        delays: delays of the synapses in time steps, `[1]`, `[channels]` or `[channels, inputs]`, or None.
    """

    names: tuple[str, ...]
    synapse: Conv | Dense | float
    bias: Tensor
    neurons: Neurons | None
    before: Shape
    after: Shape
    delayed: bool = False
    recurrent: Tensor | None = None
    delays: Tensor | None = None


def layers_of(
    chain: Sequence[Named], loops: Mapping[str, Named], *, dt: float, time_constants: TimeConstants, origin: str
) -> tuple[list[Layer], list[str]]:
    """Return the layers of a chain from Input to Output, and notes for people.

    Args:
        chain: nodes with their names, in order.
        loops: nodes from neurons to themselves, by the name of the neurons.
        dt: length of a time step in seconds.
        time_constants: conversion of time constants to decays.
        origin: path of the file, for error messages.

    Raises:
        IntegrityError: a node does not follow NIR's definition.
        UnsupportedError: features that layers do not have; lists all, up to a node whose output shape is unknown.
    """
    stack = _Stack(dt, time_constants, loops)
    problems: list[str] = []
    for name, node in chain:
        place = f"{name} ({node.type})"
        try:
            stack.add(name, node)
        except IntegrityError as error:
            raise IntegrityError(f"{origin}: {place}: {error}") from None
        except UnsupportedError as error:
            problems.append(f"{place}: {error}")
            if node.type in {*NEURON_TYPES, *SILENT_TYPES}:
                stack.start(stack.shape)
            elif node.type != "Delay":
                break
    if problems:
        raise UnsupportedError(f"{origin} cannot be read as a snnzoo network: {'; '.join(problems)}")
    return stack.layers, stack.notes


class _Stack:
    """Layers made so far, and the linear nodes since the last neurons."""

    def __init__(self, dt: float, time_constants: TimeConstants, loops: Mapping[str, Named]) -> None:
        self.dt, self.time_constants, self.loops = dt, time_constants, loops
        self.layers: list[Layer] = []
        self.notes: list[str] = []
        self.shape: Shape = ()
        self.start(())

    def start(self, before: Shape) -> None:
        """Start a layer whose input has the shape `before`."""
        self.names = list[str]()
        self.before = self.maps = before  # `maps` is the shape before flattening
        self.conv: Conv | None = None
        self.flat: Dense | Tensor | None = None
        self.input_delays = self.output_delays = torch.zeros(1)  # in steps, by channel before and after the weights

    def add(self, name: str, node: Node) -> None:
        """Add the next node of the chain."""
        if node.type not in {"Input", "Output", "Delay"}:
            self.names.append(name)
        match node.type:
            case "Input":
                self._input(name, node)
            case "Affine" | "Linear":
                self._dense(node)
            case "Conv2d":
                self._convolve(_conv_of(node, self.shape))
            case "SumPool2d" | "AvgPool2d":
                self._convolve(_pool_of(node, self.shape))
            case "Scale":
                self._scale(node)
            case "Flatten":
                self._flatten(name, node)
            case "Delay":
                self._delay(node)
            case "Output":
                self._end()
            case _:
                self._neurons(name, node)

    def _input(self, name: str, node: Node) -> None:
        shape = _integers(node, "shape")
        if len(shape) in {2, 4} and shape[0] == 1:
            self.notes.append(f"{name}: the first axis of {list(shape)} is read as a batch of one")
            shape = shape[1:]
        if len(shape) not in {1, 3} or any(not 1 <= side <= MAX_FEATURES for side in shape):
            raise UnsupportedError(f"shape {list(shape)}; expected [features] or [channels, height, width]")
        if prod(shape) > MAX_FEATURES:
            raise UnsupportedError(f"shape {list(shape)} has {prod(shape):,} inputs, more than {MAX_FEATURES:,}")
        self.shape = shape
        self.start(shape)

    def _dense(self, node: Node) -> None:
        self._move_delays()
        weight = _array(node, "weight")
        if weight.ndim != 2 or not weight.size:
            raise UnsupportedError(f"weights of shape {list(weight.shape)}; expected [outputs, inputs]")
        if self.shape != (weight.shape[1],):
            raise UnsupportedError(
                f"weights for {weight.shape[1]} inputs receive a signal of shape {list(self.shape)}"
                f"{': a Flatten is missing' if prod(self.shape) == weight.shape[1] else ''}"
            )
        bias = _bias(node, weight.shape[0])
        self.flat = follow(self.flat, Dense(torch.from_numpy(weight), bias))
        self.shape = (weight.shape[0],)

    def _move_delays(self) -> None:
        """Turn delays behind pools and scalings into delays before them, as further weights follow."""
        if not self.output_delays.any():
            return
        conv = self.conv
        if conv is None or not conv.depthwise or self.flat is not None or len(self.output_delays) > len(conv.weight):
            raise UnsupportedError("weights after a delay of weights need neurons between them")
        self.input_delays, self.output_delays = _added(self.input_delays, self.output_delays), torch.zeros(1)

    def _convolve(self, conv: Conv) -> None:
        self._move_delays()
        self.conv = conv if self.conv is None else fold_conv(self.conv, conv, self.before)
        self.shape = self.maps = conv.output_shape(self.shape)

    def _scale(self, node: Node) -> None:
        scale = torch.from_numpy(channel_values(node, "scale", self.shape))
        if len(self.shape) == 3:
            self._convolve(pool(scale.expand(self.shape[0]), (1, 1), (1, 1), (0, 0)))
        else:
            self.flat = follow(self.flat, scale)

    def _flatten(self, name: str, node: Node) -> None:
        if len(self.shape) == 1:
            return
        first = _integer(node, "start_dim", default=1)
        last = _integer(node, "end_dim", default=-1)
        if last not in {-1, 2} or first not in {0, 1}:
            raise UnsupportedError(f"flattens axes {first} to {last} of {list(self.shape)}; expected all axes")
        if first == 1:
            self.notes.append(f"{name}: start_dim 1 is read as 0: it counts a batch axis, which NIR does not have")
        self.shape = (prod(self.shape),)

    def _delay(self, node: Node) -> None:
        delay = channel_values(node, "delay", self.shape)
        if not delay.any():
            return
        steps = delay / self.dt
        supported = (np.abs(steps - np.round(steps)) <= 1e-3) & (steps >= 0) & (steps <= MAX_DELAY)
        if not supported.all():
            first = delay[~supported][0]
            raise UnsupportedError(
                f"a delay of {first:g} s; only whole time steps of {self.dt:g} s are supported, 0 to {MAX_DELAY}"
            )
        found = torch.from_numpy(np.round(steps))
        weights = [each for each in (self.conv, self.flat) if isinstance(each, Conv | Dense)]
        if weights:
            if any(bool(each.bias.any()) for each in weights):
                raise UnsupportedError("a Delay after weights with a bias, which would arrive late, too")
            self.output_delays = _added(self.output_delays, found)
        elif self.layers and not self.layers[-1].delayed and bool((found == 1).all()):
            self.layers[-1] = replace(self.layers[-1], delayed=True)
        else:
            self.input_delays = _added(self.input_delays, found)

    def _neurons(self, name: str, node: Node) -> None:
        shape = self.maps if self.flat is None else self.shape
        neurons = neurons_of(node, shape, dt=self.dt, time_constants=self.time_constants)
        self.notes += [f"{name}: {text}" for text in neurons.rounded]
        neurons = _at_one_threshold(neurons)
        gain, bias = neurons.gain, neurons.bias
        if neurons.threshold is None and len(bias.unique()) > 1 and bool((neurons.current_decay < 1).any()):
            raise UnsupportedError(
                "v_leak differs between the classes, and the current decays: logits are the mean weighted input, "
                "in which v_leak would count for more than in the voltage"
            )
        synapse = self._synapse()
        recurrent, of_loop = self._loop(name, synapse)
        if not isinstance(synapse, float):
            synapse = replace(synapse, bias=synapse.bias + of_loop)
            bias = bias + self._voltage_bias(name, synapse.bias, neurons) * gain
            synapse = scale_outputs(synapse, gain)
        elif len(gain) > 1:
            raise UnsupportedError("parameters that differ between channels need weights before the neurons")
        else:
            synapse *= float(gain)
        recurrent = None if recurrent is None else recurrent * gain.reshape(-1, 1)
        neurons = replace(neurons, gain=torch.ones(1), bias=torch.zeros(1))
        delays = self._delays(synapse, neurons)
        self._close(synapse, bias, neurons, shape, recurrent=recurrent, delays=delays)

    def _voltage_bias(self, name: str, bias: Tensor, neurons: Neurons) -> Tensor:
        """Return the bias of the voltage that stands for a bias of the current: what it adds to once it is steady."""
        decay = neurons.current_decay
        if not bool(bias.any()) or bool((decay == 1).all()):
            return bias
        if neurons.threshold is None or not bool(decay.all()):
            raise UnsupportedError(
                "the weights before it have a bias that enters a decaying current; in a readout, or without a decay, "
                "only a bias that enters the voltage is supported (write it as v_leak, or set tau_syn = dt)"
            )
        steps = math.ceil(math.log(0.01) / math.log1p(-max(float(decay[decay < 1].min()), 1e-9)))
        self.notes.append(
            f"{name}: the bias before it enters the current, which decays; here bias / current_decay enters the "
            f"voltage, which is the same to 1 % after {steps} steps and more before"
        )
        return bias / decay

    def _loop(self, name: str, synapse: Conv | Dense | float) -> tuple[Tensor | None, Tensor | float]:
        """Return the weights and the bias from neurons to themselves; None and 0 without a loop."""
        if name not in self.loops:
            return None, 0.0
        own, node = self.loops[name]
        self.names.append(own)
        if not isinstance(synapse, Dense):
            raise UnsupportedError("recurrent neurons need an Affine or Linear before them")
        weight, n = _array(node, "weight"), len(synapse.weight)
        if weight.shape != (n, n):
            raise IntegrityError(
                f"{own}: weights of shape {list(weight.shape)} do not lead from {n} neurons to themselves"
            )
        return torch.from_numpy(weight), _bias(node, n)

    def _delays(self, synapse: Conv | Dense | float, neurons: Neurons | None) -> Tensor | None:
        """Return the delays of a layer's synapses, see `Layer`."""
        if not self.input_delays.any() and not self.output_delays.any():
            return None
        if isinstance(synapse, float) or neurons is None or neurons.threshold is None:
            raise UnsupportedError("a delay needs weights and then spiking neurons after it")
        inputs, outputs = self.input_delays, self.output_delays
        if isinstance(synapse, Conv) and not (len(inputs) == 1 and len(outputs) in {1, len(synapse.weight)}):
            raise UnsupportedError("a delay that differs between the inputs of a convolution, or within its channels")
        if len(inputs) == 1 or isinstance(synapse, Conv):
            delays = inputs + outputs
        else:
            n_outputs, n_inputs = synapse.weight.shape
            delays = inputs.repeat_interleave(n_inputs // len(inputs)) + outputs[:, None]
            delays = delays.expand(n_outputs, n_inputs)
        if delays.max() > MAX_DELAY:
            raise UnsupportedError(f"delays that add up to {int(delays.max())} time steps, more than {MAX_DELAY}")
        return delays

    def _synapse(self) -> Conv | Dense | float:
        """Return the linear nodes since the last neurons as one synapse."""
        match self.conv, self.flat:
            case Conv(), None:
                return self.conv
            case None, Dense():
                return self.flat
            case Conv(), Dense():
                if not self.conv.depthwise:
                    raise UnsupportedError("a convolution and a dense layer need neurons between them")
                return fold_dense(self.conv, self.flat, self.before)
            case _ if self.layers:
                raise UnsupportedError("neurons after neurons need weights between them")
            case None, None:
                return 1.0
            case None, Tensor() if len(self.flat) == 1:
                return float(self.flat)
            case _:
                raise UnsupportedError("a Scale with a factor for each input needs weights after it")

    def _close(
        self,
        synapse: Any,
        bias: Tensor,
        neurons: Neurons | None,
        after: Shape,
        *,
        recurrent: Tensor | None = None,
        delays: Tensor | None = None,
    ) -> None:
        before, first = self.before, not self.layers and delays is None
        if first and isinstance(synapse, Conv) and synapse.is_pool and synapse.kernel == (1, 1):
            weight = synapse.weight.unique()
            if len(weight) == 1 and synapse.stride == (1, 1) and synapse.padding == (0, 0):
                synapse = float(weight)  # a Scale of the whole input
        if isinstance(synapse, Dense):
            before = (prod(before),)
        layer = Layer(tuple(self.names), synapse, bias, neurons, before, after, recurrent=recurrent, delays=delays)
        self.layers.append(layer)
        self.start(after)

    def _end(self) -> None:
        if self.conv is None and self.flat is None:
            if not self.layers:
                raise UnsupportedError("no weights and no neurons come before it")
            if self.input_delays.any():
                raise UnsupportedError("a delay of the output of more than one time step")
            return
        synapse = self._synapse() if isinstance(self.flat, Dense) else None
        if not isinstance(synapse, Dense):
            raise UnsupportedError("a readout without neurons must be Affine or Linear, after a Flatten")
        self._delays(synapse, None)
        self._close(synapse, synapse.bias, None, self.shape)


def _at_one_threshold(neurons: Neurons) -> Neurons:
    """Return neurons with the same spikes whose channels all have the largest threshold; gain and bias are scaled."""
    if neurons.threshold is None:
        return neurons
    highest = neurons.threshold.max()
    factor = highest / neurons.threshold
    return replace(neurons, gain=neurons.gain * factor, bias=neurons.bias * factor, threshold=highest[None])


def _added(delays: Tensor, more: Tensor) -> Tensor:
    """Return the sum of delays by channel, some of which may be for all channels, or for all pixels of a channel."""
    n = max(len(delays), len(more))
    return delays.repeat_interleave(n // len(delays)) + more.repeat_interleave(n // len(more))


def _conv_of(node: Node, shape: Shape) -> Conv:
    if len(shape) != 3:
        raise UnsupportedError(f"a signal of shape {list(shape)}; expected [channels, height, width]")
    weight = _array(node, "weight")
    groups = _integer(node, "groups", default=1)
    if weight.ndim != 4 or not weight.size or groups < 1:
        raise IntegrityError(f"weights of shape {list(weight.shape)} in {groups} groups do not form a convolution")
    if weight.shape[1] * groups != shape[0] or weight.shape[0] % groups:
        raise IntegrityError(f"weights of shape {list(weight.shape)} in {groups} groups do not fit {shape[0]} channels")
    kernel = (weight.shape[2], weight.shape[3])
    stride, dilation = _pair(node, "stride", 1), _pair(node, "dilation", 1)
    conv = Conv(
        torch.from_numpy(weight),
        _bias(node, weight.shape[0]),
        stride,
        _padding(node, kernel, stride, dilation),
        dilation,
        groups,
    )
    return _checked(conv, shape)


def _pool_of(node: Node, shape: Shape) -> Conv:
    if len(shape) != 3:
        raise UnsupportedError(f"a signal of shape {list(shape)}; expected [channels, height, width]")
    kernel = _pair(node, "kernel_size", 1)
    stride = _pair(node, "stride", 1)
    weight = 1.0 / prod(kernel) if node.type == "AvgPool2d" else 1.0
    return _checked(pool(torch.full((shape[0],), weight).double(), kernel, stride, _pair(node, "padding", 0)), shape)


def _checked(conv: Conv, shape: Shape) -> Conv:
    if min(conv.output_shape(shape)) < 1:
        raise IntegrityError(f"a kernel of {list(conv.kernel)} does not fit into a signal of shape {list(shape)}")
    return conv


def _padding(node: Node, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    given = node.fields.get("padding")
    if not isinstance(given, str):
        return _pair(node, "padding", 0)
    if given == "valid":
        return (0, 0)
    reach = [dilation[i] * (kernel[i] - 1) for i in range(2)]
    if given != "same":
        raise UnsupportedError(f"padding {given!r}; expected 'valid', 'same' or numbers")
    if stride != (1, 1):
        raise UnsupportedError(f"padding 'same' with stride {list(stride)}; expected stride 1")
    # an odd row goes to the end, as in torch.nn.Conv2d
    return fewest_sides((reach[0] // 2, reach[1] // 2, reach[0] - reach[0] // 2, reach[1] - reach[1] // 2))


def _array(node: Node, name: str) -> Any:
    value = node.fields.get(name)
    if not isinstance(value, np.ndarray):
        raise IntegrityError(f"the field {name} is missing or not numeric")
    return value.astype(np.float64)


def _bias(node: Node, channels: int) -> Tensor:
    if "bias" not in node.fields:
        return torch.zeros(channels, dtype=torch.float64)
    bias = _array(node, "bias")
    if bias.size not in {1, channels}:
        raise IntegrityError(f"a bias of shape {list(bias.shape)} does not fit {channels} channels")
    return torch.from_numpy(bias.reshape(-1)).expand(channels)


def _integers(node: Node, name: str) -> tuple[int, ...]:
    value = _array(node, name)
    if (value != np.trunc(value)).any():
        raise IntegrityError(f"{name} holds {value.ravel()[:4]}, not whole numbers")
    if (np.abs(value) > 2**31).any():
        raise IntegrityError(f"{name} holds {value.ravel()[:4]}, beyond 2^31")
    return tuple(int(number) for number in value.ravel()[:8])


def _integer(node: Node, name: str, *, default: int) -> int:
    values = _integers(node, name) if name in node.fields else (default,)
    if len(values) != 1:
        raise IntegrityError(f"{name} is {list(values)}, not one number")
    return values[0]


def _pair(node: Node, name: str, least: int) -> Pair:
    """Return a field as `(height, width)`; a single number is used for both."""
    values = _integers(node, name)
    if len(values) not in {1, 2} or not all(least <= value <= MAX_SIDE for value in values):
        raise IntegrityError(f"{name} is {list(values)}; expected one or two numbers from {least} to {MAX_SIDE}")
    return values[0], values[-1]
