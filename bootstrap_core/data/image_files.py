"""Datasets of users' own images, sounds or events: an `.npz` of arrays, or a folder or `.tar` of class folders."""

import io
import math
import reprlib
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.data.class_folders import ClassFolders, Content, ImageFile, class_folders
from bootstrap_core.data.events.binning import EventBins, recorded_files
from bootstrap_core.data.sound_files import sound_inputs
from bootstrap_core.data.splits import Dataset, Split, draw_test
from bootstrap_core.data.stored_images import STORED_FROM, Header, StoredArray, StoredImages, read_header, stored_array
from bootstrap_core.progress import each_file
from specs.arguments import check_path
from specs.dataset_sources import check_class_names, check_data_file
from specs.errors import DataError, IntegrityError, SnnZooError
from specs.fields import Shape
from specs.files.given_file import check_given_file
from specs.files.given_zip import open_zip
from specs.files.limits import CLASS_NAMES_BYTES, IMAGE_CLASSES, IMAGE_PIXELS, IMAGES
from specs.files.memory import refuse_beyond_memory
from specs.layers.input import LogMelSpec
from specs.shapes import fit_input
from specs.words import counted

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "UNLABELLED",
    "Size",
    "image_shape",
    "load_images",
    "open_image",
    "plain_image",
    "read_pixels",
    "upright_size",
]

