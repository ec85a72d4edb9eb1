"""Limits of Lava: what is rewritten, what is refused, and how a file runs there.

The expected figures were found by running such files in Lava; `tests/benchmarks/check_netx_corners.py` repeats that.
"""

import warnings

import h5py
import numpy as np
import pytest
import torch

from bootstrap_core import IntegerNetwork, Network, build_network
from converters import Model, write_model, write_netx
from converters.formats.netx.lava_limits import LavaWarning, how_lava_runs, limit_problems, unlike_lava
from converters.formats.netx.netx_model import netx_of, read_netx
from converters.formats.netx.netx_reader import load_netx
from converters.formats.netx.netx_report import differences
from converters.formats.netx.netx_writer import save_netx
from specs import NetworkSpec, UnsupportedError
from zoo.runs.verification import verify_model


def network(*blocks, shape=(2, 6, 6), **fields) -> Network:
    document = {"name": "tiny", "time_steps": 4, "input": {"shape": shape}, "blocks": blocks, **fields}
    net = build_network(NetworkSpec.model_validate(document), seed=1)
    with torch.no_grad():
        net.blocks[len(blocks)].synapse.weight[0, 0] = 0.5  # Lava cannot load a readout of zeros
    return net


FLATTEN, READOUT = {"kind": "flatten"}, {"kind": "affine", "features": 3, "bias": True}
DENSE = {"kind": "dense", "features": 4, "bias": True}
EVENTS = {"shape": (6,), "encoding": "events"}


def with_readout_weights(*mants: int) -> Network:
    net = network(READOUT, shape=(6,))
    with torch.no_grad():
        net.blocks[1].synapse.weight.copy_(torch.tensor(mants).repeat(18)[:18].reshape(3, 6) / 64)
    return net


@pytest.mark.parametrize(
    ("groups", "fewer"), [(127, 127), (128, 64), (192, 96), (254, 127), (300, 100), (131, 1), (1024, 64)]
)
@pytest.mark.parametrize("kind", ["avg_pool", "conv"])
def test_more_groups_than_lava_holds_become_fewer_with_zeros_between(kind, groups, fewer, tmp_path) -> None:
    block = {"kind": kind, "kernel": 2}
    if kind == "conv":
        block |= {"channels": 2 * groups, "groups": groups, "bias": True}
    net = network(block, FLATTEN, READOUT, shape=(groups, 4, 4))
    path = write_netx(net, tmp_path / "a.net")
    with h5py.File(path) as file:
        assert file["layer/1/groups"][()] == fewer
        assert file["layer/1/weight"].shape[1] == groups // fewer
        assert file["layer/1/inChannels"][()] == groups
        weight = torch.from_numpy(file["layer/1/weight"][()]) / 64
    x = (torch.rand(2, groups, 4, 4) < 0.5).float()
    own = net.blocks[1].quantized_weight()
    wanted = torch.nn.functional.conv2d(x, own, groups=groups)
    assert torch.equal(torch.nn.functional.conv2d(x, weight, groups=fewer), wanted)
    assert limit_problems(load_netx(path)) == []


def test_merged_groups_come_back_as_they_were(tmp_path) -> None:
    blocks = {"kind": "conv", "channels": 256, "kernel": 1, "groups": 128}, {"kind": "avg_pool", "kernel": 2}
    net = network(*blocks, FLATTEN, READOUT, shape=(128, 4, 4))
    path = write_netx(net, tmp_path / "a.net")
    again = read_netx(path)
    assert again.spec.blocks[0].groups == 128
    weight = again.tensors["blocks.1.synapse.weight"]
    assert torch.equal(weight, net.blocks[1].quantized_weight())
    assert write_netx(again.build(), tmp_path / "b.net").read_bytes() == path.read_bytes()
    assert not list(differences(netx_of(net), load_netx(path)))
    with h5py.File(path, "a") as file:
        del file.attrs["snnzoo_spec"]
    images = torch.rand(2, 128, 4, 4)
    inferred = read_netx(path).build()
    assert inferred.spec.blocks[0].groups == 64
    assert torch.equal(IntegerNetwork(inferred)(images), IntegerNetwork(net)(images))


