"""NIR: graphs that no network of ours can be."""

import numpy as np
import pytest
from nir_graphs import DT, IMAGE, affine, chain, conv, neuron, node

from converters.formats.nir.nir_file import Graph, graph_bytes
from converters.formats.nir.nir_reader import read_nir
from specs import UnsupportedError


def test_cycles_and_unknown_nodes_are_named_at_once(tmp_path) -> None:
    loop = Graph(
        {
            "input": node("Input", shape=[6]),
            "lif": neuron("LIF"),
            "w_rec": node("Scale", scale=0.5),
            "output": node("Output", shape=[6]),
        },
        (("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")),
    )
    nodes = {
        "in": node("Input", shape=[8]),
        "fc": affine(6, 8),
        "rnn": loop,
        "up": node("Conv1d", weight=[1.0]),
        "down": node("Spline", knots=[1.0]),
        "out": node("Output", shape=[3]),
    }
    edges = (("in", "fc"), ("fc", "rnn"), ("rnn", "up"), ("rnn", "down"), ("up", "out"), ("down", "out"))
    (tmp_path / "a.nir").write_bytes(graph_bytes(Graph(nodes, edges)))
    with pytest.raises(UnsupportedError) as error:
        read_nir(tmp_path / "a.nir")
    for part in (
        "rnn.lif (LIF): part of a cycle",
        "rnn.w_rec (Scale): part of a cycle; supported is one Affine or Linear from neurons to themselves",
        "up (Conv1d): convolutions with one axis are not supported",
        "down (Spline): this node type is not supported",
    ):
        assert part in str(error.value)


def test_loose_nodes_and_missing_ends_are_named(tmp_path) -> None:
    nodes = {"in": node("Input", shape=[8]), "fc": affine(6, 8), "out": node("Output", shape=[6])}
    (tmp_path / "a.nir").write_bytes(graph_bytes(Graph(nodes, (("in", "out"),))))
    with pytest.raises(UnsupportedError, match="no path from Input to Output through fc"):
        read_nir(tmp_path / "a.nir")
    (tmp_path / "a.nir").write_bytes(graph_bytes(Graph({"fc": affine(6, 8)}, ())))
    with pytest.raises(UnsupportedError, match=r"one Input node, got 0.*one Output node, got 0"):
        read_nir(tmp_path / "a.nir")


