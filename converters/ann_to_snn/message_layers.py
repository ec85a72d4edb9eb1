"""Layers of a network of messages, with weights, biases and activations in the ranges of the hardware.

Weights have 8 bits, biases 13, and the sums that neurons hold 24; all of a network have the same units. So the scale of
each channel is free, but a layer that reads large activations must have small weights, which have few steps. Three
things help: activations may grow from layer to layer, weights are refitted and rounded to what is really sent
(`refit`), and neurons that read one neuron each may scale activations down between two layers (`with_relays`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from bootstrap_core.fixed_point import BIAS_MANT_MAX, MANT, MESSAGE, SIGMA, STATE_MAX, WEIGHT_INT_MAX, WEIGHT_STEP
from bootstrap_core.functional.quantize import quantize_bias, quantize_weight
from converters.ann_to_snn.refit import Reading, refit, rounded, weighted_input
from converters.ann_to_snn.spiking_layers import (
    MaxPooling,
    SpikingLayer,
    SpikingSkip,
    activations_first,
    spiking_layers,
)
from converters.linear.ann import Ann, Clip, Conv, Dense, MaxPool, Node, Relu, run_ann
from converters.linear.image_normalization import Normalization
from converters.linear.linear_fold import pool, scale_inputs, scale_outputs
from converters.linear.maxima import with_maxima_as_sums
from specs.errors import UnsupportedError
from specs.fields import Shape

MOST_WEIGHT, MOST_BIAS, MOST_SUM = WEIGHT_INT_MAX * WEIGHT_STEP, BIAS_MANT_MAX / MANT, STATE_MAX / SIGMA
RARELY = 1e-3
"""Share of a layer's activations; an upper bound that no more of them reach is left out."""
ONES = -1
"""Number of the layer whose activation is always 1, until all layers are renumbered."""
LEAST_REACH = 0.125
"""Largest sum of a channel that is assumed at least, relative to that of the layer: other images may reach further."""


class Scaling(NamedTuple):
    """Choices that set the scales of a network.

    Attributes:
        levels: largest pixel of the frames.
        growth: factor by which the largest sum of a layer is below that of the next.
        margin: part of the hardware's 24 bits that sums may take on the images of the calibration.
        in_units: True if the outputs should be the ANN's, and not a multiple of them.
    """

    levels: int = 255
    growth: float = 1.0
    margin: float = 0.5
    in_units: bool = False


@dataclass(frozen=True)
class ScaledLayers:
    """Layers with weights and biases on the hardware's grids.

    Attributes:
        layers: the layers.
        sizes: root mean square of the activations that each layer sends, that of the frames first.
        output_scale: factor of the outputs to those of the ANN.
        most: largest magnitude of a sum on the images of the calibration; `MOST_SUM` is the hardware's.
    """

    layers: list[SpikingLayer]
    sizes: list[float]
    output_scale: float
    most: float


@torch.no_grad()
def without_rare_bounds(ann: Ann, images: Tensor) -> Ann:
    """Turn `Clip` into `Relu` where at most `RARELY` of the activations reach the bound on normalised images.

    A bound takes twice the neurons, and up to four times the weights.
    """
    values = run_ann(ann, images, keep=True)[1]

    def without(node: Node) -> Node:
        match node.operation:
            case Clip(high) if float((values[node.inputs[0]] > high).float().mean()) <= RARELY:
                return replace(node, operation=Relu())
        return node

    return replace(ann, nodes=tuple(map(without, ann.nodes)))


def message_layers(ann: Ann, normalization: Normalization) -> list[SpikingLayer]:
    """Return the layers of a network of messages, which take pixels in 0..1; average pools have neurons.

    Raises `UnsupportedError` for what sigma-delta neurons cannot do.
    """
    ann = with_maxima_as_sums(_with_maxima_in_pairs(activations_first(ann)), rectified_too=True)
    for node in ann.nodes:
        if isinstance(node.operation, MaxPool):
            raise UnsupportedError(f"{node.place}: max pooling with padding needs an activation just before it")
    layers = spiking_layers(_with_bounds_in_pairs(ann), MaxPooling.ERROR, narrow=0, pools_apart=True)
    return _of_pixels(layers, ann.normalization.after(normalization))


