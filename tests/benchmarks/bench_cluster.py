"""Compare training in one process with training in two on one host: losses of every batch, and seconds per epoch.

    python tests/benchmarks/bench_cluster.py [--data MNIST_FOLDER] [--epochs N]

Trains 784-512-512-10 and writes `results/cluster.json`. Dropout is off, because each process draws its own masks. Each
process has one thread. `torchrun` starts this file too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from programs import RESULTS, busy_cores, cpu_model, stamp

from bootstrap_core import Trainer, build_network, load_dataset
from bootstrap_core.distributed import join_group
from specs import load_spec
from specs.training import TrainingSpec
from zoo.sources import override_spec

SIZES = (1, 2)
NETWORK = "mnist-dense"
NO_DROPOUT = ("blocks.1.dropout=0.0", "blocks.2.dropout=0.0")


def train(options: argparse.Namespace) -> None:
    """Train in one process; the first process writes losses and seconds."""
    torch.set_num_threads(1)
    spec = override_spec(load_spec(NETWORK), NO_DROPOUT)
    data = load_dataset(options.dataset, data_dir=options.data).train
    recipe = (spec.training or TrainingSpec()).model_copy(
        update={
            "epochs": options.epochs,
            "snn_epochs": 1,
            "validation": len(data) // 60,
            "images_per_epoch": options.images,
        }
    )
    losses: list[float] = []
    with join_group(timeout_s=600) as group:
        trainer = Trainer(build_network(spec, seed=0), data, recipe, group=group)
        add = trainer.stats.training.add
        trainer.stats.training.add = lambda loss, *counts: (losses.append(loss), add(loss, *counts))
        seconds = [trainer.run_epoch().seconds for _ in range(options.epochs)]
    if group.leads:
        options.worker.write_text(json.dumps({"losses": losses, "seconds": seconds}))


def measure(size: int) -> dict[str, Any]:
    """Return losses and seconds of a training in `size` processes."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", size, __file__, *sys.argv[1:]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*map(str, command), "--worker", str(answer)], check=True, env=environment)
        found: dict[str, Any] = json.loads(answer.read_text())
        return found


def largest_difference(ours: list[float], theirs: list[float]) -> float:
    """Return the largest relative difference between two lists of losses."""
    return max(abs(mine - other) / other for mine, other in zip(ours, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data", type=Path, help="folder with the dataset's files")
    parser.add_argument("--epochs", type=int, default=3, help="number of epochs; the last one trains as SNN")
    parser.add_argument("--images", type=int, default=6_400, help="images per epoch")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        train(options)
        return
    busy = busy_cores()
    found = {str(size): measure(size) for size in SIZES}
    losses = {name: answer["losses"] for name, answer in found.items()}
    report = {
        **stamp(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "busy_cores": round(busy, 2),
        "network": NETWORK,
        "dataset": options.dataset,
        "epochs": options.epochs,
        "images": options.images,
        "batches": len(losses["1"]),
        "losses": losses,
        "largest_difference": {
            str(n): largest_difference(losses["2"][:n], losses["1"][:n]) for n in (1, 10, len(losses["1"]))
        },
        "seconds": {
            name: {"ann": median(found[name]["seconds"][:-1]), "snn": found[name]["seconds"][-1]} for name in found
        },
    }
    (RESULTS / "cluster.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
