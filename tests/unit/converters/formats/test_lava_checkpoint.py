"""lava-dl checkpoints: specs from their tensors, facts that tensors lack, and the same outputs as in lava-dl."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from bootstrap_core import Mode, build_network
from converters import read_model, write_model
from converters.formats.lava_checkpoint import model_of_checkpoint, read_checkpoint
from converters.formats.model_files import Hints
from converters.formats.netx.lava_limits import LavaWarning
from converters.formats.netx.netx_model import netx_of
from converters.formats.netx.netx_reader import load_netx
from converters.formats.netx.netx_report import differences
from specs import ConversionError, IntegrityError, NetworkSpec, UnsupportedError, load_spec, parse_spec

pytestmark = pytest.mark.filterwarnings("ignore:images have values from")  # networks of lava-dl take such images

GOLDEN = Path(__file__).parents[3] / "golden"
DENSE = Hints(time_steps=16, threshold=1.25)
CONV_SPEC = """
name: conv
time_steps: 12
delay_shift: true
neuron: {threshold: 0.75, current_decay: 1.0, voltage_decay: 0.05}
input: {shape: [2, 8, 8], exact_input: false}
blocks:
  - {kind: conv, channels: 6, kernel: 3, stride: [2, 1], padding: [1, 0]}
  - {kind: conv, channels: 8, kernel: [2, 3], groups: 2}
  - {kind: flatten}
  - {kind: dense, features: 16}
  - {kind: affine, features: 5}
"""


def checkpoint(name: str) -> dict[str, Tensor]:
    return torch.load(GOLDEN / name / "network.pt", weights_only=True)


def save(path: Path, state: dict[str, Any]) -> Path:
    torch.save(state, path)
    return path


def recorded(name: str) -> tuple[Tensor, Tensor]:
    """Return images, and the logits of lava-dl's SNN."""
    with np.load(GOLDEN / name / "reference.npz") as file:
        return torch.from_numpy(file["x"]), torch.from_numpy(file["snn/logits"])


def datasets(path: Path) -> dict[str, Any]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the checkpoint as after lava-dl's export, which strips weight norm."""
    stripped = {}
    for key, value in state.items():
        if key.endswith("weight_g"):
            v = state[key.replace("weight_g", "weight_v")]
            stripped[key.replace("weight_g", "weight")] = torch._weight_norm(v, value, 0)
        elif not key.endswith("weight_v"):
            stripped[key] = value
    return stripped


@pytest.mark.parametrize("name", ["dense", "dense_meanonly", "conv"])
def test_beside_its_net_a_checkpoint_needs_nothing_else(name, tmp_path) -> None:
    model = read_model(GOLDEN / name / "network.pt")
    assert any("network.net beside it" in note for note in model.notes)
    images, logits = recorded(name)
    assert torch.equal(model.build()(images), logits)
    with pytest.warns(LavaWarning, match="exact_input is false"):
        write_model(model, tmp_path / "x.net")
    written, wanted = datasets(tmp_path / "x.net"), datasets(GOLDEN / name / "network.net")
    assert written.keys() == wanted.keys()
    assert all(np.array_equal(written[key], value) for key, value in wanted.items())


@pytest.mark.parametrize("name", ["dense", "dense_meanonly"])
def test_a_lone_dense_checkpoint_needs_time_steps_and_threshold(name, tmp_path) -> None:
    path = Path(shutil.copy(GOLDEN / name / "network.pt", tmp_path / "lone.pt"))
    images, logits = recorded(name)
    model = read_model(path, DENSE)
    assert torch.equal(model.build()(images), logits)
    again = read_model(write_model(model, tmp_path / "x.safetensors"))
    assert torch.equal(again.build()(images), logits)


@pytest.mark.parametrize("name", ["dense", "dense_meanonly", "conv"])
def test_stripped_checkpoints_run_alike(name, tmp_path) -> None:
    shutil.copy(GOLDEN / name / "network.net", tmp_path / "network.net")
    model = read_model(save(tmp_path / "network.pt", plain(checkpoint(name))))
    images, logits = recorded(name)
    assert torch.equal(model.build()(images), logits)
    assert not any(getattr(block, "weight_norm", False) for block in model.spec.blocks)


