"""The bootstrap schedule against lava-dl's, row by row."""

from bootstrap_core.network.mode import Mode
from bootstrap_core.training.schedule import Scheduler

ARGUMENTS = {
    "num_sample_iter": "sample_iterations",
    "sample_period": "sample_period",
    "crossover_epochs": "crossover_epochs",
}


def test_every_row_equals_lava_dl(golden_json) -> None:
    rows = golden_json("schedule.json")
    assert {mode for *_, base, modes in rows for mode in (base, *modes)} == {mode.name for mode in Mode}
    for arguments, epoch, iteration, training, base, blocks in rows:
        scheduler = Scheduler(**{ARGUMENTS[name]: value for name, value in arguments.items()})
        modes = scheduler.mode(epoch, iteration, training=training)
        found = modes.base.name, [modes[i].name for i in range(len(blocks))]
        assert found == (base, blocks), (arguments, epoch, iteration, training)


def test_the_defaults_are_lava_dl_s() -> None:
    scheduler = Scheduler()
    sampling = [scheduler.mode(epoch, training=True).base is Mode.SAMPLE for epoch in (0, 1, 9, 10, 11)]
    assert sampling == [True, False, False, True, False]
    assert scheduler.mode(0, 9, training=True).base is Mode.SAMPLE
    assert scheduler.mode(0, 10, training=True).base is Mode.FIT
    assert scheduler.mode(1000, training=True).crossover == 0
