"""NIR: graphs with loops and delays, whose input differs from step to step."""

import nir
import numpy as np
import pytest
import torch
from nir_graphs import DT, IMAGE, affine, chain, conv, neuron, node, simulate_steps

from bootstrap_core import IntegerNetwork, build_network
from converters import Model
from converters.formats.nir.nir_file import Graph, graph_bytes, read_graph
from converters.formats.nir.nir_reader import read_nir
from converters.formats.nir.nir_writer import write_nir
from specs import NetworkSpec, SnnZooError, UnsupportedError

PER_CHANNEL = {"delay": DT * np.array([0, 1, 2, 3, 4, 5, 6, 7])}
LOOP = affine(6, 6, bias=[0.5, 0.25, 0, 0, -0.25, 0], seed=3)
TIMED = {
    "recurrent": ([affine(6, 8), neuron("LIF"), affine(3, 6, seed=1), neuron()], {1: LOOP}),
    "recurrent with a decaying current": ([affine(6, 8), neuron("CubaLIF")], {1: affine(6, 6, seed=3)}),
    "recurrent twice": (
        [affine(6, 8), neuron("LIF", 6, v_threshold=[1, 2, 1, 1, 2, 4]), affine(3, 6, seed=1), neuron()],
        {1: LOOP, 3: affine(3, 3, seed=4)},
    ),
    "inputs that are late": ([node("Delay", delay=4 * DT), affine(6, 8), neuron("LIF")], {}),
    "each input as late as it says": ([node("Delay", **PER_CHANNEL), affine(6, 8), neuron("LIF")], {}),
    "spikes that are late": ([affine(6, 8), neuron(), node("Delay", delay=3 * DT), affine(4, 6, seed=1), neuron()], {}),
    "spikes that are late, each as it says": (
        [affine(8, 8), neuron(), node("Delay", **PER_CHANNEL), affine(4, 8, seed=1), neuron("LIF")],
        {},
    ),
    "weighted inputs that are late": ([affine(8, 8), node("Delay", **PER_CHANNEL), neuron("LIF")], {}),
    "a Scale before a Delay": (
        [node("Scale", scale=2.0), node("Delay", **PER_CHANNEL), affine(6, 8), neuron("LIF")],
        {},
    ),
    "spikes that are one step late at the end": ([affine(6, 8), neuron(), node("Delay", delay=DT)], {}),
    "both, and recurrent": (
        [node("Delay", **PER_CHANNEL), affine(6, 8), node("Delay", delay=DT * np.arange(6)), neuron("LIF")],
        {3: LOOP},
    ),
}


def looped(nodes, loops, path, *, shape=(8,)):
    """Write a file with a chain of nodes, some of which have a loop, by their index."""
    graph = read_graph(chain(*nodes, shape=shape, path=path))
    named = {**graph.nodes, **{f"loop{i}": entry for i, entry in loops.items()}}
    at = {i: f"{len(nodes) - i}.{nodes[i].type}" for i in loops}
    edges = [edge for i in loops for edge in ((at[i], f"loop{i}"), (f"loop{i}", at[i]))]
    path.write_bytes(graph_bytes(Graph(named, (*graph.edges, *edges))))
    return path


def events(n_steps=12, n=20, shape=(8,)):
    return (torch.rand(n_steps, n, *shape, generator=torch.Generator().manual_seed(2)) < 0.4).to(torch.uint8)


@pytest.mark.parametrize("case", TIMED)
def test_networks_with_a_memory_follow_the_equations(case, tmp_path) -> None:
    nodes, loops = TIMED[case]
    model, x = read_nir(looped(nodes, loops, tmp_path / "a.nir"), dt=DT), events()
    expected = simulate_steps(nodes, x, loops=loops)
    assert 0.02 < expected.mean() < 0.98
    network = model.build()
    with torch.no_grad():
        assert torch.equal(network.run(x)[1].spikes[-1].double(), expected)
    assert torch.equal(IntegerNetwork(network).run(x)[1].spikes[-1].double(), expected)
    assert model.spec.input.encoding == "events"
    told = [note for note in model.notes if "one step later, then the current enters the voltage" in note]
    assert len(told) == bool(loops)
    recurrent = [block.recurrent for block in model.spec.blocks if block.kind == "dense"]
    assert sum(recurrent) == len(loops)


