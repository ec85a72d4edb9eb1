"""Scores of spike trains."""

import pytest
import torch
from spike_trains import STEPS, TRAINS, made_network, made_recordings

from bootstrap_core import IntegerNetwork, load_dataset
from bootstrap_core.analysis.evaluation import evaluate
from bootstrap_core.analysis.spike_trains import score_spike_trains
from bootstrap_core.analysis.values import score_values
from bootstrap_core.data.frames import Frames
from bootstrap_core.functional.van_rossum import van_rossum_distance
from specs.errors import SnnZooError


def test_the_distance_is_the_mean_over_recordings_of_the_sum_over_neurons() -> None:
    network, given = made_network(), made_recordings(40)
    spikes = network.eval()(given.frames).detach().double()
    wanted = given.targets.transpose(0, 1).double()
    for runnable in (network, IntegerNetwork(network)):
        score = score_spike_trains(runnable, given, tau=3.0)
        assert score.distance == pytest.approx(float(van_rossum_distance(spikes, wanted, 3.0).sum(1).mean()))
        assert (score.score, score.loss, score.tau) == (score.distance, score.distance, 3.0)
        assert torch.equal(score.spikes, spikes.transpose(0, 1).float())
        assert (score.n_spikes, score.n_wanted) == pytest.approx((float(spikes.sum()) / 40, float(wanted.sum()) / 40))
        assert score.rates[-1] == pytest.approx(float(spikes.mean()))
        assert score.rates[-1] > 0
        assert len(score.synops) == 3
    assert score_spike_trains(network, given).tau == 5.0


def test_the_same_trains_have_no_distance() -> None:
    network, given = made_network(), made_recordings(10)
    own = Frames(given.frames, network.eval()(given.frames).detach().transpose(0, 1))
    assert score_spike_trains(network, own).distance == 0


def test_shorter_runs_are_compared_with_the_beginning_of_the_targets() -> None:
    network, given = made_network(), made_recordings(10)
    first = Frames(given.frames[:7], given.targets[:, :7])
    found, expected = score_spike_trains(network, given, time_steps=7), score_spike_trains(network, first)
    assert (found.time_steps, found.distance) == (7, expected.distance)
    assert found.distance < score_spike_trains(network, given).distance
    assert found.spikes.shape == (10, 7, TRAINS)


def test_without_targets_there_is_no_distance() -> None:
    score = score_spike_trains(made_network(), Frames(made_recordings(10).frames))
    assert (score.distance, score.n_wanted, score.time_steps) == (None, None, STEPS)


def test_networks_are_scored_by_what_they_give() -> None:
    network, given = made_network(), made_recordings(10)
    with pytest.raises(SnnZooError, match="trains gives spike trains, not values"):
        score_values(network, given)
    with pytest.raises(SnnZooError, match="trains gives spike trains, not classes"):
        evaluate(network, load_dataset("mnist-sample").test)
    with pytest.raises(SnnZooError, match="no recordings"):
        score_spike_trains(network, Frames(given.frames[:, :0]))
