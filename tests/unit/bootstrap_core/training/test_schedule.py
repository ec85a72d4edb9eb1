from bootstrap_core.network.mode import Mode
from bootstrap_core.training.schedule import Scheduler


def test_a_sampling_epoch_samples_then_fits_then_runs_as_ann() -> None:
    scheduler = Scheduler(sample_period=4, sample_iterations=2)
    found = [scheduler.mode(4, i, training=True).base for i in range(5)]
    assert found == [Mode.SAMPLE, Mode.SAMPLE, Mode.FIT, Mode.ANN, Mode.ANN]


def test_testing_is_snn_in_epochs_that_sample_and_ann_in_others() -> None:
    scheduler = Scheduler(sample_period=2, sample_iterations=2)
    assert [scheduler.mode(epoch, training=False).base for epoch in range(3)] == [Mode.SNN, Mode.ANN, Mode.SNN]


def test_each_crossover_epoch_moves_one_more_block_from_that_epoch_on() -> None:
    scheduler = Scheduler(crossover_epochs=(1, 1, 4))
    assert [scheduler.crossover(epoch) for epoch in range(6)] == [0, 2, 2, 2, 3, 3]


def test_the_defaults_are_lava_dl_s() -> None:
    scheduler = Scheduler()
    assert [scheduler.samples(epoch) for epoch in (0, 1, 9, 10, 11)] == [True, False, False, True, False]
    assert scheduler.mode(0, 9, training=True).base is Mode.SAMPLE
    assert scheduler.mode(0, 10, training=True).base is Mode.FIT
    assert scheduler.crossover(1000) == 0
