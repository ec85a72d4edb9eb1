"""Scores of a network that gives values: errors, messages and synaptic operations."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bootstrap_core.analysis.evaluation import Runnable
from bootstrap_core.analysis.measures import ERROR, Measure
from bootstrap_core.analysis.recording_runs import run_recordings
from bootstrap_core.data.frames import Frames
from bootstrap_core.distributed import ALONE, Group
from bootstrap_core.network.mode import Mode
from bootstrap_core.progress import Progress, no_progress
from specs.errors import SnnZooError

__all__ = ["ValueScore", "score_values"]


@dataclass(frozen=True)
class ValueScore:
    """Result of `score_values`.

    Attributes:
        mode: SNN or ANN.
        time_steps: T.
        n_samples: number of recordings.
        values: values after the last step, float32 `[N, values]`; of several processes, those of this one.
        mean_error, rms_error: mean of the absolute differences from the targets, and root of the mean of their
            squares; None without targets.
        messages: mean messages per neuron and step, by layer, input first; None for layers without neurons, and as ANN.
        synops: mean synaptic operations per recording and step, by layer, input first; None as ANN.
        seconds: time spent in the network alone.
    """

    measure: ClassVar[Measure] = ERROR

    mode: Mode
    time_steps: int
    n_samples: int
    values: Tensor
    mean_error: float | None
    rms_error: float | None
    messages: tuple[float | None, ...]
    synops: tuple[float, ...] | None
    seconds: float

    @property
    def score(self) -> float | None:
        """The `rms_error`."""
        return self.rms_error

    @property
    def loss(self) -> float | None:
        """Mean of the squared errors; None without targets."""
        return None if self.rms_error is None else self.rms_error**2

    @property
    def counts(self) -> tuple[float, ...]:
        """Nothing: the score follows from the loss."""
        return ()

    @property
    def silent(self) -> int | None:
        """Index of the first block that never sent a message; None if all did, and in ANN mode."""
        return next((i for i, messages in enumerate(self.messages) if messages == 0), None)


def score_values(
    network: Runnable,
    given: Frames,
    *,
    mode: Mode = Mode.SNN,
    time_steps: int | None = None,
    progress: Progress = no_progress,
    group: Group = ALONE,
) -> ValueScore:
    """Run a network of values on frames, and compare the values after the last step with the targets.

    Args:
        network: a `Network`, or an `IntegerNetwork` (SNN only), whose `spec.gives_values`.
        given: frames, and perhaps targets.
        mode: SNN or ANN; the ANN takes the last frame alone.
        time_steps, progress, group: see `run_recordings`.

    Raises:
        SnnZooError: the network does not give values, or there are no frames.
    """
    spec = network.spec
    if not spec.gives_values:
        raise SnnZooError(f"{spec.name} gives {spec.gives}, not values")

    def count(values: Tensor, targets: Tensor) -> list[float]:
        wrong = (values - targets).double()
        return [float(wrong.abs().sum()), float(wrong.square().sum())]

    runs = run_recordings(network, given, count, mode=mode, time_steps=time_steps, progress=progress, group=group)
    amount, square = (total / (runs.n * spec.n_classes) for total in runs.sums)
    has_targets = given.targets is not None
    return ValueScore(
        mode=mode,
        time_steps=runs.time_steps,
        n_samples=runs.n,
        values=runs.outputs,
        mean_error=amount if has_targets else None,
        rms_error=math.sqrt(square) if has_targets else None,
        messages=runs.rates,
        synops=runs.synops,
        seconds=runs.seconds,
    )
