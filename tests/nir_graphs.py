"""Small NIR graphs for tests, networks that are written as NIR, and the equations of NIR, computed in float64."""

from itertools import pairwise
from types import MappingProxyType

import nir
import numpy as np
import torch
import torch.nn.functional as F

from bootstrap_core import IntegerNetwork, build_network
from bootstrap_core.network.blocks import AffineBlock, SpikingBlock
from converters import Model
from converters.formats.nir.nir_file import Graph, Node, graph_bytes
from converters.formats.nir.nir_reader import read_nir
from converters.formats.nir.nir_writer import write_nir
from specs import NetworkSpec
from specs.layers.neuron import Reset

DT = 1e-3
IMAGE = (2, 8, 8)
CONV = {"kind": "conv", "channels": 4, "kernel": 3, "bias": True}
POOL = {"kind": "avg_pool", "kernel": 2, "gain": 1.5, "delay_shift": True}
GRADED = {"shape": [2, 6, 6], "encoding": "graded", "bits": 4}


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


def written(net, tmp_path, **options):
    """Write a network and read it with the nir package; return its nodes by label, in the order of the edges."""
    path = write_nir(Model.of(net), tmp_path / "a.nir", overwrite=True, **options)
    graph = nir.read(path)
    after = dict(graph.edges)
    names = [next(name for name in graph.nodes if name not in after.values())]
    while names[-1] in after:
        names.append(after[names[-1]])
    return {name.split("_", 1)[1]: graph.nodes[name] for name in names}


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


def simulate_steps(nodes, xs, subtract=False, loops=MappingProxyType({})):
    """Run NIR's equations on the inputs of each step; `loops` has recurrent nodes by the index of their neurons."""
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
