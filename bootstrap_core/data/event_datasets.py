"""Recordings of MNIST: N-MNIST as its authors publish it, a small part of it, and simulated ones."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from bootstrap_core.data.class_folders import ExampleFile, class_folders
from bootstrap_core.data.digests import open_verified
from bootstrap_core.data.events.binning import BinnedRecordings, EventBins, recorded_files
from bootstrap_core.data.events.camera import simulate
from bootstrap_core.data.events.recordings import Events
from bootstrap_core.data.splits import Dataset, Split
from bootstrap_core.data.stored_images import StoredImages
from specs.dataset_sources import DatasetSource
from specs.errors import IntegrityError
from specs.files.given_tar import tar_members

LISTS = {"train": "train1K.txt", "test": "test100.txt"}
"""List of the labels of each part: after a line of titles, a line with a number and a label for each recording."""


def read_event_folders(source: DatasetSource, files: Mapping[Path, str], bins: EventBins) -> tuple[Split, Split]:
    """Return the training and the test recordings of the folders Train and Test, side by side.

    Raises `IntegrityError` for other classes or other numbers of recordings than the dataset has.
    """
    folder = next(iter(files)).parent
    parts = class_folders(folder)
    if [(tuple(part.classes), len(part.files)) for part in parts] != [
        (source.classes, n) for n in (source.n_train, source.n_test)
    ]:
        found = " and ".join(f"{len(part.files):,}" for part in parts)
        raise IntegrityError(
            f"{folder}: expected {source.n_train:,} and {source.n_test:,} recordings of the classes "
            f"{', '.join(source.classes)}, found {found}; use a part of the dataset by its path"
        )
    train, test = (
        recorded_split(
            recorded_files(part.place, part.files, bins),
            [label for label, members in enumerate(part.classes.values()) for _ in members],
        )
        for part in parts
    )
    return train, test


def read_listed_events(source: DatasetSource, files: Mapping[Path, str], bins: EventBins) -> tuple[Split, Split]:
    """Return the training and the test recordings of a tar, in the order of its lists.

    Raises `IntegrityError` for another digest than the dataset's.
    """
    ((path, sha256),) = files.items()
    with open_verified(path, sha256):
        members = {member.name: member for member in tar_members(path)}
    splits = []
    for part, name in LISTS.items():
        lines = members[name].read().decode("ascii").split("\n")[1:]
        listed = [line.split() for line in lines if line.strip()]
        chosen: list[ExampleFile] = [members[f"{part}/{number}.bs2"] for number, _ in listed]
        splits.append(
            recorded_split(recorded_files(f"{path}: {part}", chosen, bins), [int(label) for _, label in listed])
        )
    train, test = splits
    return train, test


def simulated(seen: Dataset, name: str, bins: EventBins) -> Dataset:
    """Return the recordings of a simulated event camera that looks at the images of a dataset of grey images.

    They are simulated when they are first used, and are the same each time.
    """
    train, test = (
        recorded_split(
            BinnedRecordings(f"{name}: {part}", len(split), partial(_watch, split, f"{name}: {part}", seed), bins),
            split.labels.tolist(),
        )
        for seed, (part, split) in enumerate((("train", seen.train), ("test", seen.test)))
    )
    return replace(seen, name=name, train=train, test=test, source=f"{seen.source}, seen by a simulated event camera")


def _watch(split: Split, name: str, seed: int) -> Iterator[tuple[str, Events]]:
    """Yield the simulated recording of each image, with its name."""
    for i, events in enumerate(simulate(split.images[:], seed=seed)):
        yield f"{name}, recording {i}", events


def recorded_split(recordings: BinnedRecordings, labels: list[int]) -> Split:
    """Return recordings and their labels, of which frames are made when they are used."""
    shape = torch.Size(recordings.shape[1:])
    return Split(StoredImages(recordings, torch.from_numpy, torch.arange(len(labels)), shape), torch.tensor(labels))
