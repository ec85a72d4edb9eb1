"""netx files of sigma-delta networks: read, run, written again with equal integers, refused by name."""

from typing import Any

import h5py
import numpy as np
import pytest
import torch
from netx_files import save

from bootstrap_core import IntegerNetwork, build_network
from converters import read_model, write_model, write_netx
from converters.formats.netx.lava_limits import how_lava_runs
from converters.formats.netx.netx_model import read_netx
from converters.formats.netx.netx_reader import load_netx
from converters.formats.netx.netx_report import describe_layer, differences, neuron_rows
from specs import ConversionError, Encoding, IntegrityError, NetworkSpec, UnsupportedError

Layer = dict[str, Any]


def neuron(threshold: int, **more: Any) -> Layer:
    return {"type": b"SDNN", "activation": b"relu", "vThMant": threshold, **more}


def even(*shape: int, seed: int = 0) -> np.ndarray:
    return (2 * np.random.default_rng(seed).integers(-20, 30, shape)).astype(np.float32)


INPUT = {"type": "input", "shape": [2, 5, 7], "neuron": neuron(0)}
GEOMETRY = {"stride": [2, 1], "padding": [1, 0], "dilation": [1, 1], "groups": 1}
CONV = {
    "type": "conv",
    "shape": [3, 3, 5],
    "weight": even(3, 2, 3, 3),
    "bias": even(3),
    **GEOMETRY,
    "neuron": neuron(13),
}
FLATTEN = {"type": "flatten", "shape": [45, 1, 1]}
DENSE = {"type": "dense", "shape": [4], "weight": even(4, 45, seed=1), "bias": even(4, seed=3), "neuron": neuron(23)}
SIGMA = {"type": "dense", "shape": [1], "weight": even(1, 4, seed=2), "neuron": neuron(6, sigma_output=True)}
CUBA = {"type": b"CUBA", "iDecay": 4096, "vDecay": 0, "vThMant": 64}


def frames(*shape: int, steps: int = 7) -> torch.Tensor:
    return torch.randint(-60, 61, (steps, 2, *shape), generator=torch.Generator().manual_seed(0))


def test_a_file_becomes_a_network_of_values(tmp_path) -> None:
    model = read_netx(save(tmp_path / "a.net", INPUT, CONV, FLATTEN, DENSE, SIGMA))
    spec = model.spec
    assert [block.kind for block in spec.blocks] == ["conv", "flatten", "dense", "affine"]
    assert [64 * spec.neuron_of(spec.layers[i]).threshold for i in (0, 1, 3, 4)] == [0, 13, 23, 6]
    assert (spec.input.encoding, spec.input.bits, spec.input.shape) == (Encoding.FRAMES, 8, (2, 5, 7))
    assert spec.gives_values
    assert spec.delay_shift
    assert [block.bias for block in spec.blocks if hasattr(block, "bias")] == [True, True, False]
    assert any("8 bits with sign, in units of 1/64" in note for note in model.notes)
    assert read_netx(tmp_path / "a.net", input_bits=10).spec.input.largest == 511


@pytest.mark.parametrize("last", [[DENSE, SIGMA], [DENSE], []], ids=["sigma", "dense", "conv"])
def test_a_file_is_written_again_with_equal_integers_and_results(last, tmp_path) -> None:
    layers = [INPUT, CONV, *([FLATTEN] if last else []), *last]
    path = save(tmp_path / "a.net", *layers)
    model, x = read_model(path), frames(2, 5, 7)
    write_model(model, tmp_path / "b.safetensors")
    write_model(read_model(tmp_path / "b.safetensors"), tmp_path / "c.net")
    assert list(differences(load_netx(path), load_netx(tmp_path / "c.net"))) == []
    expected, _ = IntegerNetwork(model.build()).run(x)
    assert expected.any()
    again = read_model(tmp_path / "c.net")
    assert again.spec == model.spec
    assert torch.equal(again.build()(x), expected)


def test_the_written_file_has_the_datasets_that_lava_reads(tmp_path) -> None:
    write_model(read_model(save(tmp_path / "a.net", INPUT, CONV, FLATTEN, DENSE, SIGMA)), tmp_path / "b.net")
    with h5py.File(tmp_path / "b.net") as file:
        assert "weight" not in file["layer/0"]
        assert file["layer/1/neuron/type"][()] == b"SDNN"
        assert file["layer/1/neuron/activation"][()] == b"relu"
        assert [int(file[f"layer/{i}/neuron/vThMant"][()]) for i in (0, 1, 3, 4)] == [0, 13, 23, 6]
        assert "iDecay" not in file["layer/1/neuron"]
        assert [i for i in (0, 1, 3, 4) if "sigma_output" in file[f"layer/{i}/neuron"]] == [4]