def _of_pixels(layers: Sequence[SpikingLayer], normalization: Normalization) -> list[SpikingLayer]:
    """Return layers that take pixels in 0..1, given layers that take normalised pixels.

    The means add a constant to each sum, which becomes a bias. But an ANN pads normalised images with zeros, to which
    the means add nothing. So a convolution with padding reads the constant from neurons whose activation is always 1;
    their padding is silent.
    """
    shape, made = layers[0].before, list[SpikingLayer]()
    means, stds = normalization.each(shape[0])
    for layer in layers:
        maps, skips, bias = list[Dense | Conv](), list[SpikingSkip](), layer.linear.bias
        for source, linear in zip(layer.sources, layer.maps, strict=True):
            if source == 0:
                linear = scale_inputs(linear, 1 / stds)
                added = -scale_inputs(linear, means).weight.sum(1)
                if isinstance(linear, Conv) and any(linear.padding) and bool(added.any()):
                    of_ones = replace(linear, weight=added[:, None], bias=torch.zeros_like(bias), groups=1)
                    skips.append(SpikingSkip(ONES, replace(of_ones, is_pool=False), (1, *shape[1:])))
                else:
                    bias = bias + added.reshape(len(added), -1).sum(1)
            maps.append(linear)
        layer = layer.with_maps([replace(maps[0], bias=bias), *maps[1:]])
        made.append(replace(layer, skips=(*layer.skips, *skips)))
    if all(skip.source != ONES for layer in made for skip in layer.skips):
        return made
    always = Conv(torch.zeros(1, shape[0], 1, 1).double(), torch.ones(1).double())
    ones = SpikingLayer("ones", "ones", 0, always, shape, (1, *shape[1:]), Relu())
    places = {0: 0, ONES: 1} | {i: i + 1 for i in range(1, len(made))}
    return [ones, *(layer.renumbered(places) for layer in made)]


def _with_maxima_in_pairs(ann: Ann) -> Ann:
    """Replace max pools of rectified maps, pair by pair: `max(a, b) = relu(a - b) + relu(b)`.

    A chain stays a chain. Other max pools are left as they are.
    """
    made_by, nodes = {node.name: node for node in ann.nodes}, list[Node]()
    for node in ann.nodes:
        source, channels = made_by.get(node.inputs[0]), node.shape[0]
        if not isinstance(node.operation, MaxPool) or source is None or not isinstance(source.operation, Relu | Clip):
            nodes.append(node)
            continue
        windows, name = node.operation, node.inputs[0]
        merge = torch.eye(prod(windows.kernel))
        kernel, stride, padding = windows.kernel, windows.stride, windows.padding
        while len(merge) > 1:
            pairs = torch.arange(len(merge)).split(2)
            rows = [[merge[p[0]] - merge[p[1]], merge[p[1]]] if len(p) > 1 else [merge[p[0]]] for p in pairs]
            each = torch.stack([row for pair in rows for row in pair])  # [neurons, places of the kernel, or neurons]
            weight = each.repeat(channels, 1).reshape(-1, 1, *kernel) if kernel != (1, 1) else each.repeat(channels, 1)
            weight = weight if weight.dim() == 4 else weight[:, :, None, None]
            shape = (channels * len(each), *node.shape[1:])
            conv = Conv(weight, torch.zeros(len(weight)), stride, padding, groups=channels)
            nodes.append(Node(f"{node.name}, differences of {len(merge)}", conv, (name,), shape))
            nodes.append(Node(f"{node.name}, of {len(merge)}", Relu(), (nodes[-1].name,), shape))
            name, kernel, stride, padding = nodes[-1].name, (1, 1), (1, 1), (0, 0)
            merge = torch.zeros(len(pairs), len(each))
            column = 0
            for k, pair in enumerate(rows):
                merge[k, column : column + len(pair)] = 1
                column += len(pair)
        weight = merge.repeat(channels, 1)[:, :, None, None]
        nodes.append(Node(node.name, Conv(weight, torch.zeros(channels), groups=channels), (name,), node.shape))
    return replace(ann, nodes=tuple(nodes))