def test_parametrized_names_prefixes_and_nesting_do_not_matter(tmp_path) -> None:
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    state = {}
    for key, value in checkpoint("dense").items():
        stem, dot, last = key.rpartition(".")
        state[f"module.{stem}{dot}{names.get(last, last)}"] = value
    path = save(tmp_path / "a.pt", {"epoch": 3, "state_dict": state})
    images, logits = recorded("dense")
    assert torch.equal(read_model(path, DENSE).build()(images), logits)


def test_what_is_missing_is_named_with_a_draft_that_can_be_filled_in(tmp_path) -> None:
    path = Path(shutil.copy(GOLDEN / "conv" / "network.pt", tmp_path / "lone.pt"))
    with pytest.raises(ConversionError) as error:
        read_checkpoint(path)
    text = str(error.value)
    assert "contain\n- the time steps (--time-steps)\n- the threshold (--threshold)\n" in text
    assert "stride, padding and dilation of blocks 1, 2, and the size of the images" in text
    filled = text.partition("\n\n")[2]
    for unknown, value in (("[2, '?', '?']", "[2, 8, 8]"), ("time_steps: '?'", "time_steps: 12"),
                           ("threshold: '?'", "threshold: 0.75"), ("stride: '?'", "stride: [2, 1]"),
                           ("padding: '?'", "padding: [1, 0]")):  # fmt: skip
        assert unknown in filled
        filled = filled.replace(unknown, value, 1)
    filled = filled.replace("stride: '?'", "stride: 1").replace("padding: '?'", "padding: 0")
    filled = filled.replace("dilation: '?'", "dilation: 1")
    images, logits = recorded("conv")
    assert torch.equal(read_model(path, Hints(spec=parse_spec(filled))).build()(images), logits)


def draft_of_the_pool() -> str:
    """Return the draft of a spec for the golden pool network, with its unknown values filled in."""
    with pytest.raises(ConversionError, match="change its kind to dense") as error:
        read_checkpoint(GOLDEN / "pool" / "network.pt", time_steps=12, threshold=1.0, input_bits=1)
    draft = str(error.value).partition("\n\n")[2]
    for unknown, value in (("[2, '?', '?']", "[2, 12, 12]"), ("affine", "dense"),
                           ("stride: '?'", "stride: 2"), ("padding: '?'", "padding: 1"),
                           ("stride: '?'", "stride: 2")):  # fmt: skip
        assert unknown in draft
        draft = draft.replace(unknown, value, 1)
    return draft.replace("stride: '?'", "stride: 1").replace("padding: '?'", "padding: 0").replace("'?'", "1")


def test_a_pool_without_an_input_block_spikes_as_it_did_there() -> None:
    network = read_model(GOLDEN / "pool" / "network.pt", Hints(spec=parse_spec(draft_of_the_pool()))).build()
    assert [layer.kind for layer in network.spec.blocks] == ["conv", "avg_pool", "conv", "flatten", "dense"]
    with np.load(GOLDEN / "pool" / "reference.npz") as file:
        _, trace = network.run(torch.from_numpy(file["x"]).float(), Mode.SNN)
        for i, spikes in enumerate(trace.spikes[1:]):
            wanted = torch.from_numpy(file[f"snn/{i}"]).movedim(-1, 0)
            assert spikes is not None
            assert torch.equal(spikes.to(torch.uint8), wanted)
            assert 0.1 < wanted.float().mean() < 0.9


def test_a_pool_of_other_weights_or_size_is_told() -> None:
    state = checkpoint("pool")
    spec = parse_spec(draft_of_the_pool())
    state["blocks.1.synapse.weight"][0, 0, 0, 0] += 1
    with pytest.raises(IntegrityError, match=r"block 1 is not a pool with kernel \[2, 2\]: its weights differ"):
        model_of_checkpoint(state, origin="a.pt", spec=spec)
    state["blocks.1.synapse.weight"] = torch.ones(1, 1, 3, 2, 1)
    with pytest.raises(IntegrityError, match=r"block 1 is not a pool with kernel \[2, 2\]: its kernel is \[3, 2\]"):
        model_of_checkpoint(state, origin="a.pt", spec=spec)


