"""Compare the float and the integer engine, each with and without the native library, on whole test sets.

    python tests/benchmarks/check_engines.py [MODEL...] [--data NAME] [--data-dir DIR] [--output FILE]

MODEL is an argument as for `zoo eval`; default: all packaged models. Compares the output of every block in every step
and the logits of `run`; then, with the library alone, the logits and counts of the calls that keep no spikes. Exits
with 1 if a single number differs.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from programs import arguments, stamp, write_report
from torch import Tensor

from bootstrap_core import IntegerNetwork
from bootstrap_core.analysis.evaluation import batches
from bootstrap_core.data.data_places import DataPlaces
from bootstrap_core.ops.library import describe, without_native
from zoo.cli.given_model import load_data
from zoo.factory import model_names
from zoo.sources import read_source


def n_different(a: Tensor | None, b: Tensor | None) -> int:
    """Return the number of elements that differ; all of them if the shapes differ."""
    if a is None or b is None:
        return int(a is not b)
    return int((a != b).sum()) if a.shape == b.shape else max(a.numel(), b.numel())


@torch.no_grad()
def compare(source: str, data: str | None, data_dir: Path | None) -> dict[str, Any]:
    """Compare the engines on one model; return its row of the report."""
    model, _ = read_source(source)
    network = model.build()
    exact = IntegerNetwork(network)
    dataset = load_data(model, data, DataPlaces(data_dir))
    found = {"spikes": 0, "places": 0, "different": 0}
    n_correct = 0
    for images, labels in batches(dataset.test, 250):
        with without_native():
            expected, trace = exact.run(images)
        counts = [spikes.count_nonzero(dim=(0, 1)) for spikes in trace.spikes[:-1]]
        with without_native():
            others = [network.run(images)]
        for engine in (network, exact):
            others.append(engine.run(images))
            tallied, tally = engine.tally(images)
            found["different"] += sum(n_different(logits, expected) for logits in (tallied, engine(images)))
            for ours, theirs in zip(counts, tally.counts[:-1], strict=True):
                found["different"] += n_different(ours, theirs)
        for logits, other in others:
            found["different"] += n_different(logits, expected)
            for ours, theirs in zip(trace.spikes, other.spikes, strict=True):
                found["different"] += n_different(ours, theirs)
                found["places"] += ours.numel()
        found["spikes"] += sum(int(spikes.count_nonzero()) for spikes in trace.spikes[:-1])
        n_correct += int((expected.argmax(1) == labels).sum())
    n_images = len(dataset.test)
    return {
        "data": dataset.name, "images": n_images, "time_steps": network.spec.time_steps, **found,
        "accuracy": n_correct / n_images,
    }  # fmt: skip


def main() -> None:
    """Compare the engines on each model."""
    parser = arguments(__doc__, output="engines.json")
    parser.add_argument("models", nargs="*", help="default: all packaged models; only then the results are written")
    parser.add_argument("--data", help="dataset; default: the model's training data")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    rows = {}
    for name in options.models or model_names():
        rows[name] = row = compare(name, options.data, options.data_dir)
        print(
            f"{name}: {row['images']:,} images of {row['data']}, T={row['time_steps']}: {row['spikes']:,} spikes; "
            f"{row['places']:,} places compared, {row['different']} differ; accuracy {100 * row['accuracy']:.2f} %",
            flush=True,
        )
    if not options.models:
        report = {**stamp(), "kernels": describe(), "models": rows}
        write_report(options.output, report)
    sys.exit(any(row["different"] for row in rows.values()))


if __name__ == "__main__":
    main()
