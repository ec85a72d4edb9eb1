"""A sigma-delta network of a netx file against Lava's simulation of the file, message for message."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bootstrap_core.inference.integer_network import IntegerNetwork
from converters import read_model

GOLDEN = Path(__file__).parents[1] / "golden" / "sigma_delta"
STEPS = 12
WITH_NEURONS = (0, 1, 2, 4)
"""Blocks that send messages; block 3 is a flatten."""


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "lava_simulation.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def run(recorded):
    """Values and trace of one more step than Lava ran, as our messages are those that leave a step later."""
    frames = torch.from_numpy(recorded["frames"])
    frames = torch.cat([frames, frames[-1:]])
    return IntegerNetwork(read_model(GOLDEN / "network.net").build()).run(frames)


@pytest.mark.parametrize("layer", range(len(WITH_NEURONS)))
def test_messages_of_every_layer_equal_lava(layer: int, run, recorded) -> None:
    messages = run[1].spikes[WITH_NEURONS[layer]]
    expected = recorded[f"messages/{layer}"]
    assert np.count_nonzero(expected) >= 8
    assert not messages[0].any()
    assert np.array_equal(messages[1:, 0].numpy(), expected)


def test_sigma_of_the_readout_equals_lava(run, recorded) -> None:
    _, trace = run
    assert np.array_equal(trace.readout_voltage[:STEPS, 0].numpy(), recorded["sigma"])
    assert np.array_equal(trace.spikes[-1][:STEPS, 0].numpy(), recorded["sigma"] / 2**18)
    assert len(np.unique(recorded["sigma"])) > 6