UNEVEN = (
    {"kind": "conv", "channels": 128, "kernel": 3, "stride": 2, "padding": [0, 0, 1, 1], "groups": 128, "bias": True},
    {"kind": "conv", "channels": 4, "kernel": [3, 2], "padding": [0, 1, 1, 0], "dilation": [2, 1]},
    {"kind": "avg_pool", "kernel": 2, "padding": [0, 0, 1, 1]},
)


def test_uneven_padding_becomes_zeros_in_the_kernel_and_comes_back(tmp_path) -> None:
    net = network(*UNEVEN, FLATTEN, READOUT, shape=(128, 8, 8), neuron={"threshold": 0.1})
    path = write_netx(net, tmp_path / "a.net")
    conv, dilated, pool = (layer.window for layer in load_netx(path).synaptic[:3])
    assert (conv.kernel, conv.padding, conv.groups) == ((4, 4), (1, 1), 64)
    assert (dilated.kernel, dilated.padding, dilated.dilation) == ((6, 3), (1, 1), (1, 1))
    assert (pool.kernel, pool.padding) == ((3, 3), (1, 1))
    again = read_netx(path)
    assert [block.padding for block in again.spec.blocks[:3]] == [(0, 0, 1, 1), (0, 1, 1, 0), (0, 0, 1, 1)]
    assert torch.equal(again.tensors["blocks.1.synapse.weight"], net.blocks[1].quantized_weight())
    assert write_netx(again.build(), tmp_path / "b.net").read_bytes() == path.read_bytes()
    assert not list(differences(netx_of(net), load_netx(path)))
    with h5py.File(path, "a") as file:
        del file.attrs["snnzoo_spec"]
    images = torch.rand(2, 128, 8, 8)
    logits = IntegerNetwork(net)(images)
    assert logits.any()
    assert torch.equal(IntegerNetwork(read_netx(path).build())(images), logits)


def test_a_weight_in_place_of_the_zeros_is_told(tmp_path) -> None:
    path = write_netx(network(*UNEVEN, FLATTEN, READOUT, shape=(128, 8, 8)), tmp_path / "a.net")
    with h5py.File(path, "a") as file:
        file["layer/2/weight"][0, 0, 0, 0] = 2
    with pytest.raises(Exception, match=r"kernel is \(6, 3\), expected \(3, 2\) from the spec"):
        read_netx(path)


def test_a_weight_between_merged_groups_is_told(tmp_path) -> None:
    net = network({"kind": "avg_pool", "kernel": 2}, FLATTEN, READOUT, shape=(128, 4, 4))
    path = write_netx(net, tmp_path / "a.net")
    with h5py.File(path, "a") as file:
        file["layer/1/weight"][0, 1] = 2
    with pytest.raises(Exception, match="the weights differ from those of the pool"):
        read_netx(path)


LOST = [(-2,), (-256,), (-128, -2), (-8, 0), (-256, -2, 0), (-16, -2), (-64, -4, 0), (-4, -2)]
KEPT = [(-6, -2), (-6, 0), (-254,), (-130, -4), (-256, 2), (-2, 2), (2,), (254, 0), (128, 0)]


@pytest.mark.parametrize("mants", LOST)
def test_weights_that_lava_changes_are_refused_by_name(mants, tmp_path) -> None:
    message = rf"layer 1: no weight is positive, and the lowest mantissa is {min(mants)} \(Lava changes"
    with pytest.raises(UnsupportedError, match=message):
        write_netx(with_readout_weights(*mants), tmp_path / "a.net")
    assert not (tmp_path / "a.net").exists()


def test_a_dense_layer_of_zeros_is_refused(tmp_path) -> None:
    with pytest.raises(UnsupportedError, match=r"layer 1: all weights are 0 \(Lava cannot load"):
        write_netx(with_readout_weights(0), tmp_path / "a.net")


@pytest.mark.parametrize("mants", KEPT)
def test_weights_that_lava_keeps_are_written(mants, tmp_path) -> None:
    write_netx(with_readout_weights(*mants), tmp_path / "a.net")


