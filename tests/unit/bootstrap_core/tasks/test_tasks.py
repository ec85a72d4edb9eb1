"""Tasks: networks that give values or spike trains learn the targets of recordings."""

import io
import math
from typing import Any

import pytest
import torch
from spike_trains import made_network, made_recordings

from bootstrap_core import IntegerNetwork, Mode, build_network, evaluate, fit, load_dataset
from bootstrap_core.data.frames import Frames
from bootstrap_core.network.network import Network
from bootstrap_core.tasks import task_of
from bootstrap_core.tasks.classes import Classes
from bootstrap_core.tasks.recordings import SpikeTrains, Values
from bootstrap_core.training.history import EpochReport
from bootstrap_core.training.trainer import Trainer
from specs.errors import DataError
from specs.network import NetworkSpec

STEPS, SIZE = 6, 10


def bars(n: int, seed: int) -> Frames:
    """Return recordings of a leaning bar that turns slowly, and its slope at the end."""
    generator = torch.Generator().manual_seed(seed)
    slopes = 2 * torch.rand(n, generator=generator) - 1
    slopes = slopes + 0.06 * (torch.rand(n, generator=generator) - 0.5) * torch.arange(STEPS)[:, None]
    place = torch.arange(SIZE) - (SIZE - 1) / 2
    distance = place - slopes[..., None, None] * place[:, None]
    return Frames((64 * torch.exp(-((distance / 1.5) ** 2))).round().int()[:, :, None], slopes[-1][:, None])


def network(*, threshold: float = 0.0, seed: int = 0, **training: Any) -> Network:
    document = {
        "name": "bars",
        "time_steps": STEPS,
        "neuron": {"kind": "sigma_delta", "threshold": threshold},
        "input": {"shape": [1, SIZE, SIZE], "encoding": "frames", "neuron": {"kind": "sigma_delta"}},
        "blocks": [
            {"kind": "conv", "channels": 6, "kernel": 3, "stride": 2, "bias": True},
            {"kind": "conv", "channels": 8, "kernel": 3, "stride": 2, "bias": True},
            {"kind": "flatten"},
            {"kind": "dense", "features": 24, "bias": True, "weight_norm": True},
            {"kind": "affine", "features": 1},
        ],
        "training": {"epochs": 6, "batch_size": 20, "validation": 60, "learning_rate": 0.005, **training},
    }
    return build_network(NetworkSpec.model_validate(document), seed=seed)


@pytest.fixture(scope="module")
def frames() -> Frames:
    return bars(260, seed=0)


def without_time(report: EpochReport) -> dict[str, Any]:
    return {name: value for name, value in vars(report).items() if name != "seconds"}


# --- What is learnt


def test_a_network_learns_values_from_fresh_weights(frames: Frames) -> None:
    net, reports = network(epochs=8), []
    stats = fit(net, frames, on_epoch=reports.append)
    assert stats.snn.best_score < 0.12 < float(frames.targets.std()) / 4
    assert not any("accuracy" in name for report in reports for name in report.document())
    assert "accuracy" not in str(stats)
    unseen = bars(100, seed=1)
    exact, ann = evaluate(IntegerNetwork(net), unseen), evaluate(net, unseen, mode=Mode.ANN)
    assert exact.score < 0.12
    assert exact.score == pytest.approx(ann.score, abs=0.02)  # messages of several steps are truncated


def test_the_best_epoch_has_the_lowest_error_as_snn(frames: Frames) -> None:
    net, reports = network(threshold=0.05, learning_rate=0.03), []
    stats = fit(net, frames, on_epoch=reports.append)
    errors = [report.validation_snn_score for report in reports]
    lowest = [math.inf, *(min(errors[:i]) for i in range(1, len(errors)))]
    assert [report.best for report in reports] == [error < before for error, before in zip(errors, lowest, strict=True)]
    assert stats.snn.best_epoch == errors.index(min(errors))
    validation = Trainer(network(), frames).validation
    assert evaluate(IntegerNetwork(net), validation).score == pytest.approx(min(errors))


