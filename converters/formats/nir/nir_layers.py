"""Turn the ends of a NIR graph into layers: linear nodes between two layers of neurons become one synapse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from converters.formats.nir.nir_file import Node
from converters.formats.nir.nir_graph import End, Way
from converters.formats.nir.nir_neurons import Neurons, TimeConstants, channel_values, neurons_of
from converters.linear.linear_fold import Conv, Dense, fold_conv, fold_dense, follow, pool, scale_outputs
from specs.errors import IntegrityError, UnsupportedError
from specs.fields import MAX_DELAY, Padding, Shape
from specs.shapes import Pair, fewest_sides

MAX_FEATURES = 1 << 24
MAX_SIDE = 4096
INPUT = -1
"""Index of the Input among layers."""

Synapse = Conv | Dense | Tensor
"""Synapses from a layer to another; a tensor has the weight of each channel, from each neuron to that at its place."""


@dataclass(frozen=True)
class Layer:
    """Synapses and the neurons behind them; the last layer may have no neurons.

    Attributes:
        names: names of the nodes that the layer was made from.
        source: index of the layer that it reads, or `INPUT`.
        synapse: weights times the gain of the neurons; a number if the neurons have no weights, which scales the input.
        bias: `[channels]`, or `[1]` for all channels; enters the voltage, or the output if there are no neurons.
        neurons: gain 1, bias 0, and one threshold for all channels; None for a last layer without neurons.
        before, after: shapes of input and output; if `before` is not that of the source, there is a flatten between.
        delayed: True if spikes leave one step later.
        recurrent: weights from the neurons to themselves, times the gain, `[channels, channels]`, or None.
        delays: delays of the synapses in time steps, `[1]`, `[channels]` or `[channels, inputs]`, or None.
        skips: further synapses, each with the index of the layer that it reads.
    """

    names: tuple[str, ...]
    source: int
    synapse: Conv | Dense | float
    bias: Tensor
    neurons: Neurons | None
    before: Shape
    after: Shape
    delayed: bool = False
    recurrent: Tensor | None = None
    delays: Tensor | None = None
    skips: tuple[tuple[int, Synapse], ...] = ()


def layers_of(
    ends: Sequence[End], *, dt: float, time_constants: TimeConstants, origin: str
) -> tuple[Shape, list[Layer], list[str]]:
    """Return the shape of the input, the layers between the ends of a graph, and notes for people.

    Args:
        ends: Input, neurons and Output, each after those that it reads.
        dt: length of a time step in seconds.

    Raises:
        IntegrityError: a node does not follow NIR's definition.
        UnsupportedError: features that layers do not have; lists all, but for nodes behind an unknown shape.
    """
    ends, delayed = _one_step_later(ends, dt)
    n_readers = sum(way.source == ends[0].name for end in ends for way in end.ways)
    making = _Making(dt, time_constants, origin, delayed, n_readers)
    for end in ends:
        making.add(end)
    if making.problems:
        raise UnsupportedError(f"{origin} cannot be read as a snnzoo network: {'; '.join(making.problems)}")
    return making.input, making.layers, list(dict.fromkeys(making.notes))


@dataclass(frozen=True)
class _Output:
    """Output of an end: the index of its layer, its shape as maps, and its shape once flattened by later nodes."""

    layer: int
    maps: Shape
    shape: Shape


class _Making:
    """Layers made so far, what is wrong, and notes."""

    def __init__(
        self, dt: float, time_constants: TimeConstants, origin: str, delayed: set[str], n_readers: int
    ) -> None:
        self.dt, self.time_constants, self.origin = dt, time_constants, origin
        self.delayed, self.n_readers = delayed, n_readers  # names of neurons, and the number of ways from the Input
        self.input: Shape = ()
        self.layers: list[Layer] = []
        self.outputs: dict[str, _Output] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []

    def add(self, end: End) -> None:
        """Add the layer of an end; an end with a problem has no output, if its shape is unknown."""
        found: list[_Way] = []
        for way in end.ways:
            start = self.outputs.get(way.source)
            made = None if start is None else self._followed(way, start)
            if made is not None:
                found.append(made)
        if len(found) < len(end.ways):
            return
        try:
            self._close(end, found)
        except IntegrityError as error:
            raise IntegrityError(f"{self.origin}: {end.name} ({end.node.type}): {error}") from None
        except UnsupportedError as error:
            self._refuse(end.name, end.node, error)
            if found:
                self.outputs[end.name] = _Output(len(self.layers), found[0].after, found[0].shape)

    def _refuse(self, name: str, node: Node, error: UnsupportedError) -> None:
        told = f"{name} ({node.type}): {error}"
        self.problems += [] if told in self.problems else [told]

    def _followed(self, way: Way, start: _Output) -> "_Way | None":
        """Return the linear nodes of a way as one; None if one of them is refused."""
        made = _Way(start, self.dt, self.notes)
        for name, node in way.nodes:
            try:
                made.add(name, node)
            except IntegrityError as error:
                raise IntegrityError(f"{self.origin}: {name} ({node.type}): {error}") from None
            except UnsupportedError as error:
                self._refuse(name, node, error)
                if node.type != "Delay":
                    return None
        return made

    def _close(self, end: End, ways: list["_Way"]) -> None:
        if end.node.type == "Input":
            self._enter(end)
        elif end.node.type == "Output":
            self._end(end, ways)
        else:
            self._neurons(end, ways)

    def _enter(self, end: End) -> None:
        shape = _integers(end.node, "shape")
        if len(shape) in {2, 4} and shape[0] == 1:
            self.notes.append(f"{end.name}: the first axis of {list(shape)} is read as a batch of one")
            shape = shape[1:]
        if len(shape) not in {1, 3} or any(not 1 <= side <= MAX_FEATURES for side in shape):
            raise UnsupportedError(f"shape {list(shape)}; expected [features] or [channels, height, width]")
        if prod(shape) > MAX_FEATURES:
            raise UnsupportedError(f"shape {list(shape)} has {prod(shape):,} inputs, more than {MAX_FEATURES:,}")
        self.input = shape
        self.outputs[end.name] = _Output(INPUT, shape, shape)

    def _neurons(self, end: End, ways: list["_Way"]) -> None:
        ways = _own_first(ways, prefers_dense=end.loop is not None)
        own, shape = ways[0], ways[0].after
        neurons = neurons_of(end.node, shape, dt=self.dt, time_constants=self.time_constants)
        self.notes += [f"{end.name}: {text}" for text in neurons.rounded]
        neurons = _at_one_threshold(neurons)
        gain, bias = neurons.gain, neurons.bias
        if neurons.threshold is None and len(bias.unique()) > 1 and bool((neurons.current_decay < 1).any()):
            raise UnsupportedError(
                "v_leak differs between the classes, and the current decays: logits are the mean weighted input, "
                "in which v_leak would count for more than in the voltage"
            )
        synapse, skips, of_ways = self._synapses(ways)
        delays = own.delays(synapse, neurons)
        recurrent, of_loop = self._loop(end, synapse)
        factor = self._input_factor(own, synapse) if delays is None and len(ways) == 1 else None
        scaled: Conv | Dense | float
        if factor is not None:
            if len(gain) > 1:
                raise UnsupportedError("parameters that differ between channels need weights before the neurons")
            scaled = factor * float(gain)
        elif isinstance(synapse, Tensor):
            of_input = "a Scale with a factor for each input needs weights after it"
            raise UnsupportedError(
                of_input if own.source == INPUT else "neurons after neurons need weights between them"
            )
        else:
            bias = bias + self._voltage_bias(end.name, of_ways + of_loop, neurons) * gain
            scaled = scale_outputs(synapse, gain)
        self._add(
            end,
            ways,
            scaled,
            bias,
            replace(neurons, gain=torch.ones(1), bias=torch.zeros(1)),
            recurrent=None if recurrent is None else recurrent * gain.reshape(-1, 1),
            delays=delays,
            skips=tuple((way.source, _scaled(skip, gain)) for way, skip in zip(ways[1:], skips, strict=True)),
        )

    def _input_factor(self, way: "_Way", synapse: Synapse) -> float | None:
        """Return the factor of the neurons' input, if they read all of the Input alone and without weights."""
        if way.source != INPUT or self.n_readers > 1:
            return None
        if isinstance(synapse, Conv) and synapse.is_pool and (synapse.kernel, synapse.stride) == ((1, 1), (1, 1)):
            weight = synapse.weight.unique()
            return float(weight) if len(weight) == 1 and not any(synapse.padding) else None
        return float(synapse) if isinstance(synapse, Tensor) and len(synapse) == 1 else None

    def _synapses(self, ways: list["_Way"]) -> tuple[Synapse, list[Synapse], Tensor]:
        """Return the own synapses of a layer, those of its skips, without biases, and all biases together."""
        found, shape = [way.synapse() for way in ways], ways[0].after
        bias = torch.zeros(shape[0], dtype=torch.float64)
        for i, (way, each) in enumerate(zip(ways, found, strict=True)):
            if way.after != shape:
                raise UnsupportedError(f"signals of shapes {list(shape)} and {list(way.after)} are added")
            if i and way.is_late:
                raise UnsupportedError("delays on more than one of the signals that are added")
            if isinstance(each, Tensor):
                found[i] = each if len(ways) == 1 else each.expand(shape[0])
            else:
                bias = bias + each.bias
                found[i] = replace(each, bias=torch.zeros_like(each.bias))
        return found[0], [_as_identity(each) for each in found[1:]], bias

    def _add(self, end: End, ways: list["_Way"], synapse: Conv | Dense | float, *layer: Any, **more: Any) -> None:
        own, names = ways[0], [name for way in ways for name in way.names]
        names += [] if end.node.type == "Output" else [end.name]
        names += [] if end.loop is None else [end.loop[0]]
        before = (prod(own.before),) if isinstance(synapse, Dense) else own.before
        bias, neurons = layer
        made = Layer(tuple(dict.fromkeys(names)), own.source, synapse, bias, neurons, before, own.after, **more)
        self.layers.append(replace(made, delayed=end.name in self.delayed))
        self.outputs[end.name] = _Output(len(self.layers) - 1, own.after, own.shape)

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

    def _loop(self, end: End, synapse: Synapse) -> tuple[Tensor | None, Tensor | float]:
        """Return the weights and the bias from neurons to themselves; None and 0 without a loop."""
        if end.loop is None:
            return None, 0.0
        own, node = end.loop
        if not isinstance(synapse, Dense):
            raise UnsupportedError("recurrent neurons need an Affine or Linear before them")
        weight, n = _array(node, "weight"), len(synapse.weight)
        if weight.shape != (n, n):
            raise IntegrityError(
                f"{own}: weights of shape {list(weight.shape)} do not lead from {n} neurons to themselves"
            )
        return torch.from_numpy(weight), _bias(node, n)

    def _end(self, end: End, ways: list["_Way"]) -> None:
        if len(ways) == 1 and ways[0].conv is None and ways[0].flat is None:
            if ways[0].source == INPUT:
                raise UnsupportedError("no weights and no neurons come before it")
            if ways[0].is_late:
                raise UnsupportedError("a delay of the output of more than one time step")
            return
        ways = _own_first(ways, prefers_dense=True)
        if not isinstance(ways[0].flat, Dense) or any(len(way.after) > 1 for way in ways):
            raise UnsupportedError("a readout without neurons must be Affine or Linear, after a Flatten")
        synapse, skips, bias = self._synapses(ways)
        ways[0].delays(synapse, None)
        assert isinstance(synapse, Dense)
        sources = (way.source for way in ways[1:])
        self._add(end, ways, synapse, bias, None, skips=tuple(zip(sources, skips, strict=True)))


