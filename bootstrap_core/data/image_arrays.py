"""Datasets of arrays in an `.npz`: images or numbers of events, their labels, and names of classes."""

import io
import math
import reprlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.data.events.binning import EventBins
from bootstrap_core.data.published_files import check_digest
from bootstrap_core.data.splits import Dataset, Split, draw_test
from bootstrap_core.data.stored_images import STORED_FROM, Header, StoredArray, StoredImages, read_header, stored_array
from specs.dataset_sources import check_class_names
from specs.errors import DataError, IntegrityError
from specs.fields import Shape
from specs.files.given_archives import open_zip
from specs.files.limits import CLASS_NAMES_BYTES, IMAGE_CLASSES, IMAGES, refuse_beyond_memory
from specs.shapes import fit_input
from specs.words import counted

CHANNELS = 1, 3
UNLABELLED = "unlabelled"
IMAGES_OF = {"y": "x", "y_train": "x_train", "y_test": "x_test"}
"""Array of images for each array of labels."""
CLASSES = "classes"
OWN_NAMES = (*IMAGES_OF, *IMAGES_OF.values(), CLASSES)
OTHER_NAMES = {
    "images": "x",
    "labels": "y",
    "train_images": "x_train",
    "train_labels": "y_train",
    "test_images": "x_test",
    "test_labels": "y_test",
}
"""Further names of arrays; they count if the file does not use the own name."""
KEYS = {**{name: name for name in OWN_NAMES}, **OTHER_NAMES}
"""Arrays that are read, by the names that they may have in a file, in lower case."""
COPIES = 3
"""Copies of an array in memory at a time: as it is, times 255, and as bytes."""
MOST_OTHERS = 5
Array = npt.NDArray[np.generic] | StoredArray


def load_arrays(path: Path, *, shape: Shape | None, seed: int, events: EventBins | None) -> Dataset:
    """Read an `.npz` of images or of events; see `load_images`."""
    arrays = _arrays(path)

    def convert(x: npt.NDArray[np.generic]) -> Tensor:
        given = _tensor(x)
        return as_bytes(path, as_images(path, shape, given)) if events is None else as_counts(path, events, given)

    train, *others = (
        _split(path, convert, arrays[f"x{part}"], arrays.get(f"y{part}"))
        for part in ("", "_train", "_test")
        if f"x{part}" in arrays
    )
    is_drawn = not others
    train, test = map(train.take, draw_test(len(train), seed=seed, source=f"{path}")) if is_drawn else (train, *others)
    classes: tuple[str, ...] = (UNLABELLED,)
    if arrays.keys() & IMAGES_OF.keys():
        n_classes = int(max(train.labels.max(), test.labels.max())) + 1
        classes = _class_names(path, arrays.get(CLASSES), n_classes)
    return Dataset(f"{path}", train, test, classes, f"{path}", is_drawn=is_drawn)


def _class_names(path: Path, names: Array | None, n_classes: int) -> tuple[str, ...]:
    if not isinstance(names, np.ndarray):
        return tuple(map(str, range(n_classes)))
    if len(names) < n_classes:
        raise DataError(f"{path}: {CLASSES} has {len(names)} names, but there is the label {n_classes - 1}")
    return check_class_names(names.tolist(), f"{path}: {CLASSES}")


