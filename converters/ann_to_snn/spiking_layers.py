"""An ANN as layers that can spike: each a linear map, and the activation that its neurons will stand for."""

from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, prod

import torch
from torch import Tensor

from converters.ann_to_snn import ann as nets
from converters.ann_to_snn.ann import Ann, Node
from converters.ann_to_snn.linear_fold import Conv, Dense, Pair, fold_conv, pool, spread, unrolled
from specs.errors import UnsupportedError
from specs.fields import Shape

__all__ = ["MaxPooling", "Population", "SpikingLayer", "SpikingSkip", "activations_first", "spiking_layers"]

ACTIVATIONS = (nets.Relu, nets.Clip, nets.LeakyRelu, nets.PRelu)
MOST_BRANCHES = 64
"""Of a sum: one that is added to itself again and again has endlessly many."""
LARGEST_READOUT = 1 << 26
"""Weights of a readout that a final convolution and pool become."""
NARROW = 128
"""Neurons that a dense layer has at least. Units of a narrower one take several each, whose errors average out."""
GAINS = 4.0
"""The largest weights of a unit's neurons by the smallest: so their rates step at different places."""


class MaxPooling(StrEnum):
    """What becomes of a maximum over windows.

    `any`: neurons that fire when any neuron of their window does; `average`: the mean instead, folded into the next
    layer; `error`: it is refused.
    """

    ANY = "any"
    AVERAGE = "average"
    ERROR = "error"


