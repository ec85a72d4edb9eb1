"""Layers that can spike: each is a linear map, and the activation that the rates of its neurons stand for.

Inputs are an ANN and the replacement of max pooling. The result is a list of `SpikingLayer`, the readout last. The
hardware has only synapses and neurons, so linear nodes up to an activation are folded into one map, and each activation
ends a layer. Where a layer reads a sum of branches, one branch is its own input, and the others are skips. Linear nodes
that cannot be folded, or whose folded map would have more weights, get a layer of their own. Units with a leaky
activation or with none, and units of a narrow layer, become several neurons each (`Population`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.functional.convolution import conv2d
from converters.linear import ann as nets
from converters.linear.ann import Ann, Node
from converters.linear.linear_fold import (
    Conv,
    Dense,
    bias_after,
    fold_conv,
    fold_dense,
    is_thin,
    n_weights_folded,
    part_reading,
    pool,
    selection,
    ungrouped,
    unrolled,
)
from converters.linear.maxima import with_maxima_as_sums
from specs.errors import UnsupportedError
from specs.fields import Shape

ACTIVATIONS = (nets.Relu, nets.Clip, nets.LeakyRelu, nets.PRelu)
MOST_BRANCHES = 64
"""Largest number of branches in a sum; it doubles whenever a sum is added to itself."""
MOST_COPIES = 8
"""Largest number of layers into which the weights of a linear node are copied; with more, it gets neurons.

A DenseNet-like network, T = 8, untuned, lost 8 points of accuracy with at most 8, and 12 with at most 3: neurons round.
"""
MOST_MORE_WEIGHTS = 4
"""Largest ratio of the weights of two linear maps in one to those of the two; beyond it, neurons stand between them.

Neurons between two maps round what they pass on. A network with the bottlenecks of MobileNetV2, T = 8, untuned, lost 15
points of accuracy with neurons there, and 6 without.
"""
LARGEST_READOUT = 1 << 26
"""Largest number of weights of a dense readout that replaces a final convolution or pool."""
NARROW = 128
"""Least number of neurons in a dense layer; in a narrower one, units get several neurons, whose errors average out."""
GAINS = 4.0
"""Ratio of largest to smallest weights among a unit's neurons, so that their rates step at different inputs."""


class MaxPooling(StrEnum):
    """Replacement of max pooling.

    `any`: neurons that fire when any neuron of their window does; `sum`: neurons for how much the maximum rises from
    one place of the window to the next; `average`: average pooling, folded into the next layer; `error`: none, max
    pooling is refused.
    """

    ANY = "any"
    SUM = "sum"
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

    def document(self, block: int) -> dict[str, Any]:
        """Return the skip of a spec, from the block with this index."""
        if self.diagonal is not None:
            return {"source": block, "kind": "identity"}
        if isinstance(self.linear, Dense):
            return {"source": block, "kind": "dense"}
        return {"source": block, "kind": "conv", "groups": self.linear.groups, **self.linear.geometry}