Size = tuple[int, int, int]
"""Size of an image, `(C, H, W)`."""
Form = Size | LogMelSpec | EventBins
"""Form that files get: the size of images, or how sounds become pictures or recordings frames."""
CHANNELS = 1, 3
"""Numbers of channels of an image: grey, or RGB."""
UNLABELLED = "unlabelled"
"""Name of the only class of a dataset without labels."""
ORIENTATION, SIDEWAYS = 0x0112, {5, 6, 7, 8}
"""Exif tag for the orientation of the camera, and its values for images that are stored on their side."""
PAPERS, MORE = ("white", "black"), 2
"""Backgrounds for transparent images. Black is taken if it gives more than `MORE` times the contrast of white."""
DEEP_FORMATS = ("PNG", "PPM")
"""Formats whose images have 16 bits where Pillow reports mode `I`."""
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Formats that are read. Other formats of Pillow run programs, as EPS does, or read further files."""


def load_images(
    path: str | Path,
    *,
    shape: Shape | None = None,
    seed: int = 0,
    log_mel: LogMelSpec | None = None,
    events: EventBins | None = None,
) -> Dataset:
    """Read a user's images, sounds, or recordings of an event camera.

    An `.npz` has `x` `[N, C, H, W]`, `[N, H, W, C]`, `[N, H, W]` or `[N, features]`, uint8 or floats in 0..1, and `y`
    if there are labels; or `x_train`, `y_train`, `x_test`, `y_test`. The names `images` and `labels` mean the same, and
    `train_images` and so on. `classes` has the names of the classes. Images that `np.savez` wrote, uncompressed, may be
    larger than memory: they stay in the file and are read when they are used. With `events`, `x` has the number of
    events in each time step instead, `[N, T, C, H, W]` or `[N, T, features]`, as whole numbers.

    A folder, or a `.tar` of it, has a folder of image files for each class, sorted by name; or `train` and `test` with
    such folders in them. A `.tar` is not unpacked. If their pixels take more than `STORED_FROM` bytes, images are
    decoded when they are used. Instead of images the folders may have WAV files, which become pictures as `log_mel`
    says; or recordings of events (`.bin`, `.bs1`, `.bs2`, `.npz`, `.npy`), which become frames uint8 `[N, T, C, H, W]`
    as `events` says. `train` and `test` may then begin with a capital letter.

    Without a test set, a fifth of the images is for testing, drawn by `seed`.

    Args:
        path: an `.npz`, a folder, or a `.tar`.
        shape: input shape of the network. Rows of as many features become images of this shape. Image files are
            converted to grey or RGB and resized to it. By default, or if the shape is flat and the first image has as
            many values, all image files get the size of the first.
        seed: seed for drawing the test images.
        log_mel: how sounds become pictures, by default as `LogMelSpec()`; if it is given, other files are refused.
        events: how recordings of events become frames, by default as `EventBins()`; if it is given, other files are
            refused. With `log_mel`, sounds become the columns of their pictures, uint8 `[N, T, 1, bands, 1]`, of
            `events.bits` bits. The arrays of an `.npz` are such frames already: it must have their shape and T.

    Raises:
        DataError: the files cannot be read, are not such an `.npz`, folder or `.tar`, or are not what the network
            takes.
        IntegrityError: the `.tar` is damaged.
    """
    path = check_path(path, "load_images takes the path of an .npz file, a folder or a .tar", error=DataError)
    is_folders = path.is_dir() or check_data_file(path)
    if not is_folders:
        return _from_npz(path, shape, seed, events)
    first, *others = class_folders(path)
    form = _form_of(path, first, shape, log_mel, events)
    return _from_folders(path, first, others, form, seed, bits=None if events is None else events.bits)


def image_shape(shape: Shape) -> Size | None:
    """Return the size of grey or RGB images that fit an input `shape`, square if it is flat; None if no size fits.

    >>> image_shape((784,)), image_shape((3072,)), image_shape((3, 24, 32)), image_shape((50,))
    ((1, 28, 28), (3, 32, 32), (3, 24, 32), None)
    """
    if len(shape) == 3:
        return (shape[0], shape[1], shape[2]) if shape[0] in CHANNELS else None
    for channels in CHANNELS:
        side = round((math.prod(shape) / channels) ** 0.5)
        if math.prod(shape) == channels * side**2:
            return channels, side, side
    return None


IMAGES_OF = {"y": "x", "y_train": "x_train", "y_test": "x_test"}
"""Array of images for each array of labels."""
CLASSES = "classes"
"""Array of class names."""
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
"""Number of other arrays that an error names at most."""
Array = npt.NDArray[np.generic] | StoredArray


def _from_npz(path: Path, shape: Shape | None, seed: int, events: EventBins | None) -> Dataset:
    arrays = _arrays(path)

    def convert(x: npt.NDArray[np.generic]) -> Tensor:
        given = _tensor(x)
        return _as_bytes(path, _as_images(path, shape, given)) if events is None else _as_counts(path, events, given)

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
    """Return the names of the classes in a file; without names, their numbers."""
    if not isinstance(names, np.ndarray):
        return tuple(map(str, range(n_classes)))
    if len(names) < n_classes:
        raise DataError(f"{path}: {CLASSES} has {len(names)} names, but there is the label {n_classes - 1}")
    return check_class_names(names.tolist(), f"{path}: {CLASSES}")


def _arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an .npz that make up a dataset, by their names in `KEYS`."""
    entries, headers, others = dict[str, zipfile.ZipInfo](), dict[str, Header](), list[str]()
    try:
        with open_zip(path) as archive:
            named = [(entry, entry.filename.removesuffix(".npy")) for entry in archive.infolist()]
            for entry, given in sorted(named, key=lambda pair: pair[1].lower() in OTHER_NAMES):
                name = KEYS.get(given.lower())
                if name is None or name in entries:
                    others.append(reprlib.repr(given).strip("'"))
                else:
                    with archive.open(entry) as stream:
                        headers[name] = _header(stream, entry.file_size, f"{path}: {given}", names=name == CLASSES)
                    entries[name] = entry
            chosen = _chosen(
                path, {name: entry.filename.removesuffix(".npy") for name, entry in entries.items()}, others
            )
            for name in chosen:
                _check_shape(path, name, headers)
            return {name: _array(path, archive, entries[name], name) for name in chosen}
    except DataError:
        raise
    except IntegrityError as error:
        raise DataError(f"{path} is not an .npz of plain arrays: {error}") from None


