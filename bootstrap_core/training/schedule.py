"""Bootstrap schedule: the mode of each block in each batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from bootstrap_core.network.mode import LayerModes, Mode


@dataclass(frozen=True)
class Scheduler:
    """Bootstrap schedule, a pure function of epoch and iteration.

    In training, every `sample_period` epochs the first `sample_iterations` batches are SAMPLE and the next is FIT; all
    others are ANN. In testing, epochs that sample are scored as SNN, others as ANN. From each epoch in
    `crossover_epochs` on, one more block, counted from the input, runs as SNN instead of ANN.

    >>> schedule = Scheduler(sample_period=5, sample_iterations=2)
    >>> [schedule.mode(5, i, training=True).base.name for i in range(4)]
    ['SAMPLE', 'SAMPLE', 'FIT', 'ANN']
    """

    sample_period: int = 10
    sample_iterations: int = 10
    crossover_epochs: Sequence[int] = ()

    def mode(self, epoch: int, iteration: int = 0, *, training: bool) -> LayerModes:
        """Return the modes of batch `iteration` of `epoch`; both count from 0."""
        base = Mode.ANN
        if epoch % self.sample_period == 0:
            if not training:
                base = Mode.SNN
            elif iteration < self.sample_iterations:
                base = Mode.SAMPLE
            elif iteration == self.sample_iterations:
                base = Mode.FIT
        return LayerModes(base, sum(landmark <= epoch for landmark in self.crossover_epochs))