def _arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an .npz that make up a dataset, by their names in `KEYS`."""
    entries, headers = dict[str, zipfile.ZipInfo](), dict[str, Header]()
    given, others = dict[str, str](), list[str]()
    try:
        with open_zip(path) as archive:
            named = [(entry, entry.filename.removesuffix(".npy")) for entry in archive.infolist()]
            for entry, in_file in sorted(named, key=lambda pair: pair[1].lower() in OTHER_NAMES):
                name = KEYS.get(in_file.lower())
                if name is None or name in entries:
                    others.append(reprlib.repr(in_file).strip("'"))
                else:
                    with archive.open(entry) as stream:
                        headers[name] = _header(stream, entry.file_size, f"{path}: {in_file}", names=name == CLASSES)
                    entries[name], given[name] = entry, in_file
            chosen = _chosen(path, given, others)
            for name in chosen:
                _check_shape(path, name, headers)
            return {name: _array(path, archive, entries[name], name) for name in chosen}
    except DataError:
        raise
    except IntegrityError as error:
        raise DataError(f"{path} is not an .npz of plain arrays: {error}") from None


def _chosen(path: Path, given: Mapping[str, str], others: list[str]) -> list[str]:
    """Return the arrays to read: a training and a test set, or else one set of images.

    `given` are names in the file by those in `KEYS`, `others` those of other arrays. Raises `DataError` if images or
    labels are missing, or labels belong to other images.
    """
    parts = ["_train", "_test"] if {"x_train", "x_test"} <= given.keys() else [""]
    if parts == [""] and "x" not in given:
        names = ", ".join([*given.values(), *others[:MOST_OTHERS]]) or "none"
        raise DataError(f"{path} must have an array x (and y), or x_train and x_test; it has {names}")
    if strays := [given[name] for name, images in IMAGES_OF.items() if name in given and images not in given]:
        raise DataError(
            f"{path} has {strays[0]}, but labels of its images must be called y{parts[0]}: rename or remove it"
        )
    labels = [f"y{part}" for part in parts if f"y{part}" in given]
    if len(labels) == 1 < len(parts):
        missing = next(f"y{part}" for part in parts if f"y{part}" not in given)
        raise DataError(
            f"{path} has {given[labels[0]]} but no {missing}: add it, or store all images as x and all labels as y"
        )
    if CLASSES in given and not labels:
        raise DataError(f"{path} has {CLASSES} but no labels: add labels as y{parts[0]}, or remove {CLASSES}")
    return [*(f"x{part}" for part in parts), *labels, *({CLASSES} & given.keys())]


def _header(stream: IO[bytes], n_bytes: int, where: str, *, names: bool) -> Header:
    """Return the header of an array of numbers, or of names, of this size: NumPy allocates memory before it reads."""
    header = read_header(stream, n_bytes, where)
    dtype = header.dtype
    if names and dtype.kind not in "iuU":
        raise DataError(f"{where} holds {dtype.name[:40]}, not text: store the names with np.array(names, dtype=str)")
    if not names and (dtype.kind not in "biuf" or dtype.itemsize > 8):
        raise DataError(f"{where} holds {dtype.name[:40]}, not numbers")
    return header


def _check_shape(path: Path, name: str, headers: Mapping[str, Header]) -> None:
    """Raise `DataError` for too many images, labels or names, before memory is allocated for them."""
    header, n_labels = headers[name], _n_rows(headers[name].shape)
    if name in IMAGES_OF:
        n_images, n_columns = _n_rows(headers[IMAGES_OF[name]].shape), math.prod(header.shape[1:])
        if n_labels != n_images:
            found = f"{counted(n_images, 'image')} and {counted(n_labels, 'label')}"
            raise DataError(f"{path}: {found}: each image needs one label")
        if n_columns > IMAGE_CLASSES:
            raise DataError(f"{path}: labels of {n_columns:,} classes, more than the limit of {IMAGE_CLASSES:,}")
    elif name == CLASSES:
        if len(header.shape) != 1 or header.n_bytes > CLASS_NAMES_BYTES:
            raise DataError(
                f"{path}: {CLASSES} must have one axis and at most {CLASS_NAMES_BYTES:,} bytes, got "
                f"{list(header.shape)[:8]} and {header.n_bytes:,}"
            )
    elif 0 in header.shape:
        raise DataError(f"{path}: the array of images is empty: {list(header.shape)[:8]}")
    elif n_labels > IMAGES:
        raise DataError(f"{path}: {n_labels:,} images, more than the limit of {IMAGES:,}")


def _n_rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape and 0 not in shape else 0


def _array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Array:
    is_large = entry.file_size >= STORED_FROM and name in IMAGES_OF.values()
    if is_large and (found := stored_array(path, archive, entry)):
        return found
    refuse_beyond_memory(COPIES * entry.file_size, f"{path}: reading {name}")
    with archive.open(entry) as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def read_named_arrays(path: Path, sha256: str, *, what: str = "") -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an `.npz` by name. Their bytes, in the order of their names, must have this digest.

    Raises `IntegrityError`, which begins with `what` or the path, for another digest or a damaged file.
    """
    found = {}
    with open_zip(path) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
            with archive.open(entry) as stream:
                read_header(stream, entry.file_size, f"{path}: {entry.filename}")
            found[entry.filename.removesuffix(".npy")] = np.asarray(_array(path, archive, entry, entry.filename))
    check_digest(io.BytesIO(b"".join(array.tobytes() for array in found.values())), sha256, what or str(path))
    return found


def _split(path: Path, convert: Callable[[npt.NDArray[np.generic]], Tensor], x: Array, y: Array | None) -> Split:
    """Return the images that `convert` makes of `x`, with their labels; without `y`, all labels are 0."""
    images = StoredImages.of(x, convert) if isinstance(x, StoredArray) else convert(x)
    if y is None:
        return Split(images, torch.zeros(len(images), dtype=torch.int64))
    assert isinstance(y, np.ndarray)  # labels are never left in the file
    return Split(images, class_numbers(path, y))


