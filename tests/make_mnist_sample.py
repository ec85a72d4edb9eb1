"""Make bootstrap_core/data/mnist-sample.npz from MNIST: `python tests/make_mnist_sample.py DATA_DIR`.

A seeded generator chooses 200 training and 100 test digits of each class, in the order of MNIST, so that the arrays are
the same each time.
"""

import sys
from pathlib import Path

import numpy as np

from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.splits import Split

SEED = 20240601
TARGET = Path(__file__).parents[1] / "bootstrap_core" / "data" / "mnist-sample.npz"


def choose(split: Split, n_per_class: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose images `[N, 28, 28]` and labels `[N]`, both uint8."""
    labels = split.labels.numpy()
    members = [np.flatnonzero(labels == label) for label in range(10)]
    chosen = np.sort(np.concatenate([generator.choice(m, n_per_class, replace=False) for m in members]))
    return split.images.numpy()[chosen, 0], labels[chosen].astype(np.uint8)


def main(data_dir: Path, target: Path = TARGET) -> None:
    """Write the sample."""
    mnist = load_dataset("mnist", data_dir=data_dir, offline=True)
    generator = np.random.default_rng(SEED)
    train_images, train_labels = choose(mnist.train, 200, generator)
    test_images, test_labels = choose(mnist.test, 100, generator)
    np.savez_compressed(
        target,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
