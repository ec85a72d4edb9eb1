"""NIR: networks written for other programs, and read again."""

import math

import h5py
import nir
import numpy as np
import pytest
import torch
from nir_graphs import CONV, DT, GRADED, POOL, network, simulate_steps, written

from bootstrap_core import IntegerNetwork
from converters import Model
from converters.formats.nir.nir_file import read_graph
from converters.formats.nir.nir_reader import read_nir
from converters.formats.nir.nir_writer import write_nir
from specs import ConversionError
from specs.layers.neuron import Reset


def test_the_nir_package_reads_a_chain_of_every_block(tmp_path) -> None:
    nodes = written(network(CONV, POOL, last={"kind": "dense", "features": 3}), tmp_path)
    assert {label: type(node).__name__ for label, node in nodes.items()} == {
        "input": "Input",
        "block0_neuron": "LIF",
        "block1_synapse": "Conv2d",
        "block1_neuron": "LIF",
        "block2_pool": "SumPool2d",
        "block2_scale": "Scale",
        "block2_neuron": "LIF",
        "block2_delay": "Delay",
        "block3_flatten": "Flatten",
        "block4_synapse": "Affine",
        "block4_neuron": "LIF",
        "output": "Output",
    }
    assert nodes["output"].output_type["output"].tolist() == [3]
    assert nodes["block3_flatten"].input_type["input"].tolist() == [4, 2, 2]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("mantissa", [131_001, 131_065, 131_070, 131_071])
def test_nodes_keep_thresholds_up_to_the_largest(mantissa, bits, tmp_path) -> None:
    """The nearest float32 is below some of them."""
    first = {**CONV, "bias": False, "neuron": {"threshold": mantissa / 64 / (2**bits - 1)}}
    net = network(first, input={**GRADED, "bits": bits})
    found = read_nir(write_nir(Model.of(net), tmp_path / "a.nir"), nodes_only=True).build()
    assert found.blocks[1].neuron.threshold_mant == net.blocks[1].neuron.threshold_mant


def test_names_sort_as_the_chain_goes(tmp_path) -> None:
    """nirtorch, snnTorch's reader, runs nodes in the order of the file, which is the order of their names."""
    path = write_nir(Model.of(network(CONV, POOL)), tmp_path / "a.nir")
    with h5py.File(path) as file:
        edges = [(a.decode(), b.decode()) for a, b in file["node/edges"][()]]
        assert sorted(file["node/nodes"]) == [edges[0][0], *(b for _, b in edges)]


RESIDUAL = (
    CONV,
    {
        **CONV,
        "padding": 1,
        "delay_shift": True,
        "skips": [
            {"source": 1, "kind": "identity"},
            {"source": 0, "kind": "conv", "kernel": 3, "stride": 1},
            {"source": 1, "kind": "conv", "kernel": 3, "padding": 1},
        ],
    },
)
RESIDUAL_READOUT = {
    "kind": "affine", "features": 3, "bias": True,
    "skips": [{"source": 2, "kind": "dense"}, {"source": 3, "kind": "dense"}],
}  # fmt: skip


def residual_file(tmp_path):
    net = network(*RESIDUAL, last=RESIDUAL_READOUT)
    with torch.no_grad():
        for i, block in enumerate(net.blocks):
            for k, skip in enumerate(getattr(block, "skips", ())):
                skip.weight.uniform_(-0.2, 0.3, generator=torch.Generator().manual_seed(10 * i + k))
    return net, write_nir(Model.of(net), tmp_path / "a.nir", dt=DT)


