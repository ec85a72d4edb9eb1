"""`Model`, safetensors files, and the choice of a format by suffix."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from bootstrap_core import Mode, build_network
from converters import Model, read_model, write_model
from converters.file_migration import migrate_file
from converters.formats.safetensors_file import read_metadata, read_safetensors
from specs import ConversionError, IntegrityError, NetworkSpec, UnsupportedError

SPEC = NetworkSpec.model_validate(
    {
        "name": "tiny",
        "time_steps": 4,
        "neuron": {"threshold": 0.5, "learn_decays": "shared"},
        "input": {"shape": [6], "mean": 0.5, "std": 0.25},
        "blocks": [
            {"kind": "dense", "features": 5, "weight_norm": True, "norm": "mean_only"},
            {"kind": "affine", "features": 3, "bias": True},
        ],
    }
)


def fitted_network():
    net = build_network(SPEC, seed=3).train()
    images = torch.rand(64, 6)
    net(images, Mode.SAMPLE)
    net(images, Mode.FIT)
    return net.eval()


def save_with(path, tensors, metadata):
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    return path


def test_a_file_alone_gives_back_the_network_in_both_modes(tmp_path) -> None:
    net, images = fitted_network(), torch.rand(9, 6)
    write_model(Model.of(net), tmp_path / "a.safetensors")
    again = read_model(tmp_path / "a.safetensors").build()
    assert again.spec == SPEC
    assert torch.equal(again(images, Mode.SNN), net(images, Mode.SNN))
    assert torch.equal(again(images, Mode.ANN), net(images, Mode.ANN))


def test_folding_multiplies_weight_norm_out_and_leaves_every_output(tmp_path) -> None:
    net, images = fitted_network(), torch.rand(16, 6)
    folded = Model.of(net, {"by": "me"}).folded()
    assert [block.weight_norm for block in folded.spec.blocks] == [False, False]
    assert "blocks.1.synapse.weight" in folded.tensors
    again = read_model(write_model(folded, tmp_path / "folded.safetensors"))
    assert again.card == {"by": "me"}
    for mode in (Mode.SNN, Mode.ANN):
        assert torch.equal(again.build()(images, mode), net(images, mode))


def packed_file(path):
    """Write a folded model with each kind of weight; return the network before, and the file."""
    spec = {
        "name": "kinds",
        "time_steps": 4,
        "input": {"shape": [2, 6, 6]},
        "blocks": [
            {"kind": "conv", "channels": 4, "kernel": 3, "padding": 1, "norm": "batch", "bias": True},
            {
                "kind": "conv",
                "channels": 4,
                "kernel": 3,
                "padding": 1,
                "norm": "weight_scale",
                "skips": [{"source": 1, "kind": "conv"}],
            },
            {"kind": "avg_pool", "kernel": 2},
            {"kind": "flatten"},
            {"kind": "dense", "features": 5, "weight_norm": True, "norm": "mean_only"},
            {"kind": "affine", "features": 3},
        ],
    }
    net, images = build_network(NetworkSpec.model_validate(spec), seed=5).train(), torch.rand(32, 2, 6, 6)
    for mode in (Mode.SAMPLE, Mode.FIT, Mode.ANN):
        net(images, mode)  # also moves the norms
    with torch.no_grad():
        net.block(1).synapse.weight[0, 0, 0, :2] = torch.tensor([100.0, -100.0])  # beyond the range
    return net.eval(), write_model(Model.of(net).folded(), path)


def test_a_folded_model_is_stored_in_8_bits_and_computes_the_same(tmp_path) -> None:
    net, path = packed_file(tmp_path / "a.safetensors")
    stored = safetensors.torch.load_file(path)
    weights = {name: tensor for name, tensor in stored.items() if name.endswith(".weight") and tensor.numel() > 1}
    assert {tensor.dtype for tensor in weights.values()} == {torch.int8}
    assert len(weights) == 5
    assert stored["blocks.1.synapse.weight_scale"].shape == (4,)
    assert stored["blocks.5.synapse.weight_scale"].tolist() == [1 / 32]
    again = read_model(path).build()
    assert {tensor.dtype for name, tensor in again.state_dict().items() if name in weights} == {torch.float32}
    images = torch.rand(20, 2, 6, 6)
    for mode in (Mode.SNN, Mode.ANN):
        assert torch.equal(again(images, mode), net(images, mode))
    assert torch.equal(again.train()(images, Mode.ANN), net.train()(images, Mode.ANN))


def test_weights_in_8_bits_are_written_again_byte_for_byte_and_kept_by_the_migration_of_norms(tmp_path) -> None:
    _, path = packed_file(tmp_path / "a.safetensors")
    model = read_model(path)
    assert write_model(model, tmp_path / "b.safetensors").read_bytes() == path.read_bytes()
    migrate_file(path, tmp_path / "c.safetensors", to="plain")
    moved = safetensors.torch.load_file(tmp_path / "c.safetensors")
    assert moved.keys() == model.tensors.keys()
    assert all(torch.equal(moved[name], tensor) for name, tensor in model.tensors.items())


def test_weights_off_the_grid_stay_as_they_are(tmp_path) -> None:
    model = Model.of(build_network(SPEC, seed=0))
    path = write_model(model, tmp_path / "a.safetensors")
    assert read_metadata(path)["format"] == 1
    assert torch.int8 not in {tensor.dtype for tensor in safetensors.torch.load_file(path).values()}
    assert all(torch.equal(read_model(path).tensors[name], tensor) for name, tensor in model.tensors.items())


def test_the_same_model_gives_the_same_bytes(tmp_path) -> None:
    net = fitted_network()
    card = {"b": 1, "a": {"y": 2, "x": 3}}
    first = write_model(Model.of(net, card), tmp_path / "a.safetensors").read_bytes()
    model = read_model(tmp_path / "a.safetensors")
    assert model.card == card
    assert write_model(model, tmp_path / "b.safetensors").read_bytes() == first


def test_a_model_is_a_copy(tmp_path) -> None:
    net = fitted_network()
    model = Model.of(net)
    before = model.tensors["blocks.2.bias"].clone()
    with torch.no_grad():
        net.readout.bias.add_(1)
    assert torch.equal(model.tensors["blocks.2.bias"], before)


def test_trained_delays_are_whole_steps_in_a_model_and_go_on_training_from_its_file(tmp_path) -> None:
    late = {"kind": "dense", "features": 4, "delays": {"longest": 3, "learn": True}}
    spec = {"name": "late", "time_steps": 5, "input": {"shape": [6], "encoding": "events"}}
    network = build_network(NetworkSpec.model_validate(spec | {"blocks": [late, {"kind": "affine", "features": 2}]}))
    with torch.no_grad():
        network.block(1).delay.copy_(torch.tensor([-0.3, 0.5, 1.7, 3.4]))
    model = Model.of(network)
    assert model.tensors["blocks.1.delay"].tolist() == [0, 0, 2, 3]
    assert network.block(1).delay.tolist() == pytest.approx([-0.3, 0.5, 1.7, 3.4])
    again = read_safetensors(write_model(model, tmp_path / "a.safetensors")).build()
    assert isinstance(again.block(1).delay, torch.nn.Parameter)
    events = (torch.rand(5, 3, 6) < 0.5).float()
    assert torch.equal(again(events), network(events))


def test_tensors_that_do_not_fit_are_all_named() -> None:
    model = Model.of(fitted_network())
    tensors = dict(model.tensors)
    del tensors["blocks.0.weight"]
    tensors["blocks.9.weight"] = torch.zeros(1)
    tensors["blocks.2.bias"] = torch.zeros(4)
    with pytest.raises(IntegrityError) as error:
        Model(SPEC, tensors).build()
    assert "blocks.0.weight is missing" in str(error.value)
    assert "blocks.9.weight belongs to no block" in str(error.value)
    assert "blocks.2.bias has shape [4], expected [3]" in str(error.value)


def test_a_strangers_safetensors_is_told(tmp_path) -> None:
    path = save_with(tmp_path / "a.safetensors", {"w": torch.zeros(1)}, {"format": "pt"})
    with pytest.raises(ConversionError, match="not a lava-dl checkpoint"):
        read_model(path)
    with pytest.raises(IntegrityError, match="not a snnzoo model"):
        read_safetensors(path)


def test_unknown_suffixes_name_the_known_ones(tmp_path) -> None:
    with pytest.raises(UnsupportedError, match=r"no writer for a file with no suffix.*\.net"):
        write_model(Model.of(fitted_network()), tmp_path / "a")


def test_a_direction_of_zeros_is_refused(tmp_path) -> None:
    model = Model.of(build_network(SPEC, seed=0))
    name = next(name for name in model.tensors if name.endswith("original1"))
    flat = {**model.tensors, name: torch.zeros_like(model.tensors[name])}
    path = write_model(replace(model, tensors=flat), tmp_path / "a.safetensors")
    with pytest.raises(IntegrityError, match=f"{name} has a channel of zeros, for which weight norm returns NaN"):
        read_model(path)
