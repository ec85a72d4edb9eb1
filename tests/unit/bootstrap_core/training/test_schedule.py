from dataclasses import FrozenInstanceError

import pytest

from bootstrap_core.network.mode import LayerModes, Mode
from bootstrap_core.training.schedule import Scheduler


def names(modes: LayerModes, n: int = 4) -> list[str]:
    return [modes[i].name for i in range(n)]


def test_a_sampling_epoch_samples_then_fits_then_runs_as_ann() -> None:
    scheduler = Scheduler(sample_period=4, sample_iterations=2)
    found = [scheduler.mode(4, i, training=True).base for i in range(5)]
    assert found == [Mode.SAMPLE, Mode.SAMPLE, Mode.FIT, Mode.ANN, Mode.ANN]


def test_other_epochs_train_as_ann() -> None:
    scheduler = Scheduler(sample_period=4, sample_iterations=2)
    assert {scheduler.mode(epoch, i, training=True).base for epoch in (1, 2, 3, 5) for i in range(4)} == {Mode.ANN}


def test_testing_is_snn_in_epochs_that_sample_and_ann_in_others() -> None:
    scheduler = Scheduler(sample_period=2, sample_iterations=2)
    assert [scheduler.mode(epoch, training=False).base for epoch in range(3)] == [Mode.SNN, Mode.ANN, Mode.SNN]


def test_each_crossover_epoch_moves_one_more_block_from_that_epoch_on() -> None:
    scheduler = Scheduler(crossover_epochs=(1, 1, 4))
    assert [scheduler.mode(epoch, training=True).crossover for epoch in range(6)] == [0, 2, 2, 2, 3, 3]


def test_the_modes_of_a_batch_have_the_crossover_of_its_epoch() -> None:
    scheduler = Scheduler(sample_period=10, crossover_epochs=(1, 3))
    assert names(scheduler.mode(2, training=True)) == ["SNN", "ANN", "ANN", "ANN"]
    assert names(scheduler.mode(3, training=False)) == ["SNN", "SNN", "ANN", "ANN"]


def test_the_defaults_are_lava_dl_s() -> None:
    scheduler = Scheduler()
    sampling = [scheduler.mode(epoch, training=True).base is Mode.SAMPLE for epoch in (0, 1, 9, 10, 11)]
    assert sampling == [True, False, False, True, False]
    assert scheduler.mode(0, 9, training=True).base is Mode.SAMPLE
    assert scheduler.mode(0, 10, training=True).base is Mode.FIT
    assert scheduler.mode(1000, training=True).crossover == 0


def test_a_schedule_is_a_value() -> None:
    assert Scheduler(3, 4, (5,)) == Scheduler(sample_period=3, sample_iterations=4, crossover_epochs=(5,))
    with pytest.raises(FrozenInstanceError):
        Scheduler().sample_period = 3
