"""The commands `eval` and `predict` for a model that gives values or spike trains: its data are recordings."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.cli.console import ProgressLine, echo, json_text, print_table, say
from converters.cli.options import recorded_steps
from specs.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from bootstrap_core.analysis.evaluation import Runnable
    from bootstrap_core.analysis.spike_trains import SpikeTrainScore
    from bootstrap_core.analysis.values import ValueScore
    from bootstrap_core.inference.integer_network import IntegerNetwork
    from specs.network import NetworkSpec

__all__ = ["evaluate_recordings", "predict_recordings"]

SHOWN_VALUES, SHOWN_SPIKES = 4, 8
"""Numbers of values, and of spikes of a neuron, that the tables of `predict` show; --json has all."""


def evaluate_recordings(
    source: str,
    network: "Runnable",
    data: Path,
    mode: str,
    steps: Sequence[int | None],
    limit: int | None,
    *,
    as_json: bool,
) -> None:
    """Score the network of the model `source` on the recordings in a file, and print the scores and the synops.

    Scores are errors and messages for values, distances and rates for spike trains.
    """
    from bootstrap_core.analysis.spike_trains import score_spike_trains
    from bootstrap_core.analysis.values import score_values
    from bootstrap_core.data.frames import read_frames
    from bootstrap_core.inference.integer_network import IntegerNetwork
    from bootstrap_core.network.mode import Mode

    spec, engine = network.spec, "integer" if isinstance(network, IntegerNetwork) else "torch"
    every = read_frames(data, spec)
    given = every.limited(limit)
    if len(given) < len(every):
        say(f"note: scored on {len(given):,} of the {len(every):,} recordings, drawn at random")
    if given.are_still:
        given = given.held(max(t or spec.time_steps for t in steps))
    else:
        steps = recorded_steps(steps, len(given.frames))
    score, as_document, print_scores, figures = (
        (partial(score_values, mode=Mode(mode)), _value_document, _print_value_scores, "errors")
        if spec.gives_values
        else (score_spike_trains, _spike_train_document, _print_spike_train_scores, "distances")
    )
    scores: list[Any] = [
        score(network, given, time_steps=t, progress=ProgressLine("scoring", "recordings")) for t in steps
    ]
    if as_json:
        results = [as_document(each) for each in scores]
        echo(json_text({"model": source, "data": str(data), "engine": engine, "results": results}))
        return
    if given.targets is None:
        say(f"note: {data} has no targets y, so no {figures} are computed")
    print_scores(spec, scores, engine)


def _value_document(score: "ValueScore") -> dict[str, Any]:
    return {
        "mode": score.mode.value,
        "time_steps": score.time_steps if score.mode.spiking else None,
        "recordings": score.n_samples,
        "mean_error": score.mean_error,
        "rms_error": score.rms_error,
        "messages_per_neuron_step": score.messages,
        "synops_per_step": score.synops,
        "values": score.values.tolist(),
        "steps_per_second": _steps_per_second(score),
    }


def _spike_train_document(score: "SpikeTrainScore") -> dict[str, Any]:
    return {
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


def _steps_per_second(score: "ValueScore | SpikeTrainScore") -> float | None:
    """Return the number of time steps in a second, of all recordings together; None for an ANN, which has no steps."""
    return score.n_samples * score.time_steps / score.seconds if score.mode.spiking else None


def _print_value_scores(spec: "NetworkSpec", scores: "list[ValueScore]", engine: str) -> None:
    from specs.summary import summarize

    print_table(
        ["", "recordings", "mean error", "rms error", "synops/step", "steps/s"],
        [
            [
                f"SNN, T={score.time_steps}, {engine}" if score.mode.spiking else "ANN",
                f"{score.n_samples:,}",
                *("-" if error is None else f"{error:.4g}" for error in (score.mean_error, score.rms_error)),
                "-" if score.synops is None else f"{sum(score.synops):,.0f}",
                "-" if speed is None else f"{speed:,.0f}",
            ]
            for score, speed in zip(scores, map(_steps_per_second, scores), strict=True)
        ],
    )
    last, rows = scores[-1], summarize(spec)
    if last.synops is None:
        return
    echo()
    table = [
        [
            f"{i} {row.kind}",
            "" if messages is None else f"{messages:.4f}",
            f"{synops:,.0f}",
            f"{row.synops:,}",
        ]
        for i, (row, messages, synops) in enumerate(zip(rows, last.messages, last.synops, strict=True))
    ]
    total = ["total", "", f"{sum(last.synops):,.0f}", f"{sum(row.synops for row in rows):,}"]
    print_table(
        [f"layer, T={last.time_steps}", "messages/neuron/step", "synops/step", "MACs of the ANN"], [*table, total]
    )


def _print_spike_train_scores(spec: "NetworkSpec", scores: "list[SpikeTrainScore]", engine: str) -> None:
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


def predict_recordings(
    network: "IntegerNetwork", paths: Sequence[Path], time_steps: int | None, *, as_json: bool
) -> None:
    """Print the outputs of a network for each recording in the files.

    Outputs are the values after the last step, as JSON also those of each step, or the steps in which each neuron of
    the readout spikes. A folder stands for the recordings in it. Raises `DataError` at the end if a file cannot be
    read.
    """
    from bootstrap_core.data.frames import FRAME_SUFFIXES, read_frames
    from zoo.prediction import read_files

    unreadable = list[DataError]()
    files = read_files(
        paths,
        FRAME_SUFFIXES,
        partial(read_frames, spec=network.spec, time_steps=time_steps),
        on_unreadable=unreadable.append,
        on_skipped=lambda note: say(f"note: {note}"),
    )
    as_document, print_outputs = (
        (_values_of_recording, _print_values)
        if network.spec.gives_values
        else (_spikes_of_recording, _print_spike_trains)
    )
    rows = [
        {"file": str(path), "recording": i, "time_steps": len(outputs), **as_document(outputs)}
        for path, given in files
        for i, outputs in enumerate(_outputs_by_step(network, given.frames).unbind(1))
    ]
    if rows and as_json:
        echo(json_text({"predictions": rows}))
    elif rows:
        print_outputs(rows)
    if unreadable:
        raise DataError("\n".join(map(str, unreadable)))


def _outputs_by_step(network: "IntegerNetwork", frames: "Tensor") -> "Tensor":
    """Return values or spikes of the readout after each step, `[T, N, outputs]`."""
    import torch

    if network.spec.gives_spikes:
        return network(frames).flatten(2)
    stream = network.stream()
    return torch.stack([stream.step(frame) for frame in frames])


def _values_of_recording(outputs: "Tensor") -> dict[str, Any]:
    steps = outputs.tolist()
    return {"values": steps[-1], "after_each_step": steps}


def _spikes_of_recording(outputs: "Tensor") -> dict[str, Any]:
    return {"spikes": [neuron.nonzero().flatten().tolist() for neuron in outputs.unbind(1)]}


def _print_values(rows: list[dict[str, Any]]) -> None:
    n_values = len(rows[0]["values"])
    n = min(n_values, SHOWN_VALUES)
    more = [] if n_values <= n else [f"{n_values - n} more"]
    print_table(
        ["frames", "recording", "steps", *(f"value {k}" for k in range(n)), *more],
        [[*_recording(row), *(f"{value:.6g}" for value in row["values"][:n]), *("..." for _ in more)] for row in rows],
    )


def _print_spike_trains(rows: list[dict[str, Any]]) -> None:
    print_table(
        ["events", "recording", "steps", "neuron", "spikes in steps"],
        [
            [*_recording(row), str(neuron), _first_of(steps)]
            for row in rows
            for neuron, steps in enumerate(row["spikes"])
        ],
    )


def _recording(row: dict[str, Any]) -> list[str]:
    """Return the first cells of a row of `predict`: file, number of the recording, and its steps."""
    return [row["file"], str(row["recording"]), str(row["time_steps"])]


def _first_of(steps: list[int]) -> str:
    """Return the steps in which a neuron spikes as text; of many, the first ones."""
    more = f" and {len(steps) - SHOWN_SPIKES} more" if len(steps) > SHOWN_SPIKES else ""
    return ", ".join(map(str, steps[:SHOWN_SPIKES])) + more or "-"