def test_spikes_for_input_and_no_input_block_is_told() -> None:
    spec = parse_spec(draft_of_the_pool().replace("encoding: graded", "").replace("bits: 1", "exact_input: false"))
    with pytest.raises(IntegrityError, match=r"an input block and 4 .*without an input block, .* must be graded"):
        model_of_checkpoint(checkpoint("pool"), origin="a.pt", spec=spec)


def test_a_given_spec_goes_before_the_net_beside(tmp_path) -> None:
    for file in ("network.pt", "network.net"):
        shutil.copy(GOLDEN / "conv" / file, tmp_path / file)
    document = parse_spec(CONV_SPEC).model_dump() | {"time_steps": 5}
    model = read_model(tmp_path / "network.pt", Hints(spec=NetworkSpec.model_validate(document)))
    assert (model.spec.time_steps, model.notes) == (5, ())


def test_what_the_net_beside_does_not_say_is_told(tmp_path) -> None:
    for file in ("network.pt", "network.net"):
        shutil.copy(GOLDEN / "dense" / file, tmp_path / file)
    with h5py.File(tmp_path / "network.net", "r+") as file:
        del file["simulation"]
    told = "\n".join(read_model(tmp_path / "network.pt").notes)
    assert "T = 16 is assumed" in told
    assert "threshold and geometry are those of network.net beside it" in told
    assert told.count("--mean") == 1
    assert "is assumed" not in "".join(read_model(tmp_path / "network.pt", Hints(time_steps=7)).notes)


def test_bits_of_pixels_may_be_said_for_a_net_beside_without_input_neurons(tmp_path) -> None:
    state = {key: value for key, value in checkpoint("dense").items() if not key.startswith("blocks.0.")}
    shutil.copy(GOLDEN / "dense" / "network.net", tmp_path / "network.net")
    with h5py.File(tmp_path / "network.net", "r+") as file:
        layers = [file["layer"][str(i)] for i in range(1, len(file["layer"]))]
        for i, layer in enumerate(layers):
            file.move(layer.name, f"new/{i}")
        del file["layer"]
        file.move("new", "layer")
    path = save(tmp_path / "network.pt", state)
    assert read_model(path, Hints(input_bits=4)).spec.input.bits == 4
    events = read_model(path)
    assert (events.spec.input.encoding, events.spec.input.bits) == ("events", 1)
    assert any("for still images, give the bits of a pixel" in note for note in events.notes)


def test_mean_and_std_are_asked_for_where_no_spec_says_them() -> None:
    path = GOLDEN / "dense" / "network.pt"
    assert any("--mean" in note for note in read_model(path).notes)
    model = read_model(path, Hints(mean=0.5, std=0.25))
    assert (model.spec.input.mean, model.spec.input.std) == (0.5, 0.25)
    assert not any("--mean" in note for note in model.notes)


def test_decays_of_each_channel(tmp_path) -> None:
    state = checkpoint("dense")
    state["blocks.1.neuron.voltage_decay"] = torch.linspace(0, 4096, 32)
    model = model_of_checkpoint(state, origin="a.pt", time_steps=16, threshold=1.25)
    assert model.spec.neuron_of(model.spec.layers[1]).learn_decays == "per_channel"
    assert model.spec.neuron_of(model.spec.layers[2]).learn_decays == "none"
    _, decays = model.build().blocks[1].neuron.quantized_decays()
    assert torch.equal(decays * 4096, torch.linspace(0, 4096, 32).round())


