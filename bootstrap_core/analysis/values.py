"""Scores of a network that gives values: errors, messages and synaptic operations."""

import math
import time
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import Runnable, count_synops
from bootstrap_core.analysis.measures import ERROR, Measure
from bootstrap_core.data.frames import Frames
from bootstrap_core.network.inputs import AxesWarning, count_steps
from bootstrap_core.network.mode import Mode
from bootstrap_core.progress import Progress, no_progress
from bootstrap_core.training.distributed import ALONE, Group
from specs.errors import SnnZooError
from specs.layers.block import has_neurons

__all__ = ["ValueScore", "score_values"]

BATCH = 16
"""Number of recordings that run at once."""


@dataclass(frozen=True)
class ValueScore:
    """Result of `score_values`.

    Attributes:
        mode: SNN or ANN.
        time_steps: T.
        n_samples: number of recordings.
        values: values after the last step, float32 `[N, values]`; of several processes, those of the own part.
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


@torch.no_grad()
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
        time_steps: T, by default all steps of the frames.
        progress: called after each batch with the number of recordings done and of all.
        group: processes that score a part each; all return the figures of all recordings.

    Raises:
        SnnZooError: the network gives classes, or there are no frames.
    """
    spec = network.spec
    if not spec.gives_values or not len(given):
        raise SnnZooError(
            f"{spec.name} gives classes, not values: use evaluate" if len(given) else "no frames to score"
        )
    steps, n = count_steps(spec, time_steps, given.frames), len(given)
    part = given.take(group.part(n))
    values, seconds = [torch.zeros(0, spec.n_classes)], 0.0
    rates, synops = (torch.zeros(len(spec.layers), dtype=torch.float64) for _ in range(2))
    for frames in part.frames.split(BATCH, dim=1) if len(part) else ():
        start = time.perf_counter()
        with warnings.catch_warnings(action="ignore", category=AxesWarning):  # `Frames` have time first
            found, tally = network.tally(frames.to(network.device), mode, time_steps=steps)
        values.append(found.cpu())  # also waits for the device
        seconds += time.perf_counter() - start
        rates += torch.tensor(tally.rates, dtype=torch.float64) * frames.shape[1]
        if mode.spiking:
            synops += torch.tensor(count_synops(spec, tally), dtype=torch.float64)
        progress(sum(map(len, values)), len(part))
    own = torch.cat(values)
    wrong = torch.zeros(1) if part.targets is None else (own - part.targets).double()
    amount, square, *sums = group.add(
        [float(wrong.abs().sum()), float(wrong.square().sum()), *rates.tolist(), *synops.tolist()]
    )
    rates, synops = torch.tensor(sums, dtype=torch.float64).chunk(2)
    has_targets, n_values = given.targets is not None, n * spec.n_classes
    return ValueScore(
        mode=mode,
        time_steps=steps,
        n_samples=n,
        values=own,
        mean_error=amount / n_values if has_targets else None,
        rms_error=math.sqrt(square / n_values) if has_targets else None,
        messages=tuple(
            float(rate) / n if has_neurons(layer) and mode.spiking else None
            for layer, rate in zip(spec.layers, rates, strict=True)
        ),
        synops=tuple((synops / n / steps).tolist()) if mode.spiking else None,
        seconds=seconds,
    )
