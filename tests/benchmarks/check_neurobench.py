"""Run NeuroBench's harness on packaged models, and write its figures beside ours.

    python tests/benchmarks/check_neurobench.py [MODEL...] [--data-dir DIR] [--output FILE]

Exits with 1 if a difference has no known reason.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from programs import arguments, stamp, write_report

from bootstrap_core import IntegerNetwork, evaluate
from bootstrap_core.data.data_places import DataPlaces
from zoo.cli.given_model import load_data
from zoo.runs.harness import UNKNOWN, harness_version, measure_with_harness
from zoo.sources import read_source

MODELS = ["mnist-dense", "mnist-conv", "nmnist-conv"]


def main() -> None:
    """Measure each model on its whole test set."""
    parser = arguments(__doc__, output="neurobench.json")
    parser.add_argument("models", nargs="*", help=f"default: {' '.join(MODELS)}; only then the results are written")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    rows = {}
    for name in options.models or MODELS:
        model, _ = read_source(name)
        network, split = model.build(), load_data(model, None, DataPlaces(options.data_dir)).test
        figures = measure_with_harness(network, split, evaluate(IntegerNetwork(network), split))
        rows[name] = {"images": len(split), "figures": [asdict(one) for one in figures]}
        for one in figures:
            print(f"{name}: {one.name}: {one.theirs:,.9g}, ours {one.ours:,.9g} {one.note}", flush=True)
    if not options.models:
        write_report(options.output, {**stamp(), "neurobench": harness_version(), "models": rows})
    sys.exit(any(one["note"] == UNKNOWN for row in rows.values() for one in row["figures"]))


if __name__ == "__main__":
    main()
