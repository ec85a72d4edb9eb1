"""Named datasets with a time axis: recordings of event cameras, real or simulated, and images as sequences."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bootstrap_core.data.class_folders import ExampleFile, class_folders
from bootstrap_core.data.events.binning import BinnedRecordings, EventBins, recorded_files
from bootstrap_core.data.events.camera import simulate
from bootstrap_core.data.events.recordings import Events
from bootstrap_core.data.published_files import open_verified
from bootstrap_core.data.sound_files import picture_columns
from bootstrap_core.data.splits import Dataset, Split
from bootstrap_core.data.stored_images import StoredImages
from specs.dataset_sources import DatasetSource, Order
from specs.errors import DataError, IntegrityError
from specs.files.given_archives import tar_members

LISTS = {"train": "train1K.txt", "test": "test100.txt"}
"""List of the labels of each part: after a line of titles, a line with a number and a label for each recording."""
WHOLE_BITS = 8


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


def sequences(split: Split, order: Order, bins: EventBins | None, name: str) -> Split:
    """Return images as time steps, uint8 `[N, T, 1, features, 1]`.

    Args:
        bins: time steps of the network, which must be those of the sequence, and bits of a pixel; None for all bits.

    Raises `DataError` for a network of another number of steps.
    """
    pictures = _pictures(split.images[:], order)
    n_steps = pictures.shape[-1]
    if bins is not None and bins.time_steps not in {None, n_steps}:
        raise DataError(f"{name} has {n_steps} time steps, and the network takes {bins.time_steps}: set time_steps")
    return replace(split, images=picture_columns(pictures, WHOLE_BITS if bins is None else bins.bits))


def _pictures(images: Tensor, order: Order) -> Tensor:
    """Return images `[N, 1, H, W]` as pictures `[N, 1, features, T]`, whose columns are the time steps."""
    if order is Order.ROWS:
        return images.transpose(-1, -2)
    pixels = images.flatten(1)[:, None, None]  # [N, C, H, W] -> [N, 1, 1, C * H * W]
    if order is Order.PIXELS:
        return pixels
    return pixels[..., torch.randperm(pixels.shape[-1], generator=torch.Generator().manual_seed(0))]
