from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from bootstrap_core.network.batch_norm import MeanOnly, WeightScale
from bootstrap_core.network.blocks import (
    AffineBlock,
    FlattenBlock,
    GradedInputBlock,
    InputBlock,
    SpikingBlock,
)
from bootstrap_core.network.build import build_network
from bootstrap_core.network.network import Network
from bootstrap_core.network.synapse import ConvSynapse, DenseSynapse, PoolSynapse
from specs.io import load_spec, network_names
from specs.network import NetworkSpec


def make(*blocks: dict[str, Any], seed: int | None = 0, **options: Any) -> Network:
    spec: dict[str, Any] = {"name": "test", "time_steps": 4, "input": {"shape": [2, 6, 6]}, **options}
    return build_network(NetworkSpec.model_validate(spec | {"blocks": blocks}), seed=seed)


CONV = {"kind": "conv", "channels": 4, "kernel": 3}
POOL = {"kind": "avg_pool", "kernel": 2}
FLATTEN = {"kind": "flatten"}
DENSE = {"kind": "dense", "features": 5}
AFFINE = {"kind": "affine", "features": 3}
ALL = (CONV, POOL, FLATTEN, DENSE, AFFINE)


def test_every_kind_has_its_block_in_the_order_of_the_layers() -> None:
    blocks = make(*ALL).blocks
    kinds = [InputBlock, SpikingBlock, SpikingBlock, FlattenBlock, SpikingBlock, AffineBlock]
    assert [type(block) for block in blocks] == kinds
    synapses = [type(block.synapse) for block in blocks if hasattr(block, "synapse")]
    assert synapses == [ConvSynapse, PoolSynapse, DenseSynapse, DenseSynapse]


def test_the_encoding_chooses_the_input_block() -> None:
    assert isinstance(make(*ALL, input={"shape": [2, 6, 6], "encoding": "graded"}).blocks[0], GradedInputBlock)


def test_the_state_dict_keys_of_the_tutorial_s_network() -> None:
    """The keys are a file format: a change would break every checkpoint."""
    sampler = ["sampler.centers", "sampler.slopes", "sampler.n_centers"]
    decays = ["neuron.current_decay", "neuron.voltage_decay"]
    weight = [f"synapse.parametrizations.weight.original{i}" for i in (0, 1)]
    expected = {f"blocks.0.{name}" for name in ["weight", "bias", *decays, *sampler]}
    for i in (1, 2):
        expected |= {f"blocks.{i}.{name}" for name in [*weight, *decays, *sampler]}
    expected |= {f"blocks.3.{name}" for name in [*weight, *decays]}
    assert set(build_network(load_spec("mnist-dense")).state_dict()) == expected


@pytest.mark.parametrize("name", network_names())
def test_every_network_in_the_package_builds_and_gives_its_logits(name: str) -> None:
    spec = load_spec(name)
    network = build_network(spec, seed=0)
    with torch.no_grad():
        silence = torch.zeros(*([1] * spec.input.is_events), 1, *spec.input.shape)
        assert network(silence, time_steps=1).shape == (1, spec.n_classes)


def test_one_seed_gives_one_network_and_another_another() -> None:
    first, same, other = (make(*ALL, seed=seed).blocks[1].synapse.weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_seed_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    make(*ALL, seed=7)
    assert torch.equal(torch.rand(1), expected)


def test_decays_learnt_per_channel_are_one_for_each_channel_of_the_layer() -> None:
    network = make(*ALL, neuron={"learn_decays": "per_channel"})
    sizes = [len(network.blocks[i].neuron.current_decay) for i in (0, 1, 2, 4)]
    assert sizes == [2, 4, 4, 5]


def test_only_the_first_block_counts_in_levels_of_a_graded_input() -> None:
    network = make(*ALL, input={"shape": [2, 6, 6], "encoding": "graded", "bits": 3}, neuron={"threshold": 1.0})
    assert [network.blocks[i].levels for i in (1, 2, 4, 5)] == [7, 1, 1, 1]
    assert [network.blocks[i].neuron.threshold_mant for i in (1, 2, 4, 5)] == [7 * 64, 64, 64, 64]


def test_norm_and_dropout_are_those_of_the_block() -> None:
    network = make(
        {**CONV, "norm": "mean_only", "dropout": 0.25},
        FLATTEN,
        {**DENSE, "norm": "weight_scale"},
        {**AFFINE, "dropout": 0.5},
    )
    assert isinstance(network.blocks[1].norm, MeanOnly)
    assert network.blocks[1].norm.running_mean.shape == (4,)
    assert isinstance(network.blocks[3].norm, WeightScale)
    assert [network.blocks[i].dropout for i in (1, 3, 4)] == [0.25, 0.0, 0.5]


def test_a_seed_gives_the_same_network_while_other_threads_build_and_draw() -> None:
    expected = {seed: make(*ALL, seed=seed).state_dict() for seed in range(8)}
    torch.manual_seed(0)
    after = torch.rand(1)
    torch.manual_seed(0)
    with ThreadPoolExecutor(8) as pool:
        for seed, network in zip(expected, pool.map(lambda seed: make(*ALL, seed=seed), expected), strict=True):
            assert all(torch.equal(expected[seed][name], tensor) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.rand(1), after)


def test_a_block_has_its_own_neuron_or_the_network_s() -> None:
    own = {"threshold": 2.0, "current_decay": 0.5}
    entering = {"shape": [2, 6, 6], "neuron": {"threshold": 3.0}}
    network = make({**CONV, "neuron": own}, FLATTEN, DENSE, AFFINE, neuron={"threshold": 1.5}, input=entering)
    thresholds = [network.blocks[i].neuron.spec.threshold for i in (0, 1, 3, 4)]
    assert thresholds == [3.0, 2.0, 1.5, 1.5]


def test_a_block_has_its_own_empty_step_or_the_network_s() -> None:
    blocks = ({**CONV, "delay_shift": False}, POOL, FLATTEN, DENSE, AFFINE)
    shifted = [getattr(block, "delay_shift", None) for block in make(*blocks, delay_shift=True).blocks]
    assert shifted == [True, False, True, None, True, None]
    alone = make(CONV, {**POOL, "delay_shift": True}, FLATTEN, DENSE, AFFINE).blocks
    assert [getattr(block, "delay_shift", None) for block in alone] == [False, False, True, None, False, None]
