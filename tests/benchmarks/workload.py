"""The work that `bench_lava_dl.py` times: one text for both sides, which differ only in the network they bring.

Needs torch and numpy alone, so that it runs under lava-dl's Python as well as ours. A side is an object with

- `parameters()`: what the optimiser moves;
- `train(mode)`: enter training; `logits(images, mode)`: `[N, 10]`, mode "sample", "fit" or "ann";
- `engines()`: {name: function from images `[N, 784]` in 0..1 to logits}, for SNN runs in eval mode.
"""

import contextlib
import gzip
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

N_WARM_UP = 5
"""Batches in ANN mode before the clock starts."""


def load_images(data):
    """{"train" or "test": (images uint8 [N, 784], labels int64 [N])}, of idx files in a folder or the sample's npz."""
    path = Path(data)
    if path.is_file():
        with np.load(path) as arrays:
            parts = {part: (arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test")}
    else:
        parts = {
            part: (_read_idx(path / f"{prefix}-images-idx3-ubyte"), _read_idx(path / f"{prefix}-labels-idx1-ubyte"))
            for part, prefix in (("train", "train"), ("test", "t10k"))
        }
    return {
        part: (torch.from_numpy(images.reshape(len(images), -1).copy()), torch.from_numpy(labels.astype(np.int64)))
        for part, (images, labels) in parts.items()
    }


def _read_idx(path):
    """Bytes of an idx file, plain or gzipped, in the shape of its header."""
    data = path.read_bytes() if path.is_file() else gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())
    n_axes = data[3]
    shape = np.frombuffer(data, ">i4", n_axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def measure(side, request):
    """Times of one epoch and of each engine's test run; see `bench_lava_dl.py` for the request."""
    parts = load_images(request["data"])
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "epoch": time_epoch(side, *parts["train"], request),
        "test": {name: time_test(run, *parts["test"], request) for name, run in side.engines().items()},
    }


def time_epoch(side, images, labels, request):
    """Sample, fit and warm up; then time an epoch, or its first batches, in ANN mode."""
    generator = torch.Generator().manual_seed(request["seed"])
    order = torch.randperm(len(labels), generator=generator).split(request["batch_size"])
    optimizer = torch.optim.Adam(side.parameters(), lr=1e-3)

    def step(indices, mode):
        logits = side.logits(images[indices].float() / 255, mode)
        loss = F.cross_entropy(logits, labels[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    side.train(True)
    warm_up = ["sample"] * request["sample_batches"] + ["fit"] + ["ann"] * N_WARM_UP
    for i, mode in enumerate(warm_up):
        step(order[i % len(order)], mode)

    batches = order[: request["batches"]]
    clock = Clock()
    losses = [step(indices, "ann") for indices in batches]
    return {
        **clock.read(),
        "batches": len(batches),
        "images": sum(len(indices) for indices in batches),
        "loss_first": losses[0],
        "loss_last": losses[-1],
    }


@torch.no_grad()
def time_test(run, images, labels, request):
    """Time classifying all test images."""
    size = request["test_batch_size"]
    run(images[:size].float() / 255)
    clock, n_correct = Clock(), 0
    for x, y in zip(images.split(size), labels.split(size), strict=True):
        n_correct += int((run(x.float() / 255).argmax(1) == y).sum())
    return {**clock.read(), "images": len(labels), "accuracy": n_correct / len(labels)}


class Clock:
    """Starts when made; wall seconds, and those of this process's CPU time."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self):
        return {"seconds": time.perf_counter() - self.wall, "cpu_seconds": time.process_time() - self.cpu}


def work(make_side):
    """The main program of a worker: a request as JSON in argv, the times as the last line of stdout."""
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    torch.set_num_interop_threads(1)
    torch.manual_seed(request["seed"])
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print
        times = measure(make_side(request), request)
    print(json.dumps(times))