def test_skips_join_in_at_the_neurons_of_their_block(tmp_path) -> None:
    _, path = residual_file(tmp_path)
    graph = nir.read(path)
    edges = sorted((a.split("_", 1)[1], b.split("_", 1)[1]) for a, b in graph.edges)
    assert [edge for edge in edges if "skip" in edge[0] + edge[1]] == [
        ("block0_neuron", "block2_skip1_synapse"),
        ("block1_neuron", "block2_skip0_scale"),
        ("block1_neuron", "block2_skip2_synapse"),
        ("block2_delay", "block4_skip0_flatten"),
        ("block2_skip0_scale", "block2_neuron"),
        ("block2_skip1_synapse", "block2_neuron"),
        ("block2_skip2_synapse", "block2_neuron"),
        ("block3_flatten", "block4_skip1_synapse"),
        ("block4_skip0_flatten", "block4_skip0_synapse"),
        ("block4_skip0_synapse", "output"),
        ("block4_skip1_synapse", "output"),
    ]
    places = {name: place for place, name in enumerate(sorted(graph.nodes))}
    assert all(places[a] < places[b] for a, b in graph.edges)


def test_edges_into_one_node_add_up_to_the_networks_spikes(tmp_path) -> None:
    """The nodes run by NIR's equations in the order of their names, and signals of edges into one node are added."""
    net, path = residual_file(tmp_path)
    graph = read_graph(path)
    images = torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    logits, trace = net.run(images)
    signals = {sorted(graph.nodes)[0]: net.blocks[0].current(images).detach().double().expand(6, *images.shape)}
    for name in sorted(graph.nodes)[1:]:
        node, arriving = graph.nodes[name], sum(signals[a] for a, b in graph.edges if b == name)
        signals[name] = arriving if node.type == "Output" else simulate_steps([node], arriving)
    by_label = {name.split("_", 1)[1]: signal for name, signal in signals.items()}
    assert torch.equal(by_label["block1_neuron"].float(), trace.spikes[1])
    assert torch.equal(by_label["block2_delay"].float(), trace.spikes[2])
    assert 0.05 < trace.rates[2].mean() < 0.95
    torch.testing.assert_close(by_label["output"].mean(0).float(), logits)


def test_no_node_has_a_v_reset_which_old_releases_of_nir_refuse(tmp_path) -> None:
    path = write_nir(Model.of(network(CONV)), tmp_path / "a.nir")
    with h5py.File(path) as file:
        assert not any("v_reset" in node for node in file["node/nodes"].values())


def test_weights_biases_and_thresholds_are_what_the_hardware_holds_in_float_units(tmp_path) -> None:
    net = network(CONV, input=GRADED)
    nodes = written(net, tmp_path)
    assert np.array_equal(nodes["block1_synapse"].weight, net.blocks[1].quantized_weight().detach().numpy())
    assert np.allclose(nodes["block1_synapse"].bias * 15, net.blocks[1].quantized_bias().detach().numpy())
    assert np.allclose(nodes["block1_neuron"].v_threshold, 0.5)
    assert np.array_equal(nodes["block3_synapse"].bias, net.readout.quantized_bias().detach().numpy())


@pytest.mark.parametrize("voltage_decay", [0.25, 0.0])
def test_decaying_currents_make_a_cuba_lif_whose_bias_enters_the_voltage(tmp_path, voltage_decay) -> None:
    net = network(CONV, neuron={"threshold": 0.5, "current_decay": 0.5, "voltage_decay": voltage_decay})
    nodes = written(net, tmp_path, dt=DT)
    neuron, tau_mem = nodes["block1_neuron"], 1 / voltage_decay if voltage_decay else 2.0**40
    assert isinstance(neuron, nir.CubaLIF)
    assert not nodes["block1_synapse"].bias.any()
    assert np.allclose(neuron.tau_syn, 2 * DT)
    assert np.allclose(neuron.tau_mem, tau_mem * DT)
    assert np.allclose(neuron.w_in * DT / neuron.tau_syn, 1, rtol=1e-6)
    assert np.allclose(neuron.r * DT / neuron.tau_mem, 1, rtol=1e-6)
    bias = net.blocks[1].quantized_bias().detach().numpy()
    assert np.allclose((neuron.v_leak * DT / neuron.tau_mem)[:, 0, 0], bias)


