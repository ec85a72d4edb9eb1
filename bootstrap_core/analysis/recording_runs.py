"""Runs of a network on recordings with targets, for scores of values and of spike trains."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import Runnable, count_synops
from bootstrap_core.data.frames import Frames, target_shape
from bootstrap_core.distributed import Group
from bootstrap_core.network.inputs import AxesWarning, count_steps
from bootstrap_core.network.mode import Mode
from bootstrap_core.progress import Progress
from specs.errors import SnnZooError
from specs.layers.block import has_neurons

__all__ = ["RecordingRuns", "run_recordings"]

BATCH = 16
"""Number of recordings that run at once."""


@dataclass(frozen=True)
class RecordingRuns:
    """Result of `run_recordings`.

    Attributes:
        time_steps: T.
        n: number of recordings.
        outputs: outputs of the network, in the shape of targets; of several processes, those of the own part.
        sums: what `count` returned, summed over all recordings.
        rates: share of the outputs that are not 0, by layer, input first; None for layers without neurons, and as ANN.
        synops: mean synaptic operations per recording and step, by layer, input first; None as ANN.
        seconds: time spent in the network alone.
    """

    time_steps: int
    n: int
    outputs: Tensor
    sums: list[float]
    rates: tuple[float | None, ...]
    synops: tuple[float, ...] | None
    seconds: float


@torch.no_grad()
def run_recordings(
    network: Runnable,
    given: Frames,
    count: Callable[[Tensor, Tensor], list[float]],
    *,
    mode: Mode,
    time_steps: int | None,
    progress: Progress,
    group: Group,
) -> RecordingRuns:
    """Run a network on recordings, and compare its outputs with their targets.

    Args:
        network: a `Network`, or an `IntegerNetwork` (SNN only).
        given: recordings, and perhaps targets.
        count: function that returns sums over recordings, from outputs and targets; without targets it gets the outputs
            twice.
        mode: SNN or ANN.
        time_steps: T, by default all steps of the recordings.
        progress: called after each batch with the number of recordings done and of all.
        group: processes that run a part each; all return the figures of all recordings, and the outputs of their part.

    Raises:
        SnnZooError: there are no recordings.
    """
    spec = network.spec
    if not len(given):
        raise SnnZooError("no recordings to score")
    steps, n = count_steps(spec, time_steps, given.frames), len(given)
    part = given.take(group.part(n)).cut(steps)
    outputs, seconds = [torch.zeros(target_shape(spec, 0, steps))], 0.0  # a process may have no recording
    rates, synops = (torch.zeros(len(spec.layers), dtype=torch.float64) for _ in range(2))
    for frames in part.frames.split(BATCH, dim=1) if len(part) else ():
        start = time.perf_counter()
        with warnings.catch_warnings(action="ignore", category=AxesWarning):  # `Frames` have time first
            found, tally = network.tally(frames.to(network.device), mode, time_steps=steps)
        found = found.cpu()  # also waits for the device
        outputs.append(found.transpose(0, 1).flatten(2) if spec.gives_spikes else found)
        seconds += time.perf_counter() - start
        rates += torch.tensor(tally.rates, dtype=torch.float64) * frames.shape[1]
        if mode.spiking:
            synops += torch.tensor(count_synops(spec, tally), dtype=torch.float64)
        progress(sum(map(len, outputs)), len(part))
    own = torch.cat(outputs)
    counted = count(own, own if part.targets is None else part.targets)
    total = group.add([*counted, *rates.tolist(), *synops.tolist()])
    sums, (rates, synops) = total[: len(counted)], torch.tensor(total[len(counted) :], dtype=torch.float64).chunk(2)
    return RecordingRuns(
        time_steps=steps,
        n=n,
        outputs=own,
        sums=list(sums),
        rates=tuple(
            float(rate) / n if has_neurons(layer) and mode.spiking else None
            for layer, rate in zip(spec.layers, rates, strict=True)
        ),
        synops=tuple((synops / n / steps).tolist()) if mode.spiking else None,
        seconds=seconds,
    )