CHANNELS = {"delay": DT * np.arange(1, 3).reshape(2, 1, 1) * np.ones((2, 4, 4))}
WHOLE = {"start_dim": 0, "end_dim": -1}
SCALE = node("Scale", scale=np.array([0.5, 1.0]).reshape(2, 1, 1))
SUM = node("SumPool2d", kernel_size=2, stride=2, padding=0)
DELAYED_MAPS = {
    "scale, then neurons": [node("Scale", scale=0.5), node("Delay", delay=3 * DT), neuron("LIF", v_threshold=0.6)],
    "scale, then convolution": [SCALE, node("Delay", delay=2 * DT), conv(3, 2), neuron("LIF")],
    "pool, then convolution": [SUM, node("Delay", delay=2 * DT), conv(3, 2), neuron("LIF")],
    "pool, then channels that differ, then dense": [
        SUM,
        node("Delay", **CHANNELS),
        node("Flatten", **WHOLE),
        affine(4, 32),
        neuron("LIF", v_threshold=8.0),
    ],
    "delay, scale, delay, then dense": [
        node("Delay", delay=DT),
        SCALE,
        node("Delay", delay=DT * np.arange(2).reshape(2, 1, 1) * np.ones((2, 8, 8))),
        node("Flatten", **WHOLE),
        affine(4, 128),
        neuron("LIF", v_threshold=4.0),
    ],
}


@pytest.mark.parametrize("case", DELAYED_MAPS)
def test_maps_may_be_scaled_or_pooled_before_a_delay(case, tmp_path) -> None:
    nodes, x = DELAYED_MAPS[case], events(shape=IMAGE)
    expected = simulate_steps(nodes, x)
    assert 0.02 < expected.mean() < 0.98
    model = read_nir(chain(*nodes, shape=IMAGE, path=tmp_path / "a.nir"), dt=DT)
    found = model.build().run(x)[1].spikes[-1].double()
    assert torch.equal(found.reshape(expected.shape), expected)


def test_a_loop_in_a_subgraph_is_read(tmp_path) -> None:
    nodes, loops = [affine(6, 8), neuron("LIF")], {1: LOOP}
    inside = Graph(
        {"input": node("Input", shape=[6]), "lif": nodes[1], "w": LOOP, "output": node("Output", shape=[6])},
        (("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")),
    )
    named = {"in": node("Input", shape=[8]), "fc": nodes[0], "rnn": inside, "out": node("Output", shape=[6])}
    (tmp_path / "a.nir").write_bytes(graph_bytes(Graph(named, (("in", "fc"), ("fc", "rnn"), ("rnn", "out")))))
    model, x = read_nir(tmp_path / "a.nir", dt=DT), events()
    assert model.card["nir"]["layers"][0]["nodes"] == ["fc", "rnn.lif", "rnn.w"]
    assert torch.equal(model.build().run(x)[1].spikes[-1].double(), simulate_steps(nodes, x, loops=loops))


def test_recurrent_weights_behind_pixels_are_in_their_units(tmp_path) -> None:
    """They do not multiply pixels, so they are as many times larger as the threshold."""
    nodes, loops = [affine(6, 8), neuron("LIF")], {1: affine(6, 6, seed=3)}
    model = read_nir(looped(nodes, loops, tmp_path / "a.nir"), dt=DT, input_bits=2, time_steps=6)
    x = torch.randint(4, (20, 8), generator=torch.Generator().manual_seed(1)).double() / 3
    expected = simulate_steps(nodes, [x] * 6, loops=loops)
    spikes = model.build().run(x)[1].spikes[-1].double()
    assert 0.02 < expected.mean() < 0.98
    assert torch.equal(spikes, expected)


@pytest.mark.parametrize(
    ("nodes", "loops", "message"),
    [
        ([conv(3, 2), neuron()], {1: affine(3, 3)}, r"1\.IF .*recurrent neurons need an Affine or Linear before them"),
        ([affine(6, 8), neuron()], {1: affine(6, 5)}, r"1\.IF .*loop1: weights of shape \[6, 5\] do not lead from 6"),
        ([affine(6, 8), neuron()], {1: node("Scale", scale=1.0)}, r"1\.IF \(IF\): part of a cycle"),
        ([affine(6, 8), neuron("LI")], {1: affine(6, 6)}, r"1\.LI \(LI\): part of a cycle"),
    ],
)
def test_other_loops_are_refused(nodes, loops, message, tmp_path) -> None:
    shape = IMAGE if nodes[0].type == "Conv2d" else (8,)
    with pytest.raises(SnnZooError, match=message):
        read_nir(looped(nodes, loops, tmp_path / "a.nir", shape=shape), dt=DT)