def test_currents_gone_at_once_make_a_lif_whose_bias_is_the_synapses(tmp_path) -> None:
    """snnTorch and sinabs refuse v_leak; with the bias in the synapse they can read the file."""
    net = network(CONV)
    nodes = written(net, tmp_path, dt=DT)
    assert np.allclose(nodes["block1_neuron"].tau, 4 * DT)
    assert not nodes["block1_neuron"].v_leak.any()
    assert np.array_equal(nodes["block1_synapse"].bias, net.blocks[1].quantized_bias().detach().numpy())


def test_no_decays_make_an_if(tmp_path) -> None:
    nodes = written(network(CONV, neuron={"threshold": 0.75}), tmp_path)
    assert isinstance(nodes["block1_neuron"], nir.IF)
    assert (nodes["block1_neuron"].r == 1).all()
    assert (nodes["block1_neuron"].v_threshold == 0.75).all()


def test_the_metadata_tell_strangers_what_to_feed_and_to_read(tmp_path) -> None:
    net = network(CONV, input={"shape": [2, 6, 6], "mean": 0.5, "std": 0.25, "weight": 1.5, "bias": -0.5})
    metadata = nir.read(write_nir(Model.of(net), tmp_path / "a.nir", dt=DT)).metadata
    assert metadata["dt"] == DT
    assert metadata["time_steps"] == 6
    assert "trunc(64 (1.5 (x - 0.5) / 0.25 + -0.5)) / 64" in metadata["feed"]
    assert "mean of the output" in metadata["read"]
    net = network({**CONV, "neuron": {"reset": "subtract"}}, input=GRADED)
    metadata = nir.read(write_nir(Model.of(net), tmp_path / "a.nir", overwrite=True)).metadata
    assert "round(15 x) / 15" in metadata["feed"]
    assert "the threshold is subtracted" in metadata["reset"]  # all blocks with a voltage subtract
    assert metadata["read"].endswith("from states of 0")
    for own, told in ({"start": 0.5}, "voltages of 0.5 times the threshold"), ({}, "voltages of a fraction"):
        net = network({**CONV, "neuron": own}, CONV, input=GRADED, neuron={"start": 0.5})
        metadata = nir.read(write_nir(Model.of(net), tmp_path / "a.nir", overwrite=True)).metadata
        assert told in metadata["read"]


def test_the_same_model_gives_the_same_bytes_and_stays_as_it_is(tmp_path) -> None:
    net = network(CONV, POOL).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first = write_nir(Model.of(net), tmp_path / "a.nir").read_bytes()
    assert write_nir(Model.of(net), tmp_path / "b.nir").read_bytes() == first
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    again = read_nir(tmp_path / "a.nir")
    assert write_nir(again, tmp_path / "c.nir").read_bytes() == first


@pytest.mark.parametrize("dt", [0.0, -1.0, math.nan, math.inf])
def test_a_time_step_is_a_time(tmp_path, dt) -> None:
    with pytest.raises(ConversionError, match="dt must be from 1e-15 to"):
        write_nir(Model.of(network(CONV)), tmp_path / "a.nir", dt=dt)
    assert not (tmp_path / "a.nir").exists()


def test_a_file_saved_again_by_the_nir_package_is_still_our_model(tmp_path) -> None:
    model = Model.of(network(CONV, POOL), {"accuracy": 0.5})
    nir.write(tmp_path / "b.nir", nir.read(write_nir(model, tmp_path / "a.nir")))
    again = read_nir(tmp_path / "b.nir")
    assert (again.spec, again.card) == (model.spec, model.card)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in model.tensors.items())


def test_changed_nodes_are_named_and_can_be_read_alone(tmp_path) -> None:
    net = network(CONV, input=GRADED)
    path = write_nir(Model.of(net), tmp_path / "a.nir")
    with h5py.File(path, "r+") as file:
        name = next(name for name in file["node/nodes"] if name.endswith("block1_synapse"))
        file[f"node/nodes/{name}/weight"][1, 0, 2, 1] = 1.5
    with pytest.raises(ConversionError, match=rf"changed since snnzoo wrote it: {name}\. .*--nodes-only"):
        read_nir(path)
    changed = read_nir(path, nodes_only=True, input_bits=4)
    expected = net.blocks[1].quantized_weight().detach().clone()
    expected[1, 0, 2, 1] = 1.5
    assert torch.equal(changed.build().blocks[1].quantized_weight(), expected)
    assert (changed.spec.time_steps, changed.card["nir"]["dt"]) == (6, 1e-4)


