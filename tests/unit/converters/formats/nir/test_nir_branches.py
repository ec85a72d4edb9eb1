"""NIR: graphs whose nodes are read by several others, and whose signals are added."""

import pytest
import torch
from nir_graphs import DT, affine, conv, neuron, node, simulate_steps

from bootstrap_core import IntegerNetwork
from converters.formats.nir.nir_file import Graph, graph_bytes
from converters.formats.nir.nir_reader import read_nir
from specs import UnsupportedError

WHOLE = {"start_dim": 0, "end_dim": -1}
BIAS = [0.5, 0.25, -0.5, 0.125]
SUM = node("SumPool2d", kernel_size=2, stride=2, padding=0)
A, B, LIF = affine(6, 8), affine(6, 8, seed=1), neuron("LIF", v_threshold=0.25)


def parallel(*joined, **more):
    """Return two layers of neurons that read the input, and the ways from them to the last neurons."""
    nodes = {"a": A, "b": B, "left": LIF, "right": neuron("LIF", v_threshold=0.5), **more}
    return nodes, [("in", "a"), ("in", "b"), ("a", "left"), ("b", "right"), *joined]


CASES = {
    "a sum before weights, whose bias counts once": parallel(
        ("left", "w"), ("right", "w"), ("w", "last"), w=affine(4, 6, bias=BIAS, seed=2), last=LIF
    ),
    "weights of each, whose biases add up": parallel(
        ("left", "w"), ("right", "v"), ("w", "last"), ("v", "last"),
        w=affine(4, 6, bias=BIAS, seed=2), v=affine(4, 6, bias=BIAS, seed=3), last=LIF,
    ),
    "spikes added as they are": parallel(
        ("left", "w"), ("right", "last"), ("w", "last"), w=affine(6, 6, seed=2), last=LIF
    ),
    "spikes times a factor for each": parallel(
        ("left", "w"), ("right", "s"), ("s", "last"), ("w", "last"),
        w=affine(6, 6, seed=2), s=node("Scale", scale=[1.0, 2, 0.5, 1, 0, 1]), last=LIF,
    ),
    "a delay that all readers share": parallel(
        ("left", "d"), ("d", "w"), ("d", "v"), ("w", "x"), ("x", "u"), ("right", "y"), ("y", "last"),
        ("u", "last"), ("v", "last"),
        d=node("Delay", delay=DT), w=affine(6, 6, seed=2), x=LIF, u=affine(4, 6, seed=4), v=affine(4, 6, seed=3),
        y=affine(4, 6, seed=5), last=LIF,
    ),
    "a delay of one reader": parallel(
        ("left", "d"), ("d", "w"), ("right", "v"), ("left", "u"), ("w", "last"), ("u", "last"), ("v", "last"),
        d=node("Delay", delay=2 * DT), w=affine(4, 6, seed=2), u=affine(4, 6, seed=4), v=affine(4, 6, seed=3), last=LIF,
    ),
    "a readout of two layers": parallel(
        ("left", "w"), ("right", "v"), ("w", "out"), ("v", "out"), w=affine(4, 6, bias=BIAS, seed=2), v=affine(4, 6)
    ),
    "a loop beside a branch": parallel(
        ("right", "s"), ("left", "w"), ("s", "last"), ("w", "last"), ("last", "loop"), ("loop", "last"),
        s=node("Scale", scale=0.5), w=affine(6, 6, seed=2), loop=affine(6, 6, seed=3), last=LIF,
    ),
}  # fmt: skip
MAPS = {
    "a pool that two layers read": (
        {
            "c": conv(2, 2), "one": LIF, "pool": SUM, "d": conv(3, 2), "two": LIF, "f": node("Flatten", **WHOLE),
            "g": node("Flatten", **WHOLE), "w": affine(4, 50), "v": affine(4, 27), "last": LIF,
        },
        [("in", "c"), ("c", "one"), ("one", "pool"), ("pool", "d"), ("d", "two"), ("pool", "f"), ("two", "g"),
         ("f", "w"), ("g", "v"), ("w", "last"), ("v", "last")],
    ),
    "a residual sum of maps": (
        {"c": conv(2, 2), "one": LIF, "d": conv(2, 2, padding=1), "two": LIF},
        [("in", "c"), ("c", "one"), ("one", "d"), ("d", "two"), ("one", "two")],
    ),
}  # fmt: skip