PLANE = {"tau": 2 * DT, "r": 2.0, "v_threshold": np.arange(1, 109).reshape(3, 6, 6)}
REFUSED = {
    "a bias of a readout's decaying current": (
        (affine(6, 8), neuron(), affine(3, 6, bias=0.25), neuron("CubaLI")),
        r"1\.CubaLI .*v_leak",
    ),
    "a bias of a current that lasts": (
        (affine(6, 8, bias=0.25), neuron("CubaLIF", tau_syn=1e12 * DT, w_in=1e12)),
        r"1\.CubaLIF .*without a decay",
    ),
    "v_reset": ((affine(6, 8), neuron("IF", 6, v_reset=-0.5)), r"1\.IF \(IF\): v_reset must be 0"),
    "a threshold of 0": ((affine(6, 8), neuron("IF", v_threshold=0.0)), "v_threshold must be above 0, got 0"),
    "a short time constant": (
        (affine(6, 8), neuron("LIF", tau=DT / 2)),
        "shorter than a time step, .*--time-constants exact",
    ),
    "a negative time constant": ((affine(6, 8), neuron("LIF", tau=-DT)), "tau must be above 0 s"),
    "two dense layers": ((affine(6, 8), affine(4, 6), neuron()), r"2\.Linear .*two dense layers"),
    "neurons on neurons": ((affine(6, 8), neuron(), neuron()), r"1\.IF .*neurons after neurons"),
    "a silent neuron inside": (
        (affine(6, 8), neuron("LI"), affine(4, 6), neuron()),
        r"3\.LI \(LI\).*only as the last node",
    ),
    "a long delay": ((node("Delay", delay=63 * DT), affine(6, 8), neuron()), r"3\.Delay .*whole time steps .*0 to 62"),
    "a delay of the output": ((affine(6, 8), neuron(), node("Delay", delay=3 * DT)), "out .*a delay of the output"),
    "two delays of the output": (
        (affine(6, 8), neuron(), node("Delay", delay=DT), node("Delay", delay=DT)),
        "out .*a delay of the output",
    ),
    "a negative delay": (
        (node("Delay", delay=DT * np.array([0, -3, 1, 0, 0, 0, 0, 0])), affine(6, 8), neuron()),
        r"3\.Delay .*a delay of -0\.003 s",
    ),
    "half a step": ((node("Delay", delay=0.5 * DT), affine(6, 8), neuron()), r"3\.Delay .*a delay of 0\.0005 s"),
    "long delays together": (
        (node("Delay", delay=40 * DT), affine(6, 8), node("Delay", delay=40 * DT), neuron()),
        r"1\.IF .*delays that add up to 80 time steps",
    ),
    "a delay of a readout": (
        (affine(6, 8), neuron(), node("Delay", delay=3 * DT), affine(4, 6)),
        r"out .*a delay needs weights and then spiking neurons",
    ),
    "a delay of a bias": ((affine(6, 8, bias=0.5), node("Delay", delay=DT), neuron()), r"2\.Delay .*with a bias"),
    "weights behind delayed weights": (
        (affine(6, 8), node("Delay", delay=DT), affine(4, 6), neuron()),
        r"2\.Linear .*need neurons between them",
    ),
    "a delay before the input's neurons": (
        (node("Delay", delay=3 * DT), neuron(), affine(3, 8)),
        "a delay needs weights",
    ),
    "a leak beside the input's current": (
        (neuron("CubaLIF", v_leak=0.5), affine(4, 8), neuron()),
        "v_leak of input neurons",
    ),
    "a leak of some classes behind a decaying current": (
        (affine(6, 8), neuron(), affine(3, 6), neuron("CubaLI", 3, v_leak=[0.0, 0.25, 0.0])),
        r"1\.CubaLI .*v_leak differs between the classes",
    ),
    "no layers": ((), "no weights and no neurons"),
    "nothing but the input's neurons": ((neuron(),), "readout"),
}
REFUSED_IMAGES = {
    "neurons that differ in a channel": ((conv(3, 2), neuron("LIF", (3, 6, 6), **PLANE)), "differs within a channel"),
    "convolution and dense": (
        (conv(3, 2), node("Flatten", start_dim=0, end_dim=-1), affine(3, 108), neuron()),
        "a convolution and a dense layer",
    ),
    "dense on maps": ((affine(6, 8), neuron()), r"2\.Linear .*receive a signal of shape \[2, 8, 8\]"),
    "a missing flatten": ((affine(6, 128), neuron()), "a Flatten is missing"),
    "half a flatten": ((conv(3, 2), neuron(), node("Flatten", start_dim=0, end_dim=1)), "flattens axes 0 to 1"),
    "a convolution at the end": ((conv(3, 2),), "a readout without neurons must be Affine"),
    "same with a stride": ((conv(3, 2, padding="same", stride=2), neuron()), "'same' with stride"),
    "delays of single pixels of a pool": (
        (
            node("SumPool2d", kernel_size=2, stride=2, padding=0),
            node("Flatten", start_dim=0, end_dim=-1),
            node("Delay", delay=DT * np.arange(32)),
            affine(3, 32),
            neuron(),
        ),
        r"2\.Linear .*need neurons between them",
    ),
    "padding after a pool that leaves inputs out": (
        (
            conv(3, 2, (2, 2)),
            neuron(),
            node("AvgPool2d", kernel_size=2, stride=2, padding=0),
            conv(3, 3, padding=1),
            neuron(),
        ),
        r"2\.Conv2d .*windows of 2 over 7",
    ),
}


@pytest.mark.parametrize("case", REFUSED | REFUSED_IMAGES)
def test_what_layers_cannot_do_is_refused_by_name(case, tmp_path) -> None:
    (nodes, message), shape = (REFUSED | REFUSED_IMAGES)[case], IMAGE if case in REFUSED_IMAGES else (8,)
    with pytest.raises(UnsupportedError, match=message):
        read_nir(chain(*nodes, shape=shape, path=tmp_path / "a.nir"), dt=DT)


def test_a_refused_delay_does_not_hide_the_weights_before_it(tmp_path) -> None:
    nodes = (affine(6, 8), neuron(), affine(4, 6), node("Delay", delay=DT / 2), neuron())
    with pytest.raises(UnsupportedError) as error:
        read_nir(chain(*nodes, shape=(8,), path=tmp_path / "a.nir"), dt=DT)
    assert "a delay of 0.0005 s" in str(error.value)
    assert "neurons after neurons" not in str(error.value)


def test_several_refusals_come_together(tmp_path) -> None:
    nodes = (affine(6, 8), neuron("CubaLIF", tau_mem=DT / 2), affine(4, 6), neuron("IF", v_threshold=-1.0))
    with pytest.raises(UnsupportedError, match=r"3\.CubaLIF .*; 1\.IF "):
        read_nir(chain(*nodes, shape=(8,), path=tmp_path / "a.nir"), dt=DT)
