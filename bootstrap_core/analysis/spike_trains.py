"""Scores of a network that gives spike trains: distances from the targets, rates and synaptic operations."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bootstrap_core.analysis.evaluation import Runnable
from bootstrap_core.analysis.measures import DISTANCE, Measure
from bootstrap_core.analysis.recording_runs import run_recordings
from bootstrap_core.data.frames import Frames
from bootstrap_core.distributed import ALONE, Group
from bootstrap_core.functional.van_rossum import van_rossum_distance
from bootstrap_core.network.mode import Mode
from bootstrap_core.progress import Progress, no_progress
from specs.errors import SnnZooError
from specs.training import TrainingSpec

__all__ = ["SpikeTrainScore", "score_spike_trains", "train_distances"]


@dataclass(frozen=True)
class SpikeTrainScore:
    """Result of `score_spike_trains`.

    Attributes:
        time_steps: T.
        n_samples: number of recordings.
        spikes: spikes of the readout, float32 `[N, T, neurons]`; of several processes, those of this one.
        tau: time constant of the distance, in time steps.
        distance: mean distance per recording; None without targets.
        n_spikes, n_wanted: mean number of spikes per recording, and of its target; the latter None without targets.
        rates: mean spikes per neuron and step, by layer, input first; None for layers without neurons.
        synops: mean synaptic operations per recording and step, by layer, input first.
        seconds: time spent in the network alone.
    """

    measure: ClassVar[Measure] = DISTANCE
    mode: ClassVar[Mode] = Mode.SNN
    counts: ClassVar[tuple[float, ...]] = ()

    time_steps: int
    n_samples: int
    spikes: Tensor
    tau: float
    distance: float | None
    n_spikes: float
    n_wanted: float | None
    rates: tuple[float | None, ...]
    synops: tuple[float, ...]
    seconds: float

    @property
    def score(self) -> float | None:
        """The `distance`."""
        return self.distance

    @property
    def loss(self) -> float | None:
        """The `distance`."""
        return self.distance

    @property
    def silent(self) -> int | None:
        """Index of the first block whose neurons never spiked; None if all spiked."""
        return next((i for i, rate in enumerate(self.rates) if rate == 0), None)


def score_spike_trains(
    network: Runnable,
    given: Frames,
    *,
    tau: float | None = None,
    time_steps: int | None = None,
    progress: Progress = no_progress,
    group: Group = ALONE,
) -> SpikeTrainScore:
    """Run a network of spike trains on events, and compare its spikes with the targets.

    Args:
        network: a `Network`, or an `IntegerNetwork`, whose `spec.gives_spikes`.
        given: events, and perhaps targets.
        tau: time constant of the distance in time steps, by default `training.spike_tau` of the spec.
        time_steps, progress, group: see `run_recordings`.

    Raises:
        SnnZooError: the network does not give spike trains, or there are no recordings.
    """
    spec = network.spec
    if not spec.gives_spikes:
        raise SnnZooError(f"{spec.name} gives {spec.gives}, not spike trains")
    tau = (spec.training or TrainingSpec()).spike_tau if tau is None else tau

    def count(spikes: Tensor, targets: Tensor) -> list[float]:
        distances = train_distances(spikes.transpose(0, 1).double(), targets.transpose(0, 1).double(), tau)
        return [float(distances.sum()), float(spikes.sum()), float(targets.sum())]

    runs = run_recordings(network, given, count, mode=Mode.SNN, time_steps=time_steps, progress=progress, group=group)
    distance, n_spikes, n_wanted = (total / runs.n for total in runs.sums)
    has_targets = given.targets is not None
    assert runs.synops is not None
    return SpikeTrainScore(
        time_steps=runs.time_steps,
        n_samples=runs.n,
        spikes=runs.outputs,
        tau=tau,
        distance=distance if has_targets else None,
        n_spikes=n_spikes,
        n_wanted=n_wanted if has_targets else None,
        rates=runs.rates,
        synops=runs.synops,
        seconds=runs.seconds,
    )


def train_distances(spikes: Tensor, targets: Tensor, tau: float) -> Tensor:
    """Return the distance of each recording from its targets, `[N]`, summed over neurons; differentiable.

    Args:
        spikes: spikes `[T, N, ...]`.
        targets: wanted spikes, `[T, N, neurons]`.
        tau: time constant of the distance, in time steps.
    """
    distances: Tensor = van_rossum_distance(spikes.flatten(2), targets, tau).sum(1)
    return distances