def written(nodes, edges, path, shape=(8,)):
    last = list(nodes)[-1]
    edges = edges if any("out" in edge for edge in edges) else [*edges, (last, "out")]
    named = {"in": node("Input", shape=list(shape)), **nodes, "out": node("Output", shape=[1])}
    path.write_bytes(graph_bytes(Graph(named, tuple(edges))))
    return path


def followed(nodes, edges, x):
    """Return the output of the last node by NIR's equations; nodes come after those that they read."""
    signals = {"in": x.double()}
    loops = {first: second for first, second in edges if (second, first) in edges and second == "loop"}
    for name, entry in nodes.items():
        if name in loops.values():
            continue
        arriving = sum(signals[source] for source, target in edges if target == name and source in signals)
        signals[name] = simulate_steps([entry], arriving, loops={0: nodes["loop"]} if name in loops else {})
    ends = [source for source, target in edges if target == "out"] or [[*nodes][-1]]
    return sum(signals[name] for name in ends)


@pytest.mark.parametrize("case", [*CASES, *MAPS])
def test_branches_and_sums_follow_the_equations(case, tmp_path) -> None:
    (nodes, edges), shape = (CASES | MAPS)[case], (8,) if case in CASES else (2, 12, 12)
    path = written(nodes, edges, tmp_path / "a.nir", shape)
    x = (torch.rand(12, 20, *shape, generator=torch.Generator().manual_seed(2)) < 0.4).to(torch.uint8)
    expected = followed(nodes, edges, x)
    assert (expected != 0).double().mean() > 0.02
    network = read_nir(path, dt=DT, time_steps=12).build()
    for run in (network.run, IntegerNetwork(network).run):
        found = run(x)[1].spikes[-1].double()
        if case == "a readout of two layers":  # logits are proportional
            torch.testing.assert_close(found / found.abs().max(), expected / expected.abs().max())
        else:
            assert torch.equal(found.reshape(expected.shape), expected)


def test_what_is_added_must_have_one_shape(tmp_path) -> None:
    nodes, edges = parallel(("left", "w"), ("right", "last"), ("w", "last"), w=affine(4, 6), last=LIF)
    with pytest.raises(UnsupportedError, match=r"last \(LIF\): signals of shapes \[4\] and \[6\] are added"):
        read_nir(written(nodes, edges, tmp_path / "a.nir"), dt=DT)


def test_sums_in_a_row_that_make_too_many_ways_are_refused(tmp_path) -> None:
    nodes, edges, before = {"w": affine(8, 8)}, [("in", "w")], "w"
    for i in range(20):
        nodes |= {f"{i}a": node("Scale", scale=1.0), f"{i}b": node("Scale", scale=1.0), f"{i}c": affine(8, 8)}
        edges += [(before, f"{i}a"), (before, f"{i}b"), (f"{i}a", f"{i}c"), (f"{i}b", f"{i}c")]
        before = f"{i}c"
    with pytest.raises(UnsupportedError, match="too many ways lead here"):
        read_nir(written(nodes | {"last": LIF}, [*edges, (before, "last")], tmp_path / "a.nir"), dt=DT)


def test_a_subgraph_may_feed_several_nodes(tmp_path) -> None:
    nodes, edges = parallel(
        ("left", "w"), ("left", "v"), ("w", "last"), ("v", "last"), w=affine(4, 6), v=affine(4, 6), last=LIF
    )
    inside = Graph(
        {"input": node("Input", shape=[6]), "lif": LIF, "output": node("Output", shape=[6])},
        (("input", "lif"), ("lif", "output")),
    )
    del nodes["b"], nodes["right"]
    edges = [edge for edge in edges if not {"b", "right"} & {*edge}]
    x = (torch.rand(12, 20, 8, generator=torch.Generator().manual_seed(2)) < 0.4).to(torch.uint8)
    path = written(nodes | {"left": inside}, edges, tmp_path / "a.nir")
    found = read_nir(path, dt=DT, time_steps=12).build().run(x)[1].spikes[-1]
    assert torch.equal(found.double(), followed(nodes, edges, x))
