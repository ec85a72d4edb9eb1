"""Scores of spike trains."""

import pytest
import torch
from spike_trains import STEPS, TRAINS, made_network, made_recordings

from bootstrap_core import IntegerNetwork, load_dataset
from bootstrap_core.analysis.evaluation import evaluate
from bootstrap_core.data.frames import Frames
from bootstrap_core.functional.van_rossum import van_rossum_distance
from bootstrap_core.tasks import task_of
from specs.errors import SnnZooError
from specs.training import TrainingSpec


def test_the_distance_is_the_mean_over_recordings_of_the_sum_over_neurons() -> None:
    network, given = made_network(), made_recordings(40)
    spikes = network.eval()(given.frames).detach().double()
    wanted = given.targets.transpose(0, 1).double()
    for runnable in (network, IntegerNetwork(network)):
        score = evaluate(runnable, given, task=task_of(network.spec, TrainingSpec(spike_tau=3.0)))
        assert score.score == pytest.approx(float(van_rossum_distance(spikes, wanted, 3.0).sum(1).mean()))
        assert (score.loss, score.figures["tau"]) == (score.score, 3.0)
        assert torch.equal(score.outputs, spikes.transpose(0, 1).float())
        counts = (score.figures["spikes"], score.figures["wanted_spikes"])
        assert counts == pytest.approx((float(spikes.sum()) / 40, float(wanted.sum()) / 40))
        assert score.rates[-1] == pytest.approx(float(spikes.mean()))
        assert score.rates[-1] > 0
        assert len(score.synops) == 3
    assert evaluate(network, given).figures["tau"] == 5.0


def test_the_same_trains_have_no_distance() -> None:
    network, given = made_network(), made_recordings(10)
    own = Frames(given.frames, network.eval()(given.frames).detach().transpose(0, 1))
    assert evaluate(network, own).score == 0


def test_shorter_runs_are_compared_with_the_beginning_of_the_targets() -> None:
    network, given = made_network(), made_recordings(10)
    first = Frames(given.frames[:7], given.targets[:, :7])
    found, expected = evaluate(network, given, time_steps=7), evaluate(network, first)
    assert (found.time_steps, found.score) == (7, expected.score)
    assert found.score < evaluate(network, given).score
    assert found.outputs.shape == (10, 7, TRAINS)


def test_without_targets_there_is_no_distance() -> None:
    score = evaluate(made_network(), Frames(made_recordings(10).frames))
    assert (score.score, score.figures["wanted_spikes"], score.time_steps) == (None, None, STEPS)


def test_networks_are_scored_by_what_they_give() -> None:
    network, given = made_network(), made_recordings(10)
    with pytest.raises(SnnZooError, match="trains gives spike trains and learns from Frames, not a Split"):
        evaluate(network, load_dataset("mnist-sample").test)
    with pytest.raises(SnnZooError, match="no recordings"):
        evaluate(network, Frames(given.frames[:, :0]))