@dataclass(frozen=True)
class SpikingLayer:
    """Layer of neurons, or the readout.

    Attributes:
        target: node of the ANN whose output the rates stand for; for the readout, the node of the logits.
        weighted: node of the ANN whose output is the weighted input.
        source: layer that it reads, counted from 1; 0 is the image.
        linear: weights and bias; all weights are 1 for an `any` pool.
        before, after: shapes of the input, before flattening, and of the output.
        activation: activation that the rates stand for; None for a readout without neurons.
        flattens: True if the input is flattened first.
        is_any: True for an `any` pool.
        population: neurons for each unit of the ANN's layer; None if there is one for each.
        skips: further synapses, from earlier layers.
        channels: channels of the node's output that are in this layer, in order; None for all.
    """

    target: str
    weighted: str
    source: int
    linear: Dense | Conv
    before: Shape
    after: Shape
    activation: nets.Operation | None
    flattens: bool = False
    is_any: bool = False
    population: Population | None = None
    skips: tuple[SpikingSkip, ...] = ()
    channels: Tensor | None = None

    @property
    def sources(self) -> tuple[int, ...]:
        """Layers that it reads, its own input first."""
        return self.source, *(skip.source for skip in self.skips)

    @property
    def maps(self) -> tuple[Dense | Conv, ...]:
        """Maps of its own input and of the skips, in the order of `sources`."""
        return self.linear, *(skip.linear for skip in self.skips)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shapes of what the maps read, before flattening."""
        return self.before, *(skip.before for skip in self.skips)

    def with_maps(self, maps: Sequence[Dense | Conv]) -> "SpikingLayer":
        """Return the layer with other maps, in the order of `maps`."""
        skips = (replace(skip, linear=linear) for skip, linear in zip(self.skips, maps[1:], strict=True))
        return replace(self, linear=maps[0], skips=tuple(skips))

    def renumbered(self, places: Mapping[int, int]) -> "SpikingLayer":
        """Return the layer with new numbers for the layers that it reads; `places` has them by the old ones."""
        skips = tuple(replace(skip, source=places[skip.source]) for skip in self.skips)
        return replace(self, source=places[self.source], skips=skips)

    def document(self, skips: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Return the block of a spec, without its neurons; `skips` are those of the spec."""
        linear, own = self.linear, {"bias": True} | ({"skips": list(skips)} if skips else {})
        if isinstance(linear, Dense):
            return {"kind": "dense" if self.activation else "affine", "features": len(linear.weight), **own}
        return {"kind": "conv", "channels": len(linear.weight), "groups": linear.groups, **linear.geometry, **own}

    def weighed(self, z: Tensor) -> Tensor:
        """Return the weighted inputs of the neurons, `[N, *after]`, given those of the ANN's units, `[N, ...]`."""
        z = z if self.channels is None else z[:, self.channels]
        z = z if self.population is None else self.population.shared(self.population.drive, z)
        return z.reshape(len(z), *self.after)

    def wanted(self, output: Tensor) -> Tensor:
        """Return the activations that the rates stand for, `[N, *after]`, at least 0, given the output of the node."""
        output = output if self.channels is None else output[:, self.channels]
        if self.population is not None:
            output = self.population.shared(self.population.encoding, output)
        return output.reshape(len(output), *self.after).clamp_min(0)


def spiking_layers(
    ann: Ann, max_pooling: MaxPooling, *, narrow: int | None = None, pools_apart: bool = False
) -> list[SpikingLayer]:
    """Return the spiking layers of an ANN in order.

    Linear nodes are folded into the weights next to them, exactly. If an activation follows a sum of branches, one of
    them is the layer's own input, and the others become skips. Linear nodes between the sum and the activation are
    folded into every branch. An activation of concatenated channels becomes a layer for each part.

    Args:
        ann: the ANN, as returned by `prepared`.
        max_pooling: replacement of max pooling.
        narrow: least number of neurons in a dense layer, by default `NARROW`.
        pools_apart: True to give neurons to each average pool, False to fold it where that is possible.

    Raises:
        UnsupportedError: a node has no spiking form.
    """
    maxima = [node.name for node in ann.nodes if isinstance(node.operation, nets.MaxPool)]
    if maxima and max_pooling is MaxPooling.ERROR:
        raise UnsupportedError(f"max pooling is refused ('error' was chosen): {', '.join(maxima)}")
    return _Lowering(ann, max_pooling, NARROW if narrow is None else narrow, pools_apart).layers


