from pathlib import Path

import pytest

from bootstrap_core import build_network, load_dataset
from bootstrap_core.data.splits import Dataset
from converters import Model, write_model
from specs import NetworkSpec, parse_spec
from zoo.card import Card
from zoo.runs.measurement import measure_card

TINY = """
name: tiny
time_steps: 3
neuron: {threshold: 0.3}
input: {shape: [784], mean: 0.5, std: 0.5}
blocks:
  - {kind: dense, features: 6, weight_norm: true}
  - {kind: affine, features: 10}
training: {data: mnist-sample, epochs: 2, validation: 500, seed: 7}
"""


@pytest.fixture(scope="session")
def spec() -> NetworkSpec:
    return parse_spec(TINY)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """The sample with 40 test images, evenly spaced in it."""
    sample = load_dataset("mnist-sample")
    return Dataset("mnist-sample", sample.train, sample.test.take(slice(0, None, 25)), sample.classes, "", True)


@pytest.fixture(scope="session")
def model_file(spec, tmp_path_factory) -> Path:
    """A model file of a tiny untrained network, with the facts of a training."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    versions = {"snnzoo": "0", "torch": "1", "numpy": "2", "python": "3"}
    training = {"data": "mnist-sample", "epoch": 1, "validation_snn_accuracy": 0.25, "versions": versions}
    return write_model(Model.of(build_network(spec, seed=1), {"training": training}), path)


@pytest.fixture(scope="session")
def card(model_file, dataset) -> Card:
    return measure_card(model_file, dataset, licence="MIT")