def _chosen(path: Path, given: Mapping[str, str], others: list[str]) -> list[str]:
    """Return the arrays to read: a training and a test set, or else one set of images.

    Args:
        path: path of the file, for errors.
        given: names of the arrays in the file, by their names in `KEYS`.
        others: names of its other arrays.

    Raises:
        DataError: images or labels are missing, or labels belong to other images.
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
    try:
        header = read_header(stream)
    except ValueError as error:  # NumPy raises it for a malformed header
        raise DataError(f"{where} is not an array: {' '.join(str(error).split())[:200]}") from None
    shape, dtype = header.shape, header.dtype
    if names and dtype.kind not in "iuU":
        raise DataError(f"{where} holds {dtype.name[:40]}, not text: store the names with np.array(names, dtype=str)")
    if not names and (dtype.kind not in "biuf" or dtype.itemsize > 8):
        raise DataError(f"{where} holds {dtype.name[:40]}, not numbers")
    if header.n_bytes != n_bytes:
        raise DataError(f"{where} is of shape {list(shape)[:8]} and dtype {dtype}, but has {n_bytes:,} bytes")
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
    """Read one array; large images stay in the file if they can be read from there in parts."""
    is_large = entry.file_size >= STORED_FROM and name in IMAGES_OF.values()
    if is_large and (found := stored_array(path, archive, entry)):
        return found
    refuse_beyond_memory(COPIES * entry.file_size, f"{path}: reading {name}")
    with archive.open(entry) as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def _split(path: Path, convert: Callable[[npt.NDArray[np.generic]], Tensor], x: Array, y: Array | None) -> Split:
    images = StoredImages.of(x, convert) if isinstance(x, StoredArray) else convert(x)
    if y is None:
        return Split(images, torch.zeros(len(images), dtype=torch.int64))
    assert isinstance(y, np.ndarray)  # labels are never left in the file
    return Split(images, _labels(path, y))


def _labels(path: Path, y: npt.NDArray[Any]) -> Tensor:
    """Return class numbers, int64 `[N]`, of labels `[N]`, or one-hot `[N, classes]`."""
    rows = y.reshape(len(y), -1)
    if rows.shape[1] > 1:
        numbers = rows.argmax(1)
        ones = np.take_along_axis(rows, numbers[:, None], 1)[:, 0] == 1
        if not (ones & (np.count_nonzero(rows, axis=1) == 1)).all():
            raise DataError(f"{path}: labels of shape {list(y.shape)} must be one-hot: one 1 in each row, else 0")
        return torch.from_numpy(numbers)
    values = torch.from_numpy(rows[:, 0].astype(np.float64))
    wrong = ~((values >= 0) & (values < IMAGE_CLASSES) & (values % 1 == 0))
    if wrong.any():
        raise DataError(
            f"{path}: label {float(values[wrong][0]):g}: labels must be class numbers, whole numbers from 0 to "
            f"{IMAGE_CLASSES - 1}"
        )
    return values.long()


def _tensor(array: npt.NDArray[np.generic]) -> Tensor:
    """Convert an array to a tensor, in native byte order; torch cannot compare unsigned integers beyond a byte."""
    wide = array.dtype.kind == "u" and array.dtype.itemsize > 1
    return torch.from_numpy(np.ascontiguousarray(array, "int64" if wide else array.dtype.newbyteorder("=")))


def _as_images(path: Path, shape: Shape | None, x: Tensor) -> Tensor:
    match x.ndim:
        case 2 if shape is not None and len(shape) == 3 and math.prod(shape) == x.shape[1]:
            return x.reshape(-1, *shape)
        case 2:
            return x[:, None, None]
        case 3:
            return x[:, None]
        case 4 if shape == x.shape[1:]:
            return x
        case 4 if shape == (x.shape[3], *x.shape[1:3]) or (x.shape[3] in CHANNELS and x.shape[1] not in CHANNELS):
            return x.permute(0, 3, 1, 2)
        case 4:
            return x
        case _:
            expected = "[C, H, W], [H, W, C], [H, W] or [features]"
            raise DataError(f"{path}: images of shape {list(x.shape[1:])}, expected {expected}")


def _as_bytes(path: Path, x: Tensor) -> Tensor:
    if x.dtype == torch.uint8:
        return x.contiguous()
    if not x.is_floating_point():
        raise DataError(f"{path}: images are {str(x.dtype).removeprefix('torch.')}; save them as uint8, from 0 to 255")
    low, high = map(float, x.aminmax()) if x.numel() else (0.0, 0.0)
    found = f"{path}: images as floats must be from 0 to 1, got"
    if not math.isfinite(low + high):
        raise DataError(f"{found} numbers that are not finite")
    if low < 0:
        raise DataError(f"{found} {low:g}: save the images before mean and std normalise them")
    if high > 1:
        raise DataError(f"{found} {high:g}: divide by 255, or save as uint8")
    return (x * 255).round().to(torch.uint8).contiguous()


def _as_counts(path: Path, bins: EventBins, x: Tensor) -> Tensor:
    """Return the number of events in each time step, uint8 `[N, T, C, H, W]`, counted as `bins` does."""
    if not fit_input(tuple(x.shape[2:]), bins.shape):
        taken = ", ".join(map(str, bins.shape))
        raise DataError(f"{path}: x must have the shape [N, T, {taken}] of events, not {list(x.shape)}")
    if bins.time_steps not in {None, x.shape[1]}:
        raise DataError(
            f"{path}: x has {counted(x.shape[1], 'time step')}, and the network takes {bins.time_steps}: cut or extend "
            "the array, or change time_steps"
        )
    low, high = map(float, x.aminmax())
    if low < 0 or not math.isfinite(high) or (x.is_floating_point() and bool((x % 1 != 0).any())):
        raise DataError(f"{path}: numbers of events must be whole numbers from 0 on; these are {low:g} to {high:g}")
    counts = x.to(torch.uint8) if high < 256 else x.clamp(max=255).to(torch.uint8)
    return counts.clamp(max=2**bins.bits - 1).reshape(*x.shape[:2], *bins.frame)


def _form_of(
    path: Path, folders: ClassFolders, shape: Shape | None, log_mel: LogMelSpec | None, events: EventBins | None
) -> Form:
    """Return the form that the files of class folders get. Raises `DataError` if the network does not take them."""
    found, taken = folders.content, Content.SOUNDS if log_mel else Content.EVENTS if events else Content.IMAGES
    fits = found is taken or (taken is Content.IMAGES and (shape is None or found is Content.SOUNDS))
    if not fits:  # sounds may train a network that takes images of their size
        raise DataError(f"{path} has {found}; the network takes {taken}")
    match found:
        case Content.SOUNDS:
            form = log_mel or LogMelSpec()
            if events is None and shape is not None and not fit_input(form.picture, shape):
                made = f"{found}, which become pictures {list(form.picture)}"
                raise DataError(f"{path} has {made}; the network takes images {list(shape)}")
            return form
        case Content.EVENTS:
            return events or EventBins()
        case _:
            return _size_for(shape, folders.files[0])


def _from_folders(
    path: Path, first: ClassFolders, others: Sequence[ClassFolders], form: Form, seed: int, *, bits: int | None
) -> Dataset:
    """Read class folders of images of a size, of sounds, or of events; `bits` as in `sound_inputs`."""
    names = tuple(first.classes)
    if len(names) == 1:
        raise DataError(f"{path} has one class, {names[0]}: at least two are needed")
    for other in others:
        if unknown := sorted(other.classes.keys() - first.classes.keys()):
            raise DataError(f"{other.place} has classes that are missing in {first.place}: {', '.join(unknown)}")
    splits = [_read_classes(folders, form, names, bits) for folders in (first, *others)]
    train, test = splits if others else map(splits[0].take, draw_test(len(splits[0]), seed=seed, source=f"{path}"))
    told = form if isinstance(form, LogMelSpec) else None
    return Dataset(f"{path}", train, test, names, f"{path}", is_drawn=not others, log_mel=told)


def _size_for(shape: Shape | None, file: ImageFile) -> Size:
    """Return the size that all image files are converted to; `file` is the first of them."""
    if shape is not None and len(shape) == 3 and shape[0] in CHANNELS:
        return shape[0], shape[1], shape[2]
    with open_image(file) as image:
        first = (1 if image.mode in {"1", "L", "LA", "I", "F", "I;16"} else 3, *upright_size(image))
    if shape is None or math.prod(shape) == math.prod(first):
        return first
    return image_shape(shape) or first


def upright_size(image: "Image") -> tuple[int, int]:
    """Return height and width of an open image as its camera was held; only the header is read."""
    has_exif = image.format == "TIFF" or "exif" in image.info  # otherwise Pillow would read all pixels to look for it
    sideways = has_exif and image.getexif().get(ORIENTATION) in SIDEWAYS
    return (image.width, image.height) if sideways else (image.height, image.width)


def _read_classes(folders: ClassFolders, form: Form, names: Iterable[str], bits: int | None) -> Split:
    """Read class folders; a label is the index of the class in `names`."""
    numbers = {name: number for number, name in enumerate(names)}
    labels = torch.tensor([numbers[name] for name, members in folders.classes.items() for _ in members])
    if isinstance(form, LogMelSpec):
        return Split(sound_inputs(folders.files, form, bits), labels)
    if isinstance(form, EventBins):
        return Split(StoredImages.of(recorded_files(folders.place, folders.files, form), torch.from_numpy), labels)
    files = _ImageFiles(folders.place, folders.files, form)
    if math.prod(files.shape) < STORED_FROM:
        return Split(torch.from_numpy(files.read(torch.arange(len(labels)))), labels)
    for file in each_file(files.files):
        with open_image(file):  # reads the header and checks the limits
            pass
    return Split(StoredImages.of(files, torch.from_numpy), labels)


@dataclass(frozen=True)
class _ImageFiles:
    """Image files as an array `[N, C, H, W]`, whose rows are decoded when they are read."""

    place: str
    files: tuple[ImageFile, ...]
    size: Size
    dtype: np.dtype[np.uint8] = np.dtype(np.uint8)  # noqa: RUF009 - immutable

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.files), *self.size)

    def read(self, rows: Tensor) -> npt.NDArray[np.uint8]:
        channels, height, width = self.size
        n_images = len(rows)
        refuse_beyond_memory(
            2 * n_images * math.prod(self.size), f"{self.place}: {n_images:,} images of {height} x {width} pixels"
        )
        found = np.empty((n_images, *self.size), self.dtype)
        for place, file in enumerate(each_file([self.files[row] for row in rows.tolist()])):
            found[place] = read_pixels(file, channels=channels, height=height, width=width)
        return found


def read_pixels(file: ImageFile, *, channels: int, height: int, width: int) -> Tensor:
    """Read an image file as uint8 `[C, height, width]`, converted to grey or RGB and resized.

    Raises:
        DataError: it cannot be read as an image, or is too large.
        SnnZooError: Pillow is missing.
    """
    with open_image(file) as image:
        plain = plain_image(file, image)
        pixels = np.asarray(_of_bytes(plain).convert("L" if channels == 1 else "RGB").resize((width, height)))
    return torch.from_numpy(pixels.copy()).reshape(height, width, channels).permute(2, 0, 1)


def plain_image(file: ImageFile, image: "Image") -> "Image":
    """Return an open image upright and opaque: on white, or on black if that gives much more contrast.

    Opaque images of 16 bits keep them (mode `I` or `I;16`). Raises `DataError` for floats and 32 bits.
    """
    from PIL import Image, ImageOps

    if image.mode == "F" or (image.mode == "I" and image.format not in DEEP_FORMATS):
        raise DataError(f"{file}: pixels of floats or 32 bits have no defined white: save the image in 8 or 16 bits")
    upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return upright
    ink = _of_bytes(upright).convert("RGBA")
    on_white, on_black = (Image.alpha_composite(Image.new("RGBA", ink.size, paper), ink) for paper in PAPERS)
    return on_black if _contrast(on_black) > MORE * _contrast(on_white) else on_white


def _of_bytes(image: "Image") -> "Image":
    """Convert an image of 16 bits to 8, its transparent grey level included; return others unchanged."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    deep, transparent = np.asarray(image, np.uint16), image.info.get("transparency")
    grey = Image.fromarray((deep // 257).astype(np.uint8))
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(deep == transparent, 0, 255).astype(np.uint8)))
    return grey


def _contrast(image: "Image") -> int:
    return int(np.ptp(np.asarray(image.convert("L"))))


@contextmanager
def open_image(file: ImageFile) -> Iterator["Image"]:
    """Open an image file in Pillow.

    Raises:
        DataError: it cannot be read as an image, here or in the body of the `with`.
        SnnZooError: Pillow is missing.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise SnnZooError("reading images needs Pillow: pip install pillow") from None
    try:
        source = file if isinstance(file, Path) else io.BytesIO(file.read())
        if isinstance(file, Path):
            check_given_file(file, error=DataError)
        with warnings.catch_warnings(action="ignore"), Image.open(source, formats=FORMATS) as image:
            n_pixels = image.width * image.height
            if n_pixels > IMAGE_PIXELS:
                raise DataError(f"{file} has {n_pixels:,} pixels, more than the limit of {IMAGE_PIXELS:,}")
            yield image
    except SnnZooError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"cannot read {file} as an image; supported formats: {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's plugins raise errors of all kinds on malformed files
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__
        raise DataError(f"cannot read {file} as an image: {reason}") from None