def test_decays_of_each_channel_of_the_input() -> None:
    state = checkpoint("dense")
    n_inputs = state["blocks.1.synapse.weight_v"].shape[1]
    for name in ("current_decay", "voltage_decay"):
        state[f"blocks.0.neuron.{name}"] = torch.linspace(1, 4096, n_inputs)
    model = model_of_checkpoint(state, origin="a.pt", time_steps=16, threshold=1.25)
    assert model.tensors["blocks.0.neuron.voltage_decay"].shape == (n_inputs,)


def test_a_mean_enters_the_voltage_as_lava_dls_does_whatever_the_current_decay() -> None:
    state = checkpoint("dense_meanonly")
    for key in state:
        if key.endswith("current_decay"):
            state[key] = torch.tensor([1000.0])
    network = model_of_checkpoint(state, origin="a.pt", time_steps=16, threshold=1.25).build()
    wanted = -(state["blocks.1.neuron.norm.running_mean"] * 32).round() / 32  # rounded to 2/64
    assert wanted.any()
    assert torch.equal(network.blocks[1].quantized_bias(), wanted)


def test_an_input_block_without_weight_and_bias_leaves_pixels_as_they_are() -> None:
    state = checkpoint("dense")
    del state["blocks.0.weight"], state["blocks.0.bias"]
    tensors = model_of_checkpoint(state, origin="a.pt", time_steps=16, threshold=1.25).tensors
    assert (float(tensors["blocks.0.weight"]), float(tensors["blocks.0.bias"])) == (1.0, 0.0)


FOREIGN = {
    "blocks.1.neuron.norm.running_var": (torch.ones(1), "block 1: a batch norm that scales"),
    "blocks.2.delay.delay": (torch.ones(24), "block 2: axonal delays"),
    "blocks.1.recurrent_synapse.weight": (torch.ones(32, 32), "block 1: recurrent synapses"),
    "blocks.1.synapse.imag.weight": (torch.ones(32, 49), "block 1: complex synapses"),
    "blocks.3.neuron.sin_decay": (torch.ones(1), "block 3: resonate-and-fire neurons"),
    "blocks.3.neuron.mu": (torch.ones(1), "block 3: a tensor neuron.mu, which CUBA blocks do not have"),
}


@pytest.mark.parametrize("key", FOREIGN)
def test_foreign_blocks_are_refused_by_name(key) -> None:
    tensor, message = FOREIGN[key]
    with pytest.raises(UnsupportedError, match=message):
        model_of_checkpoint(checkpoint("dense") | {key: tensor}, origin="a.pt")


def test_delays_of_zero_steps_are_none() -> None:
    zero = {f"blocks.{i}.delay.delay": torch.zeros(1) for i in (1, 2)}
    given = {"origin": "a.pt", "time_steps": 16, "threshold": 1.25}
    model = model_of_checkpoint(checkpoint("dense") | zero, **given)
    assert model.spec == model_of_checkpoint(checkpoint("dense"), **given).spec


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("neuron.delta.threshold", "neuron.sin_decay"), "resonate-and-fire neurons"),
        (("neuron.sin_decay", "neuron.cos_decay", "synapse.real.weight"), "resonate-and-fire neurons"),
    ],
)
def test_a_checkpoint_of_other_neurons_is_one_of_lava_dl(names, what) -> None:
    state = {f"blocks.{i}.{name}": torch.ones(3, 3) for i in (0, 1) for name in names}
    with pytest.raises(UnsupportedError, match=f"block 0: {what}; block 1: {what}"):
        model_of_checkpoint(state, origin="a.pt")


def test_a_wrong_net_beside_a_checkpoint_is_named(tmp_path) -> None:
    path = save(tmp_path / "network.pt", checkpoint("dense"))
    for other, message in (("conv", "network.net beside it has"), ("dense", "not fit network.net beside it")):
        shutil.copy(GOLDEN / other / "network.net", tmp_path / "network.net")
        if other == "dense":
            with h5py.File(tmp_path / "network.net", "a") as file:
                layer = file["layer/3"]
                for name in ("weight", "bias"):
                    if name in layer:
                        kept = layer[name][:-1]
                        del layer[name]
                        layer[name] = kept
                layer["shape"][...] = len(kept)
        with pytest.raises(IntegrityError, match=message):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "state",
    [
        {"conv1.weight": torch.ones(3, 3)},
        {"layers.0.weight": torch.ones(3, 3), "layers.0.bias": torch.ones(3)},
        {"a.0.neuron.current_decay": torch.ones(1), "b.0.neuron.current_decay": torch.ones(1)},
    ],
)
def test_other_networks_are_sent_to_migrate(state) -> None:
    with pytest.raises(ConversionError, match=r"not a lava-dl checkpoint.*migrate"):
        model_of_checkpoint(state, origin="a.pt")


