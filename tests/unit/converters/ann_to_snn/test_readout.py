"""A readout fitted to a teacher's answers: its repairs, and the cases without a change."""

import pytest
import torch
from torch import Tensor

from bootstrap_core import IntegerNetwork, build_network
from bootstrap_core.network.network import Network
from converters.ann_to_snn import readout
from converters.ann_to_snn.readout import calibrate_logits, refit_readout
from specs.errors import StateOverflowError
from specs.network import NetworkSpec

HIDDEN = {"kind": "dense", "features": 60, "bias": True}
READOUT = {"kind": "affine", "features": 5, "bias": True}
GRADED = {"encoding": "graded", "bits": 3}


def network_of(*blocks: dict, **entering: object) -> Network:
    document = {
        "name": "read",
        "time_steps": 8,
        "neuron": {"threshold": 0.6, "current_decay": 1.0, "voltage_decay": 0.0},
        "input": {"shape": [30], **entering},
        "blocks": list(blocks),
    }
    network = build_network(NetworkSpec.model_validate(document), seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    return network


def images_of(n: int, seed: int = 1) -> Tensor:
    return torch.randint(256, (n, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def answers_of(network: Network, scale: float = 4.0):
    exact = IntegerNetwork(network)
    return lambda images: scale * exact(images)


def damage(network: Network, by: float) -> None:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        weight = network.readout.synapse.weight
        weight.add_(by * weight.std() * torch.randn(weight.shape, generator=generator))
        network.readout.bias.add_(0.3 * torch.randn(5, generator=generator))


def largest_weight(network: Network) -> float:
    return float(network.readout.synapse.weight.detach().abs().max())


def agreement(network: Network, teacher, images: Tensor) -> float:
    return float((IntegerNetwork(network)(images).argmax(1) == teacher(images).argmax(1)).double().mean())


def test_a_damaged_readout_answers_as_the_teacher_again() -> None:
    network = network_of(HIDDEN, READOUT)
    teacher, kept = answers_of(network), network.blocks[1].synapse.weight.detach().clone()
    damage(network, 1.0)
    new = images_of(1000, seed=7)
    before = agreement(network, teacher, new)
    assert refit_readout(network, images_of(3000), teacher)
    assert agreement(network, teacher, new) > before + 0.2
    assert agreement(network, teacher, new) > 0.9
    assert torch.equal(network.blocks[1].synapse.weight, kept)


def test_weights_stay_in_the_range_that_they_had() -> None:
    network = network_of(HIDDEN, READOUT)
    teacher = answers_of(network, 40.0)  # much larger logits than this network can have
    damage(network, 1.0)
    largest = largest_weight(network)
    assert refit_readout(network, images_of(3000), teacher)
    assert largest_weight(network) == pytest.approx(largest, rel=1e-5)


@pytest.mark.parametrize(
    ("blocks", "entering"),
    [
        ([HIDDEN, {**HIDDEN, "features": 5}], {}),
        ([HIDDEN, {**READOUT, "bias": False}], {}),
        ([HIDDEN, {**READOUT, "skips": [{"source": 0, "kind": "dense"}]}], {}),
        ([READOUT], GRADED),
    ],
    ids=["spiking", "without bias", "skips", "reads pixels"],
)
def test_other_readouts_are_left_alone(blocks: list[dict], entering: dict) -> None:
    network = network_of(*blocks, **entering)
    teacher = answers_of(network_of(HIDDEN, READOUT))
    assert not refit_readout(network, images_of(500), teacher)


@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0])
def test_probabilities_are_as_sharp_as_those_of_the_teacher(scale: float) -> None:
    network = network_of(HIDDEN, READOUT)
    teacher = answers_of(network, scale)
    calibrate_logits(network, images_of(200), lambda images: teacher(images) + 3)
    assert network.spec.logit_scale == pytest.approx(scale, rel=1e-3)


def test_a_large_readout_is_fitted_on_fewer_images(monkeypatch) -> None:
    network, seen = network_of(HIDDEN, READOUT), []
    exact = IntegerNetwork(network)
    damage(network, 1.0)
    monkeypatch.setattr(readout, "MOST_PRODUCTS", 120 * 60 * 5)
    refit_readout(network, images_of(3000), lambda images: seen.append(len(images)) or exact(images))
    assert sum(seen) == 120


@pytest.mark.parametrize("n", [0, 1, 99])
def test_few_images_are_not_enough(n: int) -> None:
    network = network_of(HIDDEN, READOUT)
    teacher = answers_of(network)
    damage(network, 1.0)
    assert not refit_readout(network, images_of(n), teacher)


def test_a_readout_behind_states_out_of_range_is_left_alone() -> None:
    network = network_of(HIDDEN, READOUT)
    teacher = answers_of(network)
    with torch.no_grad():
        network.blocks[1].bias.fill_(-60)
    network.spec = network.spec.model_copy(update={"time_steps": 60})
    with pytest.raises(StateOverflowError):
        IntegerNetwork(network)(images_of(1))
    assert not refit_readout(network, images_of(200), teacher)


def test_its_own_voltage_stays_in_range(monkeypatch) -> None:
    network, seen = network_of(HIDDEN, READOUT), []
    teacher = answers_of(network)
    monkeypatch.setattr(readout, "shrink_for", lambda reach: seen.append(reach) or 0.25)
    damage(network, 1.0)
    largest, images = largest_weight(network), images_of(3000)
    assert refit_readout(network, images, teacher)
    assert largest_weight(network) == pytest.approx(largest / 4, rel=0.05)
    assert seen[0] == pytest.approx(8 * 4 * float(IntegerNetwork(network)(images).abs().max()), rel=0.2)
    assert agreement(network, teacher, images) > 0.9
