"""NIR: graphs written for other programs, graphs read from them, and graphs refused."""

import io
import json
import math
from itertools import pairwise

import h5py
import nir
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bootstrap_core import IntegerNetwork, build_network
from bootstrap_core.network.blocks import AffineBlock, SpikingBlock
from converters import Model
from converters.formats.nir.nir_file import Graph, Node, graph_bytes, read_graph
from converters.formats.nir.nir_neurons import TimeConstants
from converters.formats.nir.nir_reader import read_nir
from converters.formats.nir.nir_writer import write_nir
from specs import ConversionError, IntegrityError, NetworkSpec, SnnZooError, UnsupportedError
from specs.layers.block import AvgPoolSpec, ConvSpec, FlattenSpec
from specs.layers.neuron import Reset

DT = 1e-3

# --- writing


def network(*blocks, last=None, neuron=None, **fields):
    document = {
        "name": "tiny",
        "time_steps": 6,
        "neuron": neuron or {"threshold": 0.5, "voltage_decay": 0.25},
        "input": {"shape": [2, 6, 6]},
        "blocks": [*blocks, {"kind": "flatten"}, last or {"kind": "affine", "features": 3, "bias": True}],
        **fields,
    }
    net = build_network(NetworkSpec.model_validate(document), seed=1)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for block in net.blocks:
            if isinstance(block, SpikingBlock | AffineBlock):
                if isinstance(block.synapse.weight, torch.nn.Parameter):
                    block.synapse.weight.uniform_(-0.3, 0.5, generator=generator)
                if block.bias is not None:
                    block.bias.uniform_(-0.2, 0.2, generator=generator)
    return net


CONV = {"kind": "conv", "channels": 4, "kernel": 3, "bias": True}
POOL = {"kind": "avg_pool", "kernel": 2, "gain": 1.5, "delay_shift": True}
GRADED = {"shape": [2, 6, 6], "encoding": "graded", "bits": 4}


def written(net, tmp_path, **options):
    """Write a network and read it with the nir package; return its nodes by label, in the order of the edges."""
    path = write_nir(Model.of(net), tmp_path / "a.nir", **options)
    graph = nir.read(path)
    after = dict(graph.edges)
    names = [next(name for name in graph.nodes if name not in after.values())]
    while names[-1] in after:
        names.append(after[names[-1]])
    return {name.split("_", 1)[1]: graph.nodes[name] for name in names}


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


def test_a_model_with_skips_comes_back_and_is_no_chain_for_its_nodes(tmp_path) -> None:
    net, path = residual_file(tmp_path)
    model = read_nir(path)
    assert model.spec == net.spec
    assert all(torch.equal(tensor, model.tensors[name]) for name, tensor in net.state_dict().items())
    with pytest.raises(UnsupportedError) as error:
        read_nir(path, nodes_only=True)
    assert "block2_neuron (LIF): is fed by several nodes (" in str(error.value)
    assert "block1_neuron (LIF): feeds several nodes (" in str(error.value)


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


def test_decays_of_each_channel_are_written(tmp_path) -> None:
    net = network(CONV, neuron={"learn_decays": "per_channel", "current_decay": 0.5})
    with torch.no_grad():
        net.blocks[1].neuron.current_decay.copy_(torch.tensor([0.25, 0.5, 0.75, 1.0]))
    neuron = written(net, tmp_path, dt=DT)["block1_neuron"]
    assert neuron.tau_syn.shape == (4, 4, 4)
    assert np.allclose(DT / neuron.tau_syn[:, 2, 1], [0.25, 0.5, 0.75, 1.0])


def test_a_delay_is_one_step(tmp_path) -> None:
    nodes = written(network(CONV, POOL), tmp_path, dt=DT)
    assert np.allclose(nodes["block2_delay"].delay, DT)
    assert nodes["block2_delay"].delay.shape == (4, 2, 2)
    assert np.allclose(nodes["block2_scale"].scale, 1.5 / 4)