def class_numbers(where: object, y: npt.NDArray[Any]) -> Tensor:
    """Return class numbers, int64 `[N]`, of labels `[N]`, or one-hot `[N, classes]`."""
    rows = y.reshape(len(y), -1)
    if rows.shape[1] > 1:
        numbers = rows.argmax(1)
        ones = np.take_along_axis(rows, numbers[:, None], 1)[:, 0] == 1
        if not (ones & (np.count_nonzero(rows, axis=1) == 1)).all():
            raise DataError(f"{where}: labels of shape {list(y.shape)} must be one-hot: one 1 in each row, else 0")
        return torch.from_numpy(numbers)
    if y.dtype.kind not in "biuf":
        raise DataError(f"{where}: label {str(rows[0, 0])[:100]!r}: labels must be class numbers")
    values = torch.from_numpy(rows[:, 0].astype(np.float64))
    wrong = ~((values >= 0) & (values < IMAGE_CLASSES) & (values % 1 == 0))
    if wrong.any():
        raise DataError(
            f"{where}: label {float(values[wrong][0]):g}: labels must be class numbers, whole numbers from 0 to "
            f"{IMAGE_CLASSES - 1}"
        )
    return values.long()


def _tensor(array: npt.NDArray[np.generic]) -> Tensor:
    """Convert an array to a tensor, in native byte order; torch cannot compare unsigned integers beyond a byte."""
    wide = array.dtype.kind == "u" and array.dtype.itemsize > 1
    return torch.from_numpy(np.ascontiguousarray(array, "int64" if wide else array.dtype.newbyteorder("=")))


def as_images(where: object, shape: Shape | None, x: Tensor) -> Tensor:
    """Return images in any of the layouts of `load_images` as `[N, C, H, W]`, in their own type."""
    match x.ndim:
        case 2 if shape is not None and len(shape) == 3 and math.prod(shape) == x.shape[1]:
            return x.reshape(-1, *shape)
        case 2:
            return x[:, None, None]
        case 3:
            return x[:, None]
        case 4:
            is_last = shape == (x.shape[3], *x.shape[1:3]) or (x.shape[3] in CHANNELS and x.shape[1] not in CHANNELS)
            return x.permute(0, 3, 1, 2) if is_last and shape != x.shape[1:] else x
        case _:
            expected = "[C, H, W], [H, W, C], [H, W] or [features]"
            raise DataError(f"{where}: images of shape {list(x.shape[1:])}, expected {expected}")


def as_bytes(where: object, x: Tensor) -> Tensor:
    """Return images, uint8 or floats in 0..1, as uint8."""
    if x.dtype == torch.uint8:
        return x.contiguous()
    if not x.is_floating_point():
        raise DataError(
            f"{where}: images are {str(x.dtype).removeprefix('torch.')}; convert them to uint8, from 0 to 255"
        )
    low, high = map(float, x.aminmax()) if x.numel() else (0.0, 0.0)
    found = f"{where}: images as floats must be from 0 to 1, got"
    if not math.isfinite(low + high):
        raise DataError(f"{found} numbers that are not finite")
    if low < 0:
        raise DataError(f"{found} {low:g}: give the images before mean and std normalise them")
    if high > 1:
        raise DataError(f"{found} {high:g}: divide by 255, or convert to uint8")
    return (x * 255).round().to(torch.uint8).contiguous()


def as_counts(where: object, bins: EventBins, x: Tensor) -> Tensor:
    """Return the number of events in each time step, uint8 `[N, T, C, H, W]`, counted as `bins` does."""
    if not fit_input(tuple(x.shape[2:]), bins.shape):
        taken = ", ".join(map(str, bins.shape))
        raise DataError(f"{where}: x must have the shape [N, T, {taken}] of events, not {list(x.shape)}")
    if bins.time_steps not in {None, x.shape[1]}:
        raise DataError(
            f"{where}: x has {counted(x.shape[1], 'time step')}, and the network takes {bins.time_steps}: cut or "
            "extend the array, or change time_steps"
        )
    low, high = map(float, x.aminmax())
    if low < 0 or not math.isfinite(high) or (x.is_floating_point() and bool((x % 1 != 0).any())):
        raise DataError(f"{where}: numbers of events must be whole numbers from 0 on; these are {low:g} to {high:g}")
    counts = (x.clamp(max=255) if high > 255 else x).to(torch.uint8)  # torch clamps no booleans, and no int8 to 255
    return counts.clamp(max=2**bins.bits - 1).reshape(*x.shape[:2], *bins.frame)
