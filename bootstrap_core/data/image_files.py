"""Datasets of users' own images, sounds or events: an `.npz` of arrays, or a folder or `.tar` of class folders."""

import io
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.data.class_folders import ClassFolders, Content, ExampleFile, class_folders
from bootstrap_core.data.events.binning import EventBins, recorded_files
from bootstrap_core.data.image_arrays import CHANNELS, load_arrays
from bootstrap_core.data.sound_files import sound_inputs
from bootstrap_core.data.splits import Dataset, Split, draw_test
from bootstrap_core.data.stored_images import STORED_FROM, MadeRows, StoredImages
from bootstrap_core.progress import each_file
from specs.arguments import check_path
from specs.dataset_sources import check_data_file
from specs.errors import DataError, SnnZooError
from specs.fields import Shape
from specs.files.given_file import check_given_file
from specs.files.limits import IMAGE_PIXELS
from specs.layers.input import LogMelSpec
from specs.shapes import fit_input

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int, int]
"""Size of an image, `(C, H, W)`."""
Form = Size | LogMelSpec | EventBins
"""Form that files get: the size of images, or how sounds become pictures or recordings frames."""
ORIENTATION, SIDEWAYS = 0x0112, {5, 6, 7, 8}
"""Exif tag for the orientation of the camera, and its values for images that are stored on their side."""
PAPERS, BLACK_ABOVE = ("white", "black"), 2
"""Backgrounds for transparent images; black is taken if its contrast is more than `BLACK_ABOVE` times that of white."""
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

    An `.npz` has images `x`, `[N, C, H, W]`, `[N, H, W, C]`, `[N, H, W]` or `[N, features]`, uint8 or floats in 0..1,
    and perhaps labels `y`; or `x_train`, `y_train`, `x_test` and `y_test`. The names `images`, `labels`, `train_images`
    and so on mean the same. `classes` has the names of the classes. Images that `np.savez` wrote, uncompressed, may be
    larger than memory: they stay in the file and are read when they are used. With `events`, `x` has the number of
    events in each time step instead, `[N, T, C, H, W]` or `[N, T, features]`, as whole numbers.

    A folder, or a `.tar` of it, has a folder of files for each class, sorted by name; or `train` and `test`, also
    `Train` and `Test`, with such folders in them. A `.tar` is not unpacked. The files are images; or WAV files, which
    become pictures as `log_mel` says; or recordings of events (`.bin`, `.bs1`, `.bs2`, `.npz`, `.npy`), which become
    frames uint8 `[N, T, C, H, W]` as `events` says. Images whose pixels take `STORED_FROM` bytes or more are decoded
    when they are used.

    Without a test set, a fifth of the images is for testing, drawn by `seed`.

    Args:
        shape: input shape of the network. Rows of an `.npz` with as many features become images of this shape. Image
            files are converted to grey or RGB and resized to it; by default, or if it is flat and the first image has
            as many values, to the size of the first.
        log_mel: how sounds become pictures, by default as `LogMelSpec()`; if it is given, other files are refused.
        events: how recordings of events become frames, by default as `EventBins()`; if it is given, other files are
            refused. An `.npz` must already have frames of this shape and T. With `log_mel`, sounds become the columns
            of their pictures, uint8 `[N, T, 1, bands, 1]`, of `events.bits` bits.

    Raises:
        DataError: the files cannot be read, are not such an `.npz`, folder or `.tar`, or are not what the network
            takes.
        IntegrityError: the `.tar` is damaged.
    """
    path = check_path(path, "load_images takes the path of an .npz file, a folder or a .tar", error=DataError)
    is_folders = path.is_dir() or check_data_file(path)
    if not is_folders:
        return load_arrays(path, shape=shape, seed=seed, events=events)
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
    names = tuple(first.classes)
    if len(names) == 1:
        raise DataError(f"{path} has one class, {names[0]}: at least two are needed")
    for other in others:
        if unknown := sorted(other.classes.keys() - first.classes.keys()):
            raise DataError(f"{other.place} has classes that are missing in {first.place}: {', '.join(unknown)}")
    splits = [_read_classes(folders, form, names, bits) for folders in (first, *others)]
    train, test = splits if others else map(splits[0].take, draw_test(len(splits[0]), seed=seed, source=f"{path}"))
    log_mel = form if isinstance(form, LogMelSpec) else None
    return Dataset(f"{path}", train, test, names, f"{path}", is_drawn=not others, log_mel=log_mel)


def _size_for(shape: Shape | None, file: ExampleFile) -> Size:
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
    numbers = {name: number for number, name in enumerate(names)}
    labels = torch.tensor([numbers[name] for name, members in folders.classes.items() for _ in members])
    if isinstance(form, LogMelSpec):
        return Split(sound_inputs(folders.files, form, bits), labels)
    if isinstance(form, EventBins):
        return Split(StoredImages.of(recorded_files(folders.place, folders.files, form), torch.from_numpy), labels)
    files, (channels, height, width) = folders.files, form
    images = MadeRows(
        f"images of {height} x {width} pixels in {folders.place}",
        (len(files), *form),
        lambda row: read_pixels(files[row], channels=channels, height=height, width=width),
    )
    if math.prod(images.shape) < STORED_FROM:
        return Split(torch.from_numpy(images.read(torch.arange(len(labels)))), labels)
    for file in each_file(files):
        with open_image(file):  # reads the header and checks the limits
            pass
    return Split(StoredImages.of(images, torch.from_numpy), labels)


def read_pixels(file: ExampleFile, *, channels: int, height: int, width: int) -> Tensor:
    """Read an image file as uint8 `[C, height, width]`, converted to grey or RGB and resized."""
    with open_image(file) as image:
        plain = plain_image(file, image)
        pixels = np.asarray(_of_bytes(plain).convert("L" if channels == 1 else "RGB").resize((width, height)))
    return torch.from_numpy(pixels.copy()).reshape(height, width, channels).permute(2, 0, 1)


def plain_image(file: ExampleFile, image: "Image") -> "Image":
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
    return on_black if _contrast(on_black) > BLACK_ABOVE * _contrast(on_white) else on_white


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
def open_image(file: ExampleFile) -> Iterator["Image"]:
    """Open an image file in Pillow.

    Raises `DataError` if it cannot be read as an image, here or in the body of the `with`.
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
