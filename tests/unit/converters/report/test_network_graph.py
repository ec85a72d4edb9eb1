"""The drawing of a network names every layer and shows the integers that the layer holds."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
import torch

from bootstrap_core.network.build import build_network
from converters.chip.form import ChipForm, ChipLayer, ChipNeurons, ChipSynapses
from converters.formats.netx.netx_model import netx_of
from converters.model import Model
from converters.report.network_graph import (
    GraphLayer,
    NetworkGraph,
    draw,
    graph_of_model,
    graph_of_netx,
    graph_page,
    graph_svg,
)
from specs.io import parse_spec
from specs.shapes import Window

SVG = "{http://www.w3.org/2000/svg}"
SPEC = parse_spec("""
name: branches
time_steps: 6
neuron: {threshold: 0.5, voltage_decay: 0.25}
input: {shape: [1, 4, 4], mean: 0.5, std: 0.25}
blocks:
  - {kind: conv, channels: 2, kernel: 3, padding: 1, bias: true, delay_shift: true}
  - {kind: conv, channels: 2, kernel: 1, neuron: {reset: subtract, start: 0.5}, skips: [{source: 1, kind: identity}]}
  - {kind: avg_pool, kernel: 2}
  - {kind: flatten}
  - {kind: affine, features: 3, skips: [{source: 0, kind: dense}, {source: 1, kind: dense}]}
""")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.of(build_network(SPEC, seed=0))


@pytest.fixture(scope="module")
def graph(model) -> NetworkGraph:
    return graph_of_model(model)


def texts(svg: str) -> list[str]:
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_every_layer_is_named_with_its_shape(graph) -> None:
    svg = graph_svg(graph)
    for name, shape in [("0 input", "1 4 4"), ("1 conv", "2 4 4"), ("3 avg_pool", "2 2 2"), ("4 flatten", "8")]:
        assert texts(svg)[texts(svg).index(name) + 1].split("\N{MULTIPLICATION SIGN}") == shape.split()
    assert [layer.name for layer in graph.layers][-1] == "5 affine"


def test_facts_are_those_of_the_spec_and_of_the_weights(model, graph) -> None:
    first, second, pool, readout = (graph.layers[i] for i in (1, 2, 3, 5))
    mants = (64 * model.build().blocks[1].quantized_weight()).round()
    assert first.facts == (
        "kernel 3x3 p1x1",
        f"18 weights, {int(mants.min())} to {int(mants.max())}",
        "2 biases, 0 to 0",
        "threshold 32 = 0.5",
        "current decay 4096 = 1",
        "voltage decay 1024 = 0.25",
        "spikes leave a step later",
    )
    wanted = {
        "threshold 64 = 1",
        "a spike subtracts the threshold",
        "the voltage starts at 0.5 of the threshold",
        "skip from 1: identity, 2 weights",
    }
    assert wanted <= set(second.facts)
    assert "8 weights, all 10" in pool.facts
    wanted = {"readout, never fires", "skip from 0: dense, 48 weights", "skip from 1: dense, 96 weights"}
    assert wanted <= set(readout.facts)
    assert graph.layers[0].facts[0] == "current 1 x + 0"
    assert graph.layers[0].facts[-1] == "x = (pixel - 0.5) / 0.25"
    assert [layer.sources for layer in graph.layers] == [(), (0,), (1, 1), (2,), (3,), (4, 0, 1)]
    assert graph.about == "T = 6, 196 parameters"


def test_graded_input_tells_its_bits() -> None:
    spec = parse_spec("""
name: graded
time_steps: 2
input: {shape: [4], encoding: graded, bits: 3}
blocks: [{kind: dense, features: 2}, {kind: affine, features: 2}]
""")
    layers = graph_of_model(Model.of(build_network(spec, seed=0))).layers
    assert layers[0].facts == ("graded, 3 bits",)
    assert "threshold 448 = 7" in layers[1].facts


def test_a_histogram_counts_all_weights_of_a_layer(model, graph) -> None:
    for i in (1, 2, 5):
        weights = graph.layers[i].weights
        mants = torch.cat([64 * w.flatten() for _, w in model.build().blocks[i].synapses()])
        assert sum(weights.counts) == len(mants)
        assert (weights.low, weights.high) == (int(mants.min()), int(mants.max()))
    assert [graph.layers[i].weights for i in (0, 3, 4)] == [None] * 3


def test_a_spec_alone_has_no_weights_to_show(model) -> None:
    graph = graph_of_model(model, trained=False)
    assert all(layer.weights is None for layer in graph.layers)
    assert "18 weights" in graph.layers[1].facts
    assert 'class="weights"' not in graph_svg(graph)


def test_boxes_stand_below_each_other_and_hold_their_lines(graph) -> None:
    drawing = draw(graph)
    for above, below in zip(drawing.boxes, drawing.boxes[1:], strict=False):
        assert above.top + above.height < below.top
    for box in drawing.boxes:
        assert len(box.lines) >= len(box.layer.facts)
        for y, _ in box.lines:
            assert box.top < y < box.top + box.height
        for x, y, width, height in box.bars:
            assert drawing.left < x < x + width < drawing.right
            assert box.top < y
            assert y + height < box.foot < box.top + box.height
    assert drawing.boxes[-1].top + drawing.boxes[-1].height < drawing.height


def test_bars_are_as_high_as_the_roots_of_counts() -> None:
    layer = GraphLayer("1 dense", (2,), (), weights=replace(_weights(), counts=(1, 0, 4)))
    low, none, high = draw(NetworkGraph("n", "", (layer,))).boxes[0].bars
    assert none[3] == 0
    assert high[3] == 2 * low[3]
    assert low[1] + low[3] == pytest.approx(high[1] + high[3])


def _weights():
    return graph_of_model(Model.of(build_network(SPEC, seed=0))).layers[1].weights


def test_skips_bend_around_the_boxes_from_source_to_layer(graph) -> None:
    drawing = draw(graph)
    assert [end for _, (_, end) in drawing.curves] == [
        drawing.boxes[2].middle,
        drawing.boxes[5].middle,
        drawing.boxes[5].middle + 10,
    ]
    for (path, _), source in zip(drawing.curves, (1, 0, 1), strict=True):
        assert path.startswith(f"M{drawing.left},{drawing.boxes[source].middle:g} ")
        start, *bends, end = (float(pair.split(",")[0]) for pair in path.replace("C", "").removeprefix("M").split())
        assert 0 < (start + 3 * sum(bends) + end) / 8 < drawing.left - 12  # half-way along the curve


def test_branches_are_curves_and_no_arrow_leads_to_a_block_that_does_not_read_the_one_above() -> None:
    spec = parse_spec("""
