"""The commands `eval` and `predict` for a model that gives spike trains."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from converters.cli.console import ProgressLine, echo, json_text, print_table, say
from converters.cli.options import recorded_steps
from specs.errors import DataError

if TYPE_CHECKING:
    from bootstrap_core.analysis.evaluation import Runnable
    from bootstrap_core.analysis.spike_trains import SpikeTrainScore
    from bootstrap_core.inference.integer_network import IntegerNetwork
    from specs.network import NetworkSpec

__all__ = ["evaluate_spike_trains", "predict_spike_trains"]

SHOWN_STEPS = 8
"""Number of spikes that the table of `predict` shows for each neuron; --json has all."""


def evaluate_spike_trains(
    source: str, network: "Runnable", data: Path, steps: Sequence[int | None], limit: int | None, *, as_json: bool
) -> None:
    """Score the network of the model `source` on events, and print distances, rates and synops."""
    from bootstrap_core.analysis.spike_trains import score_spike_trains
    from bootstrap_core.data.frames import read_frames
    from bootstrap_core.inference.integer_network import IntegerNetwork

    engine = "integer" if isinstance(network, IntegerNetwork) else "torch"
    given = read_frames(data, network.spec).limited(limit)
    scores = [
        score_spike_trains(network, given, time_steps=t, progress=ProgressLine("scoring", "recordings"))
        for t in recorded_steps(steps, len(given.frames))
    ]
    if as_json:
        results = [
            {
                "time_steps": score.time_steps,
                "recordings": score.n_samples,
                "distance": score.distance,
                "tau": score.tau,
                "spikes": score.n_spikes,
                "wanted_spikes": score.n_wanted,
                "rates": score.rates,
                "synops_per_step": score.synops,
                "steps_per_second": _steps_per_second(score),
            }
            for score in scores
        ]
        echo(json_text({"model": source, "data": str(data), "engine": engine, "results": results}))
        return
    if given.targets is None:
        say(f"note: {data} has no targets y, so no distances are computed")
    _print_scores(network.spec, scores, engine)


def _steps_per_second(score: "SpikeTrainScore") -> float:
    """Return the speed in time steps, all recordings together."""
    return len(score.spikes) * score.time_steps / score.seconds


def _print_scores(spec: "NetworkSpec", scores: "list[SpikeTrainScore]", engine: str) -> None:
    print_table(
        ["", "recordings", "distance", "spikes", "wanted", "synops/step", "steps/s"],
        [
            [
                f"SNN, T={score.time_steps}, {engine}",
                f"{score.n_samples:,}",
                score.measure.text(score.distance),
                f"{score.n_spikes:,.1f}",
                "-" if score.n_wanted is None else f"{score.n_wanted:,.1f}",
                f"{sum(score.synops):,.0f}",
                f"{_steps_per_second(score):,.0f}",
            ]
            for score in scores
        ],
    )
    last = scores[-1]
    echo()
    print_table(
        [f"layer, T={last.time_steps}", "rate", "synops/step"],
        [
            [f"{i} {layer.kind}", "" if rate is None else f"{rate:.4f}", f"{synops:,.0f}"]
            for i, (layer, rate, synops) in enumerate(zip(spec.layers, last.rates, last.synops, strict=True))
        ],
    )


def predict_spike_trains(
    network: "IntegerNetwork", paths: Sequence[Path], time_steps: int | None, *, as_json: bool
) -> None:
    """Print the steps in which each neuron of the readout spikes, for each recording in the files.

    A folder stands for the recordings in it. Raises `DataError` at the end if a file cannot be read.
    """
    from bootstrap_core.data.frames import FRAME_SUFFIXES, read_frames
    from zoo.prediction import read_files

    found, unreadable = [], list[DataError]()
    for path, given in read_files(
        paths,
        FRAME_SUFFIXES,
        partial(read_frames, spec=network.spec, time_steps=time_steps),
        on_unreadable=unreadable.append,
        on_skipped=lambda note: say(f"note: {note}"),
    ):
        spikes = network(given.frames).flatten(2)  # [T, N, neurons]
        for i, train in enumerate(spikes.unbind(1)):
            steps = [neuron.nonzero().flatten().tolist() for neuron in train.unbind(1)]
            found.append((path, i, len(train), steps))
    if as_json and found:
        rows = [{"file": str(path), "recording": i, "time_steps": n, "spikes": steps} for path, i, n, steps in found]
        echo(json_text({"predictions": rows}))
    elif found:
        print_table(
            ["events", "recording", "steps", "neuron", "spikes in steps"],
            [
                [str(path), str(i), str(n), str(neuron), _words(steps)]
                for path, i, n, trains in found
                for neuron, steps in enumerate(trains)
            ],
        )
    if unreadable:
        raise DataError("\n".join(map(str, unreadable)))


def _words(steps: list[int]) -> str:
    """Return the steps in which a neuron spikes as text; of many, the first ones."""
    more = f" and {len(steps) - SHOWN_STEPS} more" if len(steps) > SHOWN_STEPS else ""
    return ", ".join(map(str, steps[:SHOWN_STEPS])) + more or "-"
