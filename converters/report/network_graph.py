"""Drawing of a network: its layers from top to bottom, in the integers of the hardware."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from textwrap import wrap

import numpy as np

from bootstrap_core.fixed_point import MANT
from converters.chip.form import ChipForm, ChipLayer
from converters.chip.from_network import form_of_network
from converters.formats.netx.netx_report import decay_text, geometry_text, histogram, threshold_text
from converters.model import Model
from converters.report.rendering import render
from specs.fields import VTH_MANT_MAX, Shape
from specs.layers.block import LayerSpec, skips_of
from specs.layers.input import InputSpec
from specs.summary import summarize

WIDTH = 360.0
"""Width of the drawing, in SVG units; letters are 12 units high."""
LEFT, RIGHT = 46.0, 352.0
"""Edges of the boxes; curves run to the left of them."""
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
        name: index, kind and name, such as `1 dense` or `1 dense stem`.
        facts: further facts, one phrase each.
        sources: indices of the layers that it reads.
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
    spec, form = model.spec, form_of_network(model.build())
    layers = []
    for i, (layer, own, sources) in enumerate(zip(form.layers, spec.layers, spec.sources, strict=True)):
        facts = *_facts(layer, trained=trained), *_spec_facts(layer, own, i, form)
        weights = _histogram(layer) if trained else None
        layers.append(GraphLayer(f"{i} {layer.kind} {layer.name}".rstrip(), layer.shape, facts, sources, weights))
    n_parameters = sum(row.parameters for row in summarize(spec))
    return NetworkGraph(spec.name, f"T = {spec.time_steps}, {n_parameters:,} parameters", tuple(layers))


def graph_of_netx(file: ChipForm, name: str) -> NetworkGraph:
    """Return the graph of a netx file, also of neurons that cannot be run; `name` is the title of the drawing."""
    layers = tuple(
        GraphLayer(
            f"{i} {layer.kind}",
            layer.shape,
            (*_facts(layer, trained=True), *layer.problems),
            (i - 1,) if i else (),
            weights=_histogram(layer),
        )
        for i, layer in enumerate(file.layers)
    )
    n_weights = sum(layer.weight.size for layer in file.layers if layer.weight is not None)
    steps = f"T = {file.time_steps}" if file.time_steps else "time steps unknown"
    return NetworkGraph(name, f"{steps}, {n_weights:,} weights", layers)


def _facts(layer: ChipLayer, *, trained: bool) -> Iterator[str]:
    """Yield the facts that a netx layer holds; values of weights only if they are trained."""
    if layer.window is not None:
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
    if layer.neurons is not None:
        if layer.neurons.sigma_output:
            yield "readout of values"
        elif layer.neurons.threshold_mant >= VTH_MANT_MAX:
            yield "readout, never fires"
        else:
            yield f"threshold {threshold_text(layer.neurons)}"
        if layer.neurons.is_sigma_delta:
            yield "sigma-delta neurons"
            return
        yield f"current decay {decay_text(layer.neurons.current_decay)}"
        yield f"voltage decay {decay_text(layer.neurons.voltage_decay)}"


def _spec_facts(layer: ChipLayer, own: LayerSpec, index: int, form: ChipForm) -> Iterator[str]:
    """Yield the facts that a file of layers does not hold."""
    if isinstance(own, InputSpec) and not own.has_neurons:
        yield own.form
        return
    if isinstance(own, InputSpec) and (own.mean, own.std) != (0, 1):
        yield f"x = (pixel - {own.mean:g}) / {own.std:g}"
    if layer.neurons is not None and layer.neurons.subtracts and own.has_neurons:
        yield "a spike subtracts the threshold"
    if layer.neurons is not None and layer.neurons.initial_voltage:
        yield f"the voltage starts at {layer.neurons.start:g} of the threshold"
    if layer.shift:
        yield "spikes leave a step later"
    if index and (source := layer.sources[0].source) != index - 1:
        yield f"reads {_label(form, source)}"
    for skip, synapses in zip(skips_of(own), layer.skips, strict=True):
        assert synapses.weight is not None
        yield f"skip from {_label(form, synapses.source)}: {skip.kind}, {synapses.weight.size:,} weights"


def _label(form: ChipForm, index: int) -> str:
    return f"{index} {form.layers[index].name}".rstrip()


def _histogram(layer: ChipLayer) -> Histogram | None:
    """Return the histogram of all weights together; None if there are none, or they are all equal."""
    arrays = [*(synapses.weight for synapses in layer.sources), layer.recurrent] if layer.kind != "input" else []
    parts = [weight.ravel() for weight in arrays if weight is not None]
    weights = np.concatenate(parts) if parts else np.zeros(1, np.int64)
    low, high = int(weights.min()), int(weights.max())
    return None if low == high else Histogram(low, high, tuple(histogram(weights).tolist()))


@dataclass(frozen=True)
class Box:
    """Box of a layer, in SVG units.

    Attributes:
        top, height: upper edge and height.
        lines: lines of text, `(y, text)`.
        bars: bars of the histogram, `(x, y, width, height)`.
        foot: y of the least and the largest weight below the bars.
        follows: whether the layer reads the one above.
    """

    layer: GraphLayer
    top: float
    height: float
    lines: tuple[tuple[float, str], ...]
    bars: tuple[tuple[float, float, float, float], ...] = ()
    foot: float = 0.0
    follows: bool = False

    @property
    def middle(self) -> float:
        """Vertical centre."""
        return self.top + self.height / 2


@dataclass(frozen=True)
class Drawing:
    """Layout of a drawing; each of `curves` is an SVG path between two boxes, and the tip of its arrow."""

    graph: NetworkGraph
    height: float
    boxes: tuple[Box, ...]
    curves: tuple[tuple[str, tuple[float, float]], ...]
    width: float = WIDTH
    left: float = LEFT
    right: float = RIGHT
    pad: float = PAD
    bars_width: float = BARS_WIDTH


def draw(graph: NetworkGraph) -> Drawing:
    """Return the layout of a network: what a layer reads from the one above is an arrow, all else are curves."""
    boxes, curves = list[Box](), list[tuple[str, tuple[float, float]]]()
    top = 2 * LINE + GAP
    for i, layer in enumerate(graph.layers):
        others = list(layer.sources)
        if follows := i - 1 in others:
            others.remove(i - 1)
        box = replace(_box(layer, top), follows=follows)
        curves += [_curve(boxes[source], box, n) for n, source in enumerate(others)]
        boxes.append(box)
        top += box.height + GAP
    return Drawing(graph, top, tuple(boxes), tuple(curves))


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


def _curve(source: Box, target: Box, n: int) -> tuple[str, tuple[float, float]]:
    """Return a curve to the left of the boxes, wider the longer it is; `n` others end above it at the target."""
    start, end = source.middle, target.middle + 10 * n
    reach = min(56.0, 24 + (end - start) / 12)
    path = f"M{LEFT},{start:g} C{LEFT - reach:g},{start:g} {LEFT - reach:g},{end:g} {LEFT - 6},{end:g}"
    return path, (LEFT, end)
