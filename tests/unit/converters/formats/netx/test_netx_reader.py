"""netx files of every form: their networks run with the integers of the file, and write the same integers."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from netx_files import save

from bootstrap_core import IntegerNetwork, build_network
from converters import write_netx
from converters.formats.netx.netx_model import read_netx
from specs import ConversionError, IntegrityError, NetworkSpec, UnsupportedError

GOLDEN = Path(__file__).parents[4] / "golden"
CUBA = {"type": b"CUBA", "iDecay": 4096, "vDecay": 123, "vThMant": 80, "refDelay": 1, "gradedSpike": False}
LOIHI = CUBA | {"type": b"LOIHI", "wgtExp": 0, "theta": 5120, "tauRho": 0.5, "scaleRho": 10.0}


def datasets(path: Path) -> dict[str, Any]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def even(*shape: int, seed: int = 0) -> np.ndarray:
    return (2 * np.random.default_rng(seed).integers(-20, 30, shape)).astype(np.float32)


INPUT = {"type": "input", "shape": [6], "weight": [64.0], "bias": [10.0], "neuron": CUBA}
DENSE = {"type": "dense", "shape": [4], "weight": even(4, 6), "neuron": CUBA}
READOUT = {"type": "dense", "shape": [3], "weight": even(3, 4, seed=1), "neuron": CUBA | {"vThMant": 262143}}


def same_spikes(path: Path, **options: Any) -> None:
    """Check that a file read, written and read again gives the same network, and that both engines agree on it."""
    model = read_netx(path, **options)
    network = model.build()
    images = torch.rand(4, *model.spec.input.shape)
    if model.spec.input.is_events:
        images = (torch.rand(9, *images.shape) > 0.5).float()
    logits = network(images)
    assert torch.equal(IntegerNetwork(network)(images), logits)
    again = read_netx(write_netx(network, path.with_suffix(".hdf5"), overwrite=True))
    assert torch.equal(again.build()(images), logits)


# --- round trips


BLOCKS = {
    "dense": ([6], [{"kind": "dense", "features": 5, "bias": True, "weight_norm": True}]),
    "dense mean_only": ([6], [{"kind": "dense", "features": 5, "norm": "mean_only"}]),
    "dense weight_scale": ([6], [{"kind": "dense", "features": 5, "norm": "weight_scale"}]),
    "conv": ([2, 6, 6], [{"kind": "conv", "channels": 4, "kernel": [3, 2], "stride": [2, 1], "padding": [1, 0],
                          "dilation": [1, 2], "groups": 2, "bias": True}, {"kind": "flatten"}]),
    "avg_pool": ([2, 6, 6], [{"kind": "avg_pool", "kernel": 2, "gain": 2.0}, {"kind": "flatten"}]),
    "flatten": ([2, 3, 3], [{"kind": "flatten"}]),
    "flatten what is flat": ([6], [{"kind": "flatten"}]),
}  # fmt: skip


ENCODED = [("spike", kind) for kind in BLOCKS] + [
    ("graded", kind) for kind, (_, blocks) in BLOCKS.items() if blocks[0]["kind"] in {"dense", "conv"}
]


@pytest.mark.parametrize("readout", ["affine", "dense"])
@pytest.mark.parametrize(("encoding", "kind"), ENCODED)
def test_every_kind_of_block_comes_back(kind, readout, encoding, tmp_path) -> None:
    shape, blocks = BLOCKS[kind]
    entering = {"mean": 0.4, "std": 0.5} if encoding == "spike" else {"bits": 3}
    document = {
        "name": "tiny",
        "time_steps": 7,
        "neuron": {"threshold": 0.4, "current_decay": 0.5, "voltage_decay": 0.1, "tau_grad": 0.2},
        "input": {"shape": shape, "encoding": encoding, **entering},
        "blocks": [*blocks, {"kind": readout, "features": 3, "bias": True, "weight_norm": True}],
    }
    network = build_network(NetworkSpec.model_validate(document), seed=2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.1, 0.3)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.3, 0.1)
            if name.endswith("running_variance"):
                buffer.fill_(0.2)
    images = torch.rand(16, *shape)
    first = write_netx(network, tmp_path / "a.net")
    model = read_netx(first)
    assert torch.equal(model.build()(images), network(images))
    assert network(images).abs().sum() > 0
    assert model.spec.neuron == network.spec.neuron
    assert model.spec.input == network.spec.input
    a, b = datasets(first), datasets(write_netx(model.build(), tmp_path / "b.net"))
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[key], b[key]) for key in a)


def test_decays_of_each_channel_come_back(tmp_path) -> None:
    neuron = CUBA | {"iDecay": np.array([4096, 2048, 1024, 512]), "vDecay": np.array([0, 1, 2, 4096])}
    path = save(tmp_path / "a.net", INPUT, DENSE | {"neuron": neuron}, READOUT, tSample=5)
    same_spikes(path)
    written = datasets(write_netx(read_netx(path).build(), tmp_path / "b.net"))
    assert written["layer/1/neuron/iDecay"].tolist() == [4096, 2048, 1024, 512]
    assert written["layer/1/neuron/vDecay"].tolist() == [0, 1, 2, 4096]


def test_one_decay_for_each_channel_and_one_for_all(tmp_path) -> None:
    path = save(tmp_path / "a.net", INPUT, DENSE | {"neuron": CUBA | {"vDecay": np.arange(4)}}, READOUT, tSample=5)
    same_spikes(path)
    assert read_netx(path).tensors["blocks.1.neuron.current_decay"].tolist() == [1.0] * 4
    first_alike = DENSE | {"neuron": CUBA | {"vDecay": np.array([CUBA["vDecay"], 0, 1, 2])}}
    same_spikes(save(path, INPUT, first_alike, first_alike | {"weight": even(4, 4)}, READOUT, tSample=5))


# --- old forms


def test_old_names_and_shapes(tmp_path) -> None:
    """Old files have LOIHI neurons, shapes of 3 axes, flattens with reversed shapes, 5-D kernels, and scalars."""
    conv = {
        "type": "conv", "shape": [2, 3, 3], "inChannels": 1, "outChannels": 2, "kernelSize": [2, 2], "stride": 1,
        "padding": [0, 0], "dilation": [1, 1], "groups": 1, "weight": even(2, 1, 2, 2, 1), "neuron": LOIHI,
    }  # fmt: skip
    new = conv | {"weight": conv["weight"][..., 0], "stride": [1, 1], "neuron": CUBA}
    entering = {"type": "input", "shape": [1, 4, 4], "weight": np.float32(64), "bias": np.float32(2), "neuron": LOIHI}
    dense = {"type": "dense", "shape": [3, 1, 1], "weight": even(3, 18), "neuron": LOIHI, "bias": even(3)}
    last = {"type": "dense", "shape": [1, 1, 1], "weight": even(3), "neuron": LOIHI | {"vThMant": 131071}}
    old_path = save(
        tmp_path / "old.net", entering, conv, {"type": "flatten", "shape": [1, 1, 18]}, dense, last, tSample=6
    )
    new_path = save(
        tmp_path / "new.net",
        entering | {"weight": [64.0], "bias": [2.0], "neuron": CUBA},
        new,
        {"type": "flatten", "shape": [18, 1, 1]},
        dense | {"shape": [3], "neuron": CUBA},
        last | {"shape": [1], "weight": even(1, 3), "neuron": CUBA | {"vThMant": 262143}},
        tSample=6,
    )
    same_spikes(old_path)
    old, new_model = read_netx(old_path), read_netx(new_path)
    assert old.spec.model_copy(update={"name": "new"}) == new_model.spec
    assert all(torch.equal(old.tensors[key], tensor) for key, tensor in new_model.tensors.items())
    assert old.spec.blocks[-1].kind == "affine"


def test_without_neurons_the_last_layer_is_an_integrator(tmp_path) -> None:
    last = {key: value for key, value in READOUT.items() if key != "neuron"}
    path = save(tmp_path / "a.net", INPUT, DENSE, last, tSample=5)
    same_spikes(path)
    model = read_netx(path)
    readout = model.spec.blocks[-1]
    assert readout.kind == "affine"
    assert (readout.neuron.current_decay, readout.neuron.voltage_decay) == (0.0, 1.0)


def test_a_last_layer_that_fires_is_read_by_its_spikes(tmp_path) -> None:
    path = save(tmp_path / "a.net", INPUT, DENSE, READOUT | {"neuron": CUBA | {"vThMant": 30}}, tSample=5)
    same_spikes(path)
    model = read_netx(path)
    assert model.spec.blocks[-1].kind == "dense"
    logits = model.build()(torch.rand(16, 6))
    assert set((logits * 5).flatten().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    assert logits.sum() > 0


def test_an_input_without_weight_and_bias_has_netxs_defaults(tmp_path) -> None:
    bare = {key: value for key, value in INPUT.items() if key not in {"weight", "bias"}}
    path = save(tmp_path / "a.net", bare, DENSE, READOUT, tSample=5)
    model = read_netx(path)
    assert (float(model.tensors["blocks.0.weight"]), float(model.tensors["blocks.0.bias"])) == (1.0, 0.0)
    assert "the input neurons have no weight in the file: 1 is assumed" in model.notes
    same_spikes(path)


@pytest.mark.parametrize("first", [None, {"type": "input", "shape": [1, 1, 6]}, {"type": "input", "shape": [6]}])
def test_without_input_neurons_pixels_enter_the_first_synapse(first, tmp_path) -> None:
    layers = [] if first is None else [first]
    if first is not None and len(first["shape"]) == 3:
        layers.append({"type": "flatten", "shape": [6, 1, 1]})
    path = save(tmp_path / "a.net", *layers, DENSE, READOUT, tSample=5)
    model = read_netx(path)
    assert model.spec.input.encoding == "events"
    assert any("no input neurons" in note for note in model.notes)
    spikes = (torch.rand(5, 8, 6) > 0.5).float()
    _, trace = model.build().run(spikes)
    z = spikes[0] @ torch.from_numpy(DENSE["weight"]).T / 64
    assert torch.equal(trace.spikes[1][0], (z > 80 / 64).float())
    same_spikes(path)
    same_spikes(path, input_bits=4)
    still = read_netx(path, input_bits=4).spec.input
    assert (still.encoding, still.bits) == ("graded", 4)


def test_graded_thresholds_keep_their_mantissa(tmp_path) -> None:
    path = save(tmp_path / "a.net", DENSE | {"neuron": CUBA | {"vThMant": 20399}}, READOUT, tSample=5)
    for bits in (1, 2, 5, 8):
        network = read_netx(path, input_bits=bits).build()
        assert network.blocks[1].neuron.threshold_mant == 20399
        assert datasets(write_netx(network, tmp_path / "b.net", overwrite=True))["layer/0/neuron/vThMant"] == 20399


def test_a_first_convolution_without_input_says_what_it_assumes(tmp_path) -> None:
    conv = {"type": "conv", "shape": [2, 3, 4], "stride": [2, 1], "padding": [1, 0], "dilation": [1, 1],
            "groups": 1, "weight": even(2, 3, 3, 2), "neuron": CUBA}  # fmt: skip
    last = READOUT | {"weight": even(3, 24)}
    path = save(tmp_path / "a.net", conv, {"type": "flatten", "shape": [24, 1, 1]}, last, tSample=5)
    model = read_netx(path)
    assert model.spec.input.shape == (3, 5, 5)
    assert any("the smallest for its first" in note for note in model.notes)
    same_spikes(path)


def test_time_steps_are_the_files_or_the_callers_or_sixteen(tmp_path) -> None:
    silent = save(tmp_path / "silent.net", INPUT, DENSE, READOUT)
    said = save(tmp_path / "said.net", INPUT, DENSE, READOUT, tSample=5, Ts=1)
    assert read_netx(said).spec.time_steps == 5
    assert read_netx(said, time_steps=9).spec.time_steps == 9
    assert read_netx(silent).spec.time_steps == 16
    assert any("T = 16 is assumed" in note for note in read_netx(silent).notes)
    assert not any("assumed" in note for note in read_netx(silent, time_steps=16).notes)


def test_mean_and_std_that_the_file_does_not_say(tmp_path) -> None:
    path = save(tmp_path / "a.net", INPUT, DENSE, READOUT, tSample=5)
    assert any("--mean" in note for note in read_netx(path).notes)
    model = read_netx(path, mean=0.5, std=0.25)
    assert (model.spec.input.mean, model.spec.input.std, model.notes) == (0.5, 0.25, ())


# --- what differs from step to step


@pytest.mark.parametrize(("kind", "name"), [("dense_rec", "weight_rec"), ("recurrent", "recWeight")])
def test_recurrent_layers_of_both_dialects_run_and_are_written_as_netx_reads_them(kind, name, tmp_path) -> None:
    own = even(4, 4, seed=3)
    path = save(tmp_path / "a.net", DENSE | {"type": kind, name: own}, READOUT, tSample=5)
    same_spikes(path)
    network = read_netx(path).build()
    assert network.spec.blocks[0].recurrent
    assert torch.equal(network.blocks[1].recurrent.weight * 64, torch.from_numpy(own))
    written = datasets(write_netx(network, tmp_path / "b.net"))
    assert written["layer/0/type"] == [b"dense_rec"]
    assert np.array_equal(written["layer/0/weight_rec"], own)


@pytest.mark.parametrize(
    ("delay", "held"),
    [
        (np.array([0.0, 7.0, 1.0, 62.0]), np.array([0, 7, 1, 62])),
        (3.0, np.array([3, 3, 3, 3])),
        (np.arange(6.0), np.tile(np.arange(6), (4, 1))),
        (np.arange(24.0).reshape(4, 6), np.arange(24).reshape(4, 6)),
    ],
    ids=["outputs", "one", "inputs", "synapses"],
)
def test_delays_are_those_of_neurons_inputs_or_synapses(delay, held, tmp_path) -> None:
    path = save(tmp_path / "a.net", DENSE | {"delay": delay}, READOUT, tSample=40)
    same_spikes(path)
    network = read_netx(path).build()
    assert np.array_equal(network.blocks[1].delay.numpy(), held)
    assert np.array_equal(datasets(write_netx(network, tmp_path / "b.net"))["layer/0/delay"], held)


def test_delays_of_zero_are_none(tmp_path) -> None:
    path = save(tmp_path / "a.net", DENSE | {"delay": np.zeros(4)}, READOUT, tSample=5)
    assert read_netx(path).spec.blocks[0].delays is None


def test_an_average_is_the_mean_rate_of_consecutive_neurons(tmp_path) -> None:
    path = save(tmp_path / "a.net", DENSE, {"type": "average", "shape": [2, 1, 1]}, tSample=5)
    same_spikes(path)
    network = read_netx(path).build()
    events = (torch.rand(9, 3, 6) > 0.5).float()
    logits, trace = network.run(events)
    assert torch.equal(logits, trace.rates[1].reshape(3, 2, 2).mean(2))
    assert datasets(write_netx(network, tmp_path / "b.net"))["layer/1/type"] == [b"average"]


# --- refused


FOREIGN = {
    "recurrent synapses with delays": DENSE | {"type": "dense_rec", "weight_rec": even(4, 4), "delay": np.ones(4)},
    "complex weights": {k: v for k, v in DENSE.items() if k != "weight"}
    | {"weight": {"real": even(4, 6), "imag": even(4, 6)}},
    "sigma-delta neurons behind another input": DENSE
    | {"neuron": {"type": b"SDNN", "vThMant": 3, "activation": b"relu"}},
    "RF neurons": DENSE | {"neuron": {"type": b"RF", "vThMant": 3, "sinDecay": 5, "cosDecay": 6}},
    "graded spikes": DENSE | {"neuron": CUBA | {"gradedSpike": True}},
    "graded spikes ": DENSE | {"neuron": CUBA | {"messageBits": 8}},
    "delays that are not whole steps from 0 to 62, such as 63": DENSE | {"delay": np.array([63.0, 7.0, 1.0, 0.0])},
    "delays that are not whole steps from 0 to 62, such as 0.5": DENSE | {"delay": np.array([0.5, 7.0, 1.0, 0.0])},
    "a pool": {"type": "pool", "shape": [4]},
    "an input layer after other layers": INPUT,
    "such as 1e+300": DENSE | {"weight": np.where(np.arange(24).reshape(4, 6) == 7, 1e300, even(4, 6).astype(float))},
    "a layer of type 'mystery'": {"type": "mystery", "shape": [4]},
    "a refractory delay of 3 steps": DENSE | {"neuron": CUBA | {"refDelay": 3}},
    "a weight exponent of 2": DENSE | {"neuron": LOIHI | {"wgtExp": 2}},
    "a weight exponent of 3": DENSE | {"neuron": CUBA | {"weight_exp": np.array([0, 3])}},
    "thresholds that differ between neurons": DENSE | {"neuron": CUBA | {"vThMant": np.array([80, 80, 81, 80])}},
    "1 of 24 weight mantissas off": DENSE | {"weight": np.where(np.arange(24).reshape(4, 6) == 7, 3.0, even(4, 6))},
    "24 of 24 weight mantissas off": DENSE | {"weight": even(4, 6) + 0.5},
    "such as 300": DENSE | {"weight": np.where(np.arange(24).reshape(4, 6) == 7, 300.0, even(4, 6))},
    "1 of 4 bias mantissas off": DENSE | {"bias": np.array([0.0, 1.0, 2.5, 3.0])},
    "such as 5000": DENSE | {"bias": np.array([0.0, 1.0, 5000.0, 3.0])},
}


@pytest.mark.parametrize("bias", [5.0, 400.0, -300.0])
def test_a_bias_of_the_input_that_our_blocks_cannot_hold_is_refused(bias, tmp_path) -> None:
    path = save(tmp_path / "a.net", INPUT | {"bias": [bias]}, DENSE, READOUT, tSample=5)
    with pytest.raises(UnsupportedError, match=rf"layer 0: 1 of 1 bias mantissas off the grid .*, such as {bias:g}"):
        read_netx(path)


@pytest.mark.parametrize("problem", FOREIGN)
def test_what_is_no_cuba_block_is_refused_by_name(problem, tmp_path) -> None:
    path = save(tmp_path / "a.net", INPUT, FOREIGN[problem], READOUT, tSample=5)
    with pytest.raises(UnsupportedError) as error:
        read_netx(path)
    assert f"layer 1: {problem.strip()}" in str(error.value) or problem in str(error.value)


def test_all_problems_are_told_at_once_each_with_its_layers(tmp_path) -> None:
    delayed = DENSE | {"delay": np.array([0.0, 70.0, 1.0, 0.0])}
    sigma = DENSE | {"weight": even(4, 4), "neuron": {"type": b"SDNN", "vThMant": 3}}
    path = save(tmp_path / "a.net", INPUT, delayed, sigma, sigma, READOUT)
    with pytest.raises(UnsupportedError, match=r"layer 1: delays that are not.*; layers 2, 3: sigma-delta neurons"):
        read_netx(path)


DAMAGED = {
    "no group 'layer'": [],
    "has no type": [INPUT, {k: v for k, v in DENSE.items() if k != "type"}],
    "for 4 outputs": [INPUT, DENSE | {"weight": even(7)}],
    "has shape [4, 5]": [INPUT, DENSE | {"weight": even(4, 5)}, READOUT],
    "2 biases for 4 outputs": [INPUT, DENSE | {"bias": even(2)}],
    "not finite": [INPUT, DENSE | {"weight": np.full((4, 6), np.nan, np.float32)}],
    "has no weights": [INPUT, {k: v for k, v in DENSE.items() if k != "weight"}],
    "need vThMant": [INPUT, DENSE | {"neuron": {"type": b"CUBA", "vThMant": 80}}],
    "from 0 to 4096": [INPUT, DENSE | {"neuron": CUBA | {"iDecay": 5000}}],
    "one for each of 4 channels": [INPUT, DENSE | {"neuron": CUBA | {"vDecay": np.array([1, 2])}}],
    "of at least 1, got []": [INPUT | {"shape": np.array([], int)}, DENSE],
    "of at least 1, got [-3]": [INPUT | {"shape": [-3]}, DENSE],
    "one weight and one bias": [INPUT | {"weight": even(6)}, DENSE],
    "bias: holds no numbers": [INPUT, DENSE | {"bias": np.zeros(0)}],
    "channels, rows and columns, got [8]": [{"type": "conv", "shape": [8], "weight": even(8, 1, 2, 2), "neuron": CUBA}],
    "kernels of shape [2, 3]": [{"type": "conv", "shape": [2, 2, 2], "weight": even(2, 3), "neuron": CUBA}],
    "the recurrent layer has no weight_rec": [DENSE | {"type": "dense_rec"}, READOUT],
    "recurrent weights of shape [4, 3] for 4": [DENSE | {"type": "dense_rec", "weight_rec": even(4, 3)}, READOUT],
    "delays of shape [3, 3] for 4x6 weights": [DENSE | {"delay": np.ones((3, 3))}, READOUT],
    "delays of shape [5] for 4x6 weights": [DENSE | {"delay": np.ones(5)}, READOUT],
    "layer/0/weight: is a group, not a dataset": [INPUT | {"weight": {"x": 1}}, DENSE],
    "layer/0/bias: is a group, not a dataset": [INPUT | {"bias": {"x": 1}}, DENSE],
    "not one or two": [
        {"type": "conv", "shape": [2, 2, 2], "weight": even(2, 1, 2, 2), "stride": [1, 1, 1], "neuron": CUBA}
    ],
}


@pytest.mark.parametrize("problem", DAMAGED)
def test_damage_is_told(problem, tmp_path) -> None:
    path = save(tmp_path / "a.net", *DAMAGED[problem])
    with pytest.raises(IntegrityError) as error:
        read_netx(path)
    assert problem in str(error.value)
    assert str(path) in str(error.value)


def test_a_flatten_with_a_weight_is_a_flatten(tmp_path) -> None:
    flatten = {"type": "flatten", "shape": [6], "weight": np.array(2.0)}
    assert read_netx(save(tmp_path / "a.net", flatten, DENSE, READOUT, tSample=4)).spec.input.shape == (6,)


def test_layers_that_no_spec_can_say(tmp_path) -> None:
    with pytest.raises(ConversionError, match="time_steps"):
        read_netx(save(tmp_path / "a.net", INPUT, DENSE, READOUT, tSample=100_000))
    with pytest.raises(ConversionError, match="threshold"):
        read_netx(save(tmp_path / "b.net", INPUT, DENSE | {"neuron": CUBA | {"vThMant": 0}}, READOUT, tSample=4))
    with pytest.raises(UnsupportedError, match="no layer with synapses"):
        read_netx(save(tmp_path / "c.net", INPUT, tSample=4))


def test_layers_beyond_nine_come_in_the_order_of_numbers(tmp_path) -> None:
    middle = [DENSE | {"weight": even(4, 4, seed=i)} for i in range(12)]
    path = save(tmp_path / "a.net", INPUT, DENSE, *middle, READOUT, tSample=5)
    tensors = read_netx(path).tensors
    for i, layer in enumerate(middle):
        assert torch.equal(tensors[f"blocks.{i + 2}.synapse.weight"] * 64, torch.from_numpy(layer["weight"]))


# --- files of snnzoo that were edited


@pytest.fixture
def own(tmp_path) -> Path:
    document = {
        "name": "tiny", "time_steps": 4, "input": {"shape": [1, 6, 6]},
        "blocks": [{"kind": "conv", "channels": 2, "kernel": 3}, {"kind": "avg_pool", "kernel": 2},
                   {"kind": "flatten"}, {"kind": "affine", "features": 3}],
    }  # fmt: skip
    return write_netx(build_network(NetworkSpec.model_validate(document), seed=0), tmp_path / "own.net")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("layer/1/neuron/vThMant", 99, "layer of block 1: threshold is 99, expected 64 from the spec"),
        ("layer/1/neuron/vDecay", 5, "layer of block 1: vDecay is 5, expected 0 from the spec"),
        ("layer/1/stride", [2, 2], r"layer of block 1: stride is \(2, 2\), expected \(1, 1\) from the spec"),
        ("layer/2/weight", even(2, 1, 2, 2), "layer of block 2: the weights differ from those of the pool"),
    ],
)
def test_numbers_against_the_spec_inside_are_told(key, value, message, own) -> None:
    with h5py.File(own, "a") as file:
        del file[key]
        file[key] = value
    with pytest.raises(IntegrityError, match=message):
        read_netx(own)


def test_edited_weights_are_read_as_they_are(own) -> None:
    with h5py.File(own, "a") as file:
        file["layer/1/weight"][0, 0, 0, 0] = 42
    assert read_netx(own).tensors["blocks.1.synapse.weight"][0, 0, 0, 0] == 42 / 64


def test_without_the_spec_inside_the_layers_speak(own, tmp_path) -> None:
    bare = Path(shutil.copy(own, tmp_path / "bare.net"))
    with h5py.File(bare, "a") as file:
        del file.attrs["snnzoo_spec"]
    images = torch.rand(9, 1, 6, 6)
    model = read_netx(bare)
    assert [block.kind for block in model.spec.blocks] == ["conv", "conv", "flatten", "affine"]
    assert torch.equal(model.build()(images), read_netx(own).build()(images))