def test_a_spec_of_another_shape_is_told() -> None:
    document = parse_spec(CONV_SPEC).model_dump()
    document["blocks"][3]["features"] = 17
    with pytest.raises(IntegrityError) as error:
        model_of_checkpoint(checkpoint("conv"), origin="a.pt", spec=NetworkSpec.model_validate(document))
    assert "blocks.4.synapse.parametrizations.weight.original1 has shape [16, 96, 1, 1, 1], expected [17, 96]" in str(
        error.value
    )


def test_a_spec_with_skips_is_told() -> None:
    document = parse_spec(CONV_SPEC).model_dump()
    document["blocks"][3]["skips"] = [{"source": 1, "kind": "dense"}]
    with pytest.raises(ConversionError, match=r"a.pt: lava-dl's blocks form a chain, but the spec of .* has skips"):
        model_of_checkpoint(checkpoint("conv"), origin="a.pt", spec=NetworkSpec.model_validate(document))


@pytest.mark.parametrize(
    ("input_bits", "taken"), [(None, {"encoding": "events", "bits": 1}), (3, {"encoding": "graded", "bits": 3})]
)
def test_without_an_input_block_events_or_still_images_enter_the_weights(input_bits, taken) -> None:
    state = {key: value for key, value in checkpoint("dense").items() if not key.startswith("blocks.0.")}
    model = model_of_checkpoint(state, origin="a.pt", time_steps=16, threshold=1.25, input_bits=input_bits)
    assert model.spec.input.model_dump(include=taken.keys()) == taken
    assert any("--input-bits" in note for note in model.notes) == (input_bits is None)
    spec = NetworkSpec.model_validate(
        {
            "name": "events", "time_steps": 16, "neuron": {"threshold": 1.25}, "delay_shift": True,
            "input": {"shape": [49], **taken},
            "blocks": [{"kind": "dense", "features": 32}, {"kind": "dense", "features": 24},
                       {"kind": "dense", "features": 10}],
        }
    )  # fmt: skip
    model = model_of_checkpoint(state, origin="a.pt", spec=spec)
    g, v = state["blocks.3.synapse.weight_g"], state["blocks.3.synapse.weight_v"]
    weight = torch._weight_norm(v, g, 0).reshape(10, 24)
    assert torch.equal(model.build().blocks[3].quantized_weight(), (weight * 32).round() / 32)
    given = torch.rand(3, 49) if input_bits else torch.randint(2, (16, 3, 49)).float()
    assert model.build()(given).shape == (3, 10)


def test_bits_of_pixels_that_nothing_takes_are_refused(tmp_path) -> None:
    lone = Path(shutil.copy(GOLDEN / "dense" / "network.pt", tmp_path / "lone.pt"))
    with pytest.raises(ConversionError, match="has an input block, which takes any pixels: leave out --input-bits"):
        read_checkpoint(lone, time_steps=16, threshold=1.25, input_bits=4)
    with pytest.raises(ConversionError, match="those of the spec; leave out --input-bits"):
        read_checkpoint(GOLDEN / "conv" / "network.pt", spec=parse_spec(CONV_SPEC), input_bits=4)


def test_the_checkpoint_itself_is_left_as_it_was() -> None:
    state = checkpoint("dense")
    before = {key: value.clone() for key, value in state.items()}
    model = model_of_checkpoint(state, origin="a.pt", time_steps=16, threshold=1.25)
    network = model.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7.0)
    assert all(torch.equal(state[key], value) for key, value in before.items())
    assert build_network(model.spec).state_dict().keys() == model.tensors.keys()


