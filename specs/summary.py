"""Costs of a network, computed from its spec alone: one row for each layer."""

from dataclasses import dataclass, replace

from specs.arguments import check_spec
from specs.fields import Shape
from specs.layers.block import LayerSpec, skips_of
from specs.layers.input import Encoding
from specs.layers.neuron import CubaSpec, LearnDecays
from specs.network import NetworkSpec


@dataclass(frozen=True)
class LayerSummary:
    """Costs of one layer, including its skips.

    Attributes:
        kind: kind of the layer.
        shape: shape of its output.
        parameters: number of trainable parameters.
        weight_bytes: bytes of its weights, at 8 bits each.
        synops: synaptic operations of one time step in which every input spikes.
        skips: indices of the layers that its skips read.
    """

    kind: str
    shape: Shape
    parameters: int
    weight_bytes: int
    synops: int
    skips: tuple[int, ...] = ()


def summarize(spec: NetworkSpec) -> list[LayerSummary]:
    """Return the costs of each layer, input first, as `zoo check` shows them.

    A synaptic operation (synop) is one spike that reaches one weight; padding has no spikes.
    """
    check_spec(spec, "summarize")
    shapes = spec.shapes
    before = (spec.input.shape, *shapes)
    rows = [_summary(spec, layer, before[i], shapes[i]) for i, layer in enumerate(spec.layers)]
    return [_with_skips(layer, row, shapes) for layer, row in zip(spec.layers, rows, strict=True)]


def layer_rows(spec: NetworkSpec) -> list[dict[str, str]]:
    """Return the layer table as text, a row for each layer and one for the total.

    `5 conv + 2` is layer 5 with a skip from layer 2; `0 input, graded, 3 bits` takes pixels as integers of 3 bits; `1
    dense, recurrent` has synapses to itself.
    """
    rows, entering = summarize(spec), spec.input
    special = [() if entering.encoding is Encoding.SPIKE else (entering.form,), *(one.extras for one in spec.blocks)]
    costs = {"parameters": "parameters", "weight bytes": "weight_bytes", "synops/step": "synops"}
    return [
        *(
            {
                "layer": " + ".join([", ".join((f"{i} {row.kind}", *special[i])), *map(str, row.skips)]),
                "shape": "x".join(map(str, row.shape)),
                **{name: f"{getattr(row, key):,}" for name, key in costs.items()},
            }
            for i, row in enumerate(rows)
        ),
        {
            "layer": "total",
            "shape": "",
            **{name: f"{sum(getattr(row, key) for row in rows):,}" for name, key in costs.items()},
        },
    ]


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
    neuron = spec.neuron_of(layer)
    if layer.has_neurons and isinstance(neuron, CubaSpec):
        learned = {LearnDecays.NONE: 0, LearnDecays.SHARED: 2, LearnDecays.PER_CHANNEL: 2 * after[0]}
        parameters += learned[neuron.learn_decays]
    return LayerSummary(
        kind=layer.kind,
        shape=after,
        parameters=parameters,
        weight_bytes=layer.n_weights(before),
        synops=layer.n_synops(before),
    )
