"""Compare the simulated event camera with N-MNIST's recordings of the same images.

    python tests/benchmarks/check_camera.py [--images N] [--data-dir DIR] [--output FILE]

Needs the datasets `mnist` and `nmnist-small`, whose recordings are of the first 1,000 training images of MNIST. N is at
most 1,000; the camera was fitted to the first 64 of them.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from programs import RESULTS, cpu_model, stamp

from bootstrap_core import load_dataset
from bootstrap_core.data.events.binning import EventBins
from bootstrap_core.data.events.camera import simulate

BINS = EventBins((2, 34, 34), time_steps=33, bin_us=10_000, bits=8)
SACCADES = 10, 20
"""First steps of the second and the third saccade."""
BATCH = 100


def figures(frames: Sequence[np.ndarray[Any, Any]]) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Return figures of recordings, each as frames `[T, 2, H, W]`, and the number of events of each."""
    numbers = np.array([recording.sum() for recording in frames])
    by_step = sum(recording.sum((1, 2, 3), dtype=np.int64) for recording in frames) / numbers.sum()
    on = sum(int(recording[:, 1].sum()) for recording in frames) / numbers.sum()
    parts = [float(part.sum()) for part in np.split(by_step, SACCADES)]
    pixels = np.mean([np.count_nonzero(recording.sum((0, 1))) for recording in frames])
    return {
        "events": float(numbers.mean()),
        "deviation": float(numbers.std()),
        "on": float(on),
        "saccades": parts,
        "pixels": float(pixels),
        "by_step": by_step.tolist(),
    }, numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--data-dir")
    parser.add_argument("--output", type=Path, default=RESULTS / "camera.json")
    options = parser.parse_args()

    images = load_dataset("mnist", data_dir=options.data_dir).train.images[: options.images]
    start = time.process_time()
    simulated = []
    for events in simulate(images):
        counts = np.zeros((33, *BINS.frame), np.uint16)
        step = np.minimum(events.t // BINS.bin_us, 32)
        np.add.at(counts, (step, events.p, events.y, events.x), 1)
        simulated.append(counts)
    seconds = time.process_time() - start
    train = load_dataset("nmnist-small", data_dir=options.data_dir, events=BINS).train
    real = [
        frames.numpy()
        for first in range(0, options.images, BATCH)
        for frames in train.images[first : min(first + BATCH, options.images)]
    ]
    (ours, our_numbers), (theirs, their_numbers) = figures(simulated), figures(real)
    report = {
        **stamp(),
        "cpu": cpu_model(),
        "images": options.images,
        "simulated": ours,
        "real": theirs,
        "correlation": float(np.corrcoef(our_numbers, their_numbers)[0, 1]),
        "profile_distance": float(np.abs(np.subtract(ours["by_step"], theirs["by_step"])).sum() / 2),
        "cpu_ms_per_image": 1000 * seconds / options.images,
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps({key: value for key, value in report.items() if key not in {"simulated", "real"}}, indent=1))


if __name__ == "__main__":
    main()
