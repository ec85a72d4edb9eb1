"""Write models as NIR: nodes that other programs can run, and metadata with all that NIR cannot express."""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.fixed_point import MANT
from bootstrap_core.functional.quantize import quantize_weight
from bootstrap_core.network.blocks import (
    AffineBlock,
    EventInputBlock,
    FlattenBlock,
    GradedInputBlock,
    InputBlock,
    SpikingBlock,
)
from bootstrap_core.network.network import Network
from bootstrap_core.network.synapse import ConvSynapse, DenseSynapse, IdentitySynapse, PoolSynapse
from converters.formats.nir.nir_file import Graph, Node, edges_digest, graph_bytes, node_digest
from converters.formats.nir.nir_neurons import neuron_node
from converters.formats.refusals import problems_by_place, refuse_unknown_kinds
from converters.linear.even_padding import evened
from converters.model import Model
from specs.arguments import check_path, check_type
from specs.errors import ConversionError, UnsupportedError
from specs.fields import Shape
from specs.files.whole_file import write_whole
from specs.layers.block import AffineSpec, AvgPoolSpec, ConvSpec, DelayTarget, DenseSpec, FlattenSpec, skips_of
from specs.layers.neuron import Reset
from specs.network import NetworkSpec

__all__ = ["DEFAULT_DT", "METADATA_FORMAT", "METADATA_KEY", "TENSORS_KEY", "graph_of", "write_nir"]

DEFAULT_DT: Final = 1e-4
"""Length of a time step in seconds: snnTorch reads and writes this one and no other."""

MIN_DT, MAX_DT = 1e-15, 1e9

METADATA_KEY = "snnzoo"
"""Key of the graph's metadata: JSON with the spec, the card, and a digest of each node as it was written."""
TENSORS_KEY = "snnzoo_tensors"
"""Key of the state dict in the metadata: nodes have quantised values, and training continues from the floats."""
METADATA_FORMAT = 1

KINDS = (DenseSpec, ConvSpec, AvgPoolSpec, FlattenSpec, AffineSpec)
"""Kinds of blocks that the nodes of a graph can express."""

EXTRAS = ("recurrent", "delays")
"""Extras of these blocks that a graph can express; see `Layer.extras`."""

SKIP, LOOP, DELAYS = "skip", "recurrent", "delays"
"""Parts of the labels of nodes: of a skip and of a loop, which are not on the chain, and of a synapse's delays."""

RESETS = {
    Reset.ZERO: "the voltage becomes 0",
    Reset.SUBTRACT: "the threshold is subtracted from the voltage (NIR cannot say so)",
}


