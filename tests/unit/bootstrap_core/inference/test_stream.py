"""Streams: the same logits as one run, step by step."""

import math
import re
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.inference.overflow import Overflow
from bootstrap_core.network.build import build_network
from bootstrap_core.ops.library import without_native
from specs.errors import DataError, SnnZooError, StateOverflowError
from specs.network import NetworkSpec

DENSE = {"kind": "dense", "features": 8}
READOUTS: dict[str, list[dict[str, Any]]] = {
    "affine": [{"kind": "affine", "features": 4, "bias": True}],
    "dense": [{"kind": "dense", "features": 4}],
    "average": [DENSE, {"kind": "average", "features": 4}],
}
BLOCKS: dict[str, list[dict[str, Any]]] = {
    "plain": [{"kind": "flatten"}, DENSE],
    "recurrent": [{"kind": "flatten"}, {**DENSE, "recurrent": True}],
    "delays": [{"kind": "flatten"}, {**DENSE, "delays": {"per": "synapse", "longest": 6}}],
    "flat skips": [
        {"kind": "conv", "channels": 3, "kernel": 3},
        {"kind": "flatten"},
        {"kind": "dense", "features": 48},
        {"kind": "dense", "features": 48, "skips": [{"kind": "identity", "source": 2}]},
    ],
    "skips": [
        {"kind": "conv", "channels": 3, "kernel": 3, "delays": {"longest": 3}},
        {"kind": "conv", "channels": 3, "kernel": 1, "skips": [{"kind": "identity", "source": 1}]},
        {"kind": "avg_pool", "kernel": 2},
        {"kind": "flatten"},
    ],
}
T = 15


