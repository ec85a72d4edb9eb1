"""Layers that can spike: each is a linear map, and the activation that the rates of its neurons stand for.

Inputs are an ANN and the replacement of max pooling. The result is a list of `SpikingLayer`, the readout last. The
hardware has only synapses and neurons, so all linear nodes up to an activation are folded into one map, and each
activation ends a layer. Where a layer reads a sum of branches, one branch is its own input, and the others are skips.
Units with a leaky activation, and units of a narrow layer, become several neurons each (`Population`).
"""

from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, prod

import torch
from torch import Tensor

from bootstrap_core.functional.convolution import conv2d
from converters.linear import ann as nets
from converters.linear.ann import Ann, Node
from converters.linear.linear_fold import Conv, Dense, fold_conv, fold_dense, pool, unrolled
from specs.errors import UnsupportedError
from specs.fields import Shape

ACTIVATIONS = (nets.Relu, nets.Clip, nets.LeakyRelu, nets.PRelu)
MOST_BRANCHES = 64
"""Largest number of branches in a sum; it doubles whenever a sum is added to itself."""
LARGEST_READOUT = 1 << 26
"""Largest number of weights of a dense readout that replaces a final convolution or pool."""
NARROW = 128
"""Least number of neurons in a dense layer; in a narrower one, units get several neurons, whose errors average out."""
GAINS = 4.0
"""Ratio of largest to smallest weights among a unit's neurons, so that their rates step at different inputs."""


class MaxPooling(StrEnum):
    """Replacement of max pooling.

    `any`: neurons that fire when any neuron of their window does; `average`: average pooling, folded into the next
    layer; `error`: none, max pooling is refused.
    """

    ANY = "any"
    AVERAGE = "average"
    ERROR = "error"