def write_nir(model: Model, path: str | Path, *, dt: float = DEFAULT_DT) -> Path:
    """Write a model as a NIR file; the same model gives the same bytes.

    The nodes form a chain, except for skips, whose synapses join it at the neurons of their block, and for recurrent
    weights, which lead from neurons back to themselves; spikes enter there one step later. Weights and biases
    are quantised, in float units. Neurons in Euler steps of `dt`, with every gain 1, compute what ours do, without the
    truncation of our states to 1/4096:

    - Input: for `spike` encoding, the current of each pixel, `weight (x - mean) / std + bias`, with weight and bias
      rounded to 2/64, truncated as in the network;
      for `graded`, the pixel rounded to its bits, in 0..1; for `events`, the events of the step. The metadata
      describe it in words.
    - `dense` and `affine` become Affine, `conv` becomes Conv2d, `avg_pool` SumPool2d and Scale, `flatten` Flatten.
      Where padding differs between opposite sides, the kernel gets zeros instead, and `avg_pool` becomes Conv2d. In
      skips, `identity` becomes Scale, `conv` Conv2d, and `dense` Linear, with a Flatten before it for feature maps.
    - Neurons become IF, LIF or CubaLIF (see `neuron_node`). A bias becomes that of the synapse if currents last one
      step only, otherwise `v_leak`, since it must enter the voltage.
    - An empty step (`delay_shift`) becomes a Delay of `dt`, the `delays` of a block a Delay between its weights and
      its neurons, whose bias then is `v_leak`.
    - Output: the readout's spikes or weighted input in each step; logits are the mean over time.

    NIR cannot express that a spike subtracts the threshold. Other programs choose the reset themselves (snnTorch: to
    zero; norse and sinabs: by an option). The metadata describe it in words, and `read_nir` restores it.

    Args:
        model: the model; it is not changed.
        path: file to write; overwritten.
        dt: length of a time step in seconds.

    Raises:
        ConversionError: dt is out of range, or an argument has the wrong type.
        UnsupportedError: kinds of blocks or of delays that NIR cannot express, all of them in one message.
    """
    advice = "Model.of makes one from a network"
    check_type(model, Model, "write_nir takes a Model", advice=advice, error=ConversionError)
    path = check_path(path, "write_nir takes the path of a file", error=ConversionError)
    if not MIN_DT <= dt <= MAX_DT:
        raise ConversionError(f"dt must be from {MIN_DT} to {MAX_DT} seconds, got {dt}")
    refuse_unknown_kinds(model.spec, KINDS, "NIR", EXTRAS)
    _refuse_delays_of_weights(model.spec)
    network = model.build()
    with torch.no_grad():
        nodes, edges = graph_of(network, dt=dt)
        words = _in_words(network)
    document = {
        "format": METADATA_FORMAT,
        "spec": model.spec.model_dump(mode="json"),
        "card": dict(model.card),
        "digests": {name: node_digest(node) for name, node in nodes.items()},
        "edges": edges_digest(Graph(nodes, edges)),
    }
    metadata = {
        "dt": np.float64(dt),
        "time_steps": np.int64(model.spec.time_steps),
        **words,
        METADATA_KEY: json.dumps(document, sort_keys=True, allow_nan=False),
        TENSORS_KEY: {name: tensor.numpy() for name, tensor in sorted(model.tensors.items())},
    }
    return write_whole(path, graph_bytes(Graph(nodes, edges, metadata)))


def _refuse_delays_of_weights(spec: NetworkSpec) -> None:
    found = [getattr(layer, "delays", None) for layer in spec.layers]
    problem = "delays per synapse (Delay nodes hold back whole signals; write a .safetensors or a .net)"
    places = [[problem] if delays is not None and delays.per is DelayTarget.SYNAPSE else [] for delays in found]
    if problems := problems_by_place("block", places):
        raise UnsupportedError(f"NIR cannot express {'; '.join(problems)}")


def graph_of(network: Network, *, dt: float) -> tuple[dict[str, Node], tuple[tuple[str, str], ...]]:
    """Return the nodes by name, each after its inputs, and the edges.

    Names sort in the order of the nodes: HDF5 returns them sorted, and nirtorch 2.0.2, which snnTorch uses, fails on
    nodes that come long before their inputs.
    """
    nodes = dict(_labelled_nodes(network, dt))
    width = len(str(len(nodes)))
    names = {label: f"n{i:0{width}}_{label}" for i, label in enumerate(nodes)}
    edges = tuple((names[before], names[after]) for before, after in _edges(network, list(nodes)))
    return {names[label]: node for label, node in nodes.items()}, edges


