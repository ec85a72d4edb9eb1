"""N-MNIST in its layouts, made small, and simulated recordings."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from event_files import bs2
from known_datasets import find_dataset, load_dataset, pull_dataset
from valid_files import tar

from bootstrap_core.data.events.binning import EventBins, bin_events
from bootstrap_core.data.events.camera import simulate
from bootstrap_core.data.events.recordings import Events
from bootstrap_core.data.image_files import load_images
from specs.dataset_sources import DatasetFiles, DatasetSource, FileFormat, doubts, sources
from specs.errors import DataError, IntegrityError

BINS = EventBins((2, 34, 34), 4, 1000, bits=2)


def recording(number: int) -> Events:
    rng = np.random.default_rng(number)
    x, y, p, t = rng.integers(0, (34, 34, 2, 5000), (50, 4)).T
    return Events.of({"x": x, "y": y, "p": p, "t": t}, "")


def frames(number: int) -> torch.Tensor:
    return bin_events(recording(number), BINS)[0]


def official(folder: Path, n_train: int = 3) -> Path:
    """Write N-MNIST's folders with `n_train` and one recording of each digit."""
    for part, n in (("Train", n_train), ("Test", 1)):
        for digit in range(10):
            (folder / part / str(digit)).mkdir(parents=True)
            for i in range(n):
                number = 1000 * (part == "Test") + 10 * i + digit
                (folder / part / str(digit) / f"{number:05}.bin").write_bytes(bs2(recording(number)))
    return folder


def tiny(form: DatasetFiles, n_train: int, n_test: int) -> dict[str, DatasetSource]:
    return {"tiny": replace(sources()["nmnist"], name="tiny", n_train=n_train, n_test=n_test, forms=(form,))}


FOLDERS = tiny(sources()["nmnist"].forms[0], 30, 10)


@pytest.mark.parametrize("place", ["", "tiny", "tiny/NMNIST"])
def test_official_folders(place: str, tmp_path: Path) -> None:
    folder = official(tmp_path / place)
    assert find_dataset("tiny", data_dir=tmp_path, cache_dir=tmp_path / "c", registry=FOLDERS) == folder
    dataset = load_dataset("tiny", data_dir=tmp_path, offline=True, registry=FOLDERS, events=BINS)
    assert dataset.train.labels.tolist() == sorted([*range(10)] * 3)
    assert dataset.test.labels.tolist() == [*range(10)]
    assert torch.equal(dataset.test.images[[7, 2]], torch.stack([frames(1007), frames(1002)]))
    assert torch.equal(dataset.train.images[22:23][0], frames(17))
    assert dataset.train.images[:0].shape == (0, *dataset.train.images.shape[1:])
    assert (dataset.in_cards, dataset.is_drawn) == (False, False)
    own = load_images(folder, events=BINS)  # the same folder by its path
    assert torch.equal(own.test.images[:], dataset.test.images[:])


def test_a_part_of_the_official_folders_is_refused(tmp_path: Path) -> None:
    official(tmp_path, n_train=2)
    with pytest.raises(IntegrityError, match=r"expected 30 and 10 recordings of the classes 0, 1, .*, found 20 and 10"):
        load_dataset("tiny", data_dir=tmp_path, offline=True, registry=FOLDERS)


def listed(folder: Path) -> dict[str, DatasetSource]:
    """Write a tar with lists of labels; return its registry."""
    numbers = {"train": [1, 2, 3], "test": [60001, 60002]}
    members = {f"{part}/{n}.bs2": bs2(recording(n)) for part, every in numbers.items() for n in every}
    for part, name in (("train", "train1K.txt"), ("test", "test100.txt")):
        lines = ["#sample\tlabel", *(f"{n}\t{n % 10}" for n in numbers[part])]
        members[name] = "\r\n".join([*lines, ""]).encode()
    data = tar(members)
    (folder / "small.tar").write_bytes(data)
    files = DatasetFiles(FileFormat.LISTED_EVENTS, {"small.tar": hashlib.sha256(data).hexdigest()})
    return tiny(files, 3, 2)


def test_a_tar_with_lists(tmp_path: Path) -> None:
    registry = listed(tmp_path)
    dataset = load_dataset("tiny", data_dir=tmp_path, offline=True, registry=registry, events=BINS)
    assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([1, 2, 3], [1, 2])
    assert torch.equal(dataset.train.images[:], torch.stack([frames(n) for n in (1, 2, 3)]))
    assert torch.equal(dataset.test.images[:], torch.stack([frames(n) for n in (60001, 60002)]))
    (tmp_path / "small.tar").write_bytes((tmp_path / "small.tar").read_bytes() + bytes(512))
    with pytest.raises(IntegrityError, match=r"small\.tar: sha256 is"):
        load_dataset("tiny", data_dir=tmp_path, offline=True, registry=registry)


def test_recordings_are_not_downloaded(tmp_path: Path) -> None:
    for name in ("nmnist", "nmnist-small"):
        with pytest.raises(DataError, match=f"{name} cannot be downloaded"):
            pull_dataset(name, cache_dir=tmp_path)


def test_the_simulated_sample() -> None:
    name = "nmnist-simulated-sample"
    assert find_dataset(name) == find_dataset("mnist-sample") == pull_dataset(name)
    dataset, seen = load_dataset(name, events=BINS), load_dataset("mnist-sample")
    assert (len(dataset.train), dataset.is_sample, dataset.name) == (sources()[name].n_train, True, name)
    assert torch.equal(dataset.test.labels, seen.test.labels)
    assert "seen by a simulated event camera" in dataset.source
    every = simulate(seen.test.images[:], seed=1)
    first, second = (bin_events(next(every), BINS)[0] for _ in range(2))
    assert torch.equal(dataset.test.images[[1, 0]], torch.stack([second, first]))


def test_networks_of_other_sensors_are_warned_of() -> None:
    assert doubts("nmnist", [2, 34, 34], 10) is None
    assert "images of [2, 34, 34], but the network takes [1, 28, 28]" in str(doubts("nmnist", [1, 28, 28], 10))
