"""Drawing of a network: its layers from top to bottom, in the integers of the hardware."""

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
import torch

from bootstrap_core.fixed_point import MANT
from converters.formats.hdf5.hdf5_node import IntArray
from converters.formats.netx.netx_layers import NetxFile, NetxLayer
from converters.formats.netx.netx_model import layer_of_block
from converters.formats.netx.netx_report import decay_text, geometry_text, histogram, threshold_text
from converters.model import Model
from converters.report.rendering import render
from specs.fields import VTH_MANT_MAX, Shape
from specs.layers.block import LayerSpec, has_neurons, skips_of
from specs.layers.input import InputSpec
from specs.layers.neuron import Reset
from specs.network import NetworkSpec
from specs.summary import summarize

__all__ = [
    "Box",
    "Drawing",
    "GraphLayer",
    "Histogram",
    "NetworkGraph",
    "draw",
    "graph_of_model",
    "graph_of_netx",
    "graph_page",
    "graph_svg",
]

WIDTH = 360.0
"""Width of the drawing, in SVG units; letters are 12 units high."""
LEFT, RIGHT = 46.0, 352.0
"""Edges of the boxes; skips run to the left of them."""
PAD, LINE, GAP = 10.0, 16.0, 24.0
BARS_WIDTH, BARS_HEIGHT = 92.0, 38.0
WRAP, WRAP_BESIDE_BARS = 48, 29
"""Characters in a line of a box, without and with a histogram next to it."""


@dataclass(frozen=True)
class Histogram:
    """Histogram of weights: counts in bins of equal width from `low` to `high`, in units of 1/64."""

    low: int
    high: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class GraphLayer:
    """Layer of a drawing, in words.

    Attributes:
        name: index and kind, such as `1 dense`.
        shape: shape of the output.
        facts: further facts, one phrase each.
        sources: indices of the layers that its skips read.
        weights: weights of all its synapses; None without weights, or if all are equal or were never trained.
    """

    name: str
    shape: Shape
    facts: tuple[str, ...]
    sources: tuple[int, ...] = ()
    weights: Histogram | None = None


@dataclass(frozen=True)
class NetworkGraph:
    """Network in words: its name, its time steps and size in one line (`about`), and its layers, input first."""

    name: str
    about: str
    layers: tuple[GraphLayer, ...]


def graph_svg(graph: NetworkGraph) -> str:
    """Return the drawing as a standalone SVG file."""
    return render("graph.svg.jinja", drawing=draw(graph))


def graph_page(graph: NetworkGraph) -> str:
    """Return an HTML page with the drawing, and the same facts as a table."""
    return render("graph.html.jinja", drawing=draw(graph))


def graph_of_model(model: Model, *, trained: bool = True) -> NetworkGraph:
    """Return the graph of a model; `trained=False` leaves out the values of its weights."""
    spec, network = model.spec, model.build()
    shapes = (spec.input.shape, *spec.shapes)
    layers = []
    for i, layer in enumerate(spec.layers):
        block = network.block(i)
        netx = layer_of_block(block, shapes[i], shapes[i + 1])
        with torch.no_grad():
            mants = [(weight * MANT).round().long().numpy() for _, weight in block.synapses()]
        facts = [] if netx is None else list(_facts(netx, trained=trained))
        facts += _spec_facts(spec, layer, mants[1 : 1 + len(skips_of(layer))])
        sources = tuple(skip.source for skip in skips_of(layer))
        weights = _histogram(mants) if trained else None
        layers.append(GraphLayer(f"{i} {layer.kind}", shapes[i + 1], tuple(facts), sources, weights))
    n_parameters = sum(row.parameters for row in summarize(spec))
    return NetworkGraph(spec.name, f"T = {spec.time_steps}, {n_parameters:,} parameters", tuple(layers))


def graph_of_netx(file: NetxFile, name: str) -> NetworkGraph:
    """Return the graph of a netx file, also of neurons that cannot be run; `name` is the title of the drawing."""
    layers = tuple(
        GraphLayer(
            f"{i} {layer.kind}",
            layer.shape,
            (*_facts(layer, trained=True), *layer.problems),
            weights=None if layer.kind == "input" or layer.weight is None else _histogram([layer.weight]),
        )
        for i, layer in enumerate(file.layers)
    )
    n_weights = sum(layer.weight.size for layer in file.layers if layer.weight is not None)
    steps = f"T = {file.time_steps}" if file.time_steps else "time steps unknown"
    return NetworkGraph(name, f"{steps}, {n_weights:,} weights", layers)


