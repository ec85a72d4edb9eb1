"""Write models as NIR: nodes that other programs can run, and metadata with all that NIR cannot express."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from bootstrap_core.fixed_point import DECAY_ONE, MANT
from converters.chip.form import ChipForm, ChipLayer, ChipSynapses, Numbers, form_problems
from converters.chip.from_network import form_of_network
from converters.formats.nir.nir_file import Graph, Node, edges_digest, graph_bytes, node_digest
from converters.formats.nir.nir_neurons import neuron_node
from converters.linear.even_padding import evened
from converters.model import Model
from specs.arguments import check_path, check_type
from specs.errors import ConversionError, UnsupportedError
from specs.fields import Shape
from specs.files.whole_file import refuse_overwriting, write_whole
from specs.layers.input import InputSpec
from specs.layers.neuron import Reset
from specs.network import NetworkSpec
from specs.shapes import Window

DEFAULT_DT: Final = 1e-4
"""Length of a time step in seconds: snnTorch reads and writes this one and no other."""

MIN_DT, MAX_DT = 1e-15, 1e9

METADATA_KEY = "snnzoo"
"""Key of the graph's metadata: JSON with the spec, the card, and a digest of each node as it was written."""
TENSORS_KEY = "snnzoo_tensors"
"""Key of the state dict in the metadata: nodes have quantised values, and training continues from the floats."""
METADATA_FORMAT = 1

KINDS = ("dense", "conv", "avg_pool", "flatten", "affine")
FEATURES = ("recurrent", "delays")
"""Kinds of layers that the nodes of a graph can express, and their features."""

RESETS = {
    Reset.ZERO: "the voltage becomes 0",
    Reset.SUBTRACT: "the threshold is subtracted from the voltage (NIR cannot say so)",
}


def write_nir(model: Model, path: str | Path, *, dt: float = DEFAULT_DT, overwrite: bool = False) -> Path:
    """Write a model as a NIR file; the same model gives the same bytes.

    What a block reads joins at its neurons: NIR adds up the edges into a node. Recurrent weights lead from neurons back
    to themselves; spikes enter there one step later. Weights and biases are quantised, in float units. Neurons in Euler
    steps of `dt`, with every gain 1, compute what ours do, without the truncation of our states to 1/4096:

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

    NIR cannot express that a spike subtracts the threshold, nor voltages that do not start at 0. Other programs choose
    the reset themselves (snnTorch: to zero; norse and sinabs: by an option), and their users set the first voltages.
    The metadata describe both in words, and `read_nir` restores them.

    Args:
        model: the model; it is not changed.
        dt: length of a time step in seconds.
        overwrite: whether a file that exists is replaced.

    Raises:
        ConversionError: dt is out of range, an argument has the wrong type, or the file exists.
        UnsupportedError: kinds of blocks or of delays that NIR cannot express, all of them in one message.
    """
    advice = "Model.of makes one from a network"
    check_type(model, Model, "write_nir takes a Model", advice=advice, error=ConversionError)
    path = check_path(path, "write_nir takes the path of a file", error=ConversionError)
    refuse_overwriting(path, overwrite=overwrite)
    if not MIN_DT <= dt <= MAX_DT:
        raise ConversionError(f"dt must be from {MIN_DT} to {MAX_DT} seconds, got {dt}")
    form = form_of_network(model.build())
    if problems := nir_problems(form):
        raise UnsupportedError(problems[0])
    nodes, edges = graph_of(form, dt=dt)
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
        **_in_words(form, model.spec),
        METADATA_KEY: json.dumps(document, sort_keys=True, allow_nan=False),
        TENSORS_KEY: {name: tensor.numpy() for name, tensor in sorted(model.tensors.items())},
    }
    return write_whole(path, graph_bytes(Graph(nodes, edges, metadata)))


def nir_problems(form: ChipForm) -> list[str]:
    """Return what the nodes of a graph cannot express of a network."""
    delays = "delays per synapse (Delay nodes hold back whole signals; write a .safetensors or a .net)"
    of_weights = ([delays] if layer.delay is not None and layer.delay.ndim > 1 else [] for layer in form.layers)
    problems = [*form_problems(form, KINDS, FEATURES), *form.problems_by_block(of_weights)]
    return [f"NIR cannot express {'; '.join(problems)}"] if problems else []