def make(
    *blocks: dict[str, Any],
    encoding: str = "events",
    bits: int = 1,
    raised: float = 0.1,
    overflow: Overflow = Overflow.REFUSE,
    **more: Any,
) -> IntegerNetwork:
    document = {
        "name": "sensed",
        "time_steps": T,
        "neuron": {"threshold": 0.5, "voltage_decay": 0.1, "current_decay": 0.5},
        "input": {"shape": [2, 6, 6], "encoding": encoding, "bits": bits},
        "blocks": list(blocks),
        **more,
    }
    network = build_network(NetworkSpec.model_validate(document), seed=0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("synapse.weight"):
                parameter.add_(raised)
    return IntegerNetwork(network, overflow=overflow)


def events(bits: int = 1) -> Tensor:
    return torch.randint(0, 1 << bits, (T, 3, 2, 6, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("engine", [nullcontext, without_native])
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("more", [{}, {"delay_shift": True}, {"bits": 3}], ids=["plain", "shift", "bits"])
def test_a_stream_gives_the_logits_of_one_run(kind: str, readout: str, more: dict[str, Any], engine) -> None:
    exact, x = make(*BLOCKS[kind], *READOUTS[readout], **more), events(more.get("bits", 1))
    stream = exact.stream()
    for t in range(T):
        with engine():
            found = stream.step(x[t])
        assert torch.equal(found, exact(x, time_steps=t + 1))
    assert stream.steps == T


@pytest.mark.parametrize("engine", [nullcontext, without_native])
@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("bits", [1, 3])
def test_a_stream_reads_the_last_step_or_gives_its_spikes(kind: str, bits: int, engine) -> None:
    x = events(bits)
    last = make(*BLOCKS[kind], *READOUTS["affine"], bits=bits, output="last")
    spikes = make(*BLOCKS[kind], *READOUTS["dense"], bits=bits, output="spikes")
    streams, trains = (last.stream(), spikes.stream()), spikes(x)
    for t in range(T):
        with engine():
            logits, fired = (stream.step(x[t]) for stream in streams)
        assert torch.equal(logits, last(x, time_steps=t + 1))
        assert torch.equal(fired, trains[t])
    assert trains.any()


@pytest.mark.parametrize("bits", [1, 3])
def test_events_may_be_averaged_alone(bits: int) -> None:
    exact, x = make({"kind": "flatten"}, READOUTS["average"][1], bits=bits), events(bits)
    stream, expected = exact.stream(), x.flatten(2).view(T, 3, 4, -1).double().mean((0, 3)).float()
    logits = [stream.step(frame) for frame in x]
    torch.testing.assert_close(logits[-1], expected)
    assert torch.equal(logits[-1], exact(x))
    network = build_network(exact.spec, seed=0)
    assert network.device == torch.device("cpu")
    assert torch.equal(network(x), exact(x))


@pytest.mark.parametrize("encoding", ["spike", "graded"])
def test_a_stream_of_a_still_image_sees_it_at_each_step(encoding: str) -> None:
    first = {"kind": "conv", "channels": 3, "kernel": 3}
    exact = make(first, {"kind": "flatten"}, *READOUTS["affine"], encoding=encoding, bits=3)
    images = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    stream = exact.stream()
    for t in range(5):
        assert torch.equal(stream.step(images), exact(images, time_steps=t + 1))


@pytest.mark.parametrize("encoding", ["spike", "graded"])
def test_the_image_of_a_stream_may_change_also_in_place(encoding: str) -> None:
    exact = make(
        {"kind": "conv", "channels": 3, "kernel": 3}, {"kind": "flatten"}, *READOUTS["affine"], encoding=encoding
    )
    stream, defined, pair = exact.stream(), exact.stream(), torch.rand(2, 2, 6, 6)
    for t in range(9):
        if t > 5:
            pair.mul_(0.5)
        seen = pair.flip(0) if t in {2, 3} else pair
        with without_native():
            expected = defined.step(seen)
        assert torch.equal(stream.step(seen), expected)


@pytest.mark.parametrize("value", [2.0, -1.0, 0.5, math.nan, math.inf])
def test_events_are_checked_at_each_step(value: float) -> None:
    stream, x = make(*BLOCKS["plain"], *READOUTS["affine"]).stream(), events()[0].float()
    before = stream.step(x)
    wrong = x.clone()
    wrong[1, 0, 2, 2] = value
    with pytest.raises(DataError, match="events with values"):
        stream.step(wrong)
    assert stream.steps == 1
    again = make(*BLOCKS["plain"], *READOUTS["affine"]).stream()
    assert torch.equal(before, again.step(x))
    assert torch.equal(stream.step(x), again.step(x.requires_grad_()))
    assert torch.equal(stream.step(x.int()), again.step(x.bool()))


@pytest.mark.parametrize("engine", [nullcontext, without_native])
@pytest.mark.parametrize("kind", BLOCKS)
def test_steps_may_be_in_inference_mode_or_not(kind: str, engine) -> None:
    exact, x = make(*BLOCKS[kind], *READOUTS["affine"]), events()
    stream = exact.stream()
    for t in range(5):
        with torch.inference_mode(t < 2), engine():
            found = stream.step(x[t])
    assert torch.equal(found, exact(x, time_steps=5))


def test_streams_of_one_network_run_at_once() -> None:
    exact, x = make(*BLOCKS["recurrent"], *READOUTS["affine"]), events()

    def run(recording: Tensor) -> list[Tensor]:
        stream = exact.stream()
        return [stream.step(step) for step in recording for _ in range(20)]

    recordings = [x, x.flip(0), 1 - x, x.flip(1)]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(run, recordings))
    for found, expected in zip(at_once, map(run, recordings), strict=True):
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("encoding", ["events", "frames"])
def test_steps_of_several_threads_run_one_after_another(encoding: str) -> None:
    more = {"neuron": {"kind": "sigma_delta", "threshold": 0.5}} if encoding == "frames" else {}
    readout = READOUTS["affine"] if encoding == "frames" else READOUTS["average"]
    exact = make({"kind": "flatten"}, DENSE, *readout, encoding=encoding, bits=3, raised=0.0, **more)
    x = events(2)[0]
    stream, other = exact.stream(), exact.stream()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: stream.step(x), range(200)))
    finally:
        sys.setswitchinterval(interval)
    expected = [other.step(x) for _ in range(200)]
    assert stream.steps == 200
    assert sorted(y.flatten().tolist() for y in found) == sorted(y.flatten().tolist() for y in expected)


INPUTS = [({"encoding": "spike"}, ()), ({"encoding": "graded", "bits": 3}, ()), ({"encoding": "events"}, (T,))]