name: two-branches
time_steps: 4
input: {shape: [6]}
blocks:
  - {kind: dense, features: 5, name: left}
  - {kind: dense, features: 4, source: input, name: right}
  - {kind: affine, features: 3, source: left, skips: [{source: right, kind: dense}]}
""")
    graph = graph_of_model(Model.of(build_network(spec, seed=0)))
    assert [layer.name for layer in graph.layers] == ["0 input", "1 dense left", "2 dense right", "3 affine"]
    assert {"reads 1 left", "skip from 2 right: dense, 12 weights"} < set(graph.layers[3].facts)
    drawing = draw(graph)
    assert [box.follows for box in drawing.boxes] == [False, True, False, True]
    starts = [float(path.removeprefix("M").split()[0].split(",")[1]) for path, _ in drawing.curves]
    assert starts == [drawing.boxes[0].middle, drawing.boxes[1].middle]


def test_a_netx_file_is_drawn_whatever_its_neurons_are() -> None:
    neurons = ChipNeurons(80, np.array([4096]), np.array([100, 200]), kind="RF")
    kernels = ChipSynapses(0, np.arange(-8, 8, 2).reshape(2, 1, 2, 2), Window((2, 2), (1, 1), (0, 0), (1, 1), 1))
    problems = ("neurons of type RF, which <b>resonate</b>",)
    conv = ChipLayer("conv", (2, 1, 1), (kernels,), np.array([3, -5]), neurons, problems=problems)
    file = ChipForm((ChipLayer("input", (1, 2, 2)), conv))
    graph = graph_of_netx(file, "odd.net")
    assert graph.about == "time steps unknown, 8 weights"
    assert graph.layers[1].facts == (
        "kernel 2x2",
        "8 weights, -8 to 6",
        "2 biases, -5 to 3",
        "threshold 80 = 1.25",
        "current decay 4096 = 1",
        "voltage decay 100..200, for each channel",
        "neurons of type RF, which <b>resonate</b>",
    )
    assert "neurons of type RF, which" in texts(graph_svg(graph))
    assert "<b>" not in graph_page(graph)


def test_a_model_and_its_netx_file_are_drawn_alike() -> None:
    network = build_network(parse_spec("""
name: chain
time_steps: 3
input: {shape: [9]}
blocks: [{kind: dense, features: 5}, {kind: affine, features: 2, bias: true}]
"""), seed=1)  # fmt: skip
    drawn, from_file = graph_of_model(Model.of(network)), graph_of_netx(netx_of(network), "chain")
    for ours, theirs in zip(drawn.layers, from_file.layers, strict=True):
        assert (ours.facts, ours.weights) == (theirs.facts, theirs.weights)


def test_the_svg_stands_alone_in_light_and_dark_and_says_it_in_words(graph) -> None:
    svg = graph_svg(graph)
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.attrib["role"] == "img"
    ids = {element.attrib.get("id") for element in root.iter()}
    assert set(root.attrib["aria-labelledby"].split()) <= ids
    words = root.find(f"{SVG}desc").text
    for layer in graph.layers:
        assert all(fact in words for fact in (layer.name, *layer.facts))
    assert "@media (prefers-color-scheme: dark)" in svg
    assert "http" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "url(" not in svg
    assert {element.tag for element in root.iter()} & {f"{SVG}script", f"{SVG}image", f"{SVG}use"} == set()


def test_recurrence_and_delays_are_named() -> None:
    spec = parse_spec("""
name: timed
time_steps: 6
input: {shape: [5], encoding: events}
blocks:
  - {kind: dense, features: 4, recurrent: true, skips: [{source: 0, kind: dense}]}
  - {kind: dense, features: 3, delays: {longest: 0}}
""")
    graph = graph_of_model(Model.of(build_network(spec, seed=0)))
    assert graph.layers[0].facts == ("events, 1 bit",)
    assert "16 recurrent weights" in " ".join(graph.layers[1].facts)
    assert "skip from 0: dense, 20 weights" in graph.layers[1].facts
    assert "delays 0 to 0" in graph.layers[2].facts
