"""Compare `convert` with SpikingJelly's converter on the full MNIST test set, for each ONNX file of a folder.

    python tests/benchmarks/bench_convert.py --folder FOLDER [--data DIR] [--peer-python PY] [--epochs 2] [--only NAME]

snnzoo runs with its default settings on integers: 8-bit weights, reset to zero. Each T is a separate conversion, scored
before and after tuning; the `.net` of T = 16 is also read back and run on all images. SpikingJelly converts the same
ANN, imported by onnx2torch, with each of its recipes, calibrated on images of the same training set; see
`ann2snn_worker.py`. Images are normalised as the folder's README.md says, see `check_onnx.py`.

Each conversion is a separate process, stopped after `--limit` seconds. `results/convert.json` is written after each
file. `--only NAME` measures the files whose names contain NAME and keeps the other rows; `--ours` keeps SpikingJelly's
figures. `python tests/make_readme_tables.py --print convert` prints the results as a table.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from check_onnx import normalisation, said_of
from programs import WorkerError, arguments, conditions, has_module, run_once, write_report

from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.splits import Dataset
from converters.ann_to_snn.best_candidate import MOST
from converters.ann_to_snn.onnx_conversion import drawn

DATASET = "mnist"
TIME_STEPS = [16, 8, 4]
TARGETS = {"untuned": {"16": 1.0}, "tuned": {"16": 0.2, "8": 0.5, "4": 1.0}}
"""Percentage points that the SNN may lose against its ANN, for each number of time steps."""
RECIPES = ("99.9%", "max", "local")
"""Recipes of `ann2snn_worker.py`."""


def save_images(dataset: Dataset, path: Path) -> None:
    """Write, as uint8, the test set and images for SpikingJelly's calibration, at most as many as for `import_onnx`."""
    seen = drawn(dataset.train, MOST, seed=0)
    np.savez(path, calibration=seen, test=dataset.test.images, labels=dataset.test.labels)


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__, output="convert.json", threads=2, peers=True)
    parser.add_argument("--folder", type=Path, required=True, help="folder with .onnx files, optionally a README.md")
    parser.add_argument("--data", type=Path, help="folder with MNIST; default: as `zoo` finds it")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of tuning")
    parser.add_argument("--limit", type=float, default=1800.0, help="time limit of a conversion in seconds")
    parser.add_argument("--only", default="", help="measure only files whose names contain this text")
    parser.add_argument("--ours", action="store_true", help="measure only snnzoo; keep the other figures")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    paths = [path for path in sorted(options.folder.glob("*.onnx")) if options.only in path.name]
    if not paths:
        print(f"Error: no .onnx file in {options.folder} with {options.only!r} in its name", file=sys.stderr)
        return 1
    with_peer = not options.ours and all(
        has_module(options.peer_python, name) for name in ("spikingjelly", "onnx2torch")
    )
    if not (with_peer or options.ours):
        print("SpikingJelly is left out: --peer-python lacks spikingjelly or onnx2torch", file=sys.stderr)
    said = said_of(options.folder)
    before = json.loads(options.output.read_text("utf-8")) if options.output.exists() else {"rows": [], "versions": {}}
    rows = {row["file"]: row for row in before["rows"]}
    report = {"targets": TARGETS, "versions": before["versions"]}
    measured = conditions(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        save_images(load_dataset(DATASET, data_dir=options.data), images)
        for path in paths:
            print(path.name, file=sys.stderr)
            row = measure(path, said.get(path.name, {}), images, options, with_peer=with_peer)
            if options.ours and path.name in rows:
                row["spikingjelly"] = rows[path.name]["spikingjelly"]
            for part in (row["snnzoo"], *row["spikingjelly"].values()):
                report["versions"] |= part.pop("versions", {})
            rows[path.name] = {**row, "conditions": measured}
            ordered = [rows[name] for name in sorted(rows)]
            write_report(options.output, {**report, "rows": ordered})
    return 0


def measure(
    path: Path, said: dict[str, str], images: Path, options: argparse.Namespace, *, with_peer: bool
) -> dict[str, Any]:
    """Return the row of a file: answers of `convert_worker.py`, and of `ann2snn_worker.py` for each recipe."""
    mean, std = normalisation(said)
    common = {"path": str(path), "mean": mean, "std": std}
    data = None if options.data is None else str(options.data)
    ours = {**common, "dataset": DATASET, "data": data, "epochs": options.epochs}
    theirs = {"images": str(images), "time_steps": TIME_STEPS}
    peer = [options.peer_python or sys.executable, "ann2snn_worker.py"]
    return {
        "file": path.name,
        "epochs": options.epochs,
        "snnzoo": each_time_steps(ours, options),
        "spikingjelly": {
            recipe: attempt("spikingjelly", peer, {**common, **theirs, "recipe": recipe}, options)
            for recipe in RECIPES
            if with_peer
        },
    }


def each_time_steps(request: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return the answer for the first T, with the accuracies of all conversions, each at its own T."""
    command = [sys.executable, "convert_worker.py"]
    answers = {str(t): attempt("snnzoo", command, {**request, "time_steps": t}, options) for t in TIME_STEPS}
    first = answers[str(TIME_STEPS[0])]
    if "error" in first:
        return first
    made = {t: answer for t, answer in answers.items() if "error" not in answer}
    stages = {stage: {t: answer[stage][t] for t, answer in made.items() if t in answer[stage]} for stage in TARGETS}
    return {**first, **stages}


def attempt(name: str, command: list[str], request: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return the answer of a worker, or its error."""
    try:
        return run_once(name, command, request, threads=options.threads, seconds=options.limit)
    except WorkerError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    sys.exit(main())