@pytest.mark.parametrize("change", [Tensor.to_sparse, lambda x: x.to("meta")], ids=["sparse", "meta"])
@pytest.mark.parametrize(("given", "timed"), INPUTS)
def test_tensors_that_do_not_hold_their_values_are_told(given, timed, change) -> None:
    exact = make({"kind": "conv", "channels": 3, "kernel": 3}, {"kind": "flatten"}, *READOUTS["affine"], **given)
    network, x = build_network(exact.spec, seed=0), torch.zeros(*timed, 3, 2, 6, 6)
    fresh, used = exact.stream(), exact.stream()
    used.step(x[0] if timed else x)
    step = change(x[0] if timed else x)
    for engine, wrong in ((network, change(x)), (exact, change(x)), (fresh.step, step), (used.step, step)):
        with pytest.raises(DataError, match="sensed takes a dense tensor"):
            engine(wrong)


def test_a_state_that_leaves_24_bits_stops_a_stream() -> None:
    kept = {"threshold": 1000.0, "current_decay": 0.0}
    exact = make({"kind": "flatten"}, {**DENSE, "name": "wide", "neuron": kept}, *READOUTS["affine"], raised=4.0)
    stream, ones = exact.stream(), torch.ones(1, 2, 6, 6)
    for _ in range(5):
        stream.step(ones)
    with pytest.raises(StateOverflowError, match=r"the current of block 2 \(wide\) reaches 9338880 at step 7"):
        deque((stream.step(ones) for _ in range(60)), maxlen=0)
    with pytest.raises(SnnZooError, match=r"the last step of this stream failed half way: call reset\(\)"):
        stream.step(ones)
    stream.reset()
    assert torch.equal(stream.step(ones), exact(ones[None]))


def test_a_stream_may_overflow_as_the_chip_does() -> None:
    kept = {"threshold": 1000.0, "current_decay": 0.0}
    chain = ({"kind": "flatten"}, {**DENSE, "neuron": kept}, *READOUTS["dense"])
    exact, x = make(*chain, raised=4.0, overflow=Overflow.CHIP), events()
    expected = exact(x)
    counted = +exact.overflows
    assert counted[2] > 0
    exact.overflows.clear()
    stream = exact.stream()
    assert torch.equal([stream.step(step) for step in x][-1], expected)
    assert +exact.overflows == counted


@pytest.mark.parametrize("kind", ["plain", "recurrent"])
@pytest.mark.parametrize("more", [{}, {"delay_shift": True}, {"bits": 4}], ids=["plain", "shift", "bits"])
def test_states_may_leave_24_bits_in_the_middle_of_a_stream(kind: str, more: dict[str, Any]) -> None:
    """Also those of the readout's neurons, whose logits do not depend on them."""
    kept, steps = {"threshold": 900.0, "current_decay": 0.01, "voltage_decay": 0.0}, 40
    chain = ({"kind": "flatten"}, {**DENSE, "neuron": kept, **BLOCKS[kind][1]}, *READOUTS["affine"])
    exact = make(*chain, raised=1.5, overflow=Overflow.CHIP, neuron=kept, **more)
    x = torch.randint(0, 1 << more.get("bits", 1), (steps, 3, 2, 6, 6), generator=torch.Generator().manual_seed(0))
    stream, first = exact.stream(), None
    for t in range(steps):
        found = stream.step(x[t])
        first = t if first is None and +exact.overflows else first
    counted = +exact.overflows
    exact.overflows.clear()
    assert torch.equal(exact(x), found)
    assert +exact.overflows == counted
    assert first


@pytest.mark.parametrize(
    ("shape", "hint"), [((2, 6, 6), r"; of one recording, its step is events\[None\]$"), ((3, 2, 5, 6), r"6, 6\]$")]
)
def test_what_is_no_step_is_told(shape: tuple[int, ...], hint: str) -> None:
    stream = make({"kind": "flatten"}, *READOUTS["affine"]).stream()
    with pytest.raises(DataError, match=r"a step of sensed takes events as a tensor \[N, 2, 6, 6\]") as told:
        stream.step(torch.zeros(shape))
    assert re.search(hint, str(told.value))
    assert stream.steps == 0