def test_snn_epochs_learn_what_a_threshold_hides(frames: Frames) -> None:
    before = network(threshold=0.1)
    fit(before, frames)
    tuned = network(threshold=0.1, snn_epochs=6, snn_gradient="tandem", snn_learning_rate=0.005)
    tuned.load_state_dict(before.state_dict())
    unseen = bars(100, seed=1)
    fit(tuned, frames)
    errors = [evaluate(IntegerNetwork(net), unseen).score for net in (before, tuned)]
    assert errors[1] < 0.75 * errors[0]


# --- Examples


def test_the_task_follows_from_the_network() -> None:
    assert isinstance(task_of(network().spec), Values)
    assert isinstance(task_of(made_network().spec), SpikeTrains)
    document = network().spec.model_dump(mode="json") | {
        "neuron": {},
        "input": {"shape": [1, 28, 28]},
        "training": None,
    }
    document["blocks"] = [{"kind": "flatten"}, {"kind": "affine", "features": 10}]
    assert isinstance(task_of(NetworkSpec.model_validate(document)), Classes)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda x: load_dataset("mnist-sample").train, "bars gives values and learns from Frames, not a Split"),
        (lambda x: Frames(x.frames), r"these need targets, float32 \[260, 1\]"),
        (lambda x: Frames(x.frames, x.targets[:, 0]), r"float32 \[260, 1\], not torch.float32 \[260\]"),
        (lambda x: Frames(x.frames, x.targets / 0), "targets must be finite numbers"),
        (lambda x: Frames(x.frames * 9, x.targets), "frames with values up to 576"),
        (lambda x: x.take(slice(0, 60)), r"training\.validation: must be below the number of training recordings .60"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_from_is_refused(given: Any, told: str, frames: Frames) -> None:
    with pytest.raises(DataError, match=told):
        Trainer(network(), given(frames))


# --- Stopping and going on


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9, "snn_epochs": 2, "snn_gradient": "tandem"}])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_resumed_goes_on_as_if_it_had_not_stopped(stop: int, options: dict[str, Any], frames: Frames) -> None:
    whole, first, second = (
        Trainer(network(seed=seed, threshold=0.05, **{**options, "epochs": 4}), frames) for seed in (0, 0, 99)
    )
    reports = [without_time(whole.run_epoch()) for _ in range(4)]
    for _ in range(stop):
        first.run_epoch()
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    second.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert [without_time(second.run_epoch()) for _ in range(stop, 4)] == reports[stop:]
    assert second.stats.records() == whole.stats.records()
    for (name, ours), theirs in zip(
        whole.network.state_dict().items(), second.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    assert second.best.rank == whole.best.rank


# --- Spike trains


def test_a_network_learns_the_spike_trains_of_another() -> None:
    net, given, reports = made_network(), made_recordings(), []
    before = evaluate(net, given).score
    stats = fit(net, given, on_epoch=reports.append)
    after = evaluate(IntegerNetwork(net), given).score
    assert after < before / 2
    assert stats.snn.best_score == min(report.validation_snn_score for report in reports)
    assert [report.best for report in reports].count(True) > 1
    assert {report.validation_ann_score for report in reports} == {None}
    assert "distance" in str(stats)
    assert "accuracy" not in str(stats)


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (None, "trains gives spike trains and learns from Frames: these need targets, float32"),
        (torch.zeros(30, 20), "targets must be 0 and 1, float32"),
        (torch.full((30, 20, 2), 0.5), "targets must be 0 and 1, float32"),
    ],
)
def test_targets_of_spike_trains_are_checked(targets: torch.Tensor | None, told: str) -> None:
    with pytest.raises(DataError, match=told):
        Trainer(made_network(validation=5), Frames(made_recordings(30).frames, targets))
