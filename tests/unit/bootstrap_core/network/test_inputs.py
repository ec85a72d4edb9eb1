"""Inputs that differ from step to step: shapes, values and the number of steps."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import count_synops
from bootstrap_core.analysis.synaptic_operations import effective_operations
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.build import build_network
from bootstrap_core.network.inputs import as_input, count_steps
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops.library import without_native
from specs.errors import DataError, IntegrityError, SnnZooError
from specs.network import NetworkSpec

T = 6


def make(shape: tuple[int, ...] = (2, 4, 4), *, bits: int = 1, encoding: str = "events", **more: Any) -> Network:
    blocks: list[dict[str, Any]] = [{"kind": "flatten"}] if len(shape) > 1 else []
    blocks += [{"kind": "dense", "features": 8, **more}, {"kind": "affine", "features": 3}]
    document = {
        "name": "seen",
        "time_steps": T,
        "neuron": {"threshold": 0.5, "voltage_decay": 0.1, "tau_grad": 0.05},
        "input": {"shape": shape, "encoding": encoding, "bits": bits},
        "blocks": blocks,
    }
    network = build_network(NetworkSpec.model_validate(document), seed=0)
    with torch.no_grad():
        network.block(-2).synapse.weight.add_(0.05)
    return network


def events(*shape: int, bits: int = 1) -> Tensor:
    return torch.randint(0, 1 << bits, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_a_run_has_the_steps_of_its_events_and_reads_each_of_them() -> None:
    x = events(9, 3, 2, 4, 4)
    logits, trace = make().run(x)
    assert trace.spikes[0].shape == (9, 3, 2, 4, 4)
    assert torch.equal(trace.spikes[0], x.float())
    changed = x.clone()
    changed[8, 1] = 1 - changed[8, 1]
    again = make()(changed)
    assert torch.equal(again[0], logits[0])
    assert not torch.equal(again[1], logits[1])


@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_both_engines_take_events_of_any_type_and_agree(bits: int, dtype: torch.dtype) -> None:
    x, network = events(40, 3, 2, 4, 4, bits=bits), make(bits=bits)
    expected, trace = network.run(x)
    assert 0 < float(trace.rates[2].detach().mean()) < 1
    assert torch.equal(network(x.to(dtype)), expected)
    assert torch.equal(IntegerNetwork(network)(x.to(dtype)), expected)
    with without_native():
        assert torch.equal(network(x.to(dtype)), expected)


def test_fewer_steps_are_the_first_ones_and_more_are_refused() -> None:
    network, x = make(), events(9, 3, 2, 4, 4)
    for engine in (network, IntegerNetwork(network)):
        assert torch.equal(engine(x, time_steps=4), network(x[:4]))
        _, tally = engine.tally(x, also_after=[4])
        assert torch.equal(tally.earlier[0], network(x[:4]))
        with pytest.raises(SnnZooError, match=r"time_steps must be at most 9, the steps of these events, not 10"):
            engine(x, time_steps=10)
    assert count_steps(network.spec, None, x) == 9
    assert count_steps(network.spec, None) == T


def test_as_ann_events_are_their_mean_over_time() -> None:
    x = events(9, 3, 2, 4, 4, bits=2)
    assert torch.equal(make(bits=2).block(0)(x, Mode.ANN, 9), x.float().mean(0))
    assert torch.equal(make(bits=2).block(0)(x, Mode.ANN, 4), x[:4].float().mean(0))


@pytest.mark.parametrize("mode", [Mode.SNN, Mode.ANN])
def test_gradients_reach_the_weights_behind_events(mode: Mode) -> None:
    network, x = make(), events(9, 3, 2, 4, 4)
    network(x, Mode.SAMPLE)
    network(x, Mode.FIT)
    network(x, mode).square().sum().backward()
    assert network.block(2).synapse.weight.grad.abs().max() > 0


WANTED = r"seen takes events as a tensor \[T, N, 2, 4, 4\], time first, integers in 0\.\.1"
TWO_READINGS = (
    r"; they could be 5 time steps of one recording \(add its axis: events\[:, None\]\), or 5 still images, which this "
    "network does not take$"
)


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.zeros(5, 2, 4, 4), rf"events of \[5, 2, 4, 4\] do not fit: {WANTED}{TWO_READINGS}"),
        (torch.zeros(5, 1, 4, 4), rf"events of \[5, 1, 4, 4\] do not fit: {WANTED}$"),
        (torch.zeros(3, 2, 4, 4, 9), rf"events of \[3, 2, 4, 4, 9\] do not fit: {WANTED}$"),
        (torch.zeros(0, 3, 2, 4, 4), rf"events of \[0, 3, 2, 4, 4\] do not fit: {WANTED}$"),
        (torch.tensor(1.0), rf"events of \[\] do not fit: {WANTED}$"),
        (torch.full((5, 3, 2, 4, 4), 2), rf"events with values up to 2: {WANTED}; clamp them, or raise input.bits"),
        (torch.full((5, 3, 2, 4, 4), -1), "events with values that are not whole numbers from 0 on"),
        (torch.full((5, 3, 2, 4, 4), torch.nan), "events with values that are not whole numbers from 0 on"),
        (torch.full((5, 3, 2, 4, 4), 0.5), "events with values that are not whole numbers"),
        (torch.zeros(5, 3, 2, 4, 4, dtype=torch.complex64), f"{WANTED}, not torch.complex64"),
        ([1], f"{WANTED}, not a list"),
    ],
)
def test_what_are_no_events_is_told_by_both_engines(x: Any, told: str) -> None:
    for runnable in (make(), IntegerNetwork(make())):
        for run in (runnable, runnable.run, runnable.tally):
            with pytest.raises(DataError, match=told):
                run(x)


def test_recordings_first_as_in_datasets_are_warned_of() -> None:
    network = make()
    steps = network.spec.time_steps
    with pytest.warns(UserWarning, match=rf"is taken as 3 time steps of {steps} recordings.*transpose\(0, 1\)"):
        network(events(3, steps, 2, 4, 4))


@pytest.mark.parametrize("shape", [(9, 1, 7), (9, 1, 2, 4, 4)])
def test_steps_of_one_input_are_not_taken_for_images(shape: tuple[int, ...]) -> None:
    network = make(shape[2:], encoding="spike")
    with pytest.raises(DataError, match=r"could be 9 images, or 9 time steps of one input: seen takes images"):
        network(torch.zeros(shape))
    assert as_input(torch.zeros(9, *shape[2:]), network.spec).shape == (9, *shape[2:])


# --- recurrence


def test_a_recurrent_block_runs_only_as_snn() -> None:
    network, x = make((7,), recurrent=True), events(9, 3, 7)
    assert not network.fitted
    for mode in (Mode.ANN, Mode.SAMPLE, Mode.FIT):
        with pytest.raises(SnnZooError, match=r"a recurrent network runs only in Mode\.SNN"):
            network(x, mode)
    with pytest.raises(SnnZooError, match="runs only in"):
        network.tandem(x)


def test_recurrent_spikes_count_as_synaptic_operations() -> None:
    network, x = make((7,), recurrent=True), events(9, 3, 7)
    plain = make((7,))
    _, tally = network.tally(x)
    synops, spikes = count_synops(network.spec, tally.counts), int(tally.counts[1].sum())
    assert spikes > 0
    assert synops[1] == 8 * int(x.sum()) + 8 * spikes
    assert count_synops(plain.spec, plain.tally(x)[1].counts)[1] == 8 * int(x.sum())
    dense = [torch.full_like(count, 1) for count in tally.counts[:2]]
    assert effective_operations(network, [*dense, torch.zeros(3)])[1] <= 8 * 7 + 8 * 8


def test_delays_are_drawn_by_the_seed_and_belong_to_the_state() -> None:
    network = make((7,), delays={"longest": 5})
    delay = network.state_dict()["blocks.1.delay"]
    assert delay.shape == (8,)
    assert set(delay.tolist()) <= {0, 1, 2, 3, 4, 5}
    assert torch.equal(make((7,), delays={"longest": 5}).block(1).delay, delay)
    assert make((7,), delays={"per": "synapse"}).block(1).delay.shape == (8, 7)


@pytest.mark.parametrize("wrong", [-1.0, 6.0, 1.5, 2e8, math.nan])
@pytest.mark.parametrize("per", ["neuron", "synapse"])
def test_fixed_delays_outside_of_their_range_are_refused(per: str, wrong: float) -> None:
    network = make((7,), delays={"longest": 5, "per": per})
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(state)
    state["blocks.1.delay"].view(-1)[3] = wrong
    told = f"blocks.1.delay must hold whole time steps from 0 to 5, got {wrong:g}"
    with pytest.raises(IntegrityError, match=re.escape(told)):
        network.load_state_dict(state)


def trained(**delays: Any) -> Network:
    """Return a network whose delays lie between whole steps, and outside of their range, as in training."""
    network = make((7,), delays={"longest": 5, "learn": True, **delays})
    with torch.no_grad():
        delay = network.block(1).delay
        delay.copy_(torch.linspace(-1.0, 6.5, delay.numel()).view_as(delay))
    return network


@pytest.mark.parametrize("per", ["neuron", "synapse"])
def test_trained_delays_run_in_whole_steps(per: str) -> None:
    network, x = trained(per=per), events(12, 3, 7)
    whole = network.block(1).delay.detach().round().clamp(0, 5)
    assert set(whole.flatten().tolist()) == {0, 1, 2, 3, 4, 5}
    assert torch.equal(network.block(1).quantized_delay(), whole)
    fixed = make((7,), delays={"longest": 5, "per": per})
    fixed.load_state_dict(network.state_dict() | {"blocks.1.delay": whole})
    expected = fixed(x)
    assert torch.equal(network(x), expected)
    exact = IntegerNetwork(network)
    assert torch.equal(exact(x), expected)
    stream = exact.stream()
    assert torch.equal([stream.step(step) for step in x][-1], expected)


@pytest.mark.parametrize("per", ["neuron", "synapse"])
def test_a_loss_moves_delays_and_weights(per: str) -> None:
    network, x = trained(per=per), events(12, 3, 7)
    network(x).square().sum().backward()
    assert network.block(1).delay.grad.abs().max() > 0
    fixed = make((7,), delays={"longest": 5, "per": per})
    fixed.load_state_dict(network.state_dict() | {"blocks.1.delay": network.block(1).quantized_delay()})
    fixed(x).square().sum().backward()
    ours, theirs = (each.block(1).synapse.weight.grad for each in (network, fixed))
    torch.testing.assert_close(ours, theirs)


def test_rates_do_not_depend_on_trained_delays() -> None:
    network, x = trained(), events(12, 3, 7)
    network(x, Mode.SAMPLE)
    network(x, Mode.FIT)
    network(x, Mode.ANN).square().sum().backward()
    assert network.block(1).delay.grad is None