def prepared(ann: Ann, max_pooling: MaxPooling) -> Ann:
    """Return the ANN that `spiking_layers` takes, with max pools where neurons can replace them."""
    ann = activations_first(ann)
    if max_pooling in (MaxPooling.ANY, MaxPooling.SUM):
        return with_maxima_as_sums(ann, rectified_too=max_pooling is MaxPooling.SUM)
    return ann


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
    """Linear map of a layer's output, without bias, added to some channels of a sum.

    Attributes:
        source: layer that it reads; 0 is the image, 1 the first layer.
        units: shape of that layer's output in the ANN.
        channels: `[outputs of the map]`, channel of the sum that each output is added to; -1 for none.
        population: population of that layer, or None.
        linear: map of the units; None if the branch is the output itself.
    """

    source: int
    units: Shape
    channels: Tensor
    population: Population | None = None
    linear: Dense | Conv | None = None

    @property
    def is_pool(self) -> bool:
        """True if the map is averages, or the output itself."""
        return self.linear is None or (isinstance(self.linear, Conv) and self.linear.is_pool)

    @property
    def is_thin(self) -> bool:
        """True if each output of the map reads at most one channel."""
        return self.linear is None or is_thin(self.linear)

    @property
    def before(self) -> Shape:
        """Shape of the neurons' output."""
        return self.units if self.population is None else self.population.neurons(self.units)

    @property
    def is_positive(self) -> bool:
        """True if no value is below 0."""
        positive = self.population is None or bool((self.population.decoding > 0).all())
        return self.source > 0 and positive and (self.linear is None or bool((self.linear.weight >= 0).all()))

    @property
    def size(self) -> int:
        """Number of values of each output channel."""
        return prod(self.linear.output_shape(self.units)[1:] if isinstance(self.linear, Conv) else self.units[1:])

    def then(self, second: Dense | Conv) -> "_Branch | None":
        """Return the branch with a further map after the sum; None if folding them is impossible or dearer."""
        first = self.linear
        if isinstance(second, Conv):
            second, channels = part_reading(second, self.channels)
        else:
            channels = torch.arange(len(second.weight))
            if not torch.equal(self.channels, torch.arange(second.weight.shape[1])):
                second = Dense(second.weight[:, self.channels] * (self.channels >= 0), second.bias)
        dearer = (
            isinstance(first, Conv)
            and isinstance(second, Conv)
            and not (first.depthwise or second.depthwise or (first.kernel == (1, 1) and is_thin(first)))
            and n_weights_folded(first, second) > MOST_MORE_WEIGHTS * (first.weight.numel() + second.weight.numel())
        )
        if dearer or (isinstance(first, Dense) and isinstance(second, Conv)):
            return None
        try:
            match first, second:
                case None, _:
                    linear: Dense | Conv = second
                case Conv(), Conv():
                    linear = fold_conv(first, second, self.units)
                case Conv(), Dense():
                    linear = fold_dense(first, second, self.units)
                case _:
                    linear = Dense(second.weight @ first.weight, second.bias)
        except UnsupportedError:
            return None
        return replace(self, linear=linear, channels=channels)

    def flattened(self) -> "_Branch":
        """Return the branch of the flattened sum, whose channels are single values."""
        size = self.size
        places = self.channels[:, None] * size + torch.arange(size)
        return replace(self, channels=torch.where(self.channels[:, None] < 0, -1, places).flatten())

    def selected(self, places: Tensor) -> "_Branch":
        """Return the branch of a sum whose channel i becomes channel `places[i]`; -1 drops it."""
        branch, channels = self, torch.where(self.channels < 0, -1, places[self.channels.clamp_min(0)])
        if self.linear is not None and self.linear.groups == 1 and bool((kept := channels >= 0).any()):
            weight, bias = self.linear.weight[kept], self.linear.bias[kept]
            branch, channels = replace(self, linear=replace(self.linear, weight=weight, bias=bias)), channels[kept]
        return replace(branch, channels=channels)

    def synapses(self, after: Shape, channels: Tensor) -> Dense | Conv:
        """Return the map from the neurons to a layer of shape `after`, which has these channels of the sum."""
        linear = self.linear or self._identity()
        linear = linear if self.population is None else self.population.decoded(linear)
        linear = _as_dense(linear, self.before) if isinstance(linear, Conv) and len(after) == 1 else linear
        if torch.equal(self.channels, channels):
            return linear
        if isinstance(linear, Conv):
            linear = ungrouped(linear)
        row = torch.full((int(max(channels.max(), self.channels.max())) + 1,), -1)
        row[channels] = torch.arange(len(channels))
        kept = self.channels >= 0
        weight = linear.weight.new_zeros(len(channels), *linear.weight.shape[1:])
        weight[row[self.channels[kept]]] = linear.weight[kept]
        return replace(linear, weight=weight, bias=weight.new_zeros(len(channels)))

    def _identity(self) -> Dense | Conv:
        channels = self.units[0]
        if len(self.units) > 1:
            return pool(torch.ones(channels), (1, 1), (1, 1), (0, 0))
        if channels**2 > LARGEST_READOUT:
            raise UnsupportedError(
                f"an activation of {channels:,} values with no weights before it needs {channels**2:,} weights, at "
                f"most {LARGEST_READOUT:,} are supported"
            )
        return Dense(torch.eye(channels).double(), torch.zeros(channels).double())