@dataclass(frozen=True)
class Population:
    """Several neurons for each unit of an ANN's layer, as adjacent channels; all tensors are `[channels, parts]`.

    For a unit with weighted input z and activation y, neuron p has the weighted input `drive[p] z`, and its rate stands
    for the positive part of `encoding[p] y`. The sum over p of `decoding[p]` times these activations is y.
    """

    drive: Tensor
    encoding: Tensor
    decoding: Tensor

    def neurons(self, units: Shape) -> Shape:
        """Return the shape of the neurons, for the shape of the units."""
        return (self.drive.numel(), *units[1:])

    def driven(self, linear: Dense | Conv) -> Dense | Conv:
        """Return the map to all neurons, given the map to the units."""
        drive = self.drive.reshape(*self.drive.shape, *[1] * (linear.weight.dim() - 1))
        weight, bias = drive * linear.weight[:, None], self.drive * linear.bias[:, None]
        return replace(linear, weight=weight.flatten(0, 1), bias=bias.flatten())

    @staticmethod
    def shared(factors: Tensor, x: Tensor) -> Tensor:
        """Multiply the value of each unit, `[N, channels, ...]`, by its factors: `[N, channels * parts, ...]`."""
        factors = factors.to(x.dtype).reshape(*factors.shape, *[1] * (x.dim() - 2))
        return (x[:, :, None] * factors).flatten(1, 2)

    def decoded(self, linear: Dense | Conv) -> Dense | Conv:
        """Return the map from all neurons, given the map from the units."""
        groups, (channels, parts) = linear.groups, self.decoding.shape
        each = self.decoding.reshape(groups, 1, channels // groups, parts, 1)
        outputs, _, *kernel = linear.weight.shape
        maps = linear.weight.reshape(groups, outputs // groups, channels // groups, 1, -1)  # last: places or kernel
        weight = (maps * each).reshape(outputs, -1, *kernel)
        return replace(linear, weight=weight, is_pool=False) if isinstance(linear, Conv) else Dense(weight, linear.bias)


@dataclass(frozen=True)
class SpikingSkip:
    """Further synapses of a layer, from an earlier layer.

    Attributes:
        source: layer that it reads, counted from 1; 0 is the image.
        linear: weights, with a bias of 0; a dense map reads its input flattened.
        before: shape of the input.
    """

    source: int
    linear: Dense | Conv
    before: Shape

    @property
    def diagonal(self) -> Tensor | None:
        """Weight of each channel if a neuron reads only the neuron in its own place; None otherwise."""
        linear, weight = self.linear, self.linear.weight
        if isinstance(linear, Conv):
            straight = (linear.kernel, linear.stride, linear.padding) == ((1, 1), (1, 1), (0, 0))
            return weight.flatten() if linear.depthwise and straight else None
        square = len(self.before) == 1 and weight.shape[0] == weight.shape[1]
        return weight.diagonal() if square and torch.equal(weight, weight.diagonal().diag()) else None


@dataclass(frozen=True)
class SpikingLayer:
    """Layer of neurons, or the readout.

    Attributes:
        target: node of the ANN whose output the rates stand for; for the readout, the node of the logits.
        linear: weights and bias; all weights are 1 for an `any` pool.
        before, after: shapes of the input, before flattening, and of the output.
        activation: activation that the rates stand for; None for a readout without neurons.
        flattens: True if the input is flattened first.
        is_any: True for an `any` pool.
        population: neurons for each unit of the ANN's layer; None if there is one for each.
        skips: further synapses, from earlier layers.
    """

    target: str
    linear: Dense | Conv
    before: Shape
    after: Shape
    activation: nets.Operation | None
    flattens: bool = False
    is_any: bool = False
    population: Population | None = None
    skips: tuple[SpikingSkip, ...] = ()

    def weighed(self, z: Tensor) -> Tensor:
        """Return the weighted inputs of the neurons, `[N, *after]`, given those of the ANN's units, `[N, ...]`."""
        z = z if self.population is None else self.population.shared(self.population.drive, z)
        return z.reshape(len(z), *self.after)

    def wanted(self, output: Tensor) -> Tensor:
        """Return the activations that the rates stand for, `[N, *after]`, at least 0, given the output of the node."""
        if self.population is not None:
            output = self.population.shared(self.population.encoding, output)
        return output.reshape(len(output), *self.after).clamp_min(0)


def spiking_layers(ann: Ann, max_pooling: MaxPooling) -> list[SpikingLayer]:
    """Return the spiking layers of an ANN in order.

    Average pooling is folded into the weights next to it, exactly. If an activation follows a sum of branches, a branch
    from the layer just before is the layer's own input, and the others become skips. Linear nodes between the sum and
    the activation are folded into every branch.

    Args:
        ann: the ANN, as returned by `activations_first`.
        max_pooling: replacement of max pooling.

    Raises:
        UnsupportedError: a node has no spiking form.
    """
    maxima = [node.name for node in ann.nodes if isinstance(node.operation, nets.MaxPool)]
    if maxima and max_pooling is MaxPooling.ERROR:
        raise UnsupportedError(f"max pooling is refused ('error' was chosen): {', '.join(maxima)}")
    return _Lowering(ann, max_pooling).layers


def activations_first(ann: Ann) -> Ann:
    """Return the ANN with max pooling after activations instead of before them. Nodes keep their names.

    The logits stay the same, as only activations that never decrease are moved.
    """
    ordered = list(ann.nodes)
    n_readers = Counter(name for node in ann.nodes for name in node.inputs)
    i = 0
    while i + 1 < len(ordered):
        first, second = ordered[i], ordered[i + 1]
        if (
            isinstance(first.operation, nets.MaxPool)
            and isinstance(second.operation, ACTIVATIONS)
            and not _falls(second.operation)
            and second.inputs == (first.name,)
            and n_readers[first.name] == 1
        ):
            before = next((node.shape for node in ordered if node.name == first.inputs[0]), ())
            early = replace(second, inputs=first.inputs, shape=before)
            ordered[i : i + 2] = [early, replace(first, inputs=(early.name,))]
            renamed = {second.name: first.name}
            ordered[i + 2 :] = [
                replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
                for node in ordered[i + 2 :]
            ]
            n_readers[first.name], n_readers[second.name] = n_readers[second.name], 1
            i = max(i - 1, 0)
        else:
            i += 1
    return replace(ann, nodes=tuple(ordered))


def _falls(activation: nets.Operation) -> bool:
    """Return whether an activation decreases anywhere."""
    return isinstance(activation, nets.PRelu) and bool((activation.slope < 0).any())


@dataclass(frozen=True)
class _Branch:
    """Linear map of a layer's output, up to the next activation. The output of a node is a sum of branches.

    Attributes:
        source: layer that it reads; 0 is the image, 1 the first layer.
        units: shape of that layer's output in the ANN.
        population: population of that layer, or None.
        linear: map of the units; None if the branch is the output itself.
    """

    source: int
    units: Shape
    population: Population | None = None
    linear: Dense | Conv | None = None

    @property
    def has_weights(self) -> bool:
        """True if the map is more than averages."""
        return self.linear is not None and not (isinstance(self.linear, Conv) and self.linear.is_pool)

    @property
    def before(self) -> Shape:
        """Shape of the neurons' output."""
        return self.units if self.population is None else self.population.neurons(self.units)

    @property
    def is_output(self) -> bool:
        """True if the branch is the output of the ANN's layer itself, one neuron for each unit."""
        return self.linear is None and self.population is None

    def then(self, place: str, second: Dense | Conv) -> "_Branch":
        """Return the branch with a further map after it; `place` is named in errors."""
        first = self.linear
        match first, second:
            case Dense(), Conv(is_pool=True):
                raise UnsupportedError(f"{place}: average pooling of the outputs of a dense layer is not supported")
            case (Dense(), Conv()) | (Conv(depthwise=False), Conv(depthwise=False)):
                raise UnsupportedError(
                    f"{place}: weights after weights, with no activation between them, are not supported"
                )
            case None, _:
                linear = second
            case Conv(), Conv():
                linear = fold_conv(first, second, self.units)
            case Conv(), Dense():
                linear = fold_dense(first, second, self.units)
            case _:
                linear = Dense(second.weight @ first.weight, second.weight @ first.bias + second.bias)
        return replace(self, linear=linear)

    def synapses(self, after: Shape) -> Dense | Conv:
        """Return the map from the neurons to a layer of shape `after`."""
        linear = self.linear or self._identity()
        linear = linear if self.population is None else self.population.decoded(linear)
        return _as_dense(linear, self.before) if isinstance(linear, Conv) and len(after) == 1 else linear

    def _identity(self) -> Dense | Conv:
        channels = self.units[0]
        if len(self.units) == 1:
            return Dense(torch.eye(channels).double(), torch.zeros(channels).double())
        return pool(torch.ones(channels), (1, 1), (1, 1), (0, 0))


_Value = tuple[_Branch, ...]
"""Output of a node: the sum of these branches."""


class _Lowering:
    """Walk over the nodes of an ANN, in which each activation makes a layer of the sum of branches that it reads."""

    def __init__(self, ann: Ann, max_pooling: MaxPooling) -> None:
        self.averages = max_pooling is MaxPooling.AVERAGE
        self.layers: list[SpikingLayer] = []
        self.targets = [ann.input_name]
        values: dict[str, _Value] = {ann.input_name: (_Branch(0, ann.shape),)}
        for node in ann.nodes:
            values[node.name] = self._value(node, *(values[name] for name in node.inputs))
        logits, last = values[ann.nodes[-1].name], ann.nodes[-1]
        if not (self._from_last(logits[0]) and logits[0].is_output and len(logits) == 1):
            self._close(replace(last, shape=(prod(last.shape),)), logits, None)

    def _value(self, node: Node, value: _Value, *others: _Value) -> _Value:
        """Return the value of a node, given those of its inputs."""
        match node.operation:
            case nets.Flatten():  # a dense layer flattens its input
                return value
            case nets.Add():
                if (n := len(value) + len(others[0])) > MOST_BRANCHES:
                    raise UnsupportedError(
                        f"{node.place}: a sum of {n} branches; at most {MOST_BRANCHES} are supported"
                    )
                return value + others[0]
            case nets.Conv(weight, bias, stride, padding, dilation, groups):
                convs = (Conv(weight.double(), b, stride, padding, dilation, groups) for b in _once(bias, value))
                return tuple(branch.then(node.place, conv) for branch, conv in zip(value, convs, strict=True))
            case nets.Dense(weight, bias):
                layers = (Dense(weight.double(), b) for b in _once(bias, value))
                return tuple(branch.then(node.place, dense) for branch, dense in zip(value, layers, strict=True))
            case nets.AvgPool() | nets.MaxPool() as pooled if isinstance(pooled, nets.AvgPool) or self.averages:
                each = torch.full((node.shape[0],), 1 / prod(pooled.kernel))
                mean = pool(each, pooled.kernel, pooled.stride, pooled.padding)
                return tuple(branch.then(node.place, mean) for branch in value)
            case nets.MaxPool(kernel, stride, padding):
                branch = value[0]
                if branch.source == 0:
                    raise UnsupportedError(f"{node.place}: max pooling of the image is not supported: it has no spikes")
                if len(value) > 1 or not branch.is_output:
                    raise UnsupportedError(
                        f"{node.place}: max pooling needs an activation just before it, and not a leaky one"
                    )
                windows = pool(torch.ones(branch.before[0]), kernel, stride, padding)
                return self._close(node, (replace(branch, linear=windows),), nets.Relu(), is_any=True)
            case activation:
                if len(value) == 1 and not value[0].has_weights:
                    raise UnsupportedError(f"{node.place}: an activation with no weights before it is not supported")
                return self._close(node, value, activation)

    def _close(self, node: Node, value: _Value, activation: nets.Operation | None, *, is_any: bool = False) -> _Value:
        """Add the layer that computes an activation of `value`, or the readout; return its output."""
        place = max(range(len(value)), key=lambda i: (self._from_last(value[i]), value[i].has_weights))
        own, *others = branches = (value[place], *value[:place], *value[place + 1 :])
        if not self._from_last(own):
            read = ", ".join(sorted({self.targets[branch.source] for branch in value}))
            raise UnsupportedError(
                f"{node.place} reads {read}, but not {self.targets[-1]}, the layer before it: where the ANN has "
                "parallel branches, only one of them may have activations"
            )
        after = node.shape
        maps = [branch.synapses(after) for branch in branches]
        bias = sum((linear.bias for linear in maps[1:]), maps[0].bias)
        maps = [replace(linear, bias=torch.zeros_like(bias) if i else bias) for i, linear in enumerate(maps)]
        population = None if activation is None or is_any else _population(activation, after)
        if population is not None:
            maps = [population.driven(linear) for linear in maps]
            after = population.neurons(after)
        skips = tuple(
            SpikingSkip(branch.source, linear, branch.before) for branch, linear in zip(others, maps[1:], strict=True)
        )
        flattens = isinstance(maps[0], Dense) and len(own.before) > 1
        layer = SpikingLayer(node.name, maps[0], own.before, after, activation, flattens, is_any, population, skips)
        self.layers.append(layer)
        self.targets.append(node.name)
        return (_Branch(len(self.layers), node.shape, population),)

    def _from_last(self, branch: _Branch) -> bool:
        return branch.source == len(self.layers)


def _once(bias: Tensor, value: _Value) -> list[Tensor]:
    """Return the bias for the first branch and zeros for the others, as a sum counts it once."""
    return [bias.double(), *[torch.zeros_like(bias).double()] * (len(value) - 1)]


def _population(activation: nets.Operation, shape: Shape) -> Population | None:
    """Return the neurons for each unit of a layer of `shape`; None if one for each is enough.

    A leaky unit gets two, since `leaky(x) = relu(x) - slope relu(-x)`; units of a narrow layer get several of each.
    """
    drive = torch.ones(shape[0], 1, dtype=torch.float64)
    encoding = decoding = drive
    slopes = _slopes_of(activation, shape[0])
    if slopes is not None:
        below = slopes[:, None]
        drive, encoding, decoding = (torch.cat([drive, -negative], 1) for negative in (drive, 1 / below, below))
    copies = ceil(NARROW / drive.numel()) if len(shape) == 1 else 1
    if copies > 1:
        gains = torch.logspace(-0.5, 0.5, copies, base=GAINS, dtype=torch.float64)[:, None]
        drive, encoding = ((x[:, None] * gains).flatten(1) for x in (drive, encoding))
        decoding = (decoding[:, None] / gains / copies).flatten(1)
    return Population(drive, encoding, decoding) if drive.shape[1] > 1 else None


def _slopes_of(activation: nets.Operation, channels: int) -> Tensor | None:
    """Return the slopes of an activation for negative inputs, `[channels]`; None if none of them is above 0."""
    match activation:
        case nets.LeakyRelu(slope):
            slopes = torch.full((channels,), slope, dtype=torch.float64)
        case nets.PRelu(slope):
            slopes = slope.double().reshape(-1).expand(channels).clone()
        case _:
            return None
    if bool((slopes <= 0).all()):
        return None
    return slopes.clamp_min(1e-6)


def _as_dense(conv: Conv, shape: Shape) -> Dense:
    """Return the dense layer on flattened inputs that equals a convolution."""
    after = conv.output_shape(shape)
    n_inputs, n_outputs = prod(shape), prod(after)
    if n_inputs * n_outputs > LARGEST_READOUT:
        raise UnsupportedError(
            f"a convolution as readout needs {n_outputs:,} x {n_inputs:,} weights, at most {LARGEST_READOUT:,} in all"
        )
    if n_outputs <= n_inputs:
        weight = unrolled(torch.eye(n_outputs, dtype=torch.float64).reshape(n_outputs, *after), conv, shape)
    else:
        columns = torch.eye(n_inputs, dtype=torch.float64).reshape(n_inputs, *shape)
        weight = conv2d(columns, conv.weight, conv).flatten(1).T.contiguous()
    return Dense(weight, conv.bias.repeat_interleave(prod(after[1:])))
