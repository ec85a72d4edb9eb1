"""The commands `eval` and `predict` for a model that gives values, such as a sigma-delta network."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.cli.console import ProgressLine, echo, json_text, print_table, say

if TYPE_CHECKING:
    from bootstrap_core.analysis.values import ValueScore
    from converters.model import Model
    from specs.network import NetworkSpec

__all__ = ["evaluate_values", "predict_values"]

SHOWN_VALUES = 4
"""Number of values that the table of `predict` shows; --json has all."""


def evaluate_values(
    source: str,
    model: "Model",
    data: Path,
    engine: str,
    mode: str,
    steps: Sequence[int | None],
    device: str,
    limit: int | None,
    *,
    as_json: bool,
) -> None:
    """Score a model on frames, and print errors, messages and synops."""
    from bootstrap_core.analysis.values import score_values
    from bootstrap_core.data.frames import read_frames
    from bootstrap_core.inference.integer_network import IntegerNetwork
    from bootstrap_core.network.mode import Mode
    from zoo.sources import resolve_device

    network = model.build().to(resolve_device(device))
    runnable = IntegerNetwork(network) if engine == "integer" else network
    longest = None if None in steps else max(t or 0 for t in steps)
    frames = read_frames(data, model.spec, time_steps=longest).limited(limit)
    scores = [
        score_values(runnable, frames, mode=Mode(mode), time_steps=t, progress=ProgressLine("scoring", "recordings"))
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
                "messages": score.messages,
                "synops_per_step": score.synops,
                "values": score.values.tolist(),
                "steps_per_second": len(frames) * score.time_steps / score.seconds,
            }
            for score in scores
        ]
        echo(json_text({"model": source, "data": str(data), "engine": engine, "results": results}))
        return
    if frames.wanted is None:
        say(f"note: {data} lacks values y, with which the outputs would be compared")
    _print_scores(model.spec, scores, len(frames), engine)


def _print_scores(spec: "NetworkSpec", scores: "list[ValueScore]", n: int, engine: str) -> None:
    print_table(
        ["", "recordings", "mean error", "rms error", "synops/step", "steps/s"],
        [
            [
                f"SNN, T={score.time_steps}, {engine}" if score.mode.spiking else "ANN",
                f"{n:,}",
                *("-" if error is None else f"{error:.4g}" for error in (score.mean_error, score.rms_error)),
                "-" if score.synops is None else f"{sum(score.synops):,.0f}",
                f"{n * score.time_steps / score.seconds:,.0f}",
            ]
            for score in scores
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


def predict_values(model: "Model", paths: Sequence[Path], time_steps: int | None, *, as_json: bool) -> None:
    """Print the values after the last step for each recording in the files; as JSON also those of each step."""
    from bootstrap_core.data.frames import read_frames
    from bootstrap_core.inference.integer_network import IntegerNetwork

    network, found = IntegerNetwork(model.build()), []
    for path in paths:
        frames = read_frames(path, model.spec, time_steps=time_steps).frames
        stream = network.stream()
        by_step = [stream.step(frame) for frame in frames]  # [N, values] each
        found += [(path, i, [step[i].tolist() for step in by_step]) for i in range(frames.shape[1])]
    if as_json:
        rows = [
            {"file": str(path), "recording": i, "time_steps": len(steps), "values": steps[-1], "after_each_step": steps}
            for path, i, steps in found
        ]
        echo(json_text({"predictions": rows}))
        return
    n = min(model.spec.n_classes, SHOWN_VALUES)
    more = [] if model.spec.n_classes <= n else [f"{model.spec.n_classes - n} more"]
    print_table(
        ["frames", "recording", "steps", *(f"value {k}" for k in range(n)), *more],
        [
            [str(path), str(i), str(len(steps)), *(f"{value:.6g}" for value in steps[-1][:n]), *("..." for _ in more)]
            for path, i, steps in found
        ],
    )
