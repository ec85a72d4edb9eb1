"""The table of `zoo check`, compared with the modules that a spec builds and with counted connections."""

import pytest
import torch
import torch.nn.functional as F

from bootstrap_core import build_network
from specs import ConvSpec, NetworkSpec, summarize


def network(*blocks: dict, shape: tuple[int, ...] = (2, 9, 8), **more) -> NetworkSpec:
    whole = {"name": "net", "time_steps": 4, "input": {"shape": shape}, "blocks": blocks, **more}
    return NetworkSpec.model_validate(whole)


def of_all_kinds(*, flag: bool = False, **more) -> NetworkSpec:
    return network(
        {"kind": "conv", "channels": 4, "kernel": [3, 2], "groups": 2, "bias": flag, "weight_norm": flag},
        {"kind": "avg_pool", "kernel": 2},
        {"kind": "flatten"},
        {"kind": "dense", "features": 7, "bias": flag, "weight_norm": not flag, "norm": "mean_only"},
        {"kind": "affine", "features": 3, "bias": not flag, "weight_norm": flag},
        **more,
    )


def parameters(spec: NetworkSpec) -> list[int]:
    return [sum(p.numel() for p in block.parameters()) for block in build_network(spec, seed=0).blocks]


@pytest.mark.parametrize("encoding", ["spike", "graded"])
@pytest.mark.parametrize("flag", [False, True])
def test_parameters_are_those_of_the_modules(encoding: str, flag: bool) -> None:
    spec = of_all_kinds(flag=flag, input={"shape": (2, 9, 8), "encoding": encoding})
    assert [layer.parameters for layer in summarize(spec)] == parameters(spec)


@pytest.mark.parametrize("learn", ["shared", "per_channel"])
def test_learnt_decays_are_parameters_of_the_layers_that_spike(learn: str) -> None:
    spec = of_all_kinds(neuron={"learn_decays": learn})
    assert [layer.parameters for layer in summarize(spec)] == parameters(spec)


@pytest.mark.parametrize("per", ["neuron", "synapse"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_trained_delays_are_parameters(per: str, recurrent: bool) -> None:
    blocks = [
        {"kind": "conv", "channels": 3, "kernel": 3, "delays": {"learn": True}},
        {"kind": "flatten"},
        {"kind": "dense", "features": 7, "recurrent": recurrent, "delays": {"per": per, "learn": True}},
        {"kind": "dense", "features": 7, "delays": {"per": per}},
        {"kind": "affine", "features": 3},
    ]
    document = {"name": "late", "time_steps": 4, "input": {"shape": (2, 5, 5), "encoding": "events"}, "blocks": blocks}
    spec = NetworkSpec.model_validate(document)
    assert [layer.parameters for layer in summarize(spec)] == parameters(spec)


GEOMETRIES = [
    {"kernel": 3},
    {"kernel": 3, "padding": 1},
    {"kernel": [3, 2], "stride": [2, 3], "padding": [2, 1]},
    {"kernel": [2, 3], "dilation": [3, 2], "padding": [0, 4]},
    {"kernel": 1, "stride": 3},
    {"kernel": 3, "groups": 2},
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_synops_of_a_conv_are_its_connections(geometry: dict) -> None:
    """Each output, for weights and inputs of 1, is its number of connections, without those to the padding."""
    spec = network({"kind": "conv", "channels": 4, **geometry}, {"kind": "flatten"}, {"kind": "affine", "features": 2})
    assert summarize(spec)[1].synops == _connections(spec.blocks[0], (2, 9, 8))


@pytest.mark.parametrize("geometry", [{"kernel": 2}, {"kernel": 3, "stride": 2, "padding": 1}, {"kernel": [2, 4]}])
def test_synops_of_a_pool_are_its_connections(geometry: dict) -> None:
    spec = network({"kind": "avg_pool", **geometry}, {"kind": "flatten"}, {"kind": "affine", "features": 2})
    assert summarize(spec)[1].synops == _connections(spec.blocks[0].as_conv(2), (2, 9, 8))


SKIPPING = [
    {"kind": "conv", "channels": 4, "kernel": 3, "padding": 1},
    {
        "kind": "conv",
        "channels": 4,
        "kernel": 1,
        "weight_norm": True,
        "skips": [{"source": 1, "kind": "identity"}, {"source": 0, "kind": "conv", "kernel": 3, "padding": 1}],
    },
    {"kind": "flatten"},
    {"kind": "dense", "features": 7, "skips": [{"source": 1, "kind": "dense"}]},
    {"kind": "affine", "features": 7, "skips": [{"source": 4, "kind": "identity"}]},
]


def test_skips_count_in_the_figures_of_their_block() -> None:
    spec = network(*SKIPPING)
    plain = network(*({key: value for key, value in block.items() if key != "skips"} for block in SKIPPING))
    rows, without = summarize(spec), summarize(plain)
    assert [row.parameters for row in rows] == parameters(spec)
    projection = 4 * 2 * 3 * 3
    added = [row.weight_bytes - other.weight_bytes for row, other in zip(rows, without, strict=True)]
    assert added == [0, 0, 4 + projection, 0, 7 * 4 * 9 * 8, 7]
    added = [row.synops - other.synops for row, other in zip(rows, without, strict=True)]
    assert added == [0, 0, 4 * 9 * 8 + _connections(spec.blocks[0], (2, 9, 8)), 0, 7 * 4 * 9 * 8, 7]
    assert [row.sources for row in rows] == [(), (0,), (1, 1, 0), (2,), (3, 1), (4, 4)]


def test_a_weight_is_a_byte_and_a_bias_is_none() -> None:
    """Weights of a pool are stored too, although they are not parameters."""
    spec = of_all_kinds(flag=True)
    weights = [0, 4 * 1 * 3 * 2, 4 * 2 * 2, 0, 7 * 4 * 3 * 3, 3 * 7]
    assert spec.shapes[2] == (4, 3, 3)
    assert [layer.weight_bytes for layer in summarize(spec)] == weights


def _connections(conv: ConvSpec, shape: tuple[int, int, int]) -> int:
    weight = torch.ones(conv.channels, shape[0] // conv.groups, *conv.kernel)
    total = F.conv2d(torch.ones(1, *shape), weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    return int(total.sum())