def _edges(network: Network, labels: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the edges of the chain, of loops, and of each skip, from its source through its nodes to the chain."""
    chain = [label for label in labels if SKIP not in label and not label.endswith(LOOP)]
    yield from pairwise(chain)
    for label in labels:
        if label.endswith(LOOP):
            neurons = f"{label.removesuffix(LOOP)}neuron"
            yield from ((neurons, label), (label, neurons))
    ends = {label.partition("_")[0]: label for label in chain}  # last node of each block
    for i, layer in enumerate(network.spec.layers):
        for k, skip in enumerate(skips_of(layer)):
            # A flatten of flat data has no node, and an input without neurons only that of the graph.
            sources = (ends[f"block{j}"] for j in range(skip.source, -1, -1) if f"block{j}" in ends)
            source = next(sources, chain[0])
            own = [label for label in labels if label.startswith(f"block{i}_{SKIP}{k}_")]
            behind = chain[chain.index(f"block{i}_synapse") + 1 :]
            meeting = next(label for label in behind if not label.endswith(DELAYS))
            yield from pairwise([source, *own, meeting])


def _labelled_nodes(network: Network, dt: float) -> Iterator[tuple[str, Node]]:
    shapes = network.spec.shapes
    yield "input", Node("Input", {"shape": np.array(shapes[0])})
    for i, block in enumerate(network.blocks):
        before, after = shapes[max(i - 1, 0)], shapes[i]
        name = f"block{i}"
        match block:
            case InputBlock():
                direct = torch.ones(1) if block.spec.exact_input else None
                yield f"{name}_neuron", _neuron(block, after, dt, current_decay=direct)
            case FlattenBlock() if len(before) > 1:
                yield f"{name}_flatten", _flatten(before)
            case SpikingBlock() if isinstance(block.synapse, PoolSynapse) and _is_sum_pool(block.synapse.spec):
                yield f"{name}_pool", _pool(block.synapse.spec)
                yield f"{name}_scale", Node("Scale", {"scale": _full(after, block.synapse.weight[0, 0, 0, 0])})
                yield f"{name}_neuron", _neuron(block, after, dt)
            case SpikingBlock():
                yield f"{name}_synapse", _synapse(block, before, after, _has_direct_bias(block))
                delay = block.quantized_delay()
                if delay is not None:
                    yield f"{name}_{DELAYS}", Node("Delay", {"delay": _per_channel(delay * dt, after)})
                yield from _skip_nodes(network, i, block)
                yield f"{name}_neuron", _neuron(block, after, dt)
                if block.recurrent is not None:
                    weight = block.recurrent.quantized_weight() / block.levels
                    yield f"{name}_{LOOP}", Node("Linear", {"weight": _array(weight)})
            case AffineBlock():
                yield f"{name}_synapse", _synapse(block, before, after, True)
                yield from _skip_nodes(network, i, block)
        if getattr(block, "delay_shift", False):
            yield f"{name}_delay", Node("Delay", {"delay": _full(after, dt)})
    yield "output", Node("Output", {"shape": np.array(shapes[-1])})


def _skip_nodes(network: Network, index: int, block: SpikingBlock | AffineBlock) -> Iterator[tuple[str, Node]]:
    spec = network.spec
    own = block.synapses()[1 : 1 + len(block.skips)]  # recurrent synapses come last
    for k, (skip, (synapse, weight)) in enumerate(zip(skips_of(spec.layers[index]), own, strict=True)):
        name, before = f"block{index}_{SKIP}{k}", spec.shapes[skip.source]
        match synapse:
            case IdentitySynapse():
                scale = weight.reshape(synapse.broadcast).expand(before)
                yield f"{name}_scale", Node("Scale", {"scale": _array(scale)})
            case DenseSynapse():
                if len(before) > 1:
                    yield f"{name}_flatten", _flatten(before)
                yield f"{name}_synapse", Node("Linear", {"weight": _array(weight)})
            case ConvSynapse():
                yield f"{name}_synapse", _conv(synapse.spec, weight, torch.zeros(len(weight)), before)


def _has_direct_bias(block: SpikingBlock) -> bool:
    """Return whether a bias of the synapse enters the voltage as it is: nothing delays it, nor makes it last."""
    current_decay, _ = block.neuron.quantized_decays()
    return block.delay is None and bool((current_decay == 1).all())


def _neuron(block: InputBlock | SpikingBlock, shape: Shape, dt: float, *, current_decay: Tensor | None = None) -> Node:
    own_current_decay, voltage_decay = block.neuron.quantized_decays()
    bias, levels = None, 1
    if isinstance(block, SpikingBlock):
        levels = block.levels
        bias = None if _has_direct_bias(block) else block.quantized_bias()
    return neuron_node(
        own_current_decay if current_decay is None else current_decay,
        voltage_decay,
        None if bias is None else bias.double() / levels,
        block.neuron.threshold_mant / MANT / levels,
        shape,
        dt=dt,
    )


def _synapse(block: SpikingBlock | AffineBlock, before: Shape, after: Shape, with_bias: bool) -> Node:
    bias = block.quantized_bias() if with_bias else None
    in_units = torch.zeros(after[0]) if bias is None else (bias.double() / block.levels).float()
    weight = block.quantized_weight()
    spec = block.synapse.spec
    if spec is None:
        return Node("Affine", {"weight": _array(weight), "bias": _array(in_units)})
    return _conv(spec, weight, in_units, before)


def _conv(spec: ConvSpec, weight: Tensor, bias: Tensor, before: Shape) -> Node:
    kernels, dilation, padding = evened(_array(weight), spec.dilation, spec.padding)
    arrays = {"weight": kernels, "bias": _array(bias)}
    geometry = {"stride": spec.stride, "padding": padding, "dilation": dilation, "input_shape": before[1:]}
    return Node(
        "Conv2d",
        {**arrays, **{name: np.array(pair) for name, pair in geometry.items()}, "groups": np.array(spec.groups)},
    )


def _is_sum_pool(spec: ConvSpec) -> bool:
    """Return whether SumPool2d can express a pool: equal padding on opposite sides, at most half the kernel."""
    return len(spec.padding) == 2 and all(2 * pad <= side for pad, side in zip(spec.padding, spec.kernel, strict=True))


def _pool(spec: ConvSpec) -> Node:
    geometry = {"kernel_size": spec.kernel, "stride": spec.stride, "padding": spec.padding}
    return Node("SumPool2d", {name: np.array(pair) for name, pair in geometry.items()})


def _flatten(before: Shape) -> Node:
    # NIR counts axes without the batch.
    return Node("Flatten", {"start_dim": np.array(0), "end_dim": np.array(-1), "input_type": np.array(before)})


def _full(shape: Shape, value: Tensor | float) -> npt.NDArray[np.float32]:
    return np.full(shape, float(value), np.float32)


def _per_channel(values: Tensor, shape: Shape) -> npt.NDArray[Any]:
    return _array(values.reshape(-1, *[1] * (len(shape) - 1)).expand(shape))


def _array(x: Tensor) -> npt.NDArray[Any]:
    return np.ascontiguousarray(x.cpu().numpy())


def _in_words(network: Network) -> Mapping[str, str]:
    """Return metadata in words for users of other programs: name, input, output and reset."""
    spec = network.spec
    first, *others = spec.resets
    reset = "some subtract it (see neuron.reset in the spec)" if others else RESETS[first]
    return {
        "name": spec.name,
        "feed": f"in each time step {_feed(network.blocks[0])}",
        "read": "the logits are the mean of the output over all time steps, from states of 0",
        "reset": f"where a spike is above the threshold, {reset}",
    }


def _feed(block: torch.nn.Module) -> str:
    if isinstance(block, EventInputBlock):
        return "its events, integers"
    if isinstance(block, GradedInputBlock):
        return f"round({block.spec.levels} x) / {block.spec.levels}, for pixels x in 0..1"
    assert isinstance(block, InputBlock)
    weight, bias = (quantize_weight(parameter).item() for parameter in (block.weight, block.bias))
    x = f"(x - {block.spec.mean}) / {block.spec.std}"
    if block.spec.exact_input:
        return f"trunc(64 ({weight} {x} + {bias})) / 64, for pixels x in 0..1"
    return f"{weight} round(32 {x}) / 32 + {bias}, for pixels x in 0..1"
