"""A user's own images as a dataset: an `.npz` of arrays, or a folder of class folders."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.datasets import Dataset, Split
from bootstrap_core.stored_images import STORED_FROM, StoredArray, StoredImages, stored_array
from specs.errors import DataError, SnnZooError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["UNLABELLED", "load_images", "open_image"]

UNLABELLED = "unlabelled"
"""The one class of a dataset whose images have no labels."""
TEST_PART = 5
"""One image in so many is for testing, where a file does not say which."""
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
MAX_BYTES = 1 << 33


def load_images(path: Path, *, size: tuple[int, int, int] | None = None, seed: int = 0) -> Dataset:
    """Read a user's images.

    An `.npz` has `x` `[N, C, H, W]`, `[N, H, W, C]`, `[N, H, W]` or `[N, features]`, uint8 or floats in 0..1, and `y`
    if there are labels; or `x_train`, `y_train`, `x_test`, `y_test`. Images that `np.savez` wrote, uncompressed, may be
    larger than memory: they stay in the file, which is read as they are used. A folder has a folder of image files for
    each class, sorted by name; or `train` and `test` with such folders in them. Without a test set, every fifth image
    drawn by `seed` is one.

    Args:
        path: an `.npz`, or a folder.
        size: `(C, H, W)` that image files are converted and resized to; by default that of the first.
        seed: of the images drawn for testing.

    Raises:
        DataError: it cannot be read, or is no such thing.
    """
    if path.is_dir():
        return _from_folder(path, size, seed)
    return _from_npz(path, seed)


def _from_npz(path: Path, seed: int) -> Dataset:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            large = [
                name for name, entry in entries.items() if entry.file_size >= STORED_FROM and name.lower() in ARRAYS
            ]
            stored = {name: stored_array(path, archive, entries[name]) for name in large}
            if sum(entry.file_size for name, entry in entries.items() if not stored.get(name)) > MAX_BYTES:
                raise DataError(f"{path}: its arrays unpack to more than {MAX_BYTES >> 30} GiB")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: stored.get(name) or file[name] for name in file.files if name.lower() in ARRAYS}
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} is no .npz of plain arrays: {error}") from None
    found = {name.lower(): array for name, array in arrays.items()}
    if {"x_train", "x_test"} <= found.keys():
        train, test = (_split(path, found[f"x_{part}"], found.get(f"y_{part}")) for part in ("train", "test"))
    elif "x" in found:
        train, test = _drawn(_split(path, found["x"], found.get("y")), seed)
    else:
        raise DataError(f"{path} has no array x (and y), nor x_train and x_test; it has {', '.join(arrays) or 'none'}")
    labelled = "y" in found or "y_train" in found
    n_classes = int(max(train.labels.max(), test.labels.max())) + 1
    classes = tuple(map(str, range(n_classes))) if labelled else (UNLABELLED,)
    return Dataset(path.stem, train, test, classes, f"{path}")


ARRAYS = {"x", "y", "x_train", "y_train", "x_test", "y_test"}


Array = npt.NDArray[np.generic] | StoredArray


def _split(path: Path, x: Array, y: Array | None) -> Split:
    def convert(x: Tensor) -> Tensor:
        return _as_bytes(path, _as_images(path, x))

    images: Tensor | StoredImages
    if isinstance(x, StoredArray):
        images = StoredImages.of(x, convert)
    else:
        images = convert(torch.from_numpy(np.ascontiguousarray(x)))
    if y is None:
        return Split(images, torch.zeros(len(images), dtype=torch.int64))
    y = y.read(torch.arange(y.shape[0])) if isinstance(y, StoredArray) else y
    labels = torch.from_numpy(np.ascontiguousarray(y)).reshape(len(y), -1)
    if labels.shape[1] > 1:  # one-hot
        labels = labels.argmax(1, keepdim=True)
    labels = labels[:, 0].long()
    if len(labels) != len(images) or len(images) == 0 or int(labels.min()) < 0:
        raise DataError(f"{path}: {len(images)} images and {len(labels)} labels, which must be class numbers from 0")
    return Split(images, labels)


def _as_images(path: Path, x: Tensor) -> Tensor:
    match x.ndim:
        case 2:
            return x[:, None, None]
        case 3:
            return x[:, None]
        case 4 if x.shape[3] in {1, 3} and x.shape[1] not in {1, 3}:
            return x.permute(0, 3, 1, 2)
        case 4:
            return x
        case _:
            raise DataError(f"{path}: images of shape {list(x.shape[1:])}")


def _as_bytes(path: Path, x: Tensor) -> Tensor:
    if x.dtype == torch.uint8:
        return x.contiguous()
    if not x.is_floating_point() or not x.numel() or float(x.min()) < 0 or float(x.max()) > 1:
        raise DataError(f"{path}: images must be uint8, or floats in 0..1 (as before mean and std)")
    return (x * 255).round().to(torch.uint8).contiguous()


def _drawn(split: Split, seed: int) -> tuple[Split, Split]:
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    n_test = max(1, len(split) // TEST_PART)
    if len(split) < 2:
        raise DataError("fewer than two images")
    return split.take(order[n_test:]), split.take(order[:n_test])


def _from_folder(path: Path, size: tuple[int, int, int] | None, seed: int) -> Dataset:
    if (path / "train").is_dir() and (path / "test").is_dir():
        classes = _classes(path / "train")
        size = size or _size_of(classes)
        train = _read_classes(classes, size)
        test = _read_classes(_classes(path / "test"), size)
    else:
        classes = _classes(path)
        train, test = _drawn(_read_classes(classes, size or _size_of(classes)), seed)
    return Dataset(path.name, train, test, tuple(classes), f"{path}")


def _classes(path: Path) -> dict[str, list[Path]]:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    found = {
        folder.name: sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        for folder in folders
    }
    if not found or not all(found.values()):
        raise DataError(
            f"{path} is no folder of class folders with images in each; it has {', '.join(found) or 'none'}"
        )
    return found


def _size_of(classes: Mapping[str, list[Path]]) -> tuple[int, int, int]:
    with open_image(next(iter(classes.values()))[0]) as image:
        return (1 if image.mode in {"1", "L", "I", "F", "I;16"} else 3, image.height, image.width)


def _read_classes(classes: Mapping[str, list[Path]], size: tuple[int, int, int]) -> Split:
    channels, height, width = size
    images, labels = [], []
    for number, files in enumerate(classes.values()):
        for file in files:
            with open_image(file) as image:
                pixels = np.asarray(image.convert("L" if channels == 1 else "RGB").resize((width, height)))
            images.append(torch.from_numpy(pixels.copy()).reshape(height, width, channels).permute(2, 0, 1))
            labels.append(number)
    return Split(torch.stack(images), torch.tensor(labels))


@contextmanager
def open_image(path: Path) -> Iterator["Image"]:
    """An image file, open in Pillow.

    Raises:
        DataError: it cannot be read as an image, here or in the body of the `with`.
        SnnZooError: Pillow is missing.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise SnnZooError("reading images needs Pillow: pip install 'snnzoo[plot]'") from None
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read {path} as an image: {getattr(error, 'strerror', None) or error}") from None
