"""Blocks of sigma-delta neurons, and networks of them: messages, values, the ANN, limits."""

from typing import Any

import pytest
import torch

from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import LayerModes, Mode
from bootstrap_core.network.network import Network
from bootstrap_core.network.sigma_delta import DeltaInputBlock, SigmaDeltaBlock, ValueBlock
from specs.errors import DataError, SnnZooError, StateOverflowError
from specs.network import NetworkSpec

SENDING = {"kind": "sigma_delta"}
CONV = {"kind": "conv", "channels": 3, "kernel": 3, "bias": True}
DENSE = {"kind": "dense", "features": 4}
VALUES = {"kind": "affine", "features": 2, "bias": True}


def make(*blocks: dict[str, Any], shape: tuple[int, ...] = (2, 6, 6), seed: int = 0, **more: Any) -> Network:
    document = {"name": "steer", "time_steps": 6, "neuron": SENDING, "blocks": list(blocks)}
    document |= {"input": {"shape": shape, "encoding": "frames"}, **more}
    network = build_network(NetworkSpec.model_validate(document), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in network.blocks:
            if getattr(block, "bias", None) is not None:
                block.bias.uniform_(-1, 1, generator=generator)
    return network.requires_grad_(requires_grad=False)


def frames(*shape: int, steps: int = 6, n: int = 2) -> torch.Tensor:
    return torch.randint(-64, 65, (steps, n, *shape), generator=torch.Generator().manual_seed(3))


def only(weights: list[list[float]], *, threshold: float = 0.0, **more: Any) -> Network:
    """Return a network of one dense layer with these weights."""
    neuron = {"neuron": SENDING | {"threshold": threshold}}
    network = make(DENSE | {"features": len(weights)} | neuron, shape=(len(weights[0]),), **more)
    network.block(1).synapse.weight.copy_(torch.tensor(weights))
    return network


def test_each_kind_of_block_is_built() -> None:
    network = make(CONV, {"kind": "avg_pool", "kernel": 2}, {"kind": "flatten"}, DENSE, VALUES)
    kinds = [type(block) for block in network.blocks if type(block).__name__ != "FlattenBlock"]
    assert kinds == [DeltaInputBlock, SigmaDeltaBlock, SigmaDeltaBlock, SigmaDeltaBlock, ValueBlock]
    assert sorted(network.state_dict()) == [
        "blocks.1.bias",
        "blocks.1.synapse.weight",
        "blocks.4.synapse.weight",
        "blocks.5.bias",
        "blocks.5.synapse.weight",
    ]
    assert network.fitted


def test_messages_are_integers_and_add_up_to_activations() -> None:
    network = only([[0.5, 0.25]])
    x = torch.tensor([[[64, 0]], [[64, 32]], [[0, 0]]])
    values, trace = network.run(x)
    assert trace.spikes[0][:, 0].tolist() == [[4096, 0], [0, 2048], [-4096, -2048]]
    assert trace.spikes[1][:, 0].tolist() == [[2048], [512], [-2560]]
    assert values.tolist() == trace.rates[1].tolist() == [[0.0]]
    assert network(x[:2]).tolist() == [[0.625]]
    assert [float(v) for v in trace.logits_after([1, 2, 3])] == [0.5, 0.625, 0.0]


def test_a_threshold_keeps_small_changes_back() -> None:
    network = only([[1.0]], threshold=0.5)
    x = torch.tensor([16, 48, 64, 64, 32, 0]).reshape(-1, 1, 1)
    _, trace = network.run(x)
    assert trace.spikes[1].flatten().tolist() == [0, 3072, 0, 0, 0, -3072]


def test_a_delay_shift_sends_messages_a_step_later() -> None:
    late, early = (only([[1.0]], delay_shift=shift) for shift in (True, False))
    x = torch.tensor([64, 0, 32]).reshape(-1, 1, 1)
    assert early.run(x)[1].spikes[1].flatten().tolist() == [4096, -4096, 2048]
    assert late.run(x)[1].spikes[1].flatten().tolist() == [0, 0, 4096]
    assert late.run(x)[1].spikes[0].flatten().tolist() == [0, 4096, -4096]


def test_a_readout_gives_the_value_after_each_step() -> None:
    network = make(DENSE, VALUES, shape=(5,))
    x = frames(5)
    values, trace = network.run(x)
    assert trace.spikes[-1].shape == (6, 2, 2)
    for t in range(6):
        assert torch.equal(trace.spikes[-1][t], network(x, time_steps=t + 1))
    assert torch.equal(trace.rates[-1], values)
    assert torch.equal(trace.logits_after([4])[0], network(x[:4]))
    assert torch.equal(network.tally(x, also_after=[2, 5])[1].earlier[1], network(x[:5]))


def test_with_a_step_for_each_layer_the_answer_arrives_after_as_many_steps_as_layers() -> None:
    plain = CONV | {"bias": False}  # with biases, activations change in several steps, and each message is rounded
    network = make(plain, {"kind": "flatten"}, DENSE, VALUES, delay_shift=True)
    still = frames(2, 6, 6, steps=1).expand(6, -1, -1, -1, -1)
    expected = network(still, Mode.ANN)
    assert not torch.equal(network(still, time_steps=3), expected)
    assert torch.equal(network(still, time_steps=4), expected)


def test_the_ann_takes_the_last_frame_and_rounds_down_to_messages() -> None:
    network = only([[3 / 64]])
    x = torch.tensor([64, 1]).reshape(-1, 1, 1)
    assert network(x, Mode.ANN).tolist() == [[4 / 4096]]  # weights are even: 4/64 of 1/64
    assert network(-x, Mode.ANN).tolist() == [[0.0]]
    again = make(DENSE | {"features": 1}, DENSE | {"features": 1}, shape=(1,))
    for i in (1, 2):
        again.block(i).synapse.weight.fill_(6 / 64)
    assert again(x, Mode.ANN).tolist() == [[0.0]]  # 36 / 64^3 is less than 1/4096


def test_a_residual_sum_and_a_second_branch_are_those_of_the_ann() -> None:
    branch = {"kind": "conv", "channels": 3, "kernel": 3, "padding": 1, "name": "branch", "source": "stem"}
    joined = {"kind": "conv", "channels": 3, "kernel": 1, "bias": True, "source": "branch"}
    joined["skips"] = [{"kind": "identity", "source": "stem"}, {"kind": "conv", "source": "input", "kernel": 3}]
    values = VALUES | {"skips": [{"kind": "dense", "source": "stem"}]}
    network = make(CONV | {"name": "stem"}, branch, joined, {"kind": "flatten"}, values)
    assert network.block(3).skips[0].weight.tolist() == [1.0, 1.0, 1.0]  # activations pass on as they are
    x = frames(2, 6, 6, steps=1)
    expected, found = network(x, Mode.ANN), network(x, Mode.SNN)
    assert torch.equal(found, expected)
    network.block(3).skips[0].weight.zero_()
    assert not torch.equal(network(x, Mode.SNN), expected)
    exact = IntegerNetwork(network)
    stream = exact.stream()
    assert torch.equal(stream.step(x[0]), exact(x))


def test_a_block_as_ann_reads_what_messages_before_it_add_up_to() -> None:
    network = make(DENSE, VALUES, shape=(5,))
    x = frames(5)
    expected = network(x[-1:], Mode.ANN)
    mixed = network(x, LayerModes(Mode.ANN, crossover=2))
    assert torch.allclose(mixed, expected, atol=1e-3)


def test_a_frozen_copy_has_the_same_messages_and_checks_24_bits() -> None:
    network = make(CONV, {"kind": "flatten"}, DENSE, VALUES)
    x, exact = frames(2, 6, 6), IntegerNetwork(network)
    values, trace = exact.run(x)
    assert torch.equal(values, network(x))
    assert trace.spikes[1].dtype == torch.int32
    assert torch.equal(
        trace.readout_voltage, (trace.spikes[-1] * 2**18).int() - (network.block(4).bias * 64).round().int() * 4096
    )
    assert all(torch.equal(a, b.float()) for a, b in zip(exact.rates(x), network.run(x)[1].rates, strict=True))


def test_a_state_beyond_24_bits_is_named_with_block_and_step() -> None:
    network = only([[3.9]], input={"shape": [1], "encoding": "frames", "bits": 12})
    x = torch.tensor([64, 600, 0]).reshape(-1, 1, 1)
    message = r"the weighted input of block 1 reaches 8[\d]+ at step 1; the hardware holds -8388607 to 8388607"
    exact = IntegerNetwork(network)
    with pytest.raises(StateOverflowError, match=message):
        exact(x)
    stream = exact.stream()
    stream.step(x[0])
    with pytest.raises(StateOverflowError, match=message):
        stream.step(x[1])
    with pytest.raises(SnnZooError, match=r"the last step of this stream failed half way: call reset\(\)"):
        stream.step(x[0])
    stream.reset()
    assert torch.equal(stream.step(x[0]), exact(x[:1]))
    assert float(network(x)) == 0.0


def test_a_bias_alone_may_leave_24_bits() -> None:
    network = make(DENSE | {"bias": True}, shape=(1,))
    network.block(1).bias.fill_(33.0)
    with pytest.raises(StateOverflowError, match="the activation of block 1 reaches 8650752 at step 0"):
        IntegerNetwork(network)(torch.zeros(2, 1, 1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(6, 2, 6, 6), r"steer takes frames as a tensor \[T, N, 2, 6, 6\], time first, integers in -128..127"
         r", in units of 1/64; they could be 6 time steps of one recording .*, or 6 still frames \(hold each for"),
        (torch.full((1, 1, 2, 6, 6), 128), "frames with values up to 128: .*; clamp them, or raise input.bits"),
        (torch.full((1, 1, 2, 6, 6), -129), "frames with values down to -129: .*; clamp them, or raise input.bits"),
        (torch.full((1, 1, 2, 6, 6), 0.5), "frames with values that are not whole numbers"),
    ],
)  # fmt: skip
def test_other_inputs_are_refused(given: torch.Tensor, message: str) -> None:
    network = make(CONV)
    for run in (network, IntegerNetwork(network)):
        with pytest.raises(DataError, match=message):
            run(given)
