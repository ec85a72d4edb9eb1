import json
import re

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from bootstrap_core import IntegerNetwork, Mode, build_network
from converters import write_netx
from converters.formats.netx.netx_model import read_netx
from specs import IntegrityError, NetworkSpec, UnsupportedError


def network(*blocks, neuron=None, **fields):
    document = {
        "name": "tiny",
        "time_steps": 4,
        "neuron": neuron or {"threshold": 0.5, "voltage_decay": 0.1},
        "input": {"shape": [2, 6, 6]},
        "blocks": [*blocks, {"kind": "flatten"}, {"kind": "affine", "features": 3, "bias": True}],
        **fields,
    }
    return build_network(NetworkSpec.model_validate(document), seed=1)


CONV = {"kind": "conv", "channels": 4, "kernel": 3, "bias": True, "weight_norm": True}


def test_export_leaves_the_network_as_it_was(tmp_path) -> None:
    net = network(CONV).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modules = [type(module) for module in net.modules()]
    write_netx(net, tmp_path / "a.net")
    assert net.training
    assert [type(module) for module in net.modules()] == modules
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        (CONV | {"delays": {}}, r"block 1: delays of a convolution \(Lava ignores them\)"),
        ({"kind": "flatten"}, None),
    ],
)
def test_delays_that_lava_would_ignore_are_refused(block, problem, tmp_path) -> None:
    recurrent = {"kind": "dense", "features": 5, "recurrent": True, "delays": {}}
    with pytest.raises(UnsupportedError, match=problem or "block 3: delays of a recurrent block"):
        write_netx(network(block, {"kind": "flatten"}, recurrent), tmp_path / "a.net")


@pytest.mark.parametrize("per", ["neuron", "synapse"])
def test_trained_delays_are_written_in_whole_steps(per, tmp_path) -> None:
    late = {"kind": "dense", "features": 4, "delays": {"per": per, "longest": 9, "learn": True}}
    net = network({"kind": "flatten"}, late)
    net = build_network(net.spec.model_copy(update={"blocks": (*net.spec.blocks[:2], net.spec.blocks[-1])}), seed=1)
    with torch.no_grad():
        net.block(2).delay.uniform_(-2, 12, generator=torch.Generator().manual_seed(0))
    path = write_netx(net, tmp_path / "a.net")
    with h5py.File(path) as file:
        written = file["layer/2/delay"][()]
    assert np.array_equal(written, net.block(2).delay.detach().round().clamp(0, 9).numpy())
    images = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    again = read_netx(path).build()
    assert again.block(2).learns_delay
    assert torch.equal(IntegerNetwork(again)(images), IntegerNetwork(net)(images))


def test_save_load_export_train_in_any_order_and_twice(tmp_path) -> None:
    net = network(CONV)
    images, labels = torch.rand(8, 2, 6, 6), torch.arange(8) % 3
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)

    def train() -> None:
        net.train()
        nn.functional.cross_entropy(net(images, Mode.SNN), labels).backward()
        optimizer.step()
        net.eval()

    for _ in range(2):
        saved = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        first = write_netx(net, tmp_path / "a.net", overwrite=True).read_bytes()
        train()
        write_netx(net, tmp_path / "b.net", overwrite=True)
        net.load_state_dict(saved)
        assert write_netx(net, tmp_path / "c.net", overwrite=True).read_bytes() == first
        train()
    assert write_netx(net, tmp_path / "d.net").read_bytes() != first


def test_the_readout_is_exported_with_its_loaded_weights(tmp_path) -> None:
    """lava-dl exports the affine weight of the last forward pass even after load_state_dict; ours is current."""
    spec = network(CONV).spec.model_dump()
    spec["blocks"][-1]["weight_norm"] = True
    net, other = (build_network(NetworkSpec.model_validate(spec), seed=seed) for seed in (0, 1))
    wanted = []
    for each in (net, other):
        each(torch.rand(2, *each.spec.input.shape))
        with h5py.File(write_netx(each, tmp_path / f"{len(wanted)}.net")) as file:
            wanted.append(file["layer/3/weight"][()])
    assert not np.array_equal(*wanted)
    net.load_state_dict(other.state_dict())
    with h5py.File(write_netx(net, tmp_path / "a.net")) as file:
        assert np.array_equal(file["layer/3/weight"][()], wanted[1])


