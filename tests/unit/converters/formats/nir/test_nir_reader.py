"""NIR: graphs of other programs that are chains of layers."""

import json
import math

import numpy as np
import pytest
import torch
from nir_graphs import DT, IMAGE, affine, assert_like_the_equations, chain, conv, drawn, fire, neuron, node, simulate

from bootstrap_core import IntegerNetwork
from converters.formats.nir.nir_file import Graph, graph_bytes
from converters.formats.nir.nir_neurons import TimeConstants
from converters.formats.nir.nir_reader import read_nir
from specs import ConversionError
from specs.layers.block import AvgPoolSpec, ConvSpec, FlattenSpec
from specs.layers.neuron import Reset

CASES = {
    "if": ((affine(6, 8, bias=0.25), neuron("IF", r=2.0), affine(4, 6, seed=1), neuron("IF")), (8,)),
    "lif": ((affine(6, 8), neuron("LIF", 6), affine(4, 6, bias=0.125, seed=1), neuron("LIF", r=4.0)), (8,)),
    "leak": (
        (affine(6, 8), neuron("LIF", v_leak=0.5), affine(4, 6, seed=1), neuron("LIF", v_leak=-0.25, v_threshold=0.25)),
        (8,),
    ),
    "cuba": ((affine(6, 8), neuron("CubaLIF", 6, v_leak=0.25), affine(4, 6, seed=1), neuron("CubaLIF")), (8,)),
    "cuba gains": ((affine(6, 8), neuron("CubaLIF", w_in=1.0, r=2.0, v_threshold=0.25)), (8,)),
    "cuba direct": ((affine(6, 8, bias=0.25), neuron("CubaLIF", tau_syn=DT, w_in=1.0)), (8,)),
    "thresholds": ((affine(3, 8, scale=16), neuron("IF", 3, v_threshold=[0.5, 1.0, 4.0])), (8,)),
    "gains": ((affine(3, 8, bias=0.25), neuron("IF", 3, r=[0.5, 1.0, 2.0])), (8,)),
    "taus": ((affine(3, 8), neuron("LIF", 3, tau=[DT, 2 * DT, 4 * DT], r=[1.0, 2.0, 4.0])), (8,)),
    "conv": (
        (
            conv(4, 2, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), bias=0.125),
            neuron("IF"),
            conv(4, 4, (2, 3), groups=2, seed=1),
            neuron("LIF"),
            node("Flatten", start_dim=0, end_dim=-1),
            affine(3, 48, seed=2),
            neuron("IF"),
        ),
        IMAGE,
    ),
    "channels": (
        (conv(3, 2), neuron("LIF", (3, 6, 6), v_threshold=np.array([0.5, 1, 2]).reshape(3, 1, 1))),
        IMAGE,
    ),
    "same": ((conv(3, 2, (3, 5), padding="same"), neuron("IF")), IMAGE),
    "even same": ((conv(3, 2, (2, 4), padding="same"), neuron("IF")), IMAGE),
    "valid": ((conv(3, 2, (2, 5), padding="valid"), neuron("IF")), IMAGE),
    "average pool to conv": (
        (
            conv(3, 2, padding=1),
            neuron("IF"),
            node("AvgPool2d", kernel_size=2, stride=2, padding=0),
            conv(4, 3, padding=1, seed=1),
            neuron("IF", v_threshold=0.5),
        ),
        IMAGE,
    ),
    "sum pool to dense": (
        (
            conv(3, 2),
            neuron("IF"),
            node("SumPool2d", kernel_size=(3, 2), stride=(2, 2), padding=(1, 0)),
            node("Flatten", start_dim=0, end_dim=2),
            affine(4, 27, seed=1),
            neuron("IF"),
        ),
        IMAGE,
    ),
    "conv to pool": (
        (conv(3, 2, bias=0.25), node("AvgPool2d", kernel_size=2, stride=2, padding=0), neuron("IF")),
        IMAGE,
    ),
    "pool to neurons": (
        (
            conv(3, 2),
            neuron("IF"),
            node("SumPool2d", kernel_size=2, stride=2, padding=0),
            node("Scale", scale=np.full((3, 3, 3), 0.5)),
            neuron("LIF"),
        ),
        IMAGE,
    ),
    "a pool that leaves places out, and another": (
        (
            conv(3, 2, padding=1),
            neuron("IF"),
            node("AvgPool2d", kernel_size=1, stride=2, padding=0),
            node("SumPool2d", kernel_size=2, stride=2, padding=0),
            neuron("IF", v_threshold=2.0),
        ),
        IMAGE,
    ),
    "scales": (
        (
            node("Scale", scale=0.5),
            conv(3, 2),
            node("Scale", scale=np.array([1.0, 2.0, 4.0]).reshape(3, 1, 1) * np.ones((3, 6, 6))),
            neuron("IF"),
            node("Flatten", start_dim=0, end_dim=-1),
            node("Scale", scale=2.0),
            affine(3, 108, seed=1),
            node("Scale", scale=[0.5, 1.0, 0.25]),
            neuron("IF"),
        ),
        IMAGE,
    ),
    "flatten before the first weights": (
        (node("Flatten", start_dim=0, end_dim=-1), affine(4, 128), neuron("IF", v_threshold=20.0)),
        IMAGE,
    ),
    "neurons before flatten": ((conv(3, 2), node("Flatten", start_dim=0, end_dim=-1), neuron("IF", 108)), IMAGE),
    "delay": ((affine(6, 8), neuron("IF"), node("Delay", delay=DT), affine(4, 6, seed=1), neuron("IF")), (8,)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("case", CASES)
def test_a_graph_gives_the_spikes_of_nirs_equations(case, tmp_path) -> None:
    nodes, shape = CASES[case]
    assert_like_the_equations(nodes, tmp_path, shape)


@pytest.mark.parametrize("case", ["if", "cuba", "conv"])
def test_a_reset_by_subtraction_is_told(case, tmp_path) -> None:
    nodes, shape = CASES[case]
    model = assert_like_the_equations(nodes, tmp_path, shape, reset=Reset.SUBTRACT)
    assert model.card["nir"]["reset"] == "subtract"


def test_blocks_are_what_one_would_write(tmp_path) -> None:
    blocks = assert_like_the_equations(*CASES["average pool to conv"][:1], tmp_path, IMAGE).spec.blocks
    assert [block.kind for block in blocks] == ["conv", "conv"]
    assert (blocks[1].kernel, blocks[1].stride, blocks[1].padding) == ((6, 6), (2, 2), (2, 2))
    blocks = assert_like_the_equations(*CASES["pool to neurons"][:1], tmp_path, IMAGE).spec.blocks
    assert isinstance(blocks[0], ConvSpec)
    assert isinstance(blocks[1], AvgPoolSpec)
    assert blocks[1].gain == 2.0
    spec = assert_like_the_equations(*CASES["flatten before the first weights"][:1], tmp_path, IMAGE).spec
    assert (spec.input.shape, [block.kind for block in spec.blocks]) == ((128,), ["dense"])
    blocks = assert_like_the_equations(*CASES["taus"][:1], tmp_path, (8,)).spec.blocks
    assert blocks[0].neuron.learn_decays == "per_channel"


def test_neurons_at_the_input_take_its_current(tmp_path) -> None:
    nodes = (node("Scale", scale=0.5), neuron("LIF", v_leak=0.25), affine(4, 8), neuron("IF"))
    model = read_nir(chain(*nodes, shape=(8,), path=tmp_path / "a.nir"), dt=DT, time_steps=5)
    assert (model.spec.input.weight, model.spec.input.bias) == (0.5, 0.125)
    assert "the input is their current, truncated to 1/64" in model.notes[0]
    x = torch.arange(160).reshape(20, 8) / 32
    assert torch.equal(model.build().run(x)[1].spikes[-1].double(), simulate(nodes, x, 5))


@pytest.mark.parametrize("last", [(), (neuron("LI", v_leak=0.5),), (neuron("CubaLI"),)])
def test_weights_at_the_end_are_an_affine_readout(last, tmp_path) -> None:
    weights = affine(3, 6, bias=None if last and last[0].type == "CubaLI" else 0.25, seed=1)
    nodes = (affine(6, 8), neuron("IF"), weights)
    path = chain(*nodes, *last, shape=(8,), path=tmp_path / "a.nir")
    model = read_nir(path, dt=DT, time_steps=5, input_bits=1)
    x = torch.rand(9, 8, generator=torch.Generator().manual_seed(1)).round()
    logits, trace = IntegerNetwork(model.build()).run(x)
    assert model.spec.blocks[-1].kind == "affine"
    leak = 0.25 if last and last[0].type == "LI" else 0.0
    assert torch.allclose(logits, (simulate(nodes, x, 5).mean(0) + leak).float())
    if last:  # the voltage of the last neurons
        silent = node(last[0].type + "F", **last[0].fields, v_threshold=1e9)
        state, expected = {}, []
        for z in simulate(nodes, x, 5):
            fire(silent.type, {k: torch.as_tensor(v) for k, v in silent.fields.items()}, state, z, False)
            expected.append(state["v"])
        assert torch.allclose(trace.readout_voltage / 4096, torch.stack(expected).float(), atol=1e-2)


def test_exact_time_constants(tmp_path) -> None:
    tau = DT / math.log(2)
    nodes = (affine(6, 8), neuron("CubaLIF", tau_syn=tau, tau_mem=tau / 2, r=4 / 3, w_in=2.0))
    path = chain(*nodes, shape=(8,), path=tmp_path / "a.nir")
    model = read_nir(path, dt=DT, time_constants=TimeConstants.EXACT, input_bits=1)
    spec = model.spec.blocks[0].neuron
    assert (spec.current_decay, spec.voltage_decay) == (0.5, 0.75)
    assert torch.allclose(model.tensors["blocks.1.synapse.weight"].double(), torch.from_numpy(drawn(6, 8)))
    assert model.card["nir"]["time_constants"] == "exact"


def test_decays_off_the_grid_are_told(tmp_path) -> None:
    model = read_nir(
        chain(affine(6, 8), neuron("LIF", tau=3.3 * DT, r=3.3), shape=(8,), path=tmp_path / "a.nir"), dt=DT
    )
    assert any("voltage_decay 0.30303 is rounded to 0.302979 (grid of 1/4096)" in note for note in model.notes)


def test_what_became_of_each_layer_is_on_the_card(tmp_path) -> None:
    weight = np.array([[0.1234, -0.0567]])
    nodes = (node("Linear", weight=weight), neuron("IF"), affine(2, 1), neuron("IF"))
    model = read_nir(chain(*nodes, shape=(2,), path=tmp_path / "My Net.nir"), input_bits=1)
    first, second = model.card["nir"]["layers"]
    assert model.spec.name == "my-net"
    assert (first["block"], first["nodes"]) == (1, ["4.Linear", "3.IF"])
    assert first["factor"] == math.floor(64 * 254 / 64 / 0.1234) / 64  # the threshold is on its grid, too
    assert 0 < first["weight_error"] < 1 / 254
    assert (second["factor"], second["weight_error"]) == (1.0, 0.0)
    assert model.card["nir"]["dt"] is None
    assert json.loads(json.dumps(model.card)) == model.card
    assert any(note.startswith("block 1 (4.Linear, 3.IF): scaled by 32.15") for note in model.notes)


def test_many_bits_that_may_overflow_are_told(tmp_path) -> None:
    nodes = (affine(4, 200, scale=8), neuron("IF"))
    model = read_nir(chain(*nodes, shape=(200,), path=tmp_path / "a.nir"), input_bits=8)
    assert any("block 1: its current can reach" in note for note in model.notes)


def test_the_time_step_must_be_known_where_it_matters(tmp_path) -> None:
    path = chain(affine(4, 8), neuron("LIF"), shape=(8,), path=tmp_path / "a.nir")
    with pytest.raises(ConversionError, match=r"1\.LIF \(LIF\) needs\. Give --dt 1e-4 if snnTorch"):
        read_nir(path)
    assert read_nir(chain(affine(4, 8), neuron("IF"), shape=(8,), path=path)).card["nir"]["dt"] is None


@pytest.mark.parametrize("bits", [0, 17])
def test_input_bits_are_1_to_16(bits, tmp_path) -> None:
    with pytest.raises(ConversionError, match="input_bits must be from 1 to 16"):
        read_nir(chain(affine(4, 8), neuron("IF"), shape=(8,), path=tmp_path / "a.nir"), input_bits=bits)


def test_a_batch_axis_of_one_and_one_in_flatten_are_told(tmp_path) -> None:
    nodes = (conv(3, 2), neuron("IF"), node("Flatten", start_dim=1, end_dim=-1), affine(4, 108), neuron("IF"))
    model = read_nir(chain(*nodes, shape=(1, *IMAGE), path=tmp_path / "a.nir"))
    assert model.spec.input.shape == IMAGE
    assert isinstance(model.spec.blocks[1], FlattenSpec)
    assert "batch of one" in model.notes[0]
    assert "start_dim 1" in model.notes[1]


def test_a_subgraph_that_is_a_chain_is_unfolded(tmp_path) -> None:
    inside = Graph(
        {"input": node("Input", shape=[6]), "lif.0": neuron("IF"), "output": node("Output", shape=[6])},
        (("lif.0", "output"), ("input", "lif.0")),
    )
    nodes = {
        "a": node("Input", shape=[8]),
        "fc": affine(6, 8),
        "lif": inside,
        "z": affine(3, 6, bias=0.5),
        "b": node("Output", shape=[3]),
    }
    graph = Graph(nodes, (("z", "b"), ("lif", "z"), ("fc", "lif"), ("a", "fc")))
    (tmp_path / "a.nir").write_bytes(graph_bytes(graph))
    model = read_nir(tmp_path / "a.nir")
    assert [block.kind for block in model.spec.blocks] == ["dense", "affine"]
    assert model.card["nir"]["layers"][0]["nodes"] == ["fc", "lif.lif.0"]
