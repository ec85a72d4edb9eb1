"""Public functions raise errors of ours, in plain words, for arguments of a wrong type."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import converters
import specs
import zoo
from bootstrap_core import IntegerNetwork, Trainer, build_network, evaluate, fit, load_dataset, load_images
from specs import SnnZooError, load_spec

NETWORK = "build_network makes one from a spec, zoo.create_model from the name of a model, .build() from a Model"
SPEC = "load_spec reads one"
NAME: Any = "mnist-dense"
NUMBER: Any = 3
EXAMPLES = "images and labels must be a Split, or a torch Dataset or DataLoader"


@pytest.fixture(scope="module")
def network():
    return build_network(load_spec("mnist-dense-shallow"), seed=0)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("mnist-sample")


CALLS: dict[str, Callable[[], object]] = {
    f"build_network takes a NetworkSpec, not a str: {SPEC}": lambda: build_network(NAME),
    f"summarize takes a NetworkSpec, not a str: {SPEC}": lambda: specs.summarize(NAME),
    f"dump_spec takes a NetworkSpec, not a str: {SPEC}": lambda: specs.dump_spec(NAME),
    "load_spec takes the name of a spec or the path of a file, not an int": lambda: specs.load_spec(NUMBER),
    "parse_spec takes text, not an int: load_spec reads a file": lambda: specs.parse_spec(NUMBER),
    f"IntegerNetwork takes a Network, not a str: {NETWORK}": lambda: IntegerNetwork(NAME),
    "load_images takes the path of an .npz file, a folder or a .tar, not an int": lambda: load_images(NUMBER),
    "read_model takes the path of a file, not an int": lambda: converters.read_model(NUMBER),
    "read_model takes the path of a file, not None": lambda: converters.read_model(None),  # type: ignore[arg-type]
    "read_nir takes the path of a file, not an int": lambda: converters.read_nir(NUMBER),
    "write_model takes a Model or a Network, not an int": lambda: converters.write_model(NUMBER, "m.net"),
    f"write_netx takes a Network, not a str: {NETWORK}": lambda: converters.write_netx(NAME, Path("m.net")),
    "write_c takes a Model, not a str: Model.of makes one from a network": lambda: converters.write_c(
        NAME, Path("m.c")
    ),
    "write_nir takes a Model, not a str: Model.of makes one from a network": (
        lambda: converters.write_nir(NAME, Path("m.nir"))
    ),
    f"Model.of takes a Network, not a str: {NETWORK}": lambda: converters.Model.of(NAME),
    "migrate_state_dict takes a state dict, not an int: torch.load or load_file of safetensors reads one": (
        lambda: converters.migrate_state_dict(NUMBER, to="plain")
    ),
    "import_onnx takes the path of an ONNX file, an onnx.ModelProto, or a torch module, not an int: torch.onnx.export "
    "writes a module as a file": lambda: converters.import_onnx(NUMBER),
    "create_model takes the name of a model, not an int: zoo.model_names lists them": lambda: zoo.create_model(NUMBER),
}
"""Calls with a wrong argument, by the message of their error."""


@pytest.mark.parametrize("message", CALLS)
def test_a_wrong_argument_is_named_with_its_type(message: str) -> None:
    with pytest.raises(SnnZooError) as caught:
        CALLS[message]()
    assert str(caught.value) == message


@pytest.mark.parametrize("train", [fit, Trainer])
def test_training_takes_networks_splits_and_recipes(train: Any, network, digits) -> None:
    for arguments, message in (
        ((NAME, digits.train), "training takes a Network, not a str: build_network makes one"),
        ((network.spec, digits.train), "training takes a Network, not a NetworkSpec: build_network makes one"),
        (
            (network, digits),
            f"{EXAMPLES}, not a Dataset: pass its train or its test",
        ),
        ((network, NAME), f"{EXAMPLES}, not a str"),
        ((network, digits.train, {"epochs": 1}), "recipe must be a TrainingSpec, not a dict"),
    ):
        with pytest.raises(SnnZooError, match=f"^{message}"):
            train(*arguments)


def test_evaluate_takes_networks_splits_and_modes(network, digits) -> None:
    few = digits.test.take(slice(3))
    for arguments, options, message in (
        ((NAME, few), {}, "evaluate takes a Network or an IntegerNetwork, not a str: build_network makes one"),
        (
            (network, digits),
            {},
            f"{EXAMPLES}, not a Dataset: pass its train or its test",
        ),
        ((network, few), {"mode": "spikes"}, "mode must be one of sample, fit, ann, snn, got 'spikes'"),
    ):
        with pytest.raises(SnnZooError, match=f"^{message}"):
            evaluate(*arguments, **options)
    assert evaluate(network, few, mode="snn").synops == evaluate(network, few).synops  # type: ignore[arg-type]