def test_the_readout_never_fires(tmp_path) -> None:
    with h5py.File(write_netx(network(CONV), tmp_path / "a.net")) as file:
        assert file["layer/3/neuron/vThMant"][()] == 262143


def test_an_average_pool_becomes_a_grouped_convolution_of_equal_weights(tmp_path) -> None:
    net = network({"kind": "avg_pool", "kernel": 2, "gain": 1.0})
    with h5py.File(write_netx(net, tmp_path / "a.net")) as file:
        layer = file["layer/1"]
        assert layer["type"][0] == b"conv"
        assert layer["groups"][()] == 2
        assert layer["stride"][()].tolist() == [2, 2]
        assert np.array_equal(layer["weight"][()], np.full((2, 1, 2, 2), 16, np.float32))


def test_biases_are_rounded_to_mantissas(tmp_path) -> None:
    net = network(CONV)
    with torch.no_grad():
        net.blocks[1].bias.copy_(torch.tensor([0.49 / 64, 0.51 / 64, -0.51 / 64, 1000.0]))
    with h5py.File(write_netx(net, tmp_path / "a.net")) as file:
        assert file["layer/1/bias"][()].tolist() == [0, 1, -1, 4095]


def test_flat_graded_networks_start_at_the_first_synapse_with_scaled_threshold(tmp_path) -> None:
    dense = {"kind": "dense", "features": 4}
    net = network(dense, input={"shape": [6], "encoding": "graded", "bits": 4})
    with h5py.File(write_netx(net, tmp_path / "a.net")) as file:
        assert file["layer/0/type"][0] == b"dense"
        assert file["layer/0/neuron/vThMant"][()] == 32 * 15


def test_before_a_graded_convolution_stands_the_shape_of_the_input_and_no_neuron(tmp_path) -> None:
    spec = {"shape": [2, 6, 6], "encoding": "graded", "bits": 4}
    net = network(CONV, input=spec)
    with h5py.File(write_netx(net, tmp_path / "a.net"), "r+") as file:
        assert file["layer/0/type"][0] == b"input"
        assert file["layer/0/shape"][()].tolist() == [2, 6, 6]
        assert set(file["layer/0"]) == {"type", "shape"}
        assert file["layer/1/neuron/vThMant"][()] == 32 * 15
        del file.attrs["snnzoo_spec"]
    again = read_netx(tmp_path / "a.net", input_bits=4)
    assert again.spec.input.shape == (2, 6, 6)
    x = torch.rand(3, 2, 6, 6)
    assert torch.equal(IntegerNetwork(again.build())(x), IntegerNetwork(net)(x))


def test_all_that_netx_cannot_express_is_told_at_once(tmp_path) -> None:
    net = network(CONV, neuron={"reset": "subtract", "start": 0.25})
    with pytest.raises(UnsupportedError) as error:
        write_netx(net, tmp_path / "a.net")
    assert "blocks 0, 1: reset by subtraction" in str(error.value)
    assert "blocks 0, 1: neuron.start 0.25, as voltages start at 0 there" in str(error.value)
    assert not (tmp_path / "a.net").exists()


def test_branches_are_refused_by_block_and_name(tmp_path) -> None:
    left, right = {**CONV, "name": "left"}, {**CONV, "name": "right", "source": 0}
    joined = {"kind": "conv", "channels": 4, "kernel": 1, "source": "left", "name": "joined"}
    net = network(left, right, {**joined, "skips": [{"source": "right", "kind": "conv"}]})
    chain = r"\(a .net is a chain of layers\)"
    with pytest.raises(UnsupportedError) as refused:
        write_netx(net, tmp_path / "net.net")
    for told in (
        f"block 2 right: it reads block 0, not the block before it {chain}",
        f"block 3 joined: it reads block 1 left, not the block before it {chain}",
        f"block 3 joined: skips {chain}",
    ):
        assert re.search(told, str(refused.value))


def test_a_file_whose_spec_has_skips_is_refused(tmp_path) -> None:
    path = write_netx(network(CONV), tmp_path / "a.net")
    with h5py.File(path, "r+") as file:
        spec = json.loads(file.attrs["snnzoo_spec"])
        spec["blocks"][-1]["skips"] = [{"source": 1, "kind": "dense"}]
        file.attrs["snnzoo_spec"] = json.dumps(spec)
    with pytest.raises(IntegrityError, match="layer of block 3: the spec has skips"):
        read_netx(path)
