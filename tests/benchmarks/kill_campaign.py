"""kill -9 at random moments of `zoo train` and `convert`: nothing is lost, nothing half is left.

    python tests/benchmarks/kill_campaign.py [--tries 100] [--seed 0] [--only train|convert]

`train`: a run is killed, resumed (or begun again, where not even its first checkpoint was there), killed once more, and
resumed to its end. After each kill every file that is there must be whole; at the end the model and the metrics must be
those of a run that nobody killed, to the byte but for the seconds. `convert`: files are written over others; after a
kill each must be the old one or the new one, to the byte. Writes `results/kills.json`, and stops at the first loss.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from programs import RESULTS

from converters import read_model
from specs import load_spec

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["zoo.training_run", "zoo.cli", "numba"])
SPEC = """
name: small
time_steps: 4
neuron: {threshold: 1.0, voltage_decay: 0.03, tau_grad: 0.1}
input: {shape: [784], mean: 0.5, std: 0.5}
blocks:
  - {kind: dense, features: 256, weight_norm: true, dropout: 0.1}
  - {kind: affine, features: 10, weight_norm: true}
training: {data: mnist-sample, epochs: 4, batch_size: 200, images_per_epoch: 400, validation: 200, augment: {}}
"""


def command(arguments: list[str]) -> None:
    """What a child process does."""
    from zoo.cli import zoo

    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    zoo(arguments)


def run(arguments: list[str], seconds: float | None = None) -> tuple[bool, float]:
    """Run a command, and kill it after some seconds; whether that came before its end, and how long it took."""
    process = FORKS.Process(target=command, args=(arguments,))
    start = time.perf_counter()
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    if process.exitcode not in (0, -9):
        raise SystemExit(f"failed, {process.exitcode}: zoo {' '.join(arguments)}")
    return process.exitcode != 0, time.perf_counter() - start


def check_whole(folder: Path) -> None:
    """Read every file that a run has left, but for temporary ones."""
    readers = {
        "model.safetensors": lambda path: read_model(path).build(),
        "checkpoint.pt": lambda path: torch.load(path, weights_only=True),
        "metrics.jsonl": metrics,
        "spec.yaml": load_spec,
    }
    for path in folder.iterdir():
        if path.name in readers:
            readers[path.name](path)


def metrics(path: Path) -> list[dict[str, Any]]:
    """The lines, without what differs from run to run."""
    return [{**json.loads(line), "seconds": 0} for line in path.read_text("utf-8").splitlines()]


def temporaries(folder: Path) -> int:
    """Files that a killed process was about to rename."""
    return sum(path.name.startswith(".") for path in folder.iterdir()) if folder.exists() else 0


def train(tries: int, draw: random.Random, folder: Path) -> Iterator[dict[str, int]]:
    """Counts of each try."""
    (folder / "spec.yaml").write_text(SPEC)
    arguments = ["train", str(folder / "spec.yaml"), "-q", "--force", "-o"]
    whole, target = folder / "whole", folder / "run"
    _, seconds = run([*arguments, str(whole)])
    for _ in range(tries):
        counts = {"killed": 0, "resumed": 0, "temporaries": 0}
        for delay in (draw.uniform(0, seconds), draw.uniform(0, seconds), None):
            resume = (target / "checkpoint.pt").exists()
            killed, _ = run([*arguments, str(target), *["--resume"] * resume], delay)
            counts["killed"] += killed
            counts["resumed"] += resume
            if target.exists():
                check_whole(target)
        counts["temporaries"] = temporaries(target)
        ours, theirs = (path / "model.safetensors" for path in (target, whole))
        same = ours.read_bytes() == theirs.read_bytes()
        if not same or metrics(target / "metrics.jsonl") != metrics(whole / "metrics.jsonl"):
            raise SystemExit(f"lost: {target} is not {whole}")
        shutil.rmtree(target)
        yield counts


def convert(tries: int, draw: random.Random, folder: Path) -> Iterator[dict[str, int]]:
    """Counts of each try."""
    names = ["m.safetensors", "m.net"]
    targets, old, new = [folder / name for name in names], folder / "old", folder / "new"
    for path, model in ((old, "mnist-dense-shallow"), (new, "mnist-dense")):
        path.mkdir()
        _, seconds = run(["convert", model, *(part for name in names for part in ("-o", str(path / name)))])
    arguments = ["convert", "mnist-dense", "--force", *(part for path in targets for part in ("-o", str(path)))]
    for _ in range(tries):
        for name, target in zip(names, targets, strict=True):
            shutil.copy(old / name, target)
        killed, _ = run(arguments, draw.uniform(0, seconds))
        found = [
            [(path / name).read_bytes() for path in (old, new)].index(target.read_bytes())  # raises for a third kind
            for name, target in zip(names, targets, strict=True)
        ]
        if not killed and found != [1, 1]:
            raise SystemExit("lost: a conversion that ended has not written")
        yield {"killed": int(killed), "written": sum(found), "temporaries": temporaries(folder)}
        for path in folder.glob(".m.*"):
            path.unlink()


CAMPAIGNS = {"train": train, "convert": convert}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(CAMPAIGNS))
    parser.add_argument("--output", type=Path, default=RESULTS / "kills.json")
    options = parser.parse_args()
    report = {}
    with contextlib.suppress(FileNotFoundError):
        report = json.loads(options.output.read_text("utf-8"))
    for name in [options.only] if options.only else sorted(CAMPAIGNS):
        found: list[dict[str, int]] = []
        with tempfile.TemporaryDirectory() as folder:
            for counts in CAMPAIGNS[name](options.tries, random.Random(options.seed), Path(folder)):
                found.append(counts)
                sums = {key: sum(counts[key] for counts in found) for key in counts}
                report[name] = {"tries": len(found), **sums, "lost": 0}  # a loss would have stopped the campaign
                options.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        print(name, report[name])


if __name__ == "__main__":
    main()