def test_the_metadata_tell_strangers_what_to_feed_and_to_read(tmp_path) -> None:
    net = network(CONV, input={"shape": [2, 6, 6], "mean": 0.5, "std": 0.25, "weight": 1.5, "bias": -0.5})
    metadata = nir.read(write_nir(Model.of(net), tmp_path / "a.nir", dt=DT)).metadata
    assert metadata["dt"] == DT
    assert metadata["time_steps"] == 6
    assert "trunc(64 (1.5 (x - 0.5) / 0.25 + -0.5)) / 64" in metadata["feed"]
    assert "mean of the output" in metadata["read"]
    net = network(CONV, input=GRADED, neuron={"reset": "subtract"})
    metadata = nir.read(write_nir(Model.of(net), tmp_path / "a.nir")).metadata
    assert "round(15 x) / 15" in metadata["feed"]
    assert "subtracted" in metadata["reset"]
    net = network({**CONV, "neuron": {"reset": "subtract"}}, input=GRADED)
    metadata = nir.read(write_nir(Model.of(net), tmp_path / "a.nir")).metadata
    assert "the threshold is subtracted" in metadata["reset"]  # all blocks with a voltage subtract


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


# --- our own files


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
    subtracting = network(CONV, input=GRADED, neuron={"threshold": 0.5, "reset": "subtract"})
    path, images = write_nir(Model.of(subtracting), tmp_path / "a.nir"), torch.rand(3, *subtracting.spec.input.shape)
    model = read_nir(path, nodes_only=True)
    assert torch.equal(model.build()(images), subtracting.eval()(images))
    assert (model.spec.input.bits, model.card["nir"]["reset"]) == (subtracting.spec.input.bits, "subtract")
    assert not any("not in the file" in note for note in model.notes)
    assert any(
        f"as the file describes it: in each time step round({subtracting.spec.input.levels} x)" in n
        for n in model.notes
    )
    assert read_nir(path, nodes_only=True, reset=Reset.ZERO, input_bits=2).spec.input.bits == 2


def test_changed_edges_are_told(tmp_path) -> None:
    path = write_nir(Model.of(network(CONV)), tmp_path / "a.nir")
    with h5py.File(path, "r+") as file:
        edges = file["node/edges"][:-1]
        del file["node/edges"]
        file.create_dataset("node/edges", data=edges, dtype=h5py.string_dtype())
    with pytest.raises(ConversionError, match="changed since snnzoo wrote it: the edges"):
        read_nir(path)


def test_our_own_files_run_as_many_steps_as_asked_for(tmp_path) -> None:
    path = write_nir(Model.of(network(CONV)), tmp_path / "a.nir")
    assert [read_nir(path, time_steps=steps).spec.time_steps for steps in (None, 3)] == [6, 3]


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


# --- reading graphs of other programs


def chain(*nodes, shape=(3,), path):
    """Write a file with a chain of nodes."""
    named = {"in": Node("Input", {"shape": np.array(shape)})}
    named |= {f"{len(nodes) - i}.{node.type}": node for i, node in enumerate(nodes)}  # names sort against the edges
    named["out"] = Node("Output", {"shape": np.array([1])})
    names = list(named)
    path.write_bytes(graph_bytes(Graph(named, tuple(pairwise(names)))))
    return path


def node(kind, **fields):
    return Node(kind, {name: value if isinstance(value, str) else np.asarray(value) for name, value in fields.items()})


def neuron(kind="IF", n=(), **fields):
    """Return a neuron node with gain 1 at dt = DT, unless `fields` change it."""
    defaults = {
        "IF": {"r": 1.0, "v_threshold": 1.0},
        "LIF": {"tau": 2 * DT, "r": 2.0, "v_leak": 0.0, "v_threshold": 1.0},
        "CubaLIF": {"tau_syn": 2 * DT, "tau_mem": 4 * DT, "r": 4.0, "w_in": 2.0, "v_leak": 0.0, "v_threshold": 1.0},
        "LI": {"tau": 2 * DT, "r": 2.0, "v_leak": 0.0},
        "CubaLI": {"tau_syn": 2 * DT, "tau_mem": 4 * DT, "r": 4.0, "w_in": 2.0, "v_leak": 0.0},
    }[kind]
    return node(kind, **{name: np.ones(n) * value for name, value in {**defaults, **fields}.items()})


