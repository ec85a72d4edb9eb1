"""Convert an ONNX file with few images, many times: how often tuning is kept, and what it does to the test accuracy.

    python tests/benchmarks/bench_small.py FILE.onnx [--data-dir DIR] [--mean M --std S] [--images 300] [--subsets 20]

Each conversion has its own training images, drawn from MNIST, and is scored on all test images. `results/small.json` is
written after each T, and keeps the rows of other files.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from programs import arguments, conditions, write_row

from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.splits import Dataset
from converters.ann_to_snn.onnx_conversion import import_onnx

TIME_STEPS = [8, 4]


def convert(given: argparse.Namespace, dataset: Dataset, steps: int, seed: int) -> dict[str, Any]:
    """Convert with the images that a seed draws; return the accuracies before tuning and of the final network, 0..1."""
    chosen = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(seed))[: given.images]
    few = replace(dataset, train=dataset.train.take(chosen))
    found = import_onnx(given.file, dataset=few, mean=given.mean, std=given.std, time_steps=steps, seed=seed)
    return {"untuned": found.converted[steps], "final": found.score.score, "kept": found.written == "tuned"}


def main() -> None:
    parser = arguments(__doc__, output="small.json", threads=1)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST; default: as `zoo` finds it")
    parser.add_argument("--mean", type=float, default=0.0)
    parser.add_argument("--std", type=float, default=1.0)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--subsets", type=int, default=20)
    parser.add_argument("--time-steps", type=int, nargs="+", default=TIME_STEPS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    dataset = load_dataset("mnist", data_dir=given.data_dir)
    for steps in given.time_steps:
        before, start = conditions(given.threads), time.process_time()
        runs = [convert(given, dataset, steps, seed) for seed in range(given.subsets)]
        row = {"file": given.file.name, "time_steps": steps, "images": given.images, "runs": runs}
        row |= {"cpu_s": (time.process_time() - start) / given.subsets, "conditions": before}
        write_row(given.output, row)


if __name__ == "__main__":
    main()
