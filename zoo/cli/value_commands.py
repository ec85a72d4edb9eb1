"""The commands `eval` and `predict` for a model that gives values, such as a sigma-delta network."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from converters.cli.console import ProgressLine, echo, json_text, print_table, say
from converters.cli.options import recorded_steps
from specs.errors import DataError

if TYPE_CHECKING:
    from bootstrap_core.analysis.evaluation import Runnable
    from bootstrap_core.analysis.values import ValueScore
    from bootstrap_core.inference.integer_network import IntegerNetwork
    from specs.network import NetworkSpec

__all__ = ["evaluate_values", "predict_values"]

SHOWN_VALUES = 4
"""Number of values that the table of `predict` shows; --json has all."""


def evaluate_values(
    source: str,
    network: "Runnable",
    data: Path,
    mode: str,
    steps: Sequence[int | None],
    limit: int | None,
    *,
    as_json: bool,
) -> None:
    """Score the network of the model `source` on frames, and print errors, messages and synops."""
    from bootstrap_core.analysis.values import score_values
    from bootstrap_core.data.frames import read_frames
    from bootstrap_core.inference.integer_network import IntegerNetwork
    from bootstrap_core.network.mode import Mode

    engine = "integer" if isinstance(network, IntegerNetwork) else "torch"
    frames = read_frames(data, network.spec).limited(limit)
    if frames.are_still:
        frames = frames.held(max(t or network.spec.time_steps for t in steps))
    else:
        steps = recorded_steps(steps, len(frames.frames))
    scores = [
        score_values(network, frames, mode=Mode(mode), time_steps=t, progress=ProgressLine("scoring", "recordings"))
        for t in steps
    ]
    if as_json:
        results = [
            {
                "mode": score.mode.value,
                "time_steps": score.time_steps if score.mode.spiking else None,
                "recordings": len(frames),
                "mean_error": score.mean_error,
                "rms_error": score.rms_error,
                "messages_per_neuron_step": score.messages,
                "synops_per_step": score.synops,
                "values": score.values.tolist(),
                "steps_per_second": _steps_per_second(score),
            }
            for score in scores
        ]
        echo(json_text({"model": source, "data": str(data), "engine": engine, "results": results}))
        return
    if frames.targets is None:
        say(f"note: {data} has no targets y, so no errors are computed")
    _print_scores(network.spec, scores, len(frames), engine)


def _steps_per_second(score: "ValueScore") -> float | None:
    """Return the speed in time steps, all recordings together; None as ANN, which has no steps."""
    return len(score.values) * score.time_steps / score.seconds if score.mode.spiking else None


def _print_scores(spec: "NetworkSpec", scores: "list[ValueScore]", n: int, engine: str) -> None:
    print_table(
        ["", "recordings", "mean error", "rms error", "synops/step", "steps/s"],
        [
            [
                f"SNN, T={score.time_steps}, {engine}" if score.mode.spiking else "ANN",
                f"{n:,}",
                *("-" if error is None else f"{error:.4g}" for error in (score.mean_error, score.rms_error)),
                "-" if score.synops is None else f"{sum(score.synops):,.0f}",
                "-" if speed is None else f"{speed:,.0f}",
            ]
            for score, speed in zip(scores, map(_steps_per_second, scores), strict=True)
        ],
    )
    from specs.summary import summarize

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


def predict_values(network: "IntegerNetwork", paths: Sequence[Path], time_steps: int | None, *, as_json: bool) -> None:
    """Print the values after the last step for each recording in the files; as JSON also those of each step.

    A folder stands for the frames in it. Raises `DataError` at the end if a file cannot be read.
    """
    from bootstrap_core.data.frames import FRAME_SUFFIXES, read_frames
    from zoo.prediction import read_files

    found, unreadable = [], list[DataError]()
    read = partial(read_frames, spec=network.spec, time_steps=time_steps)
    for path, given in read_files(
        paths,
        FRAME_SUFFIXES,
        read,
        on_unreadable=unreadable.append,
        on_skipped=lambda note: say(f"note: {note}"),
    ):
        frames = given.frames
        stream = network.stream()
        by_step = [stream.step(frame) for frame in frames]  # [N, values] each
        found += [(path, i, [step[i].tolist() for step in by_step]) for i in range(frames.shape[1])]
    _print_values(found, network.spec.n_classes, as_json=as_json)
    if unreadable:
        raise DataError("\n".join(map(str, unreadable)))


def _print_values(found: list[tuple[Path, int, list[list[float]]]], n_values: int, *, as_json: bool) -> None:
    """Print path, recording, and the values after each step."""
    if not found:
        return
    if as_json:
        rows = [
            {"file": str(path), "recording": i, "time_steps": len(steps), "values": steps[-1], "after_each_step": steps}
            for path, i, steps in found
        ]
        echo(json_text({"predictions": rows}))
        return
    n = min(n_values, SHOWN_VALUES)
    more = [] if n_values <= n else [f"{n_values - n} more"]
    print_table(
        ["frames", "recording", "steps", *(f"value {k}" for k in range(n)), *more],
        [
            [str(path), str(i), str(len(steps)), *(f"{value:.6g}" for value in steps[-1][:n]), *("..." for _ in more)]
            for path, i, steps in found
        ],
    )