def _with_bounds_in_pairs(ann: Ann) -> Ann:
    """Replace activations with an upper bound by two rectifiers: `clip(x) = relu(x) - relu(x - high)`."""
    nodes = list[Node]()
    for node in ann.nodes:
        if not isinstance(node.operation, Clip):
            nodes.append(node)
            continue
        n, bounds = node.shape[0], torch.tensor([0.0, -node.operation.high])
        pairs = torch.ones(2 * n, 1), bounds.repeat(n)
        differences = torch.tensor([[1.0, -1.0]]).expand(n, 2), torch.zeros(n)
        both, rectified = f"{node.name}, and above its bound", f"{node.name}, rectified"
        shape = (2 * n, *node.shape[1:])
        nodes += [
            Node(both, _of_each(*pairs, node.shape), node.inputs, shape),
            Node(rectified, Relu(), (both,), shape),
            Node(node.name, _of_each(*differences, node.shape), (rectified,), node.shape),
        ]
    return replace(ann, nodes=tuple(nodes))


def _of_each(weight: Tensor, bias: Tensor, shape: Shape) -> Dense | Conv:
    """Return a map that connects each channel, or feature, only to inputs and outputs of its own.

    Args:
        weight: `[outputs, inputs of each output]`.
        bias: `[outputs]`.
        shape: shape with one channel, or feature, for each of these parts.
    """
    if len(shape) == 3:
        return Conv(weight[:, :, None, None], bias, groups=shape[0])
    return Dense(torch.block_diag(*weight.reshape(shape[0], -1, weight.shape[1])), bias)


def with_relays(layers: Sequence[SpikingLayer]) -> list[SpikingLayer]:
    """Return the layers, and after each that gives maps a relay: neurons of one synapse each, which scale down.

    Weights read the relay. Pools, and skips of one weight for each channel, read the layer itself: they are exact.
    """
    made, places, relays = list[SpikingLayer](), {0: 0}, {0: 0}
    weighed = {layer.source for layer in layers if not is_exact(layer)}
    weighed |= {skip.source for layer in layers for skip in layer.skips if skip.diagonal is None}
    for i, layer in enumerate(layers, 1):
        source = (places if is_exact(layer) else relays)[layer.source]
        skips = (
            replace(skip, source=(relays if skip.diagonal is None else places)[skip.source]) for skip in layer.skips
        )
        made.append(replace(layer, source=source, skips=tuple(skips)))
        places[i] = relays[i] = len(made)
        if i in weighed and len(layer.after) > 1 and not _is_pool(layer):
            one = pool(torch.ones(layer.after[0]), (1, 1), (1, 1), (0, 0))
            made.append(SpikingLayer(layer.target, layer.target, len(made), one, layer.after, layer.after, Relu()))
            relays[i] = len(made)
    return made


def is_relay(layer: SpikingLayer) -> bool:
    """Return whether each neuron of a layer reads one neuron, in its own place."""
    return _is_pool(layer) and isinstance(layer.linear, Conv) and layer.linear.kernel == layer.linear.stride == (1, 1)


def _is_pool(layer: SpikingLayer) -> bool:
    """Return whether a layer is an average pool or a relay: any factor that is on the grid is exact."""
    linear = layer.linear
    return isinstance(linear, Conv) and linear.is_pool and not layer.skips and not bool(linear.bias.any())


def is_exact(layer: SpikingLayer) -> bool:
    """Return whether the grid of weights does not change a layer: a pool, or weights, as of maxima, of 1, 0 and -1."""
    weight, bias = layer.linear.weight, layer.linear.bias
    signs = isinstance(layer.linear, Conv) and bool(((weight.abs() == 1) | (weight == 0)).all())
    return _is_pool(layer) or (signs and not layer.skips and not bool(bias.any()))