def drawn(*shape, seed=0, scale=32):
    """Draw weights on the grid of 1 / `scale`."""
    generator = np.random.default_rng(seed)
    return generator.integers(-10, 17, shape) / scale


def affine(outputs, inputs, *, bias=None, seed=0, **options):
    weight = drawn(outputs, inputs, seed=seed, **options)
    return node("Linear", weight=weight) if bias is None else node("Affine", weight=weight, bias=bias)


def conv(outputs, inputs, kernel=(3, 3), *, groups=1, bias=0.0, seed=0, **fields):
    geometry = {"stride": 1, "padding": 0, "dilation": 1, **fields}
    weight = drawn(outputs, inputs // groups, *kernel, seed=seed)
    return node("Conv2d", weight=weight, bias=np.ones(outputs) * bias, groups=groups, **geometry)


def simulate(nodes, x, steps, subtract=False):
    """Run NIR's equations in Euler steps of DT, in float64, on a constant input `[N, ...]`; return `[T, N, ...]`."""
    return simulate_steps(nodes, [x] * steps, subtract)


def simulate_steps(nodes, xs, subtract=False, loops={}):  # noqa: B006 - not changed
    """Run NIR's equations on inputs that differ from step to step; `loops` has nodes by the index of their neurons."""
    states, outputs = [{} for _ in nodes], []
    for x in xs:
        signal = torch.as_tensor(x).double()
        for i, (entry, state) in enumerate(zip(nodes, states, strict=True)):
            f = fields_of(entry)
            match entry.type:
                case "Affine" | "Linear":
                    signal = signal @ f["weight"].T + f.get("bias", 0)
                case "Conv2d":
                    pad = f["padding"] if isinstance(f["padding"], str) else pair(f["padding"])
                    options = (pair(f["stride"]), pad, pair(f["dilation"]), int(f["groups"]))
                    signal = F.conv2d(signal, f["weight"], f["bias"], *options)
                case "SumPool2d" | "AvgPool2d":
                    divisor = {"divisor_override": 1} if entry.type == "SumPool2d" else {}
                    options = [pair(f[name]) for name in ("kernel_size", "stride", "padding")]
                    signal = F.avg_pool2d(signal, *options, **divisor)
                case "Scale":
                    signal = signal * f["scale"]
                case "Flatten":
                    signal = signal.flatten(1)
                case "Delay":
                    past = state.setdefault("past", [])
                    past.append(signal)
                    steps = (f["delay"] / DT).round().long()
                    steps = steps.reshape(signal.shape[1:] if steps.numel() == signal[0].numel() else (-1,))
                    signal = sum(  # each channel as long ago as its delay
                        torch.where(steps == k, past[-1 - k] if k < len(past) else torch.zeros_like(signal), 0)
                        for k in steps.unique().tolist()
                    )
                case _:
                    if i in loops:
                        own = fields_of(loops[i])
                        signal = signal + state.get("s", 0 * signal) @ own["weight"].T + own.get("bias", 0)
                    state["s"] = signal = fire(entry.type, f, state, signal, subtract)
        outputs.append(signal)
    return torch.stack(outputs)


def fields_of(entry):
    return {k: v if isinstance(v, str) else torch.as_tensor(np.asarray(v)).double() for k, v in entry.fields.items()}


def pair(value):
    values = [int(number) for number in value.flatten()]
    return values[0], values[-1]


def fire(kind, f, state, signal, subtract):
    v, current = state.get("v", 0.0), state.get("i", 0.0)
    if kind == "IF":
        v = v + f["r"] * signal
    elif kind == "LIF":
        v = v + DT / f["tau"] * (f["v_leak"] - v + f["r"] * signal)
    else:
        current = current + DT / f["tau_syn"] * (-current + f["w_in"] * signal)
        v = v + DT / f["tau_mem"] * (f["v_leak"] - v + f["r"] * current)
    spikes = (v > f["v_threshold"] + 1e-9).double()
    state["v"], state["i"] = v - spikes * f["v_threshold"] if subtract else v * (1 - spikes), current
    return spikes


def assert_like_the_equations(nodes, tmp_path, shape, *, steps=5, reset=Reset.ZERO, **options):
    """Read nodes, check in both engines that spikes follow NIR's equations, and return the model."""
    path = chain(*nodes, shape=shape, path=tmp_path / "a.nir")
    model = read_nir(path, dt=DT, time_steps=steps, input_bits=1, reset=reset, **options)
    x = torch.rand(20, *shape, generator=torch.Generator().manual_seed(1)).round()
    expected = simulate(nodes, x, steps, subtract=reset is Reset.SUBTRACT)
    assert 0.02 < expected.mean() < 0.98
    net = model.build()
    for run in (net.run, IntegerNetwork(net).run):
        found = run(x)[1].spikes[-1]
        assert torch.equal(found.reshape(expected.shape).double(), expected)
    return model


IMAGE = (2, 8, 8)
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


# --- time

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


# --- what is refused


def test_all_that_is_no_chain_is_named_at_once(tmp_path) -> None:
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
        "rnn (NIRGraph): feeds several nodes (down, up)",
        "up (Conv1d): convolutions with one axis are not supported",
        "down (Spline): this node type is not supported",
        "out (Output): is fed by several nodes (down, up)",
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
    "two convolutions": ((conv(3, 2), conv(3, 3), neuron()), "two convolutions"),
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


# --- hostile files

NOT_FINITE = "holds values that are not finite"
WINDOW = "expected one or two numbers from {} to 4096"
DAMAGED = {
    "a missing field": ((affine(6, 8), node("IF", r=1.0)), r"1\.IF \(IF\): the field v_threshold is missing"),
    "no weights": ((node("Linear"), neuron()), r"2\.Linear \(Linear\): the field weight is missing"),
    "weights of no size": (
        (node("Linear", weight=np.zeros((0, 8))), neuron()),
        r"weights of shape \[0, 8\]; expected \[outputs, inputs\]",
    ),
    "weights in one axis": (
        (node("Linear", weight=np.zeros(8)), neuron()),
        r"weights of shape \[8\]; expected \[outputs, inputs\]",
    ),
    "a text for weights": (
        (node("Linear", weight="none"), neuron()),
        r"2\.Linear \(Linear\): the field weight is missing",
    ),
    "not finite": ((node("Linear", weight=np.full((6, 8), np.nan)), neuron()), rf"/2\.Linear/weight: {NOT_FINITE}"),
    "an endless time constant": ((affine(6, 8), neuron("LIF", tau=np.inf)), rf"/1\.LIF/tau: {NOT_FINITE}"),
    "parameters of another shape": (
        (affine(6, 8), neuron("IF", 5, v_threshold=[1, 2, 3, 4, 5])),
        r"1\.IF \(IF\): r of shape \[5\] does not fit a signal of shape \[6\]",
    ),
    "a bias of another shape": (
        (node("Affine", weight=np.ones((6, 8)), bias=np.ones(5)), neuron()),
        r"2\.Affine \(Affine\): a bias of shape \[5\] does not fit 6 channels",
    ),
    "weights beyond all range": (
        (node("Linear", weight=np.full((6, 8), 1e300)), neuron()),
        r"weights or biases are too large relative to the threshold of 1: .*4e-300",
    ),
    "a threshold beyond all range": (
        (affine(6, 8), neuron(v_threshold=1e300)),
        r"weights are too small relative to the threshold of 1e\+300",
    ),
}
DAMAGED_IMAGES = {
    "a pool of millions": (
        (node("SumPool2d", kernel_size=4096, stride=1, padding=4096), neuron()),
        "a window of 4096x4096 over 2 channels is too large",
    ),
    "a stride of 0": ((conv(3, 2, stride=0), neuron()), rf"stride is \[0\]; {WINDOW.format(1)}"),
    "half a stride": ((conv(3, 2, stride=0.5), neuron()), r"stride holds \[0\.5\], not whole numbers"),
    "three strides": ((conv(3, 2, stride=(1, 1, 1)), neuron()), rf"stride is \[1, 1, 1\]; {WINDOW.format(1)}"),
    "negative padding": ((conv(3, 2, padding=-1), neuron()), rf"padding is \[-1\]; {WINDOW.format(0)}"),
    "unknown padding": ((conv(3, 2, padding="reflect"), neuron()), "padding 'reflect'"),
    "huge padding": ((conv(3, 2, padding=10**9), neuron()), rf"padding is \[1000000000\]; {WINDOW.format(0)}"),
    "a kernel that does not fit": (
        (conv(3, 2, (9, 9)), neuron()),
        r"a kernel of \[9, 9\] does not fit into a signal of shape \[2, 8, 8\]",
    ),
    "other channels": ((conv(3, 3), neuron()), r"weights of shape \[3, 3, 3, 3\] in 1 groups do not fit 2 channels"),
    "groups that do not divide": (
        (conv(3, 2, groups=2), neuron()),
        r"weights of shape \[3, 1, 3, 3\] in 2 groups do not fit 2 channels",
    ),
    "no groups": (
        (node("Conv2d", weight=np.ones((3, 2, 3, 3)), bias=np.zeros(3), stride=1, padding=0, groups=0), neuron()),
        r"weights of shape \[3, 2, 3, 3\] in 0 groups",
    ),
    "a huge window": (
        (conv(3, 2), neuron(), node("SumPool2d", kernel_size=4097, stride=1, padding=2048), neuron()),
        rf"kernel_size is \[4097\]; {WINDOW.format(1)}",
    ),
    "a window with huge padding": (
        (conv(3, 2), neuron(), node("SumPool2d", kernel_size=2, stride=1, padding=4097), neuron()),
        rf"padding is \[4097\]; {WINDOW.format(0)}",
    ),
    "kernel of size 0": (
        (node("AvgPool2d", kernel_size=0, stride=1, padding=0), neuron()),
        rf"kernel_size is \[0\]; {WINDOW.format(1)}",
    ),
}


@pytest.mark.parametrize("case", DAMAGED | DAMAGED_IMAGES)
def test_damaged_nodes_are_expected_failures(case, tmp_path) -> None:
    (nodes, reason), shape = (DAMAGED | DAMAGED_IMAGES)[case], IMAGE if case in DAMAGED_IMAGES else (8,)
    with pytest.raises(SnnZooError, match=rf"a\.nir.*{reason}"):
        read_nir(chain(*nodes, shape=shape, path=tmp_path / "a.nir"), dt=DT)


@pytest.mark.parametrize("shape", [(), (0,), (-3,), (2, 3), (1 << 40,), (4096, 4096, 4096), (1, 2, 3, 4, 5), (1.5,)])
def test_absurd_shapes_are_refused(shape, tmp_path) -> None:
    with pytest.raises(SnnZooError, match=r"a\.nir.*in \(Input\)"):
        read_nir(chain(affine(6, 8), neuron(), shape=shape, path=tmp_path / "a.nir"))


def edited(tmp_path, edit):
    path = write_nir(Model.of(network(CONV)), tmp_path / "a.nir")
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def replace(name, value):
    def edit(file):
        del file[name]
        if value is not None:
            file[name] = value

    return edit


def link_in_circles(file):
    file["node/nodes/again"] = file["node"]


def lead_out(file):
    file["node/nodes/out"] = h5py.ExternalLink("/etc/passwd", "/")


def claim_memory(file):
    file["node/metadata"].create_dataset("huge", (1 << 40,), "f8", chunks=(1 << 16,))


def nest(file):
    group = file["node/metadata"]
    for _ in range(40):
        group = group.create_group("deeper")


HOSTILE = {
    "no node": (replace("node", None), "no group 'node'"),
    "a number for the node": (replace("node", 1), "no group 'node'"),
    "no type": (replace("node/type", None), "has no type"),
    "one node": (replace("node/type", "LIF"), "got a single LIF node|must be numbers or a text"),
    "no nodes": (replace("node/nodes", None), "has no nodes"),
    "no edges": (replace("node/edges", None), "has no nodes or no edges"),
    "edges of numbers": (replace("node/edges", np.zeros((3, 2))), "not pairs of names"),
    "an edge to nowhere": (
        replace("node/edges", np.array([("a", "b")], "S1")),
        "refers to the missing node 'a'",
    ),
    "circles": (link_in_circles, "has another name|is a link"),
    "a link out": (lead_out, "is a link"),
    "a terabyte": (claim_memory, "bytes; at most"),
    "depth": (nest, "groups deep"),
    "metadata that are no JSON": (replace("node/metadata/snnzoo", "{"), "damaged metadata"),
    "metadata that are a number": (replace("node/metadata/snnzoo", 3), "damaged metadata"),
    "metadata of the future": (
        replace("node/metadata/snnzoo", json.dumps({"format": 9, "spec": {}, "card": {}, "digests": {}})),
        "metadata of format 9",
    ),
    "no tensors": (replace("node/metadata/snnzoo_tensors", None), "the metadata contain no tensors"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_told_in_one_message(case, tmp_path) -> None:
    edit, message = HOSTILE[case]
    with pytest.raises(IntegrityError, match=message):
        read_nir(edited(tmp_path, edit))


def test_files_that_are_no_hdf5_or_are_cut_short_are_told(tmp_path) -> None:
    with pytest.raises(SnnZooError, match=r"none\.nir"):
        read_nir(tmp_path / "none.nir")
    with pytest.raises(SnnZooError, match="cannot read"):
        read_nir(tmp_path)
    data = write_nir(Model.of(network(CONV)), tmp_path / "a.nir").read_bytes()
    for end in (0, 7, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "b.nir").write_bytes(data[:end])
        with pytest.raises(IntegrityError, match=r"b\.nir"):
            read_nir(tmp_path / "b.nir")


@pytest.mark.parametrize("part", ["heap address", "heap signature", "heap object"])
def test_damaged_texts_are_told(part, tmp_path) -> None:
    path = write_nir(Model.of(network(CONV)), tmp_path / "a.nir")
    with h5py.File(path) as file:
        start = file["node/edges"].id.get_offset()
    data = bytearray(path.read_bytes())
    heap = int.from_bytes(data[start + 4 : start + 12], "little")
    place = {"heap address": start + 4, "heap signature": heap, "heap object": heap + 24}[part]
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="damaged"):
        read_nir(path)


def test_texts_in_gzip_are_read(tmp_path) -> None:
    plain, packed = (tmp_path / name for name in ("a.nir", "b.nir"))
    write_nir(Model.of(network(CONV)), plain)

    def pack(name: str, found: h5py.HLObject) -> None:
        if isinstance(found, h5py.Dataset):
            chunks = {"chunks": True, "compression": "gzip"} if found.shape and found.size else {}
            to.create_dataset(name, data=found[()], dtype=found.dtype, **chunks)

    with h5py.File(plain) as source, h5py.File(packed, "w") as to:
        source.visititems(pack)
    assert read_nir(packed).spec.blocks == read_nir(plain).spec.blocks


def test_any_hdf5_file_but_nir_is_told(tmp_path) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layer/0/type"] = "dense"
    (tmp_path / "a.nir").write_bytes(buffer.getvalue())
    with pytest.raises(IntegrityError, match="but not a NIR file"):
        read_nir(tmp_path / "a.nir")
