import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import accuracy_by_steps, count_synops, evaluate, evaluate_exactly
from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.splits import Split
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network, Tally
from bootstrap_core.ops.library import is_installed, without_native
from specs.errors import DataError, SnnZooError, StateOverflowError
from specs.network import NetworkSpec


def spec_of(*blocks: dict[str, Any], **options: Any) -> NetworkSpec:
    return NetworkSpec.model_validate({"name": "test", "time_steps": 4, "blocks": blocks, **options})


AFFINE = {"kind": "affine", "features": 3}
FIRING = {"threshold": 0.1, "voltage_decay": 0.1, "tau_grad": 0.1}


def marked_split(first_pixels: list[int], labels: list[int]) -> Split:
    """Return images that are black except for their first pixel."""
    images = torch.zeros(len(labels), 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(first_pixels, dtype=torch.uint8)
    return Split(images, torch.tensor(labels))


def tally_of(*spikes: Tensor) -> Tally:
    """Return the tally of a run with these `spikes` `[T, N, ...]` of each layer except the affine readout."""
    counts = [x.count_nonzero(dim=(0, 1)) for x in spikes]
    return Tally((*counts, None), (*(float((x != 0).double().mean()) for x in spikes), 0.0))


class Oracle(IntegerNetwork):
    """A network whose logit is 1 for the class in the first pixel, 0 for others, and whose first pixel fires."""

    spec = spec_of(AFFINE, input={"shape": [784]})
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[tuple[int, Mode | None, int | None]] = []

    def tally(
        self,
        images: Tensor,
        mode: Mode | None = None,
        *,
        time_steps: int | None = None,
        also_after: Sequence[int] = (),
    ) -> tuple[Tensor, Tally]:
        self.calls.append((len(images), mode, time_steps))
        assert not torch.is_grad_enabled()
        logits = torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 3).float()
        spikes = (images.flatten(1) > 0).float().expand(4, -1, -1)
        earlier = tuple(logits.roll(1, 1) if t == 1 else logits for t in also_after)
        return logits, replace(tally_of(spikes), earlier=earlier)


SPLIT = marked_split([0, 1, 2, 1, 0], [0, 1, 2, 2, 1])
RIGHT, WRONG = (math.log(math.e + 2) - logit for logit in (1, 0))


def test_accuracy_counts_the_images_whose_largest_logit_is_their_label() -> None:
    score = evaluate(Oracle(), SPLIT)
    assert (score.n_correct, score.n_images, score.accuracy) == (3, 5, 0.6)


class Overflowing(Oracle):
    """A network whose states overflow from T = 8 on."""

    def tally(self, images: Tensor, mode: Mode | None = None, **steps: Any) -> tuple[Tensor, Tally]:
        found = super().tally(images, mode, **steps)
        if steps["time_steps"] >= 8:
            raise StateOverflowError("24 bits")
        return found


def test_accuracy_by_steps_ends_where_a_state_overflows() -> None:
    network = Overflowing()
    found = accuracy_by_steps(network, SPLIT, [16, 2, 8, 1, 4], batch_size=3)
    assert list(found.items()) == [(1, 0.4), (2, 0.6), (4, 0.6), (8, None), (16, None)]
    assert [(n, t) for n, _, t in network.calls] == [(3, 16), (3, 8), (3, 4), (2, 4)]


@pytest.mark.parametrize("earlier", [[0], [-1], [5], [1, 9], [2.0], ["2"]])
def test_shorter_runs_are_no_longer_and_whole(earlier: list[Any]) -> None:
    network = build_network(spec_of(AFFINE, input={"shape": [784]}), seed=0)
    for runnable in (network, IntegerNetwork(network)):
        with pytest.raises(SnnZooError, match="from 1 to 4, the steps of this run, not "):
            runnable.tally(torch.rand(2, 1, 28, 28), Mode.SNN, also_after=earlier)


def test_shorter_runs_are_scored_in_the_long_one() -> None:
    network = Oracle()
    score = evaluate(network, SPLIT, time_steps=9, also_after=[3, 1], batch_size=2)
    assert score.by_steps == {1: 0.4, 3: 0.6, 9: 0.6}
    assert [n for n, *_ in network.calls] == [2, 2, 1]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("readout", [AFFINE, {"kind": "dense", "features": 10}])