@dataclass(frozen=True)
class _Sum:
    """Output of a node: a sum of branches, and a bias for each channel, `[channels]`."""

    shape: Shape
    bias: Tensor
    branches: tuple[_Branch, ...]

    @staticmethod
    def of(branch: _Branch) -> "_Sum":
        """Return the sum that is the output of a layer."""
        return _Sum(branch.units, torch.zeros(branch.units[0]).double(), (branch,))

    def flattened(self) -> "_Sum":
        """Return the sum with its maps flattened."""
        if len(self.shape) == 1:
            return self
        bias = self.bias.repeat_interleave(prod(self.shape[1:]))
        return _Sum((prod(self.shape),), bias, tuple(branch.flattened() for branch in self.branches))

    def selected(self, chosen: Tensor, shape: Shape) -> "_Sum":
        """Return the sum of only some channels, `chosen`, in their order; -1 is a channel of zeros."""
        places, kept = torch.full((self.shape[0],), -1), chosen >= 0
        places[chosen[kept]] = torch.arange(len(chosen))[kept]
        bias = torch.where(kept, self.bias[chosen.clamp_min(0)], 0.0)
        branches = (branch.selected(places) for branch in self.branches)
        return _Sum(shape, bias, tuple(branch for branch in branches if bool((branch.channels >= 0).any())))

    def parts(self) -> Iterator[tuple[Tensor, tuple[_Branch, ...]]]:
        """Yield groups of channels that no branch connects, with their branches; channels without any go to the first.

        Channels of a group with one branch are in the order of that branch.
        """
        groups: list[tuple[set[int], list[_Branch]]] = []
        for branch in self.branches:
            found = (set(branch.channels.tolist()) - {-1}, [branch])
            joined = [group for group in groups if group[0] & found[0]]
            groups = [group for group in groups if not group[0] & found[0]]
            merged = [*joined, found]
            groups.append((set().union(*(one for one, _ in merged)), [b for _, each in merged for b in each]))
        everything = set(range(self.shape[0]))
        unread = everything.difference(*(channels for channels, _ in groups))
        for i, (channels, branches) in enumerate(groups):
            own = branches[0].channels
            if len(branches) == 1 and not (i == 0 and unread) and bool((own >= 0).all()):
                yield own, (branches[0],)
            else:
                yield torch.tensor(sorted(channels | unread if i == 0 else channels)), tuple(branches)