# --- sigma-delta blocks


BLOCKS = GOLDEN / "sigma_delta_blocks"


def of_sigma_delta() -> dict[str, torch.Tensor]:
    return torch.load(BLOCKS / "network.pt", weights_only=True)


def test_a_sigma_delta_checkpoint_gives_the_messages_and_values_of_lava_dl() -> None:
    model = read_checkpoint(BLOCKS / "network.pt")
    assert model.spec.gives_values
    assert not model.spec.delay_shift
    assert any("lava-dl's blocks round frames to 2/64" in note for note in model.notes)
    recorded = np.load(BLOCKS / "reference.npz")
    _, trace = model.build().run(torch.from_numpy(recorded["frames"]).movedim(-1, 0))
    for i in (0, 1, 3):
        expected = torch.from_numpy(recorded[f"messages/{i}"]).movedim(-1, 0)
        assert expected.count_nonzero() > 20
        assert torch.allclose(trace.spikes[i].float() / 4096, expected, atol=2 / 4096), i
    expected = torch.from_numpy(recorded["values"]).movedim(-1, 0)
    assert torch.allclose(trace.values, expected, atol=4 / 4096)


def test_a_sigma_delta_checkpoint_has_the_integers_of_its_export() -> None:
    network = read_checkpoint(BLOCKS / "network.pt").build()
    assert list(differences(netx_of(network), load_netx(BLOCKS / "network.net"))) == []


def test_a_bias_that_was_set_is_added_to_that_of_the_norm() -> None:
    spec = read_checkpoint(BLOCKS / "network.pt").spec
    state = of_sigma_delta()
    state["blocks.3.neuron.bias"] = torch.arange(6.0) / 4
    before, after = (model_of_checkpoint(s, origin="a.pt", spec=spec).build() for s in (of_sigma_delta(), state))
    added = after.block(3).quantized_bias() - before.block(3).quantized_bias()
    assert torch.equal(added, torch.arange(6.0) / 4)


def test_a_learnt_threshold_is_that_of_the_checkpoint() -> None:
    spec = read_checkpoint(BLOCKS / "network.pt").spec
    state = of_sigma_delta() | {"blocks.1.neuron.delta.threshold": torch.tensor([0.25])}
    found = model_of_checkpoint(state, origin="a.pt", spec=spec).spec
    assert [round(64 * found.neuron_of(found.layers[i]).threshold) for i in (0, 1, 3)] == [3, 16, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"blocks.1.neuron.delta.threshold": torch.tensor([0.25, 0.5, 0.5, 0.5])},
            "threshold differs between channels",
        ),
        ({"blocks.0.weight": torch.ones(1)}, "block 0: a tensor weight, which sigma-delta blocks do not have"),
        ({"blocks.1.neuron.current_decay": torch.ones(1)}, "block 1: a tensor neuron.current_decay, which sigma-delta"),
        ({"blocks.1.delay.delay": torch.ones(4)}, "block 1: axonal delays"),
        ({"blocks.1.neuron.bias": torch.ones(3)}, "neuron.bias has 3 values, expected 1 or 4"),
    ],
)
def test_what_sigma_delta_blocks_do_not_have_is_refused(change, message: str) -> None:
    spec = read_checkpoint(BLOCKS / "network.pt").spec
    with pytest.raises((IntegrityError, UnsupportedError), match=message):
        model_of_checkpoint(of_sigma_delta() | change, origin="a.pt", spec=spec)


def test_a_sigma_delta_checkpoint_needs_a_spec_of_such_neurons() -> None:
    with pytest.raises(ConversionError, match=r"of a sigma-delta network, give the --spec, or put the .net"):
        model_of_checkpoint(of_sigma_delta(), origin="a.pt")
    with pytest.raises(ConversionError, match="the spec has CUBA neurons, the checkpoint sigma-delta neurons"):
        model_of_checkpoint(of_sigma_delta(), origin="a.pt", spec=load_spec("mnist-conv"))