class _Way:
    """Linear nodes after an end, folded into one."""

    def __init__(self, start: _Output, dt: float, notes: list[str]) -> None:
        self.source, self.shape, self.dt, self.notes = start.layer, start.shape, dt, notes
        self.names = list[str]()
        self.before = self.maps = start.maps  # `maps` is the shape before flattening
        self.conv: Conv | None = None
        self.flat: Dense | Tensor | None = None
        self.input_delays = self.output_delays = torch.zeros(1)  # in steps, by channel before and after the weights

    @property
    def after(self) -> Shape:
        """Shape of what arrives, as maps where only their order changed."""
        return self.maps if self.flat is None else self.shape

    @property
    def is_late(self) -> bool:
        """True if there are delays."""
        return bool(self.input_delays.any()) or bool(self.output_delays.any())

    def add(self, name: str, node: Node) -> None:
        if node.type != "Delay":
            self.names.append(name)
        match node.type:
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
            case _:
                self._delay(node)

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
        if not weights:
            self.input_delays = _added(self.input_delays, found)
        elif any(bool(each.bias.any()) for each in weights):
            raise UnsupportedError("a Delay after weights with a bias, which would arrive late, too")
        else:
            self.output_delays = _added(self.output_delays, found)

    def delays(self, synapse: Synapse, neurons: Neurons | None) -> Tensor | None:
        """Return the delays of a layer's synapses, see `Layer`."""
        if not self.is_late:
            return None
        if isinstance(synapse, Tensor) or neurons is None or neurons.threshold is None:
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

    def synapse(self) -> Synapse:
        match self.conv, self.flat:
            case Conv(), None:
                return self.conv
            case None, Dense():
                return self.flat
            case Conv(), Dense():
                if not self.conv.depthwise:
                    raise UnsupportedError("a convolution and a dense layer need neurons between them")
                return fold_dense(self.conv, self.flat, self.before)
            case None, None:
                return torch.ones(1).double()
            case None, Tensor():
                return self.flat
            case _:
                raise UnsupportedError("a Scale with a factor for each input needs weights after it")


