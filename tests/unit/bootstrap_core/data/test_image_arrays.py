"""A user's own arrays of images and of events as datasets."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bootstrap_core.data import image_arrays
from bootstrap_core.data.events.binning import EventBins
from bootstrap_core.data.image_arrays import UNLABELLED
from bootstrap_core.data.image_files import load_images
from bootstrap_core.data.stored_images import StoredImages
from specs.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 1, 6, 5), dtype=np.uint8)
LABELS = np.arange(20) % 4


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (PIXELS, (1, 6, 5)),
        (PIXELS[:, 0], (1, 6, 5)),
        (PIXELS.transpose(0, 2, 3, 1), (1, 6, 5)),
        (PIXELS.reshape(20, -1), (1, 1, 30)),
        (PIXELS / 255, (1, 6, 5)),
        ((PIXELS / 255).astype(np.float32), (1, 6, 5)),
    ],
)
def test_arrays_of_every_layout_are_the_same_images(x, shape, tmp_path) -> None:
    dataset = load_images(save(tmp_path / "mine.npz", x=x, y=LABELS))
    assert (len(dataset.train), len(dataset.test)) == (16, 4)
    assert dataset.train.images.shape[1:] == shape
    found = {tuple(image.flatten().tolist()): int(label) for split in (dataset.train, dataset.test)
             for image, label in zip(split.images, split.labels, strict=True)}  # fmt: skip
    assert found == {tuple(image.ravel().tolist()): label for image, label in zip(PIXELS, LABELS.tolist(), strict=True)}
    assert dataset.classes == ("0", "1", "2", "3")


def test_rows_of_numbers_are_the_pictures_that_a_network_takes(tmp_path) -> None:
    path = save(tmp_path / "a.npz", x=PIXELS.reshape(20, -1), y=LABELS)
    pictures = load_images(save(tmp_path / "b.npz", x=PIXELS, y=LABELS))
    assert torch.equal(load_images(path, shape=(1, 6, 5)).test.images, pictures.test.images)
    for shape in ((30,), (1, 5, 5)):
        assert load_images(path, shape=shape).test.images.shape[1:] == (1, 1, 30)


def test_the_test_images_are_drawn_by_the_seed(tmp_path) -> None:
    path = save(tmp_path / "a.npz", x=PIXELS, y=LABELS)
    again, other = load_images(path), load_images(path, seed=1)
    assert torch.equal(load_images(path).test.images, again.test.images)
    assert not torch.equal(other.test.images, again.test.images)


def test_train_and_test_of_the_file_are_kept(tmp_path) -> None:
    path = save(tmp_path / "a.npz", x_train=PIXELS[:15], y_train=LABELS[:15], x_test=PIXELS[15:], y_test=LABELS[15:])
    dataset = load_images(path)
    assert torch.equal(dataset.test.images, torch.from_numpy(PIXELS[15:]))
    assert dataset.train.labels.tolist() == LABELS[:15].tolist()


def test_labels_may_be_one_hot_or_missing(tmp_path) -> None:
    hot = load_images(save(tmp_path / "a.npz", x=PIXELS, y=np.eye(4)[LABELS]))
    plain = load_images(save(tmp_path / "b.npz", x=PIXELS, y=LABELS))
    assert torch.equal(hot.train.labels, plain.train.labels)
    assert load_images(save(tmp_path / "c.npz", x=PIXELS)).classes == (UNLABELLED,)


def test_arrays_may_have_names_in_full(tmp_path) -> None:
    short = load_images(save(tmp_path / "a.npz", x=PIXELS, y=LABELS))
    full = load_images(save(tmp_path / "b.npz", images=PIXELS, labels=LABELS))
    assert torch.equal(full.train.images, short.train.images)
    assert torch.equal(full.train.labels, short.train.labels)
    parts = {"train_images": PIXELS, "train_labels": LABELS[:, None], "test_images": PIXELS[:3]}
    found = load_images(save(tmp_path / "c.npz", **parts, test_labels=LABELS[:3, None]))
    assert (len(found.train), found.test.labels.tolist(), found.is_drawn) == (20, [0, 1, 2], False)


@pytest.mark.parametrize("names", [[*"abcd"], [*"abcde"], [10, 20, 30, 40]])
def test_a_file_may_name_its_classes(names, tmp_path) -> None:
    found = load_images(save(tmp_path / "a.npz", x=PIXELS, y=LABELS, classes=np.array(names)))
    assert found.classes == tuple(map(str, names))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": PIXELS}, "must have an array x"),
        ({"x": PIXELS.astype(np.float32), "y": LABELS}, r"got [\d.]+: divide by 255, or convert to uint8"),
        ({"x": PIXELS / 255.0 - 0.5, "y": LABELS}, r"got -0\.\d+: give the images before mean and std normalise them"),
        ({"x": PIXELS.astype(np.int32), "y": LABELS}, "images are int32; convert them to uint8, from 0 to 255"),
        ({"x": PIXELS, "y": LABELS[:7]}, "20 images and 7 labels"),
        ({"x": PIXELS, "y": LABELS - 1}, "label -1: labels must be class numbers, whole numbers from 0"),
        ({"x": PIXELS, "y": LABELS, "classes": np.array(["a", "b", "c"])}, "has 3 names, but there is the label 3"),
        ({"x": PIXELS, "y": LABELS, "classes": np.array([*"abca"])}, "classes: 'a' occurs twice"),
        ({"x": PIXELS, "y": LABELS, "classes": np.array([*"abc", "\x1b[2J"])}, r"name 3 is .* printed: '\\x1b\[2J'"),
        ({"x": PIXELS, "y": LABELS, "classes": np.array([*"abcd"], dtype=object)}, "holds object, not text: store"),
        ({"x": PIXELS, "y": LABELS, "classes": np.array([["a", "b"]])}, r"one axis and .* got \[1, 2\]"),
        ({"x": PIXELS, "classes": np.array([*"abcd"])}, "has classes but no labels"),
        ({"images": PIXELS, "y_train": LABELS}, "has y_train, but labels of its images must be called y"),
        ({"x": PIXELS[:1], "y": LABELS[:1]}, "at least 2 inputs"),
        ({"x": PIXELS, "y": LABELS / 3}, r"label 0\.333333: labels must be class numbers"),
        ({"x": PIXELS, "y": np.stack([np.arange(20), LABELS], 1)}, r"labels of shape \[20, 2\] must be one-hot"),
        ({"x": PIXELS, "y": np.zeros((20, 4))}, "must be one-hot"),
        ({"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS}, "has y_train but no y_test"),
        ({"x_train": PIXELS, "x_test": PIXELS, "y_test": LABELS}, "has y_test but no y_train"),
        ({"x_train": PIXELS, "x_test": PIXELS, "y": LABELS}, "has y, but labels of its images must be called y_train"),
        ({"x": PIXELS, "y_train": LABELS}, "has y_train, but labels of its images must be called y"),
        ({"x": np.array([{}], dtype=object)}, "x holds object, not numbers"),
        ({"x": PIXELS[..., None], "y": LABELS}, r"images of shape \[1, 6, 5, 1\]"),
    ],
)
def test_what_is_no_dataset_is_told(arrays, message, tmp_path) -> None:
    with pytest.raises(DataError, match=message):
        load_images(save(tmp_path / "a.npz", **arrays))


EVENTS = np.random.default_rng(0).integers(0, 5, (20, 3, 2, 4, 5))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int8", "uint16", "float32", "float16"])
def test_arrays_of_events_are_counts_of_as_many_bits_as_the_network_takes(dtype, tmp_path) -> None:
    path = save(tmp_path / "a.npz", x_train=EVENTS[:12].astype(dtype), y_train=LABELS[:12],
                x_test=EVENTS[12:].astype(dtype), y_test=LABELS[12:])  # fmt: skip
    dataset = load_images(path, events=EventBins((2, 4, 5), time_steps=3, bits=2))
    assert dataset.test.has_events
    for split, events in ((dataset.train, EVENTS[:12]), (dataset.test, EVENTS[12:])):
        assert torch.equal(split.images[:], torch.from_numpy(events).clamp(max=3).to(torch.uint8))
    rows = save(tmp_path / "rows.npz", x=(EVENTS > 2).reshape(20, 3, 40), y=LABELS)
    flat = load_images(rows, events=EventBins((40,), time_steps=3))
    assert flat.train.images.shape == (16, 3, 1, 1, 40)
    assert int(flat.train.images[:].sum() + flat.test.images[:].sum()) == (EVENTS > 2).sum()


def test_large_arrays_of_events_stay_in_their_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(image_arrays, "STORED_FROM", 100)
    path = save(tmp_path / "a.npz", x=EVENTS.astype(np.float32), y=LABELS)
    dataset = load_images(path, events=EventBins((2, 4, 5), time_steps=3, bits=3))
    assert isinstance(dataset.test.images, StoredImages)
    assert int(dataset.train.images[:].sum() + dataset.test.images[:].sum()) == EVENTS.sum()


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (EVENTS[:, :2], r"x has 2 time steps, and the network takes 3: cut or extend the array, or change time_steps"),
        (EVENTS[:, 0], r"x must have the shape \[N, T, 2, 4, 5\] of events, not \[20, 2, 4, 5\]"),
        (EVENTS - 1, "whole numbers from 0 on; these are -1 to 3"),
        (EVENTS / 2, "whole numbers from 0 on; these are 0 to 2"),
        (np.where(EVENTS > 3, np.nan, EVENTS), "whole numbers from 0 on"),
    ],
)
def test_what_are_no_events_is_told(x, reason, tmp_path) -> None:
    with pytest.raises(DataError, match=reason):
        load_images(save(tmp_path / "a.npz", x=x, y=LABELS), events=EventBins((2, 4, 5), time_steps=3))


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_what_takes_images_tells_where_channels_are(tmp_path, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 6, 5, channels), np.uint8)
    wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for name, x in (("a", pixels), ("b", wanted.numpy())):
        found = load_images(save(tmp_path / f"{name}.npz", x=x, y=np.arange(10) % 2), shape=(channels, 6, 5))
        whole = torch.cat([found.train.images, found.test.images])
        assert sorted(map(tuple, whole.flatten(1).tolist())) == sorted(map(tuple, wanted.flatten(1).tolist()))