class _Lowering:
    """Walk over the nodes of an ANN, in which each activation makes a layer of the sum of branches that it reads."""

    def __init__(self, ann: Ann, max_pooling: MaxPooling, narrow: int, pools_apart: bool) -> None:
        self.narrow = narrow
        self.averages = max_pooling is MaxPooling.AVERAGE
        self.layers: list[SpikingLayer] = []
        self.values = {ann.input_name: _Sum.of(_Branch(0, ann.shape, torch.arange(ann.shape[0])))}
        copies = _copies(ann)
        for node in ann.nodes:
            self.values[node.name] = self._value(node)
            if pools_apart and isinstance(node.operation, nets.AvgPool):
                self._materialize(node.name, self.values[node.name].branches)
            if ann.readers[node.name] > 1 and copies[node.name] > MOST_COPIES:
                self._materialize(node.name, [b for b in self.values[node.name].branches if not b.is_thin])
        last = ann.nodes[-1]
        if not self._is_last_layer(self.values[last.name]):
            logits = self.values[last.name].flattened()
            self._layer(last.name, last.name, logits, torch.arange(logits.shape[0]), logits.branches, None)
        self.layers = _that_are_read(self.layers)

    def _value(self, node: Node) -> _Sum:
        """Return the value of a node."""
        value, *others = (self.values[name] for name in node.inputs)
        match node.operation:
            case nets.Flatten():
                return value.flattened()
            case nets.Add():
                branches = value.branches + others[0].branches
                if len(branches) > MOST_BRANCHES:
                    raise UnsupportedError(
                        f"{node.place}: a sum of {len(branches)} branches; at most {MOST_BRANCHES} are supported"
                    )
                return _Sum(value.shape, value.bias + others[0].bias, branches)
            case nets.Concat():
                return _concatenated([value, *others], node.shape)
            case nets.Conv(weight, bias, stride, padding, dilation, groups):
                conv = Conv(weight.double(), bias.double(), stride, padding, dilation, groups)
                if (chosen := selection(conv)) is None:
                    return self._then(node, conv)
                if stride != (1, 1):
                    value = self._then(node, pool(torch.ones(value.shape[0]), (1, 1), stride, (0, 0)))
                return value.selected(chosen, node.shape)
            case nets.Dense(weight, bias):
                return self._then(node, Dense(weight.double(), bias.double()))
            case nets.AvgPool() | nets.MaxPool() as pooled if isinstance(pooled, nets.AvgPool) or self.averages:
                each = torch.full((node.shape[0],), 1 / prod(pooled.kernel))
                return self._then(node, pool(each, pooled.kernel, pooled.stride, pooled.padding))
            case nets.MaxPool() as pooled:
                return self._maximum(node, value, pooled)
            case activation:
                return self._activated(node.name, node.inputs[0], value, activation)

    def _then(self, node: Node, second: Dense | Conv) -> _Sum:
        """Return the value of a node that applies a map to its input; what cannot be folded into it gets neurons."""
        name = node.inputs[0]
        value = self.values[name]
        if isinstance(second, Conv) and any(second.padding) and bool(value.bias.any()):
            value = self._materialize(name, value.branches)
        branches = [branch.then(second) for branch in value.branches]
        if None in branches:
            value = self._materialize(name, [b for b, found in zip(value.branches, branches, strict=True) if not found])
            branches = [branch.then(second) for branch in value.branches]
        kept = tuple(branch for branch in branches if branch is not None)
        if len(kept) < len(branches):
            raise UnsupportedError(f"{node.place}: a convolution of the outputs of a dense layer is not supported")
        return _Sum(node.shape, second.bias + bias_after(value.bias, second), kept)

    def _materialize(self, name: str, branches: Sequence[_Branch]) -> _Sum:
        """Give neurons to the channels of a node that these branches, of those of its value, are added to."""
        value, made = self.values[name], list[_Branch]()
        bias = value.bias.clone()
        for channels, together in value.parts():
            if not any(branch is one for branch in branches for one in together):
                made += together
                continue
            positive = all(one.is_positive for one in together) and bool((bias[channels] >= 0).all())
            activation = nets.Relu() if positive else nets.LeakyRelu(1.0)
            made.append(self._layer(name, name, value, channels, together, activation))
            bias[channels] = 0
        self.values[name] = _Sum(value.shape, bias, tuple(made))
        return self.values[name]

    def _maximum(self, node: Node, value: _Sum, pooled: nets.MaxPool) -> _Sum:
        """Return the maxima over windows, as layers of neurons that fire when any neuron of their window does."""
        made = list[_Branch]()
        if any(branch.source == 0 for branch in value.branches):
            raise UnsupportedError(f"{node.place}: max pooling of the image is not supported: it has no spikes")
        for _, branches in value.parts():
            branch = branches[0]
            if len(branches) > 1 or branch.linear is not None or branch.population is not None:
                raise UnsupportedError(
                    f"{node.place}: max pooling with padding needs an activation just before it, and not a leaky one"
                )
            windows = pool(torch.ones(branch.units[0]), pooled.kernel, pooled.stride, pooled.padding)
            after = windows.output_shape(branch.units)
            self.layers.append(
                SpikingLayer(
                    node.name, node.name, branch.source, windows, branch.units, after, nets.Relu(), is_any=True
                )
            )
            made.append(_Branch(len(self.layers), after, branch.channels))
        return _Sum(node.shape, value.bias, tuple(made))

    def _activated(self, target: str, weighted: str, value: _Sum, activation: nets.Operation) -> _Sum:
        """Add a layer for each part of a sum; return the outputs together."""
        made = [self._layer(target, weighted, value, *part, activation) for part in value.parts()]
        return _Sum(value.shape, torch.zeros_like(value.bias), tuple(made))

    def _layer(
        self,
        target: str,
        weighted: str,
        value: _Sum,
        channels: Tensor,
        branches: Sequence[_Branch],
        activation: nets.Operation | None,
    ) -> _Branch:
        """Add the layer that computes an activation of some channels, or the readout; return its output."""
        after = units = (len(channels), *value.shape[1:])
        is_whole = torch.equal(channels, torch.arange(value.shape[0]))
        if isinstance(activation, nets.PRelu) and activation.slope.numel() > 1:
            activation = nets.PRelu(activation.slope.flatten()[channels])
        last = len(self.layers)
        place = max(
            range(len(branches)),
            key=lambda i: (branches[i].source == last, not branches[i].is_pool, branches[i].source),
        )
        own, *others = (branches[place], *branches[:place], *branches[place + 1 :])
        maps = [branch.synapses(after, channels) for branch in (own, *others)]
        bias = value.bias[channels]
        maps = [replace(linear, bias=torch.zeros_like(bias) if i else bias) for i, linear in enumerate(maps)]
        population = None if activation is None else _population(activation, after, self.narrow)
        if population is not None:
            maps = [population.driven(linear) for linear in maps]
            after = population.neurons(after)
        skips = tuple(
            SpikingSkip(branch.source, linear, branch.before) for branch, linear in zip(others, maps[1:], strict=True)
        )
        self.layers.append(
            SpikingLayer(
                target, weighted, own.source, maps[0], own.before, after, activation,
                flattens=isinstance(maps[0], Dense) and len(own.before) > 1,
                population=population, skips=skips, channels=None if is_whole else channels,
            )
        )  # fmt: skip
        return _Branch(len(self.layers), units, channels, population)

    def _is_last_layer(self, value: _Sum) -> bool:
        """Return whether a value is the output of the last layer, one neuron for each unit."""
        only = value.branches[0]
        plain = only.linear is None and only.population is None and not bool(value.bias.any())
        whole = torch.equal(only.channels, torch.arange(value.shape[0]))
        return len(value.branches) == 1 and only.source == len(self.layers) and plain and whole


