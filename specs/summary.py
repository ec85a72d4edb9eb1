"""What a network costs, from its spec alone: one row a layer."""

from dataclasses import dataclass

from specs.block import AffineSpec, AvgPoolSpec, ConvSpec, DenseSpec, Encoding, InputSpec, LayerSpec
from specs.fields import Shape
from specs.network import NetworkSpec
from specs.neuron import LearnDecays
from specs.shapes import axis_connections, axis_fanout, n_weights, pool_as_conv

__all__ = ["LayerSummary", "conv_fanout", "summarize"]


@dataclass(frozen=True)
class LayerSummary:
    """One layer: its output shape, trainable parameters, bytes of 8-bit weights, and synops a step at input rate 1."""

    kind: str
    shape: Shape
    parameters: int
    weight_bytes: int
    synops: int


def summarize(spec: NetworkSpec) -> list[LayerSummary]:
    """The layer table of `zoo check`, input first.

    A synaptic operation (synop) is one weight reached by one spike; with padding, weights that read only padding are
    not reached.
    """
    shapes = spec.shapes
    before = (spec.input.shape, *shapes)
    return [_summary(spec, layer, before[i], shapes[i]) for i, layer in enumerate(spec.layers)]


def conv_fanout(conv: ConvSpec, shape: Shape) -> tuple[list[int], list[int]]:
    """Along height and width, how many output positions read each input position of `shape` `[C, H, W]`."""
    height, width = (axis_fanout(shape[1 + axis], **_geometry(conv, axis)) for axis in range(2))
    return height, width


def _geometry(conv: ConvSpec, axis: int) -> dict[str, int]:
    return {name: getattr(conv, name)[axis] for name in ("kernel", "stride", "padding", "dilation")}


def _summary(spec: NetworkSpec, layer: LayerSpec, before: Shape, after: Shape) -> LayerSummary:
    weights = synops = n_weights(layer, before, after)
    if isinstance(layer, ConvSpec | AvgPoolSpec):
        conv = layer if isinstance(layer, ConvSpec) else pool_as_conv(layer, before[0])
        height, width = (axis_connections(before[1 + axis], **_geometry(conv, axis)) for axis in range(2))
        synops = height * width * after[0] * (before[0] // conv.groups)
    parameters = 0 if isinstance(layer, AvgPoolSpec) else weights
    if isinstance(layer, InputSpec) and layer.encoding is Encoding.SPIKE:
        parameters += 2
    if isinstance(layer, DenseSpec | ConvSpec | AffineSpec):
        parameters += after[0] * (layer.bias + layer.weight_norm)
    has_neurons = isinstance(layer, DenseSpec | ConvSpec | AvgPoolSpec) or (
        isinstance(layer, InputSpec) and layer.encoding is Encoding.SPIKE
    )
    if has_neurons:
        learned = {LearnDecays.NONE: 0, LearnDecays.SHARED: 2, LearnDecays.PER_CHANNEL: 2 * after[0]}
        parameters += learned[spec.neuron_of(layer).learn_decays]
    return LayerSummary(kind=layer.kind, shape=after, parameters=parameters, weight_bytes=weights, synops=synops)