def test_lava_integers_give_the_value(tmp_path) -> None:
    """A frame of 1/2 through weights 3/4 and 1/2, with a bias of 1/4: (3/8 + 1/4) / 2."""
    dense = {"type": "dense", "shape": [1], "weight": [[48.0]], "bias": [16.0], "neuron": neuron(0)}
    path = save(
        tmp_path / "a.net",
        {"type": "input", "shape": [1], "neuron": neuron(0)},
        dense,
        {k: v for k, v in dense.items() if k != "bias"} | {"weight": [[32.0]], "neuron": neuron(0, sigma_output=True)},
    )
    _, trace = IntegerNetwork(read_netx(path).build()).run(torch.full((4, 1, 1), 32))
    assert trace.readout_voltage.flatten().tolist() == [0, 1 << 15, 5 << 14, 5 << 14]


PROBLEMS: dict[str, list[Layer]] = {
    "layer 1: the activation tanh of sigma-delta": [INPUT, CONV | {"neuron": neuron(3) | {"activation": b"tanh"}}],
    "layer 1: thresholds that differ": [INPUT, CONV | {"neuron": neuron(3) | {"vThMant": [1, 2, 3]}}],
    "layer 1: a sigma output of a layer of type conv": [INPUT, CONV | {"neuron": neuron(3, sigma_output=True)}],
    "layer 0: a weight or a bias of the input": [INPUT | {"weight": [64.0]}, CONV],
    "layer 1: other neurons in a network of sigma-delta": [INPUT, CONV | {"neuron": CUBA}],
    "layers 0, 2: sigma-delta neurons behind another input": [CONV, FLATTEN, DENSE],
    "does not apply to sigma-delta neurons": [
        {"type": "input", "shape": [4], "neuron": neuron(0)},
        {"type": "dense_rec", "shape": [4], "weight": even(4, 4), "weight_rec": even(4, 4), "neuron": neuron(3)},
    ],
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_has_no_meaning_is_refused_by_name(problem: str, tmp_path) -> None:
    path = save(tmp_path / "a.net", *PROBLEMS[problem])
    with pytest.raises((UnsupportedError, ConversionError), match=problem):
        read_netx(path)


def test_neurons_without_a_threshold_are_damaged(tmp_path) -> None:
    path = save(tmp_path / "a.net", INPUT, CONV | {"neuron": {"type": b"SDNN"}})
    with pytest.raises(IntegrityError, match="sigma-delta neurons need vThMant"):
        read_netx(path)


def test_an_edited_file_that_disagrees_with_its_spec_is_refused(tmp_path) -> None:
    write_model(read_model(save(tmp_path / "a.net", INPUT, CONV, FLATTEN, DENSE, SIGMA)), tmp_path / "b.net")
    with h5py.File(tmp_path / "b.net", "a") as file:
        file["layer/3/neuron/vThMant"][()] = 24
        del file["layer/4/neuron/sigma_output"]
    with pytest.raises(
        IntegrityError, match=r"block 3: threshold is 24, expected 23 .*; .* block 4: its neurons are of"
    ):
        read_netx(tmp_path / "b.net")


def test_a_bias_of_the_readout_is_not_written(tmp_path) -> None:
    document = {
        "name": "steer",
        "time_steps": 4,
        "neuron": {"kind": "sigma_delta"},
        "input": {"shape": [4], "encoding": "frames"},
        "blocks": [{"kind": "affine", "features": 2, "bias": True}],
    }
    network = build_network(NetworkSpec.model_validate(document), seed=0)
    with pytest.raises(
        UnsupportedError, match=r"block 1: a bias of a readout of values \(Lava's sigma neurons have none"
    ):
        write_netx(network, tmp_path / "a.net")


def test_notes_tell_how_lava_runs_it(tmp_path) -> None:
    spec = read_netx(save(tmp_path / "a.net", INPUT, CONV)).spec
    (run,) = how_lava_runs(spec)
    assert "have no reset" in run
    _, late = how_lava_runs(spec.model_copy(update={"delay_shift": False}))
    assert "only with delay_shift: true are the messages the same" in late


def test_neurons_are_described(tmp_path) -> None:
    file = load_netx(save(tmp_path / "a.net", INPUT, CONV, FLATTEN, DENSE, SIGMA))
    assert neuron_rows(file) == [
        ["0", "sigma-delta", "0 = 0", "-", "-"],
        ["1", "sigma-delta", "13 = 0.203125", "-", "-"],
        ["3", "sigma-delta", "23 = 0.359375", "-", "-"],
        ["4", "sigma alone: the output is a value", "6 = 0.09375", "-", "-"],
    ]
    assert describe_layer(file.layers[4])["neuron"]["sigma_output"] is True
    other = load_netx(save(tmp_path / "b.net", INPUT, CONV, FLATTEN, DENSE, SIGMA | {"neuron": neuron(6)}))
    assert [(d.what, d.text) for d in differences(file, other)] == [
        ("neurons", "sigma alone: the output is a value and sigma-delta")
    ]
