"""Compare every spike of the float and the integer engine on a whole test set.

    python tests/benchmarks/check_engines.py MODEL... [--data NAME] [--data-dir DIR]

MODEL is what `zoo eval` takes. Exits with 1 if a single spike, weighted input or logit differs.
"""

import argparse
import sys
from pathlib import Path

import torch

from bootstrap_core import IntegerNetwork, load_dataset
from bootstrap_core.evaluation import batches
from zoo.cli.shared import usual_data
from zoo.sources import read_source


@torch.no_grad()
def compare(source: str, data: str | None, data_dir: Path | None) -> bool:
    """Print one line for a model; whether the engines agree."""
    model, _ = read_source(source)
    network = model.build()
    exact = IntegerNetwork(network)
    dataset = load_dataset(data or usual_data(model), data_dir=data_dir)
    n_spikes, n_places, n_different, n_correct = 0, 0, 0, 0
    for images, labels in batches(dataset.test, 250):
        logits, trace = network.run(images)
        exact_logits, exact_trace = exact.run(images)
        for ours, theirs in zip(trace.spikes, exact_trace.spikes, strict=True):
            n_different += int((ours != theirs).sum())
            n_places += ours.numel()
        n_different += int((logits != exact_logits).sum())
        n_spikes += sum(int(spikes.count_nonzero()) for spikes in exact_trace.spikes[:-1])
        n_correct += int((exact_logits.argmax(1) == labels).sum())
    print(
        f"{source}: {len(dataset.test):,} images of {dataset.name}, T={network.spec.time_steps}: "
        f"{n_spikes:,} spikes in {n_places:,} places, {n_different} differ; "
        f"accuracy {100 * n_correct / len(dataset.test):.2f} %"
    )
    return n_different == 0


def main() -> None:
    """Compare each model given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", help="default: what the model was trained on")
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    agree = [compare(model, arguments.data, arguments.data_dir) for model in arguments.models]
    sys.exit(not all(agree))


if __name__ == "__main__":
    main()