def graph_of(form: ChipForm, *, dt: float) -> tuple[dict[str, Node], tuple[tuple[str, str], ...]]:
    """Return the nodes by name, each after its inputs, and the edges: those of the layers, of loops, and of skips.

    Names sort in the order of the nodes: HDF5 returns them sorted, and nirtorch 2.0.2, which snnTorch uses, fails on
    nodes that come long before their inputs.
    """
    shapes, ends = [layer.shape for layer in form.layers], list[str]()  # the node that gives each layer's output
    chain = _Chain({"input": Node("Input", {"shape": np.array(shapes[0])})})
    loops, skips = list[tuple[str, str]](), list[tuple[str, str]]()
    for i, layer in enumerate(form.layers):
        name, levels = f"block{i}", form.levels_of(layer)
        source = layer.sources[0].source if i else 0
        before = shapes[source]
        chain.end = ends[source] if i else "input"
        if layer.kind == "flatten" and len(before) > 1:
            chain.follow(f"{name}_flatten", _flatten(before))
        elif layer.kind == "avg_pool" and layer.window is not None and _is_sum_pool(layer.window):
            chain.follow(f"{name}_pool", _pool(layer.window))
            weight = float(_floats(layer.weight).flat[0])
            chain.follow(f"{name}_scale", Node("Scale", {"scale": _full(layer.shape, weight)}))
        elif layer.weighs:
            chain.follow(f"{name}_synapse", _synapse(layer, before, levels))
        if layer.delay is not None:
            delay = torch.from_numpy(layer.delay).float() * dt
            chain.follow(f"{name}_delays", Node("Delay", {"delay": _per_channel(delay.numpy(), layer.shape)}))
        has_neurons = layer.neurons is not None and layer.kind != "affine"
        for k, skip in enumerate(layer.skips):
            own = _skip_nodes(f"{name}_skip{k}", skip, shapes[skip.source])
            chain.nodes |= own
            skips += pairwise([ends[skip.source], *own, f"{name}_neuron" if has_neurons else "output"])
        if has_neurons:
            is_direct = i == 0 and form.input is not None and form.input.exact_input
            chain.follow(f"{name}_neuron", _neurons(layer, levels, dt, is_direct=is_direct))
        if layer.recurrent is not None:
            loop = f"{name}_recurrent"
            chain.nodes[loop] = Node("Linear", {"weight": _floats(layer.recurrent) / np.float32(levels)})
            loops += [(chain.end, loop), (loop, chain.end)]
        if layer.shift:
            chain.follow(f"{name}_delay", Node("Delay", {"delay": _full(layer.shape, dt)}))
        ends.append(chain.end)
    chain.follow("output", Node("Output", {"shape": np.array(shapes[-1])}))
    width = len(str(len(chain.nodes)))
    names = {label: f"n{i:0{width}}_{label}" for i, label in enumerate(chain.nodes)}
    edges = tuple((names[before], names[after]) for before, after in (*chain.edges, *loops, *skips))
    return {names[label]: node for label, node in chain.nodes.items()}, edges


@dataclass
class _Chain:
    """Nodes by label, the edges between them, and the label of the node that the next one follows."""

    nodes: dict[str, Node]
    edges: list[tuple[str, str]] = field(default_factory=list)
    end: str = "input"

    def follow(self, label: str, node: Node) -> None:
        self.nodes[label] = node
        self.edges.append((self.end, label))
        self.end = label


def _skip_nodes(name: str, skip: ChipSynapses, before: Shape) -> dict[str, Node]:
    weight = _floats(skip.weight)
    if skip.is_identity:
        return {f"{name}_scale": Node("Scale", {"scale": _per_channel(weight, before)})}
    if skip.window is not None:
        return {f"{name}_synapse": _conv(skip.window, weight, np.zeros(len(weight), np.float32), before)}
    flatten = {f"{name}_flatten": _flatten(before)} if len(before) > 1 else {}
    return {**flatten, f"{name}_synapse": Node("Linear", {"weight": weight})}


def _has_direct_bias(layer: ChipLayer) -> bool:
    """Return whether a bias of the synapse enters the voltage as it is: nothing delays it, nor makes it last."""
    assert layer.neurons is not None
    return layer.delay is None and bool(np.all(layer.neurons.current_decay == DECAY_ONE))