def _own_first(ways: list[_Way], *, prefers_dense: bool) -> list[_Way]:
    """Return the ways to a layer, first the one that suits best as its own synapses: with delays, or with weights."""

    def lacks(way: _Way) -> tuple[bool, ...]:
        is_dense = isinstance(way.flat, Dense)
        is_scale = way.conv is None or _is_identity(way.conv)
        return (
            prefers_dense and not is_dense,
            not way.is_late,
            not is_dense and way.conv is None,
            not is_dense and is_scale,
        )

    own = min(ways, key=lacks)
    return [own, *(way for way in ways if way is not own)]


def _is_identity(conv: Conv) -> bool:
    """Return whether a convolution leads from each neuron to the one at the same place."""
    whole = (conv.kernel, conv.stride, conv.groups) == ((1, 1), (1, 1), len(conv.weight))
    return whole and conv.depthwise and not any(conv.padding)


def _as_identity(synapse: Synapse) -> Synapse:
    """Return the weight of each channel, if that is all that synapses are."""
    return synapse.weight.flatten() if isinstance(synapse, Conv) and _is_identity(synapse) else synapse


def _scaled(synapse: Synapse, gain: Tensor) -> Synapse:
    return synapse * gain if isinstance(synapse, Tensor) else scale_outputs(synapse, gain)


def _one_step_later(ends: Sequence[End], dt: float) -> tuple[list[End], set[str]]:
    """Return the ends without the delays of one step through which all that neurons send goes, and these neurons."""
    firsts: dict[str, dict[str, Node | None]] = {}
    for way in (way for end in ends for way in end.ways):
        name, node = next((each for each in way.nodes if each[1].type != "Flatten"), ("", None))
        firsts.setdefault(way.source, {})[name] = node
    late, taken = set[str](), set[str]()
    for end in ends[1:]:
        [(name, node), *others] = firsts.get(end.name, {"": None}).items()
        delay = None if node is None or node.type != "Delay" or others else node.fields.get("delay")
        if isinstance(delay, np.ndarray) and delay.size and bool((abs(delay / dt - 1) <= 1e-3).all()):
            late.add(end.name)
            taken.add(name)
    kept = [
        replace(end, ways=tuple(Way(way.source, tuple(n for n in way.nodes if n[0] not in taken)) for way in end.ways))
        for end in ends
    ]
    return kept, late


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
