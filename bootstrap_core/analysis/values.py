"""Scores of a network that gives values: errors, messages and synaptic operations."""

import time
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from bootstrap_core.analysis.evaluation import Runnable, count_synops
from bootstrap_core.data.frames import Frames
from bootstrap_core.network.inputs import AxesWarning, count_steps
from bootstrap_core.network.mode import Mode
from bootstrap_core.progress import Progress, no_progress
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
        values: values after the last step, float32 `[N, values]`.
        mean_error, rms_error: mean of the absolute differences from the targets, and root of the mean of their
            squares; None without targets.
        messages: mean messages per neuron and step, by layer, input first; None for layers without neurons, and as ANN.
        synops: mean synaptic operations per recording and step, by layer, input first; None as ANN.
        seconds: time spent in the network alone.
    """

    mode: Mode
    time_steps: int
    values: Tensor
    mean_error: float | None
    rms_error: float | None
    messages: tuple[float | None, ...]
    synops: tuple[float, ...] | None
    seconds: float


@torch.no_grad()
def score_values(
    network: Runnable,
    given: Frames,
    *,
    mode: Mode = Mode.SNN,
    time_steps: int | None = None,
    progress: Progress = no_progress,
) -> ValueScore:
    """Run a network of values on frames, and compare the values after the last step with the targets.

    Args:
        network: a `Network`, or an `IntegerNetwork` (SNN only), whose `spec.gives_values`.
        given: frames, and perhaps targets.
        mode: SNN or ANN; the ANN takes the last frame alone.
        time_steps: T, by default all steps of the frames.
        progress: called after each batch with the number of recordings done and of all.

    Raises:
        SnnZooError: the network gives classes, or there are no frames.
    """
    spec = network.spec
    if not spec.gives_values or not len(given):
        raise SnnZooError(
            f"{spec.name} gives classes, not values: use evaluate" if len(given) else "no frames to score"
        )
    steps = count_steps(spec, time_steps, given.frames)
    values, seconds = list[Tensor](), 0.0
    rates, synops = (torch.zeros(len(spec.layers), dtype=torch.float64) for _ in range(2))
    for frames in given.frames.split(BATCH, dim=1):
        start = time.perf_counter()
        with warnings.catch_warnings(action="ignore", category=AxesWarning):  # `Frames` have time first
            found, tally = network.tally(frames.to(network.device), mode, time_steps=steps)
        values.append(found.cpu())  # also waits for the device
        seconds += time.perf_counter() - start
        rates += torch.tensor(tally.rates, dtype=torch.float64) * frames.shape[1]
        if mode.spiking:
            synops += torch.tensor(count_synops(spec, tally), dtype=torch.float64)
        progress(sum(map(len, values)), len(given))
    all_values = torch.cat(values)
    wrong = None if given.targets is None else (all_values - given.targets).double()
    return ValueScore(
        mode=mode,
        time_steps=steps,
        values=all_values,
        mean_error=None if wrong is None else float(wrong.abs().mean()),
        rms_error=None if wrong is None else float(wrong.square().mean().sqrt()),
        messages=tuple(
            float(rate) / len(given) if has_neurons(layer) and mode.spiking else None
            for layer, rate in zip(spec.layers, rates, strict=True)
        ),
        synops=tuple((synops / len(given) / steps).tolist()) if mode.spiking else None,
        seconds=seconds,
    )
