"""What a network costs, from its spec alone: one row a layer."""

from dataclasses import dataclass, replace

from specs.block import LayerSpec, skips_of
from specs.fields import Shape
from specs.network import NetworkSpec
from specs.neuron import LearnDecays

__all__ = ["LayerSummary", "summarize"]


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


def _with_skips(layer: LayerSpec, row: LayerSummary, shapes: tuple[Shape, ...]) -> LayerSummary:
    skips = skips_of(layer)
    weights = synops = 0
    for skip in skips:
        as_layer, seen = skip.as_layer(shapes[skip.source], row.shape)
        weights += as_layer.n_weights(seen)
        synops += as_layer.n_synops(seen)
    return replace(
        row,
        parameters=row.parameters + weights,
        weight_bytes=row.weight_bytes + weights,
        synops=row.synops + synops,
        skips=tuple(skip.source for skip in skips),
    )


def _summary(spec: NetworkSpec, layer: LayerSpec, before: Shape, after: Shape) -> LayerSummary:
    parameters = layer.n_parameters(before)
    if layer.has_neurons:
        learned = {LearnDecays.NONE: 0, LearnDecays.SHARED: 2, LearnDecays.PER_CHANNEL: 2 * after[0]}
        parameters += learned[spec.neuron_of(layer).learn_decays]
    return LayerSummary(
        kind=layer.kind,
        shape=after,
        parameters=parameters,
        weight_bytes=layer.n_weights(before),
        synops=layer.n_synops(before),
    )
