"""Measure the time to 98.7 % SNN validation accuracy of the tutorial's network: snnzoo beside lava-dl's own tutorial.

    python tests/benchmarks/bench_accuracy.py [--lava-python PY] [--data-dir D] [--threads 2] [--accuracy 0.987]

Both train on the same 55,000 MNIST images, with the same random affine maps, and are scored as SNN on the other 5,000
after each epoch. snnzoo follows `RECIPE`; the time includes augmentation, training, and scoring as ANN and as SNN.
lava-dl follows its notebook: batches of 32, Adam at 0.001, torchvision's transforms of each image, SAMPLE and FIT every
ten epochs. Two differences from the notebook: it scores as SNN in every tenth epoch only, here every epoch is scored so
that the run can stop earlier; and it scores 10,000 test images and writes files, which is left out here.

Needs MNIST in D, $ZOO_DATA_DIR or the cache. Takes minutes for snnzoo and about an hour for lava-dl. Writes
`results/accuracy.json`, which `make_readme_tables.py` adds to the table.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from programs import arguments, busy_cores, commands, header, run_main, running, write_report
from snnzoo_worker import RECIPE

from bootstrap_core import build_network
from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.splits import train_validation_split
from bootstrap_core.training.trainer import Trainer
from specs import load_spec


def time_ours(options: argparse.Namespace) -> dict[str, Any]:
    """Train with snnzoo; return seconds and accuracy of each epoch, up to the one that reaches the accuracy."""
    torch.set_num_threads(options.threads)
    split = load_dataset("mnist", data_dir=options.data_dir).train
    epochs = []
    wall, cpu = time.perf_counter(), time.process_time()
    spec = load_spec("mnist-dense").model_copy(update={"training": RECIPE})
    trainer = Trainer(build_network(spec, seed=options.seed), split)
    while len(epochs) < min(options.epochs, RECIPE.epochs):
        report = trainer.run_epoch()
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        epochs.append({**times, "accuracy": report.validation_snn_score})
        print(f"snnzoo: {epochs[-1]}", file=sys.stderr)
        if report.validation_snn_score >= options.accuracy:
            break
    return {"epochs": epochs}


def time_lava(options: argparse.Namespace) -> dict[str, Any]:
    """Train with lava-dl on the same split; return the same figures as `time_ours`."""
    split = load_dataset("mnist", data_dir=options.data_dir).train
    parts = train_validation_split(split, n_validation=RECIPE.validation, seed=RECIPE.seed)
    chosen = {"lava-dl": commands(None, options.lava_python)["lava-dl"]}
    with tempfile.TemporaryDirectory() as folder, running(chosen, options.threads) as programs:
        path = str(Path(folder) / "images.npz")
        arrays = {}
        for name, part in zip(("train", "validation"), parts, strict=True):
            arrays |= {f"{name}_images": part.images[:, 0].numpy(), f"{name}_labels": part.labels.numpy()}
        np.savez(path, **arrays)
        request = {"path": path, "accuracy": options.accuracy, "epochs": options.epochs, "seed": options.seed}
        programs["lava-dl"].ask(work="tutorial_start", **request)
        epochs: list[dict[str, float]] = []
        while len(epochs) < options.epochs:
            epochs.append(programs["lava-dl"].ask(work="tutorial_epoch"))
            print(f"lava-dl: {epochs[-1]}", file=sys.stderr)
            if epochs[-1]["accuracy"] >= options.accuracy:
                break
    return {"epochs": epochs}


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__, output="accuracy.json", threads=2, lava=True)
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST; default: $ZOO_DATA_DIR, then the cache")
    parser.add_argument("--accuracy", type=float, default=0.987)
    parser.add_argument("--epochs", type=int, default=100, help="stop after this many epochs")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    busy = busy_cores()
    with running(commands(None, options.lava_python), options.threads) as programs:
        report = header(programs, options.threads, busy)
    found = {"snnzoo": time_ours(options)}
    if options.lava_python:
        found["lava-dl"] = time_lava(options)
    reached = {name: run for name, run in found.items() if run["epochs"][-1]["accuracy"] >= options.accuracy}
    notes = [
        f"time to {options.accuracy:.1%} SNN validation accuracy: {name} "
        + (f"reached {last['accuracy']:.2%}" if name in reached else f"stayed below ({last['accuracy']:.2%})")
        + f" in epoch {len(run['epochs'])}, {last['wall']:.0f} s ({last['cpu']:.0f} s of CPU)"
        + f"; threads: {options.threads}"
        for name, run in found.items()
        for last in [run["epochs"][-1]]
    ]
    row = {
        "what": f"training to {options.accuracy:.1%} SNN accuracy",
        "unit": "s",
        "target": {"lava-dl": 8.0},
        "reference": None,
        "unfinished": sorted(found.keys() - reached.keys()),
        **{clock: {name: run["epochs"][-1][clock] for name, run in found.items()} for clock in ("wall", "cpu")},
    }
    report |= {"rows": [row] if "snnzoo" in reached else [], "notes": notes, "epochs": found}
    write_report(options.output, report)
    return 0


if __name__ == "__main__":
    run_main(main)
