"""Costs of a network, computed from its spec alone: one row for each layer."""

from dataclasses import dataclass

from specs.arguments import check_spec
from specs.fields import Shape
from specs.layers.block import synapses_of
from specs.layers.input import Encoding
from specs.layers.neuron import CubaSpec, LearnDecays
from specs.network import NetworkSpec


@dataclass(frozen=True)
class LayerSummary:
    """Costs of one layer, including its skips.

    Attributes:
        weight_bytes: bytes of its weights, at 8 bits each.
        synops: synaptic operations of one time step in which every input spikes.
        sources: indices of the layers that it reads; see `NetworkSpec.sources`.
    """

    kind: str
    shape: Shape
    parameters: int
    weight_bytes: int
    synops: int
    sources: tuple[int, ...] = ()


def summarize(spec: NetworkSpec) -> list[LayerSummary]:
    """Return the costs of each layer, input first, as `zoo check` shows them.

    A synaptic operation (synop) is one spike that reaches one weight; padding has no spikes.
    """
    check_spec(spec, "summarize")
    shapes = spec.shapes
    return [_summary(spec, i, shapes, sources) for i, sources in enumerate(spec.sources)]


def layer_rows(spec: NetworkSpec) -> list[dict[str, str]]:
    """Return the layer table as text, a row for each layer and one for the total.

    `5 conv + 2` is layer 5 with a skip from layer 2; `5 conv wide < 1 + 2` is called wide, and reads layers 1 and 2
    instead of layer 4; `0 input, graded, 3 bits` takes pixels as integers of 3 bits; `1 dense, recurrent` has synapses
    to itself.
    """
    rows, entering = summarize(spec), spec.input
    special = [() if entering.encoding is Encoding.SPIKE else (entering.form,), *(one.extras for one in spec.blocks)]
    names = ["", *("" if block.name is None else f" {block.name}" for block in spec.blocks)]
    costs = {"parameters": "parameters", "weight bytes": "weight_bytes", "synops/step": "synops"}
    return [
        *(
            {
                "layer": ", ".join((f"{i} {row.kind}{names[i]}", *special[i])) + _reads(i, row.sources),
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


def _reads(index: int, sources: tuple[int, ...]) -> str:
    """Return what a layer reads, if it is more or other than the layer before."""
    own = f" < {sources[0]}" if sources and sources[0] != index - 1 else ""
    return own + "".join(f" + {source}" for source in sources[1:])


def _summary(spec: NetworkSpec, index: int, shapes: tuple[Shape, ...], sources: tuple[int, ...]) -> LayerSummary:
    layer, after = spec.layers[index], shapes[index]
    read = [shapes[source] for source in sources] or [spec.input.shape]
    synapses = list(synapses_of(layer, read, after))
    parameters = layer.n_parameters(read[0]) + sum(skip.n_weights(before) for skip, before in synapses[1:])
    neuron = spec.neuron_of(layer)
    if layer.has_neurons and isinstance(neuron, CubaSpec):
        learned = {LearnDecays.NONE: 0, LearnDecays.SHARED: 2, LearnDecays.PER_CHANNEL: 2 * after[0]}
        parameters += learned[neuron.learn_decays]
    return LayerSummary(
        kind=layer.kind,
        shape=after,
        parameters=parameters,
        weight_bytes=sum(each.n_weights(before) for each, before in synapses),
        synops=sum(each.n_synops(before) for each, before in synapses),
        sources=sources,
    )