def test_the_beginning_of_a_run_is_the_shorter_run(readout: dict[str, Any], native: bool) -> None:
    if native and not is_installed():
        pytest.skip("needs the native library")
    dense = {"kind": "dense", "features": 30, "delay_shift": True}
    network = build_network(spec_of(dense, readout, input={"shape": [784]}, neuron=FIRING), seed=0)
    images = torch.rand(20, 1, 28, 28)
    with nullcontext() if native else without_native():
        for runnable in (network, IntegerNetwork(network)):
            logits, tally = runnable.tally(images, Mode.SNN, time_steps=9, also_after=[2, 7])
            assert logits.any()
            for t, earlier in zip([2, 7, 9], [*tally.earlier, logits], strict=True):
                assert torch.equal(earlier, runnable.tally(images, Mode.SNN, time_steps=t)[0])


def test_the_scale_of_the_spec_counts_in_the_loss() -> None:
    network = Oracle()
    network.spec = network.spec.model_copy(update={"logit_scale": 3.0})
    wrong = evaluate(network, marked_split([1], [0]), mode=Mode.SNN).loss
    assert wrong - evaluate(network, marked_split([0], [0]), mode=Mode.SNN).loss == pytest.approx(3)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_loss_is_the_mean_over_images_whatever_the_batch(batch_size: int) -> None:
    score = evaluate(Oracle(), SPLIT, batch_size=batch_size)
    assert score.loss == pytest.approx((3 * RIGHT + 2 * WRONG) / 5, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_rates_and_synops_are_means_over_images_whatever_the_batch(batch_size: int) -> None:
    score = evaluate(Oracle(), SPLIT, batch_size=batch_size)
    assert score.rates == (pytest.approx(3 / 5 / 784), None)  # one of 784 pixels fires, in three of five images
    assert score.synops == (0, pytest.approx(3 / 5 * 4 * 3))  # at each of 4 steps, to 3 classes


# --- A real network

TINY = spec_of({"kind": "dense", "features": 8}, {"kind": "affine", "features": 10}, input={"shape": [784]})


def real() -> tuple[Network, Split]:
    network, split = build_network(TINY, seed=0), load_dataset("mnist-sample").test.take(slice(0, 60))
    with torch.no_grad():
        network.blocks[1].synapse.weight.add_(0.02)
    return network, split


def test_the_integer_engine_scores_as_the_float_network() -> None:
    network, split = real()
    ours, theirs = evaluate(network, split), evaluate(IntegerNetwork(network), split)
    assert theirs.rates == pytest.approx(ours.rates)
    assert ours.rates[1] > 0
    assert theirs.synops == pytest.approx(ours.synops)
    assert (theirs.n_correct, theirs.loss) == (ours.n_correct, pytest.approx(ours.loss))


def test_a_network_in_training_runs_in_eval_mode_and_is_put_back(monkeypatch) -> None:
    network, split = real()
    expected = evaluate(network, split)
    network.train()
    seen: list[bool] = []
    tally, block = network.tally, network.blocks[1]
    monkeypatch.setattr(network, "tally", lambda *args, **kwargs: seen.append(block.training) or tally(*args, **kwargs))
    score = evaluate(network, split)
    assert network.training
    assert set(seen) == {False}
    assert (score.n_correct, score.loss) == (expected.n_correct, expected.loss)


def test_the_training_flag_comes_back_after_an_error() -> None:
    network, split = real()
    network.train()
    with pytest.raises(SnnZooError, match="needs fitted activations"):
        evaluate(network, split, mode=Mode.ANN)
    assert network.training


# --- In integers, until their states overflow


def inhibited() -> tuple[Network, Split]:
    """Return a network whose voltages leave 24 bits within 16 steps on digits, but not on the first, black image."""
    block = {"kind": "dense", "features": 8, "dropout": 0.5}
    neuron = {"threshold": 0.5, "voltage_decay": 0.0}
    spec = spec_of(block, AFFINE, input={"shape": [784], "encoding": "graded", "bits": 4}, neuron=neuron)
    network = build_network(spec.model_copy(update={"time_steps": 16}), seed=0)
    with torch.no_grad():
        network.blocks[1].synapse.weight[:4] = -0.125
    digits = load_dataset("mnist-sample").test.take(slice(0, 19))
    images = torch.cat([torch.zeros_like(digits.images[:1]), digits.images[:]])
    return network, Split(images, torch.arange(20) % 3)


def test_an_exact_score_is_that_of_the_integer_engine() -> None:
    network, split = real()
    score, overflow = evaluate_exactly(network, split)
    assert overflow is None
    assert replace(score, seconds=0.0) == replace(evaluate(IntegerNetwork(network), split), seconds=0.0)


def test_beyond_24_bits_the_score_is_of_floats_and_what_left_them_is_told() -> None:
    network, split = inhibited()
    wanted = evaluate(network, split)
    network.train()
    score, overflow = evaluate_exactly(network, split)
    assert network.training
    assert overflow is not None
    assert overflow.startswith("the voltage of block 1 reaches -")
    assert replace(score, seconds=0.0) == replace(wanted, seconds=0.0)
    assert evaluate_exactly(network, split.take(slice(0, 1)))[1] is None


# --- Synops by hand


def synops(spec: NetworkSpec, *spikes: Tensor) -> list[float]:
    """Return the synops of a run with these `spikes` `[T, N, ...]` of each layer except the readout."""
    return count_synops(spec, tally_of(*spikes).counts)


@pytest.mark.parametrize(("row", "column", "reached"), [(0, 0, 4), (0, 1, 6), (1, 1, 9), (2, 2, 4)])
def test_a_spike_into_a_padded_conv_block_reaches_only_positions_that_exist(row, column, reached) -> None:
    conv = {"kind": "conv", "channels": 2, "kernel": 3, "padding": 1}
    spec = spec_of(conv, {"kind": "flatten"}, AFFINE, input={"shape": [1, 3, 3]})
    entering = torch.zeros(4, 1, 1, 3, 3)
    entering[2, 0, 0, row, column] = 1
    found = synops(spec, entering, torch.zeros(4, 1, 2, 3, 3), torch.zeros(4, 1, 18))
    assert found == [0, reached * 2, 0, 0]


def test_height_and_width_of_a_conv_block_are_not_mixed_up() -> None:
    conv = {"kind": "conv", "channels": 1, "kernel": [1, 3], "stride": [2, 1]}
    spec = spec_of(conv, {"kind": "flatten"}, AFFINE, input={"shape": [1, 3, 5]})

    def at(row: int, column: int) -> float:
        entering = torch.zeros(1, 1, 1, 3, 5)
        entering[0, 0, 0, row, column] = 1
        return synops(spec, entering, torch.zeros(1, 1, 1, 2, 3), torch.zeros(1, 1, 6))[1]

    assert [at(0, column) for column in range(5)] == [1, 2, 3, 2, 1]
    assert [at(row, 2) for row in range(3)] == [3, 0, 3]


def test_a_spike_into_a_grouped_conv_block_reaches_its_group_only() -> None:
    conv = {"kind": "conv", "channels": 6, "kernel": 1, "groups": 2}
    spec = spec_of(conv, {"kind": "flatten"}, AFFINE, input={"shape": [2, 2, 2]})
    entering = torch.zeros(1, 1, 2, 2, 2)
    entering[0, 0, 1, 0, 0] = 1
    assert synops(spec, entering, torch.zeros(1, 1, 6, 2, 2), torch.zeros(1, 1, 24))[1] == 3


def test_graded_input_counts_each_pixel_that_is_not_zero_at_every_step() -> None:
    spec = spec_of(AFFINE, input={"shape": [4], "encoding": "graded"})
    pixels = torch.tensor([[0.0, 7.0, 255.0, 0.0]])
    assert synops(spec, pixels.expand(5, 1, 4)) == [0, 5 * 2 * 3]
    assert synops(spec, pixels.repeat(5, 1, 1)) == [0, 5 * 2 * 3]


def test_nothing_to_score_is_told() -> None:
    network, split = real()
    with pytest.raises(DataError, match="no images"):
        evaluate(network, split.take(slice(0, 0)))


def test_a_spike_reaches_the_weights_of_skips_too() -> None:
    conv = {"kind": "conv", "channels": 2, "kernel": 1}
    skips = [{"source": 0, "kind": "conv", "kernel": 3, "padding": 1}, {"source": 1, "kind": "identity"}]
    readout = {**AFFINE, "skips": [{"source": 1, "kind": "dense"}]}
    spec = spec_of(conv, {**conv, "skips": skips}, {"kind": "flatten"}, readout, input={"shape": [1, 3, 3]})
    entering, hidden = torch.zeros(4, 1, 1, 3, 3), torch.zeros(4, 1, 2, 3, 3)
    entering[2, 0, 0, 0, 1] = hidden[1, 0, 1, 2, 2] = hidden[3, 0, 0, 0, 0] = 1
    found = synops(spec, entering, hidden, torch.zeros(4, 1, 2, 3, 3), torch.zeros(4, 1, 18))
    assert found == [0, 2, 2 * 2 + 6 * 2 + 2, 0, 2 * 3]


def test_a_label_that_no_class_has_is_told() -> None:
    with pytest.raises(DataError, match="label 3: the network has 3 classes"):
        evaluate(Oracle(), marked_split([0, 1], [0, 3]))
