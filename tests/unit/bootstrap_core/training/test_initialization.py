from typing import Any

import pytest
import torch

from bootstrap_core import Network, build_network, load_dataset
from bootstrap_core.network.batch_norm import SPREAD
from bootstrap_core.ops.spikes import Spikes
from bootstrap_core.training.initialization import initialize
from bootstrap_core.training.trainer import Trainer
from specs import NetworkSpec, TrainingSpec

IMAGES = load_dataset("mnist-sample").train.images[:200]
THRESHOLD = 2.0
DEEP = [
    {"kind": "conv", "channels": 6, "kernel": 5, "stride": 2},
    {"kind": "conv", "channels": 8, "kernel": 3, "stride": 2, "skips": [{"source": 1, "kind": "conv", "stride": 2,
     "kernel": 3}]},
    {"kind": "avg_pool", "kernel": 2},
    {"kind": "flatten"},
    {"kind": "dense", "features": 12},
]  # fmt: skip


def network(options: dict[str, Any], *, encoding: str = "spike", current_decay: float = 1.0) -> Network:
    blocks = [block if block["kind"] in {"flatten", "avg_pool"} else block | options for block in DEEP]
    return build_network(
        NetworkSpec.model_validate({
            "name": "deep", "time_steps": 8,
            "neuron": {"threshold": THRESHOLD, "voltage_decay": 0.03, "current_decay": current_decay, "tau_grad": 0.1},
            "input": {"shape": [1, 28, 28], "encoding": encoding, **({"bits": 6} if encoding == "graded" else {})},
            "blocks": [*blocks, {"kind": "affine", "features": 10}],
        }), seed=0)  # fmt: skip


def drives(net: Network) -> list[torch.Tensor]:
    """Return the drive of the neurons of each trainable block, `[channels, rest]`, in thresholds."""
    found = []
    with torch.no_grad():
        _, trace = net.run(IMAGES)
        for i in (1, 2, 5):
            block = net.blocks[i]
            skipped = [Spikes.of(trace.spikes[1])] if i == 2 else []
            z = block.weigh(Spikes.of(trace.spikes[i - 1]), *skipped)
            bias = block.quantized_bias()
            decay, _ = block.neuron.quantized_decays()
            if bias is not None:
                z = z + (decay * bias).reshape(-1, *[1] * (z.dim() - 3))
            found.append((z / block.levels / decay / THRESHOLD).transpose(0, 2).flatten(1))
    return found


@pytest.mark.parametrize("options", [{}, {"bias": True}])
def test_neurons_whose_current_never_decays_start_with_weights_too(options) -> None:
    net = network(options, current_decay=0.0)
    initialize(net, IMAGES)
    for block in (net.blocks[i] for i in (1, 2, 5)):
        assert block.quantized_weight().abs().max() > 0
        assert block.bias is None or block.bias.isfinite().all()


@pytest.mark.parametrize("current_decay", [1.0, 0.5])
@pytest.mark.parametrize("encoding", ["spike", "graded"])
@pytest.mark.parametrize(
    "options",
    [
        {"bias": True},
        {"bias": True, "weight_norm": True},
        {"norm": "mean_only", "weight_norm": True},
        {"norm": "batch", "bias": True},
    ],
)
def test_drives_are_centred_and_spread_over_the_neurons_reach(options, encoding, current_decay) -> None:
    net = network(options, encoding=encoding, current_decay=current_decay)
    initialize(net, IMAGES)
    for drive in drives(net):
        assert drive.std(1).mean() == pytest.approx(SPREAD, rel=0.1)
        assert drive.mean(1).abs().max() < 0.1
    assert not net.training


def test_without_what_centres_the_root_mean_square_is_scaled() -> None:
    net = network({"weight_norm": True})
    initialize(net, IMAGES)
    for drive in drives(net):
        assert drive.square().mean(1).sqrt().mean() == pytest.approx(SPREAD, rel=0.1)


def test_pools_and_the_readout_stay() -> None:
    net = network({"bias": True})
    before = {name: value.clone() for name, value in net.state_dict().items()}
    initialize(net.train(), IMAGES)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed} == {"1", "2", "5"}
    assert net.training


def test_a_recipe_asks_for_it() -> None:
    split = load_dataset("mnist-sample").train
    for asked in (False, True):
        net = network({"bias": True})
        before = net.blocks[1].synapse.weight.clone()
        Trainer(net, split, TrainingSpec(initialize=asked, validation=500))
        assert torch.equal(net.blocks[1].synapse.weight, before) is not asked