def test_a_bias_of_a_decaying_current_becomes_one_of_the_voltage(tmp_path) -> None:
    nodes = (affine(6, 8, bias=[0.125, 0, 0, -0.5, 0.25, 0.0625]), neuron("CubaLIF"))
    model = read_nir(chain(*nodes, shape=(8,), path=tmp_path / "a.nir"), dt=DT)
    assert model.spec.blocks[0].neuron.current_decay == 0.5
    assert model.tensors["blocks.1.bias"].tolist() == [0.25, 0, 0, -1, 0.5, 0.125]
    assert any("the bias before it enters the current" in n and "to 1 % after 7 steps" in n for n in model.notes)
    x = events(200)
    same = model.build().run(x)[1].spikes[-1].double() == simulate_steps(nodes, x)
    assert same[20:].double().mean() > 0.97


def test_pixels_are_still_only_if_their_bits_are_given(tmp_path) -> None:
    path = chain(affine(4, 8), neuron("IF"), shape=(8,), path=tmp_path / "a.nir")
    entering = read_nir(path).spec.input
    assert (entering.encoding, entering.bits) == ("events", 1)
    assert any("for still images, give the bits of a pixel" in note for note in read_nir(path).notes)
    entering = read_nir(path, input_bits=4).spec.input
    assert (entering.encoding, entering.bits) == ("graded", 4)


def timed_network(**fields):
    blocks = [
        {"kind": "dense", "features": 7, "bias": True, "delays": {"longest": 5}},
        {"kind": "dense", "features": 6, "bias": True, "recurrent": True, "delays": {"longest": 3}},
        {"kind": "affine", "features": 3},
    ]
    document = {
        "name": "timed",
        "time_steps": 12,
        "neuron": {"threshold": 0.75, "voltage_decay": 0.125, **fields},
        "input": {"shape": [8], "encoding": "events", "bits": 2},
        "blocks": blocks,
    }
    net = build_network(NetworkSpec.model_validate(document), seed=1)
    with torch.no_grad():
        for block in net.blocks[1:3]:
            block.synapse.weight.uniform_(-0.3, 0.5, generator=torch.Generator().manual_seed(4))
            block.bias.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(5))
        net.blocks[2].recurrent.weight.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(6))
    return net


@pytest.mark.parametrize("current_decay", [1.0, 0.5])
def test_our_recurrent_networks_come_back_from_their_nodes(current_decay, tmp_path) -> None:
    net, x = timed_network(current_decay=current_decay), events() * 3
    path = write_nir(Model.of(net), tmp_path / "a.nir", dt=DT)
    graph = nir.read(path)  # the nir package takes cycles, too
    neurons, loop = "n06_block2_neuron", "n07_block2_recurrent"
    assert {(neurons, loop), (loop, neurons)} <= set(graph.edges)
    assert (graph.nodes["n02_block1_delays"].delay / DT).round().tolist() == net.blocks[1].delay.tolist()
    expected = net.run(x)[1].spikes
    assert 0.02 < expected[-2].float().mean() < 0.98
    for nodes_only in (False, True):
        model = read_nir(path, nodes_only=nodes_only)
        again = model.build()
        assert model.spec.input == net.spec.input
        assert torch.equal(again.blocks[2].recurrent.quantized_weight(), net.blocks[2].recurrent.quantized_weight())
        assert torch.equal(again.run(x)[1].spikes[-2], expected[-2])


def test_trained_delays_are_written_in_whole_steps(tmp_path) -> None:
    document = timed_network().spec.model_dump(mode="json")
    document["blocks"][0]["delays"]["learn"] = True
    net, x = build_network(NetworkSpec.model_validate(document), seed=1), events() * 3
    with torch.no_grad():
        net.block(1).delay.copy_(torch.tensor([-1.0, 0.5, 1.5, 2.4, 2.6, 4.9, 7.0]))
    path = write_nir(Model.of(net), tmp_path / "a.nir", dt=DT)
    assert (nir.read(path).nodes["n02_block1_delays"].delay / DT).round().tolist() == [0, 0, 2, 2, 3, 5, 5]
    assert torch.equal(read_nir(path).build()(x), net(x))


def test_delays_of_single_weights_are_refused_by_name(tmp_path) -> None:
    blocks = [{"kind": "dense", "features": 4, "delays": {"per": "synapse"}}, {"kind": "affine", "features": 2}]
    spec = {"name": "a", "time_steps": 4, "input": {"shape": [3], "encoding": "events"}, "blocks": blocks}
    model = Model.of(build_network(NetworkSpec.model_validate(spec), seed=0))
    with pytest.raises(UnsupportedError, match=r"NIR cannot express block 1: delays per synapse \(Delay nodes hold"):
        write_nir(model, tmp_path / "a.nir")