def _that_are_read(layers: Sequence[SpikingLayer]) -> list[SpikingLayer]:
    """Return the layers that the last one depends on, with their sources counted anew."""
    read = {len(layers)}
    for i, layer in reversed(list(enumerate(layers, 1))):
        read.update(layer.sources if i in read else ())
    places = {old: new for new, old in enumerate(sorted(read | {0}))}
    return [layer.renumbered(places) for i, layer in enumerate(layers, 1) if i in read]


def _copies(ann: Ann) -> Counter[str]:
    """Return the number of layers that would read the output of each node, if no linear node had neurons."""
    copies = Counter([ann.nodes[-1].name])
    for node in reversed(ann.nodes):
        passes = isinstance(node.operation, nets.Add | nets.Concat | nets.Flatten | nets.AvgPool) or (
            isinstance(node.operation, nets.Conv) and is_thin(node.operation)
        )
        for name in node.inputs:
            copies[name] += copies[node.name] if passes else 1
    return copies


def _concatenated(values: Sequence[_Sum], shape: Shape) -> _Sum:
    """Return the values with their channels one after the other."""
    branches, start = list[_Branch](), 0
    for value in values:
        for branch in value.branches:
            moved = torch.where(branch.channels < 0, -1, branch.channels + start)
            branches.append(replace(branch, channels=moved))
        start += value.shape[0]
    return _Sum(shape, torch.cat([value.bias for value in values]), tuple(branches))


def _population(activation: nets.Operation, shape: Shape, narrow: int) -> Population | None:
    """Return the neurons for each unit of a layer of `shape`; None if one for each is enough.

    A leaky unit gets two, since `leaky(x) = relu(x) - slope relu(-x)`; units of a layer with less than
    `narrow` neurons get several of each.
    """
    drive = torch.ones(shape[0], 1, dtype=torch.float64)
    encoding = decoding = drive
    slopes = _slopes_of(activation, shape[0])
    if slopes is not None:
        below = slopes[:, None]
        drive, encoding, decoding = (torch.cat([drive, -negative], 1) for negative in (drive, 1 / below, below))
    copies = ceil(narrow / drive.numel()) if len(shape) == 1 else 1
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