@dataclass(frozen=True)
class Population:
    """Several neurons for each unit of a layer, side by side in its channels: `[channels, parts]`.

    Of a unit that weighs its inputs to z and answers y, neuron p weighs them to `drive[p] z` and stands for the
    positive part of `encoding[p] y`; y is the sum of `decoding[p]` times what they stand for.
    """

    drive: Tensor
    encoding: Tensor
    decoding: Tensor

    def neurons(self, units: Shape) -> Shape:
        """The shape of the neurons."""
        return (self.drive.numel(), *units[1:])

    def driven(self, linear: Dense | Conv) -> Dense | Conv:
        """The map to all neurons, of that to the units."""
        drive = self.drive.reshape(*self.drive.shape, *[1] * (linear.weight.dim() - 1))
        weight, bias = drive * linear.weight[:, None], self.drive * linear.bias[:, None]
        return replace(linear, weight=weight.flatten(0, 1), bias=bias.flatten())

    @staticmethod
    def shared(factors: Tensor, x: Tensor) -> Tensor:
        """Each unit's number, `[N, channels, ...]`, times `factors` for its neurons: `[N, channels * parts, ...]`."""
        factors = factors.to(x.dtype).reshape(*factors.shape, *[1] * (x.dim() - 2))
        return (x[:, :, None] * factors).flatten(1, 2)

    def decoded(self, linear: Dense | Conv) -> Dense | Conv:
        """The map from all neurons, of that from the units."""
        groups = linear.groups if isinstance(linear, Conv) else 1
        channels, parts = self.decoding.shape
        each = self.decoding.reshape(groups, 1, channels // groups, parts, 1)
        outputs, _, *kernel = linear.weight.shape
        maps = linear.weight.reshape(groups, outputs // groups, channels // groups, 1, -1)  # places or kernel last
        weight = (maps * each).reshape(outputs, -1, *kernel)
        return replace(linear, weight=weight, is_pool=False) if isinstance(linear, Conv) else Dense(weight, linear.bias)


@dataclass(frozen=True)
class SpikingSkip:
    """Further synapses of a layer: `linear`, without a bias, of the output of layer `source`, of shape `before`.

    Layers count from 1 here; 0 is the image. A dense map reads it flattened.
    """

    source: int
    linear: Dense | Conv
    before: Shape

    @property
    def diagonal(self) -> Tensor | None:
        """If each neuron reads the one in its place alone: the weight of each channel."""
        linear, weight = self.linear, self.linear.weight
        if isinstance(linear, Conv):
            straight = (linear.kernel, linear.stride, linear.padding) == ((1, 1), (1, 1), (0, 0))
            return weight.flatten() if linear.depthwise and straight else None
        square = len(self.before) == 1 and weight.shape[0] == weight.shape[1]
        return weight.diagonal() if square and torch.equal(weight, weight.diagonal().diag()) else None


@dataclass(frozen=True)
class SpikingLayer:
    """A layer of neurons, or the readout.

    Attributes:
        target: node of the ANN whose output the rates of the neurons stand for; of a readout, the logits.
        linear: weights and bias; of an `any` pool, ones.
        before, after: shapes of its input, before it is flattened, and output.
        activation: what the neurons stand for; None for a readout without neurons.
        flattens: whether its input is flattened first.
        is_any: whether it is an `any` pool.
        population: where several neurons stand for each unit of the ANN's layer; None if one does.
        skips: further synapses, from layers before.
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
        """The weighted inputs of the neurons, `[N, *after]`, for those of the ANN's units, `[N, ...]`."""
        z = z if self.population is None else self.population.shared(self.population.drive, z)
        return z.reshape(len(z), *self.after)

    def wanted(self, output: Tensor) -> Tensor:
        """What the rates stand for, `[N, *after]` and never negative, for the node's output `[N, ...]`."""
        if self.population is not None:
            output = self.population.shared(self.population.encoding, output)
        return output.reshape(len(output), *self.after).clamp_min(0)


def spiking_layers(ann: Ann, max_pooling: MaxPooling) -> list[SpikingLayer]:
    """The layers in order, of an ANN with its `activations_first`.

    Averages fold into the weights beside them, exactly. Of a sum of branches, one that comes from the layer before is
    the layer's own, and the others are its skips; what follows the sum before an activation goes into all of them.

    Raises:
        UnsupportedError: what has no spiking form.
    """
    maxima = [f"{node.name}: a maximum" for node in ann.nodes if isinstance(node.operation, nets.MaxPool)]
    if maxima and max_pooling is MaxPooling.ERROR:
        raise UnsupportedError("no spiking layers for " + "; ".join(maxima))
    return _Lowering(ann, max_pooling).layers


def activations_first(ann: Ann) -> Ann:
    """The same ANN with maxima behind activations instead of before them, if both only rise. Nodes keep their names."""
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
    """Whether an activation falls anywhere."""
    return isinstance(activation, nets.PRelu) and bool((activation.slope < 0).any())


@dataclass(frozen=True)
class _Branch:
    """A linear map of the output of a layer that waits for an activation. A value is a sum of branches.

    Attributes:
        source: of which layer; 0 is the image, 1 the first layer.
        units: the shape of that output in the ANN.
        population: of that layer, if it has one.
        average, linear: the map of the units, averages and then weights; without either, it is the output itself.
    """

    source: int
    units: Shape
    population: Population | None = None
    average: Conv | None = None
    linear: Dense | Conv | None = None

    @property
    def before(self) -> Shape:
        """The shape of the output of the neurons."""
        return self.units if self.population is None else self.population.neurons(self.units)

    @property
    def is_output(self) -> bool:
        """Whether it is the output of the ANN's layer, as its neurons give it."""
        return self.linear is None and self.average is None and self.population is None

    def convolved(self, node: str, conv: Conv) -> "_Branch":
        """With a convolution behind it."""
        first = self.linear or self.average
        if isinstance(first, Dense) or (isinstance(first, Conv) and not (first.depthwise or conv.depthwise)):
            raise UnsupportedError(f"{node}: weights behind weights with no activation between them")
        return replace(self, linear=fold_conv(first, conv, self.units) if first else conv, average=None)

    def weighed(self, dense: Dense) -> "_Branch":
        """With a dense layer behind it."""
        match self.linear:
            case Conv() as first:
                linear = spread(first, dense, self.units)
            case Dense() as first:
                linear = Dense(dense.weight @ first.weight, dense.weight @ first.bias + dense.bias)
            case None:
                linear = spread(self.average, dense, self.units) if self.average else dense
        return replace(self, linear=linear, average=None)

    def averaged(self, node: str, kernel: Pair, stride: Pair, padding: Pair) -> "_Branch":
        """With a mean over windows behind it."""
        if isinstance(self.linear, Dense):
            raise UnsupportedError(f"{node}: an average over the outputs of a dense layer")
        channels = self.units[0] if self.linear is None else len(self.linear.bias)
        mean = pool(torch.full((channels,), 1 / prod(kernel)), kernel, stride, padding)
        if self.linear is not None:
            return replace(self, linear=fold_conv(self.linear, mean, self.units))
        return replace(self, average=fold_conv(self.average, mean, self.units) if self.average else mean)

    def synapses(self, after: Shape) -> Dense | Conv:
        """The map of the neurons to others of shape `after`."""
        linear = self.linear or self.average or self._identity()
        linear = linear if self.population is None else self.population.decoded(linear)
        return _as_dense(linear, self.before) if isinstance(linear, Conv) and len(after) == 1 else linear

    def _identity(self) -> Dense | Conv:
        channels = self.units[0]
        if len(self.units) == 1:
            return Dense(torch.eye(channels).double(), torch.zeros(channels).double())
        return pool(torch.ones(channels), (1, 1), (1, 1), (0, 0))


_Value = tuple[_Branch, ...]


class _Lowering:
    """Walks along the nodes, whose values are sums of branches; each activation makes a layer of such a sum."""

    def __init__(self, ann: Ann, max_pooling: MaxPooling) -> None:
        self.max_pooling = max_pooling
        self.layers: list[SpikingLayer] = []
        self.targets = [ann.input_name]
        values: dict[str, _Value] = {ann.input_name: (_Branch(0, ann.shape),)}
        for node in ann.nodes:
            values[node.name] = self._value(node, *(values[name] for name in node.inputs))
        logits, last = values[ann.nodes[-1].name], ann.nodes[-1]
        if not (self._from_last(logits[0]) and logits[0].is_output and len(logits) == 1):
            self._close(replace(last, shape=(prod(last.shape),)), logits, None)

    def _value(self, node: Node, value: _Value, *others: _Value) -> _Value:
        match node.operation:
            case nets.Flatten():  # a dense layer flattens what it reads
                return value
            case nets.Add():
                if len(value) + len(others[0]) > MOST_BRANCHES:
                    raise UnsupportedError(f"{node.name}: a sum of more than {MOST_BRANCHES} branches")
                return value + others[0]
            case nets.Conv(weight, bias, stride, padding, dilation, groups):
                convs = (Conv(weight.double(), b, stride, padding, dilation, groups) for b in _once(bias, value))
                return tuple(branch.convolved(node.name, conv) for branch, conv in zip(value, convs, strict=True))
            case nets.Dense(weight, bias):
                layers = (Dense(weight.double(), b) for b in _once(bias, value))
                return tuple(branch.weighed(dense) for branch, dense in zip(value, layers, strict=True))
            case nets.AvgPool(kernel, stride, padding):
                return tuple(branch.averaged(node.name, kernel, stride, padding) for branch in value)
            case nets.MaxPool(extra=extra) if any(extra):
                raise UnsupportedError(f"{node.name}: a maximum over windows padded by {extra} at one end only")
            case nets.MaxPool(kernel, stride, padding) if self.max_pooling is MaxPooling.AVERAGE:
                return tuple(branch.averaged(node.name, kernel, stride, padding) for branch in value)
            case nets.MaxPool(kernel, stride, padding):
                branch = value[0]
                if branch.source == 0:
                    raise UnsupportedError(f"{node.name}: a maximum of the image itself, which does not spike")
                if len(value) > 1 or not branch.is_output:
                    raise UnsupportedError(f"{node.name}: a maximum with no activation, or a leaky one, before it")
                if any(2 * side > extent for side, extent in zip(padding, kernel, strict=True)):
                    raise UnsupportedError(f"{node.name}: a maximum padded by more than half of its window")
                windows = pool(torch.ones(branch.before[0]), kernel, stride, padding)
                return self._close(node, (replace(branch, linear=windows),), nets.Relu(), is_any=True)
            case activation:
                if len(value) == 1 and value[0].linear is None:
                    raise UnsupportedError(f"{node.name}: an activation with no weights before it")
                return self._close(node, value, activation)

    def _close(self, node: Node, value: _Value, activation: nets.Operation | None, *, is_any: bool = False) -> _Value:
        """Make the layer whose neurons stand for an activation of `value`, or the readout; give its output."""
        place = max(range(len(value)), key=lambda i: (self._from_last(value[i]), value[i].linear is not None))
        own, *others = branches = (value[place], *value[:place], *value[place + 1 :])
        if not self._from_last(own):
            read = ", ".join(sorted({self.targets[branch.source] for branch in value}))
            raise UnsupportedError(
                f"{node.name}: its weights read {read}, and none of them {self.targets[-1]}, the layer before it: "
                "of branches that part, all but one must be without activations"
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
    """The bias for the first of the branches, and zeros for others: of a sum it counts once."""
    return [bias.double(), *[torch.zeros_like(bias).double()] * (len(value) - 1)]


def _population(activation: nets.Operation, shape: Shape) -> Population | None:
    """The neurons for each unit of a layer of `shape`; None if one is enough.

    A leaky unit takes two, as `leaky(x) = relu(x) - slope relu(-x)`; units of a narrow layer take several of each.
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


def _slopes_of(activation: nets.Operation | None, channels: int) -> Tensor | None:
    """Slopes below zero, `[channels]`, of an activation that has any above 0."""
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
    """The dense layer on flattened inputs that a convolution is."""
    n_inputs, n_outputs = prod(shape), prod(conv.output_shape(shape))
    if n_inputs * n_outputs > LARGEST_READOUT:
        raise UnsupportedError(f"a readout of {n_outputs} by {n_inputs} weights")
    after = conv.output_shape(shape)
    if n_outputs <= n_inputs:
        weight = unrolled(torch.eye(n_outputs, dtype=torch.float64).reshape(n_outputs, *after), conv, shape)
    else:
        columns = torch.eye(n_inputs, dtype=torch.float64).reshape(n_inputs, *shape)
        geometry = conv.stride, conv.padding, conv.dilation, conv.groups
        weight = torch.nn.functional.conv2d(columns, conv.weight, None, *geometry).flatten(1).T.contiguous()
    return Dense(weight, conv.bias.repeat_interleave(prod(after[1:])))
