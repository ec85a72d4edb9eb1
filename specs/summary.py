"""What a network costs, from its spec alone: one row a layer."""

from dataclasses import dataclass, replace

from specs.block import (
    AffineSpec,
    AvgPoolSpec,
    ConvSpec,
    DenseSpec,
    Encoding,
    InputSpec,
    LayerSpec,
    has_neurons,
    skips_of,
)
from specs.fields import Shape
from specs.network import NetworkSpec
from specs.neuron import LearnDecays
from specs.shapes import axis_connections, axis_fanout, n_weights, output_shape, pool_as_conv, skip_as_layer

__all__ = ["LayerSummary", "conv_fanout", "summarize"]


@dataclass(frozen=True)
class LayerSummary:
    """One layer: its output shape, trainable parameters, bytes of 8-bit weights, and synops a step at input rate 1.

    `skips` are the layers, besides the one before it, from which it has synapses; they are in the other figures.
    """

    kind: str
    shape: Shape
    parameters: int
    weight_bytes: int
    synops: int
    skips: tuple[int, ...] = ()


def summarize(spec: NetworkSpec) -> list[LayerSummary]:
    """The layer table of `zoo check`, input first.

    A synaptic operation (synop) is one weight reached by one spike; with padding, weights that read only padding are
    not reached.
    """
    shapes = spec.shapes
    before = (spec.input.shape, *shapes)
    rows = [_summary(spec, layer, before[i], shapes[i]) for i, layer in enumerate(spec.layers)]
    return [_with_skips(layer, row, shapes) for layer, row in zip(spec.layers, rows, strict=True)]


def conv_fanout(conv: ConvSpec, shape: Shape) -> tuple[list[int], list[int]]:
    """Along height and width, how many output positions read each input position of `shape` `[C, H, W]`."""
    height, width = (axis_fanout(shape[1 + axis], **_geometry(conv, axis)) for axis in range(2))
    return height, width


def _geometry(conv: ConvSpec, axis: int) -> dict[str, int]:
    return {name: getattr(conv, name)[axis] for name in ("kernel", "stride", "padding", "dilation")}


def _synops(layer: LayerSpec, before: Shape, after: Shape) -> int:
    if not isinstance(layer, ConvSpec | AvgPoolSpec):
        return n_weights(layer, before, after)
    conv = layer if isinstance(layer, ConvSpec) else pool_as_conv(layer, before[0])
    height, width = (axis_connections(before[1 + axis], **_geometry(conv, axis)) for axis in range(2))
    return height * width * after[0] * (before[0] // conv.groups)


def _with_skips(layer: LayerSpec, row: LayerSummary, shapes: tuple[Shape, ...]) -> LayerSummary:
    skips = skips_of(layer)
    weights = synops = 0
    for skip in skips:
        as_layer, seen = skip_as_layer(skip, shapes[skip.source], row.shape)
        after = output_shape(as_layer, seen)
        weights += n_weights(as_layer, seen, after)
        synops += _synops(as_layer, seen, after)
    return replace(
        row,
        parameters=row.parameters + weights,
        weight_bytes=row.weight_bytes + weights,
        synops=row.synops + synops,
        skips=tuple(skip.source for skip in skips),
    )


def _summary(spec: NetworkSpec, layer: LayerSpec, before: Shape, after: Shape) -> LayerSummary:
    weights, synops = n_weights(layer, before, after), _synops(layer, before, after)
    parameters = 0 if isinstance(layer, AvgPoolSpec) else weights
    if isinstance(layer, InputSpec) and layer.encoding is Encoding.SPIKE:
        parameters += 2
    if isinstance(layer, DenseSpec | ConvSpec | AffineSpec):
        parameters += after[0] * (layer.bias + layer.weight_norm)
    if has_neurons(layer):
        learned = {LearnDecays.NONE: 0, LearnDecays.SHARED: 2, LearnDecays.PER_CHANNEL: 2 * after[0]}
        parameters += learned[spec.neuron_of(layer).learn_decays]
    return LayerSummary(kind=layer.kind, shape=after, parameters=parameters, weight_bytes=weights, synops=synops)