def _facts(layer: NetxLayer, *, trained: bool) -> Iterator[str]:
    """Yield the facts that a netx layer holds; values of weights only if they are trained."""
    if layer.geometry is not None:
        yield f"kernel {geometry_text(layer)}"
    if layer.weight is not None and layer.kind == "input":
        if trained:
            bias = 0 if layer.bias is None else int(layer.bias[0])
            yield f"current {layer.weight[0] / MANT:g} x {'-' if bias < 0 else '+'} {abs(bias) / MANT:g}"
    elif layer.weight is not None:
        low, high = int(layer.weight.min()), int(layer.weight.max())
        values = f", {low} to {high}" if low < high else f", all {low}"
        yield f"{layer.weight.size:,} weights{values if trained else ''}"
        if layer.bias is not None:
            yield f"{layer.bias.size:,} biases" + (f", {layer.bias.min()} to {layer.bias.max()}" if trained else "")
    if layer.recurrent is not None:
        values = f", {layer.recurrent.min()} to {layer.recurrent.max()}" if trained else ""
        yield f"{layer.recurrent.size:,} recurrent weights{values}"
    if layer.delay is not None:
        yield f"delays {layer.delay.min()} to {layer.delay.max()}"
    if layer.neuron is not None:
        if layer.neuron.sigma_output:
            yield "readout of values"
        elif layer.neuron.threshold_mant >= VTH_MANT_MAX:
            yield "readout, never fires"
        else:
            yield f"threshold {threshold_text(layer.neuron)}"
        if layer.neuron.is_sigma_delta:
            yield "sigma-delta neurons"
            return
        yield f"current decay {decay_text(layer.neuron.current_decay)}"
        yield f"voltage decay {decay_text(layer.neuron.voltage_decay)}"


def _spec_facts(spec: NetworkSpec, layer: LayerSpec, skips: list[IntArray]) -> Iterator[str]:
    """Yield the facts that a netx layer has no field for."""
    if isinstance(layer, InputSpec) and not layer.has_neurons:
        yield layer.form
        return
    if isinstance(layer, InputSpec) and (layer.mean, layer.std) != (0, 1):
        yield f"x = (pixel - {layer.mean:g}) / {layer.std:g}"
    if has_neurons(layer) and getattr(spec.neuron_of(layer), "reset", None) is Reset.SUBTRACT:
        yield "a spike subtracts the threshold"
    if spec.delay_shift_of(layer):
        yield "spikes leave a step later"
    for skip, weight in zip(skips_of(layer), skips, strict=True):
        yield f"skip from {skip.source}: {skip.kind}, {weight.size:,} weights"


def _histogram(mants: list[IntArray]) -> Histogram | None:
    """Return the histogram of all weights together; None if they are all equal."""
    weights = np.concatenate([part.ravel() for part in mants]) if mants else np.zeros(1, np.int64)
    low, high = int(weights.min()), int(weights.max())
    return None if low == high else Histogram(low, high, tuple(histogram(weights).tolist()))


@dataclass(frozen=True)
class Box:
    """Box of a layer, in SVG units.

    Attributes:
        layer: the layer.
        top, height: upper edge and height.
        lines: lines of text, `(y, text)`.
        bars: bars of the histogram, `(x, y, width, height)`.
        foot: y of the least and the largest weight below the bars.
    """

    layer: GraphLayer
    top: float
    height: float
    lines: tuple[tuple[float, str], ...]
    bars: tuple[tuple[float, float, float, float], ...] = ()
    foot: float = 0.0

    @property
    def middle(self) -> float:
        """Vertical centre."""
        return self.top + self.height / 2


@dataclass(frozen=True)
class Drawing:
    """Layout of a drawing; each of `skips` is an SVG path between two boxes, and the tip of its arrow."""

    graph: NetworkGraph
    height: float
    boxes: tuple[Box, ...]
    skips: tuple[tuple[str, tuple[float, float]], ...]
    width: float = WIDTH
    left: float = LEFT
    right: float = RIGHT
    pad: float = PAD
    bars_width: float = BARS_WIDTH


def draw(graph: NetworkGraph) -> Drawing:
    """Return the layout of a network."""
    boxes: list[Box] = []
    top = 2 * LINE + GAP
    for layer in graph.layers:
        boxes.append(_box(layer, top))
        top += boxes[-1].height + GAP
    skips = [
        _skip(boxes[source], boxes[i], n)
        for i, layer in enumerate(graph.layers)
        for n, source in enumerate(layer.sources)
    ]
    return Drawing(graph, top, tuple(boxes), tuple(skips))


def _box(layer: GraphLayer, top: float) -> Box:
    room = WRAP if layer.weights is None else WRAP_BESIDE_BARS
    texts = [line for fact in layer.facts for line in wrap(fact, room)]
    first = top + PAD + 2 * LINE - 4
    lines = tuple((first + i * LINE, text) for i, text in enumerate(texts))
    height = 2 * PAD + LINE * (1 + len(texts))
    if layer.weights is None:
        return Box(layer, top, height, lines)
    base = top + PAD + LINE + 6 + BARS_HEIGHT
    counts = np.sqrt(layer.weights.counts)
    width = BARS_WIDTH / len(counts)
    bars = tuple(
        (round(RIGHT - PAD - BARS_WIDTH + i * width, 2), round(base - size, 2), round(width - 1, 2), round(size, 2))
        for i, size in enumerate((BARS_HEIGHT * counts / counts.max()).tolist())
    )
    return Box(layer, top, max(height, base + LINE + PAD / 2 - top), lines, bars, foot=base + LINE - 5)


def _skip(source: Box, target: Box, n: int) -> tuple[str, tuple[float, float]]:
    """Return a curve to the left of the boxes, wider the longer it is; `n` other skips end above it at the target."""
    start, end = source.middle, target.middle + 10 * n
    reach = min(56.0, 24 + (end - start) / 12)
    path = f"M{LEFT},{start:g} C{LEFT - reach:g},{start:g} {LEFT - reach:g},{end:g} {LEFT - 6},{end:g}"
    return path, (LEFT, end)