class LayerScaler:
    """Layers, and their sums and activations in the ANN on some images."""

    def __init__(self, layers: Sequence[SpikingLayer], images: Tensor) -> None:
        self.layers = list(layers)
        self.pixels = images.reshape(len(images), *layers[0].before).double() / 255
        self.sums, outputs = list[Tensor](), [self.pixels]
        for layer in layers:
            self.sums.append(weighted_input(_readings(layer, layer.maps, outputs)))
            outputs.append(self.sums[-1] if layer.activation is None else self.sums[-1].relu())
        reached = (x.abs().transpose(0, 1).flatten(1).amax(1) for x in self.sums)
        self.reach = [x.clamp_min(LEAST_REACH * float(x.max())).clamp_min(1e-9) for x in reached]
        self.ahead = self._ahead()

    def _ahead(self) -> list[int]:
        """Return for each layer, the image first, the number of layers that round from it to the readout or a pool."""
        ahead = [0] * (len(self.layers) + 1)
        for i, layer in reversed(list(enumerate(self.layers, 1))):
            own = 0 if _is_pool(layer) else ahead[i] + (not is_exact(layer))
            ahead[layer.source] = max(ahead[layer.source], own)
            for skip in layer.skips:
                ahead[skip.source] = max(ahead[skip.source], ahead[i] + (skip.diagonal is None))
        return ahead

    @torch.no_grad()
    def scaled(self, scaling: Scaling) -> ScaledLayers:
        """Return the layers on the hardware's grids: each refitted and rounded to what those before it send."""
        generator = torch.Generator().manual_seed(0)
        scales = [torch.full((self.pixels.shape[1],), scaling.levels / MANT, dtype=torch.float64)]
        outputs, made, most = [(self.pixels * scaling.levels).round() / MANT], list[SpikingLayer](), 0.0
        for i, layer in enumerate(self.layers):
            pairs = zip(layer.maps, layer.sources, strict=True)
            maps = [scale_inputs(linear, 1 / scales[source]) for linear, source in pairs]
            scale = self._scale(i, maps, scales[layer.source], scaling)
            maps = [scale_outputs(linear, scale) for linear in maps]
            if not is_exact(layer):
                wanted = self.sums[i] * scale.reshape(-1, *[1] * (self.sums[i].dim() - 2))
                maps = refit(
                    _readings(layer, maps, outputs), wanted, rectified=layer.activation is not None, generator=generator
                )
                maps = rounded(_readings(layer, maps, outputs), generator=generator)
            maps = [replace(each, weight=quantize_weight(each.weight)) for each in maps]
            maps[0] = replace(maps[0], bias=quantize_bias(maps[0].bias))
            made.append(layer.with_maps(maps))
            found = weighted_input(_readings(layer, maps, outputs))
            most = max(most, float(found.abs().max()))
            outputs.append(found if layer.activation is None else (found.relu() * MESSAGE).floor() / MESSAGE)
            scales.append(scale)
        sizes = [float(x.square().mean().sqrt()) for x in outputs]
        return ScaledLayers(made, sizes, float(scales[-1][0]), most)

    def _scale(self, i: int, maps: Sequence[Dense | Conv], before: Tensor, scaling: Scaling) -> Tensor:
        """Return the scale of each channel of a layer, given its maps for scaled inputs."""
        layer, channels = self.layers[i], len(maps[0].weight)
        if is_exact(layer) and not _is_pool(layer):  # maxima of inputs of one scale
            return before.reshape(maps[0].groups, -1)[:, 0].repeat_interleave(channels // maps[0].groups)
        largest = [linear.weight.flatten(1).abs().amax(1).clamp_min(1e-12) for linear in maps]
        sums = scaling.margin * MOST_SUM / scaling.growth ** self.ahead[i + 1]
        scale = torch.minimum(MOST_WEIGHT / torch.stack(largest).amax(0), sums / self.reach[i])
        scale = torch.minimum(scale, MOST_BIAS / maps[0].bias.abs().clamp_min(1e-9))
        exact = [weight for weight, skip in zip(largest[1:], layer.skips, strict=True) if skip.diagonal is not None]
        for weight in largest[:1] if _is_pool(layer) else exact[:1]:
            scale = (scale * weight / WEIGHT_STEP).floor().clamp(1, WEIGHT_INT_MAX) * WEIGHT_STEP / weight
        if layer.activation is None:
            scale = scale.min().expand(channels)
            scale = torch.ones_like(scale) if scaling.in_units and float(scale[0]) >= 1 else scale
        return scale


def _readings(layer: SpikingLayer, maps: Sequence[Dense | Conv], outputs: Sequence[Tensor]) -> list[Reading]:
    """Return the maps of a layer with what they read, given the outputs of all layers, the image first."""
    fixed = [False, *(skip.diagonal is not None for skip in layer.skips)]
    return [
        Reading(linear, outputs[source], is_fixed)
        for linear, source, is_fixed in zip(maps, layer.sources, fixed, strict=True)
    ]
