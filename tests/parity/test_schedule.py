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
