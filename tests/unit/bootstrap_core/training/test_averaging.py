import pytest
import torch

from bootstrap_core.network.build import build_network
from bootstrap_core.network.network import Network
from bootstrap_core.training.averaging import MovingAverage
from specs.network import NetworkSpec

FOLLOWED = ("blocks.1.bias", "blocks.1.norm.running_mean", "blocks.2.norm.running_variance", "blocks.3.synapse.weight")


def network() -> Network:
    spec = {
        "name": "tiny",
        "time_steps": 4,
        "input": {"shape": [4]},
        "blocks": [
            {"kind": "dense", "features": 3, "weight_norm": True, "norm": "mean_only", "bias": True, "dropout": 0.5},
            {"kind": "dense", "features": 3, "norm": "weight_scale"},
            {"kind": "affine", "features": 2},
        ],
    }
    return build_network(NetworkSpec.model_validate(spec), seed=0)


def add(network: Network, amount: float) -> None:
    """Add an amount to all float tensors of the network."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(amount)


@pytest.mark.parametrize(
    ("decay", "expected"), [(0.5, [9 / 11, 9 / 12 + 3 / 12 * 9 / 11]), (0.1, [0.9, 0.9 + 0.1 * 0.9])]
)
def test_it_keeps_less_of_the_start_than_its_decay(decay: float, expected: list[float]) -> None:
    followed = network()
    before = {name: tensor.clone() for name, tensor in followed.state_dict().items()}
    average = MovingAverage(followed, decay)
    add(followed, 1.0)
    for moved in expected:
        average.update()
        for name in FOLLOWED:
            torch.testing.assert_close(average.network.state_dict()[name], before[name] + moved, msg=name)


def test_it_keeps_its_decay_in_the_long_run() -> None:
    followed = network()
    average = MovingAverage(followed, 0.5)
    for _ in range(100):
        average.update()
    before = average.network.readout.synapse.weight.clone()
    add(followed, 1.0)
    average.update()
    torch.testing.assert_close(average.network.readout.synapse.weight, before + 0.5)