def _neurons(layer: ChipLayer, levels: int, dt: float, *, is_direct: bool) -> Node:
    neurons, bias = layer.neurons, layer.bias
    assert neurons is not None
    current_decay, voltage_decay = (_decays(decay) for decay in (neurons.current_decay, neurons.voltage_decay))
    if layer.kind == "input" or bias is None or _has_direct_bias(layer):
        voltage_bias = None
    else:
        voltage_bias = torch.from_numpy(bias).double() / MANT / levels
    return neuron_node(
        torch.ones(1) if is_direct else current_decay,
        voltage_decay,
        voltage_bias,
        neurons.threshold_mant / MANT / levels,
        layer.shape,
        dt=dt,
    )


def _decays(mants: Numbers | None) -> torch.Tensor:
    assert mants is not None
    return torch.from_numpy(mants).float() / DECAY_ONE


def _synapse(layer: ChipLayer, before: Shape, levels: int) -> Node:
    with_bias = layer.bias is not None and (layer.kind == "affine" or _has_direct_bias(layer))
    bias = layer.bias / MANT / levels if layer.bias is not None and with_bias else np.zeros(layer.shape[0])
    bias, weight = bias.astype(np.float32), _floats(layer.weight)
    if layer.window is None:
        return Node("Affine", {"weight": weight, "bias": bias})
    return _conv(layer.window, weight, bias, before)


def _conv(window: Window, weight: Numbers, bias: Numbers, before: Shape) -> Node:
    kernels, dilation, padding = evened(weight, window.dilation, window.padding)
    geometry = {"stride": window.stride, "padding": padding, "dilation": dilation, "input_shape": before[1:]}
    pairs = {name: np.array(pair) for name, pair in geometry.items()}
    return Node("Conv2d", {"weight": kernels, "bias": bias, **pairs, "groups": np.array(window.groups)})


def _is_sum_pool(window: Window) -> bool:
    """Return whether SumPool2d can express a pool: equal padding on opposite sides, at most half the kernel."""
    return len(window.padding) == 2 and all(
        2 * pad <= side for pad, side in zip(window.padding, window.kernel, strict=True)
    )


def _pool(window: Window) -> Node:
    geometry = {"kernel_size": window.kernel, "stride": window.stride, "padding": window.padding}
    return Node("SumPool2d", {name: np.array(pair) for name, pair in geometry.items()})


def _flatten(before: Shape) -> Node:
    # NIR counts axes without the batch.
    return Node("Flatten", {"start_dim": np.array(0), "end_dim": np.array(-1), "input_type": np.array(before)})


def _full(shape: Shape, value: float) -> npt.NDArray[np.float32]:
    return np.full(shape, value, np.float32)


def _per_channel(values: Numbers, shape: Shape) -> npt.NDArray[Any]:
    return np.ascontiguousarray(np.broadcast_to(values.reshape(-1, *[1] * (len(shape) - 1)), shape))


def _floats(mants: Numbers | None) -> npt.NDArray[np.float32]:
    """Return weights in float units."""
    assert mants is not None
    return (mants / MANT).astype(np.float32)


def _in_words(form: ChipForm, spec: NetworkSpec) -> Mapping[str, str]:
    """Return metadata in words for users of other programs: name, input, output, reset, and voltages at the start."""
    first, *others = spec.resets
    reset = "some subtract it (see neuron.reset in the spec)" if others else RESETS[first]
    return {
        "name": spec.name,
        "feed": f"in each time step {_feed(form.layers[0], spec.input)}",
        "read": f"the logits are the mean of the output over all time steps, from {_starting(spec)}",
        "reset": f"where a spike is above the threshold, {reset}",
    }


def _starting(spec: NetworkSpec) -> str:
    """Return the states before the first step in words."""
    if not any(spec.starts):
        return "states of 0"
    first, *others = spec.starts
    fraction = "a fraction (neuron.start in the spec)" if others else f"{first:g}"
    return f"currents of 0 and voltages of {fraction} times the threshold (NIR cannot say so)"


def _feed(layer: ChipLayer, entering: InputSpec) -> str:
    if entering.is_events:
        return "its events, integers"
    if layer.weight is None or layer.bias is None:
        return f"round({entering.levels} x) / {entering.levels}, for pixels x in 0..1"
    weight, bias = float(layer.weight[0] / MANT), float(layer.bias[0] / MANT)
    x = f"(x - {entering.mean}) / {entering.std}"
    if entering.exact_input:
        return f"trunc(64 ({weight} {x} + {bias})) / 64, for pixels x in 0..1"
    return f"{weight} round(32 {x}) / 32 + {bias}, for pixels x in 0..1"
