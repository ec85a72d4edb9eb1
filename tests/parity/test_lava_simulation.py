"""The integer engine against Lava's bit-accurate simulation of the exported network, spike for spike.

In Lava each synapse takes one step, so layer k lags by k steps. The networks here have an empty step in each block
(`delay_shift`), so they lag likewise once the first step is cut off. The simulation ran T + layers - 1 steps without
reset.
"""

import pytest
import torch

from bootstrap_core.inference.integer_network import IntegerNetwork

NAMES = ("dense", "dense_meanonly", "conv")
IMAGES = range(3)


@pytest.fixture(params=NAMES)
def golden(request, load_golden_network):
    return load_golden_network(request.param, exact_input=True)


def run(golden, image: int):
    steps = len(golden.simulated_spikes(image)[0])
    _, trace = IntegerNetwork(golden.network).run(golden.images[image : image + 1], time_steps=steps + 1)
    return steps, trace


def test_the_simulation_ran_until_the_last_layer_had_seen_all_steps(golden) -> None:
    spec = golden.network.spec
    n_layers = len(golden.spiking_blocks) + 1
    assert len(golden.simulated_spikes(0)[0]) == spec.time_steps + n_layers - 1


@pytest.mark.parametrize("image", IMAGES)
def test_input_currents_are_the_bias_mantissas_given_to_lava(golden, image: int) -> None:
    current = golden.network.blocks[0].current(golden.images[image].reshape(1, *golden.network.spec.input.shape))[0]
    recorded = torch.from_numpy(golden.simulation[f"{image}/input_bias_mant"])
    mant = recorded.permute(2, 1, 0) if recorded.dim() == 3 else recorded  # [W, H, C] -> [C, H, W]
    assert torch.equal(64 * current, mant.float())


@pytest.mark.parametrize("image", IMAGES)
def test_spikes_of_every_layer_equal_lava(golden, image: int) -> None:
    steps, trace = run(golden, image)
    for i, expected in zip(golden.spiking_blocks, golden.simulated_spikes(image), strict=True):
        assert expected.any()
        assert torch.equal(trace.spikes[i][1:, 0], expected), f"block {i}, {steps} steps"


@pytest.mark.parametrize("image", IMAGES)
def test_voltage_of_the_readout_equals_lava(golden, image: int) -> None:
    steps, trace = run(golden, image)
    expected = torch.from_numpy(golden.simulation[f"{image}/readout_voltage"])
    assert torch.equal(trace.readout_voltage[steps - 1, 0].double(), expected)