def test_nodes_alone_leave_what_the_file_says_besides(tmp_path) -> None:
    subtracting = network(CONV, input=GRADED, neuron={"threshold": 0.5, "reset": "subtract", "start": 0.25})
    path, images = write_nir(Model.of(subtracting), tmp_path / "a.nir"), torch.rand(3, *subtracting.spec.input.shape)
    model = read_nir(path, nodes_only=True)
    assert torch.equal(model.build()(images), subtracting.eval()(images))
    assert (model.spec.input.bits, model.card["nir"]["reset"]) == (subtracting.spec.input.bits, "subtract")
    assert not any("not in the file" in note for note in model.notes)
    assert any(
        f"as the file describes it: in each time step round({subtracting.spec.input.levels} x)" in n
        for n in model.notes
    )
    assert model.spec.starts == {0.25}
    assert read_nir(path, nodes_only=True, reset=Reset.ZERO, input_bits=2).spec.input.bits == 2
    uneven = network({**CONV, "neuron": {"start": 0.5}}, CONV, input=GRADED)
    write_nir(Model.of(uneven), path, overwrite=True)
    model = read_nir(path, nodes_only=True)
    assert model.spec.starts == {0}
    assert any("voltages that start at 0, since neuron.start differs" in note for note in model.notes)


def test_changed_edges_are_told(tmp_path) -> None:
    path = write_nir(Model.of(network(CONV)), tmp_path / "a.nir")
    with h5py.File(path, "r+") as file:
        edges = file["node/edges"][:-1]
        del file["node/edges"]
        file.create_dataset("node/edges", data=edges, dtype=h5py.string_dtype())
    with pytest.raises(ConversionError, match="changed since snnzoo wrote it: the edges"):
        read_nir(path)


UNEVEN = (
    {"kind": "conv", "channels": 4, "kernel": 3, "stride": 2, "padding": [0, 0, 1, 1], "bias": True},
    {"kind": "avg_pool", "kernel": 2, "stride": 1, "padding": [0, 1, 1, 0], "gain": 1.5},
    {"kind": "avg_pool", "kernel": 3, "stride": 1, "padding": 2, "gain": 1.5},  # more than half the kernel
)


def test_uneven_padding_is_written_as_zeros_in_the_kernel(tmp_path) -> None:
    net = network(*UNEVEN, input={**GRADED, "shape": [2, 8, 8]}, neuron={"threshold": 0.25})
    path = write_nir(Model.of(net), tmp_path / "a.nir")
    graph = nir.read(path, type_check=False)  # nir 1.0.8 leaves groups out of a convolution's type
    convs = [n for n in graph.nodes.values() if isinstance(n, nir.Conv2d)]
    assert [n.weight.shape[2:] for n in convs] == [(4, 4), (3, 3), (3, 3)]
    assert [tuple(n.padding) for n in convs] == [(1, 1), (1, 1), (2, 2)]
    images, again = torch.rand(4, 2, 8, 8), read_nir(path)
    logits = IntegerNetwork(net)(images)
    assert logits.std(0).any()
    assert again.spec == net.spec
    assert torch.equal(IntegerNetwork(read_nir(path, nodes_only=True, input_bits=4).build())(images), logits)


def test_another_time_step_than_the_files_is_refused(tmp_path) -> None:
    path = write_nir(Model.of(network(CONV)), tmp_path / "a.nir", dt=DT)
    assert read_nir(path, dt=DT).spec.name == "tiny"
    with pytest.raises(ConversionError, match=r"written for time steps of 0\.001 s, not 0\.0001 s"):
        read_nir(path, dt=1e-4)