@pytest.mark.parametrize(
    ("name", "block", "shape"),
    [
        ("kernel", {"kernel": [1, 128]}, (1, 1, 130)),
        ("stride", {"kernel": 1, "stride": [1, 128]}, (1, 1, 130)),
        ("padding", {"kernel": 1, "padding": [0, 128]}, (1, 1, 3)),
        ("dilation", {"kernel": [1, 2], "dilation": [1, 128]}, (1, 1, 130)),
    ],
)
def test_a_geometry_that_lava_cannot_hold_is_refused(name, block, shape, tmp_path) -> None:
    net = network({"kind": "conv", "channels": 2, **block}, FLATTEN, READOUT, shape=shape)
    with pytest.raises(UnsupportedError, match=rf"layer 1: {name} 128 \(Lava holds at most 127"):
        write_netx(net, tmp_path / "a.net")


def checked(path) -> tuple[bool, str]:
    (check,) = (check for check in verify_model(str(path)) if check.name == "limits of Lava")
    return check.passed, check.found


def test_verify_tells_what_lava_would_change(tmp_path) -> None:
    path = save_netx(netx_of(with_readout_weights(-2)), tmp_path / "a.net")
    passed, found = checked(path)
    assert not passed
    assert found.startswith("layer 1: no weight is positive")
    path = write_netx(with_readout_weights(-6), tmp_path / "b.net")
    assert checked(path) == (True, "the same integers; run it with reset_interval=4")


@pytest.mark.parametrize(
    ("fields", "told", "same"),
    [
        ({}, [], True),
        ({"delay_shift": True}, ["from rest for 4 steps, without reset_interval; with reset_interval=4"], True),
        (
            {"delay_shift": True, "input": EVENTS, "blocks": [DENSE | {"bias": False}, READOUT]},
            ["from rest for 5"],
            True,
        ),
        (
            {"delay_shift": True, "input": EVENTS},
            ["from rest for 5 steps, without reset_interval (the same spikes only without biases)"],
            False,
        ),
        (
            {"delay_shift": True, "input": EVENTS, "blocks": [DENSE | {"bias": False, "norm": "mean_only"}, READOUT]},
            ["only without biases"],
            False,
        ),
        (
            {"delay_shift": True, "blocks": [DENSE | {"delays": {}}, READOUT]},
            ["layer k acts k steps late (the same spikes only without biases behind", "from rest for 4 steps"],
            False,
        ),
        (
            {"delay_shift": True, "input": EVENTS, "blocks": [DENSE | {"delays": {}, "bias": False}, READOUT]},
            ["layer k acts k steps late", "from rest for 5 steps"],
            True,
        ),
        ({"blocks": [DENSE | {"recurrent": True}, READOUT]}, ["own, with reset_interval=4"], True),
        ({"blocks": [DENSE | {"delay_shift": True}, READOUT]}, ["no run in Lava gives the same spikes"], False),
        ({"input": {"shape": (6,), "exact_input": False}}, ["truncates the input's currents"], False),
    ],
)
def test_it_is_told_how_a_network_runs_in_lava_and_warned_where_no_run_is_the_same(
    fields, told, same, tmp_path, recwarn
) -> None:
    fields = {"input": {"shape": (6,)}, "blocks": [DENSE, READOUT], "name": "tiny", "time_steps": 4} | fields
    model = Model.of(build_network(NetworkSpec.model_validate(fields), seed=0))
    notes, unlike = how_lava_runs(model.spec), unlike_lava(model.spec)
    for note, part in zip(notes, told, strict=True):
        assert part in note
    assert set(unlike) <= set(notes)
    assert bool(unlike) is not same
    warnings.simplefilter("always")
    paths = [write_netx(model.build(), tmp_path / "a.net"), write_model(model, tmp_path / "b.net")]
    said = [str(each.message) for each in recwarn if each.category is LavaWarning]
    assert said == ([f"{path}: {'; '.join(unlike)}" for path in paths] if unlike else [])
    if notes:
        assert checked(paths[0]) == (True, "; ".join(notes))


def test_a_readout_that_never_fires_may_reset_by_subtraction(tmp_path) -> None:
    net = network(DENSE, READOUT | {"neuron": {"reset": "subtract"}}, shape=(6,))
    path = write_netx(net, tmp_path / "a.net")
    images = torch.rand(3, 6)
    assert np.array_equal(IntegerNetwork(read_netx(path).build())(images), IntegerNetwork(net)(images))
