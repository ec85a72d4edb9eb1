"""Named datasets with their download addresses, digests and classes; and checks of a user's own data."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from specs.errors import DataError
from specs.files.given_file import HEAD_BYTES, check_given_file
from specs.files.imposter import refuse_imposter
from specs.words import counted, suggest

__all__ = [
    "SAMPLE_NAME",
    "SOURCES",
    "TRAINING_IMAGES",
    "DatasetSource",
    "check_class_names",
    "check_npz",
    "dataset_names",
    "doubts",
    "find_user_data",
    "found_data",
    "known_classes",
    "stored_data",
    "unknown_dataset",
]

SAMPLE_NAME = "mnist-sample"
IMAGE_SHAPE = (1, 28, 28)
"""Shape `(C, H, W)` of the images of all named datasets."""
TRAINING_IMAGES = {"fashion-mnist": 60_000, "mnist": 60_000, SAMPLE_NAME: 2_000}
"""Number of training images of each named dataset."""


@dataclass(frozen=True)
class DatasetSource:
    """Download addresses, digests and classes of a dataset.

    `sha256` maps each file's name, without .gz, to the digest of its decompressed bytes. `mirrors` are URLs of folders
    that hold the gzipped files. `torchvision_folder` is the dataset's folder in torchvision (`<root>/<name>/raw`).
    """

    name: str
    torchvision_folder: str
    classes: tuple[str, ...]
    mirrors: tuple[str, ...]
    sha256: Mapping[str, str]


SOURCES: Mapping[str, DatasetSource] = {
    "fashion-mnist": DatasetSource(
        name="fashion-mnist",
        torchvision_folder="FashionMNIST",
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        mirrors=(
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",  # as in torchvision; has no HTTPS
        ),
        sha256={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
    ),
    "mnist": DatasetSource(
        name="mnist",
        torchvision_folder="MNIST",
        classes=tuple("0123456789"),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
        sha256={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
}


def dataset_names() -> tuple[str, ...]:
    """Return the names of the datasets that `load_dataset` knows.

    >>> dataset_names()
    ('fashion-mnist', 'mnist', 'mnist-sample')
    """
    return tuple(sorted([*SOURCES, SAMPLE_NAME]))


def known_classes(name: str) -> tuple[str, ...] | None:
    """Return the class names of a dataset that `load_dataset` knows; None for other names."""
    return SOURCES.get(name, SOURCES["mnist"]).classes if name in dataset_names() else None


def check_class_names(names: Iterable[object], where: str) -> tuple[str, ...]:
    """Return class names as text. Raise `DataError` if one is empty, cannot be printed, or occurs twice.

    >>> check_class_names(["cat", "dog"], "--classes")
    ('cat', 'dog')
    """
    found = tuple(map(str, names))
    for i, name in enumerate(found):
        if not name or not name.isprintable():
            raise DataError(f"{where}: name {i} is empty or cannot be printed: {name[:40]!r}")
    twice = next((name for name, n in Counter(found).items() if n > 1), None)
    if twice is not None:
        raise DataError(f"{where}: {twice[:40]!r} occurs twice: each class needs a name of its own")
    return found


def doubts(name: str, shape: Iterable[int], n_outputs: int) -> str | None:
    """Return a warning if a network does not fit a named dataset; None if it fits, or for other names.

    Args:
        name: name of the dataset.
        shape: shape of the network's input.
        n_outputs: number of the network's outputs.

    >>> doubts("mnist", [784], 128)
    'mnist has 10 classes, but the network has 128 outputs: the last block, the readout, needs features: 10'
    """
    classes = known_classes(name)
    if classes is None:
        return None
    n_classes = len(classes)
    if prod(shape) != prod(IMAGE_SHAPE):
        return f"{name} has images of {list(IMAGE_SHAPE)}, but the network takes {list(shape)}"
    if n_outputs != n_classes:
        return (
            f"{name} has {counted(n_classes, 'class')}, but the network has {counted(n_outputs, 'output')}: the last "
            f"block, the readout, needs features: {n_classes}"
        )
    return None


def find_user_data(name: str) -> Path | None:
    """Return the path of a user's own images; None if `name` is the name of a dataset.

    Raises:
        DataError: `name` is neither, or the file cannot be read.

    >>> find_user_data("mnist")
    """
    path = Path(name)
    if name in dataset_names():
        return None
    if path.suffix == ".npz" or len(path.parts) > 1 or os.path.exists(name):  # noqa: PTH110 - False for an invalid name
        if not os.path.isdir(name):  # noqa: PTH112 - for the same reason
            check_npz(path)
        return path
    raise unknown_dataset(name, dataset_names())


def found_data(name: str, folder: Path = Path()) -> str:
    """Return the absolute path of data that a file in `folder`, or a command there, calls `name`.

    Return names of datasets, and paths under which `folder` has nothing, unchanged.
    """
    path = folder / name
    is_there = name not in dataset_names() and os.path.exists(path)  # noqa: PTH110 - False for an invalid name
    return os.path.abspath(path) if is_there else name  # noqa: PTH100 - links stay as they are


def stored_data(name: str, folder: Path) -> str:
    """Return the name of data for a file in `folder`, as `found_data` reads it: data in the folder by a relative path.

    >>> stored_data("/runs/fruit.npz", Path("/runs")), stored_data("/data/fruit.npz", Path("/runs"))
    ('fruit.npz', '/data/fruit.npz')
    """
    path, inside = Path(name), Path(os.path.abspath(folder))  # noqa: PTH100 - links stay as they are
    return path.relative_to(inside).as_posix() if path.is_relative_to(inside) else name


def check_npz(path: Path) -> None:
    """Raise `DataError` for a file that is not a zip archive, as an .npz is; the message says what it is, if known."""
    check_given_file(path, error=DataError)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    refuse_imposter(head, path, wanted="dataset", error=DataError)
    if not head.startswith(b"PK"):
        known = ", ".join(dataset_names())
        raise DataError(f"{path} is not a dataset: expected an .npz, a folder of class folders, or a name ({known})")


def unknown_dataset(name: str, known: Iterable[str]) -> DataError:
    """Return the error for an unknown dataset name, with the known names and the nearest one as a hint."""
    known = sorted(known)
    return DataError(f"unknown dataset {name!r}; known: {', '.join(known)}{suggest(name, known)}")
