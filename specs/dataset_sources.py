"""Named datasets with their download addresses, digests and classes; and checks of a user's own data."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from math import prod
from pathlib import Path
from shlex import quote
from typing import ClassVar

from specs.errors import DataError
from specs.files.given_archives import is_tar
from specs.files.given_file import HEAD_BYTES, check_given_file, refuse_imposter
from specs.words import counted, suggest

SAMPLE_NAME = "mnist-sample"
DATA_SUFFIXES = {".npz", ".tar"}
"""Suffixes by which a missing file is known to be meant, and not the name of a dataset."""


class FileFormat(StrEnum):
    """Format of the files of a dataset."""

    IDX = "idx"
    """Idx files, plain or gzipped: images and labels for training, images and labels for testing; or one such pair."""
    ZIPPED_IDX = "zip of idx files"
    """A `.zip` of the gzipped idx files of several datasets, as EMNIST has it; its images are transposed."""
    ARRAYS = "arrays"
    """An `.npz` with `x_train`, `y_train`, `x_test`, `y_test`, and perhaps `x_validation` and `y_validation`."""
    LIBSVM = "libsvm"
    """Two text files, `.bz2`, of training and test images; a line has a class from 1 on and numbers from -1 to 1."""
    CIFAR_PYTHON = "CIFAR batches as pickles"
    """Five training batches and a test batch, or a `.tar.gz` of them."""
    CIFAR_BINARY = "CIFAR batches as bytes"
    """The same batches, as records of a label and the pixels."""
    CLASS_FOLDERS = "tar of class folders"
    """A `.tar` with the folders `train` and `test`, which have a folder of image files for each class."""
    EVENT_FOLDERS = "class folders of events"
    """The folders `Train` and `Test`, which have a folder of recordings of events for each class."""
    LISTED_EVENTS = "tar of listed events"
    """A `.tar` of recordings of events `train/{number}.bs2` and `test/{number}.bs2`, with lists of their labels."""
    RECORDINGS = "recordings of digits"
    """A folder, or a `.tar`, of WAV files `{digit}_{speaker}_{index}.wav`."""


class Order(StrEnum):
    """Order in which the pixels of an image become the time steps of a sequence."""

    ROWS = "rows"
    """A row of the image in each step, from the top."""
    PIXELS = "pixels"
    """A pixel in each step, row by row."""
    PERMUTED = "permuted pixels"
    """A pixel in each step, in an order that was drawn once and is the same for all images."""


_STRICT = {"extra": "forbid"}
"""Pydantic's settings of the records: a misspelt field is an error."""


@dataclass(frozen=True)
class DatasetFiles:
    """Files of a dataset, in one of the forms in which people have it.

    Attributes:
        sha256: digest of each file by its name, or `md5:` and its MD5 where only that is published; of idx files
            without .gz the digest of their plain bytes; of an `.npz` that of its arrays' bytes, in the order of their
            names; of a folder or `.tar` of recordings that of what `sha256sum *.wav` prints, with the names in the
            order of bytes; of class folders of events empty: nobody publishes one, and their files are counted instead.
        folder: folder that usually has the files, within the data folder; empty if there is none.
        mirrors: URLs of folders that hold the files; idx files are gzipped there.
    """

    __pydantic_config__: ClassVar = _STRICT

    format: FileFormat
    sha256: Mapping[str, str]
    folder: str = ""
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSource:
    """Facts about a named dataset.

    Attributes:
        image_shape: shape `(C, H, W)` of an image, or of a time step of events; of sounds that of the default
            `log_mel`.
        forms: forms of its files, the preferred first; none if the package contains the images.
        advice: end of the message that the dataset was not found, after "Put ".
        n_test: number of test images, where it is checked.
        simulated_from: name of the dataset whose images a simulated event camera looks at; None for others.
        sequence_of: name of the dataset whose images become sequences; None for others.
        sequence: order in which pixels become time steps; None for images and recordings.
        of_each_class: numbers of images of each class for training, validation and testing, in the order of the file,
            of a dataset that has one pair of idx files; None for others.
        first_label: label of the first class in its files.
        value_range: values that become a black and a white pixel, where files have other numbers.
        member: start of the names of its files in a zip of several datasets.
        cache: folder of its files in the cache, if it shares them with other datasets.
        elsewhere: name of a dataset of the same classes from elsewhere, on which cards also give the accuracy.
    """

    __pydantic_config__: ClassVar = _STRICT

    name: str
    title: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    n_train: int
    forms: tuple[DatasetFiles, ...] = ()
    advice: str = ""
    credit: str | None = None
    in_cards: bool = True
    n_test: int | None = None
    simulated_from: str | None = None
    sequence_of: str | None = None
    sequence: Order | None = None
    of_each_class: tuple[int, int, int] | None = None
    value_range: tuple[float, float] = (0.0, 1.0)
    first_label: int = 0
    member: str = ""
    cache: str = ""
    elsewhere: str | None = None

    @property
    def made_from(self) -> str | None:
        """Name of the dataset that has the files; None if it has files of its own."""
        return self.simulated_from or self.sequence_of

    @property
    def has_sounds(self) -> bool:
        """True if it has recordings, whose images are as a network's `log_mel` says."""
        return any(files.format is FileFormat.RECORDINGS for files in self.forms)

    @property
    def has_events(self) -> bool:
        """True if it has recordings of an event camera, whose frames are as a network's `input` says."""
        formats = {FileFormat.EVENT_FOLDERS, FileFormat.LISTED_EVENTS}
        return self.simulated_from is not None or any(files.format in formats for files in self.forms)

    @property
    def is_downloadable(self) -> bool:
        """True if a mirror has one of the forms."""
        return any(files.mirrors for files in self.forms)


@cache
def sources() -> dict[str, DatasetSource]:
    """Return the named datasets of `datasets.yaml`, by name."""
    import yaml
    from pydantic import TypeAdapter

    text = (resources.files("specs") / "datasets.yaml").read_text("utf-8")
    facts = {name: {"name": name, **fields} for name, fields in yaml.safe_load(text).items()}
    return TypeAdapter(dict[str, DatasetSource]).validate_python(facts)


def dataset_names() -> tuple[str, ...]:
    """Return the names of the datasets that `load_dataset` knows.

    >>> dataset_names()
    ('cifar-10', 'cifar-10-jpeg', 'dig-mnist', 'emnist-balanced', 'emnist-digits', 'emnist-letters', 'fashion-mnist', \
'kannada-10k', 'kmnist', 'kmnist-10k', 'mnist', 'mnist-1d', 'mnist-sample', 'nmnist', 'nmnist-simulated', \
'nmnist-simulated-sample', 'nmnist-small', 'notmnist-10k', 'psmnist', 'qmnist', 'smnist', 'spoken-digits', 'usps', \
'yin-yang')
    """
    return tuple(sorted(sources()))


def dataset_title(name: str) -> str:
    """Return the name of a dataset for people; `name` itself for other data.

    >>> dataset_title("cifar-10-jpeg"), dataset_title("fruit.npz")
    ('CIFAR-10 (JPEG copies)', 'fruit.npz')
    """
    return sources()[name].title if name in sources() else name


def known_classes(name: str) -> tuple[str, ...] | None:
    """Return the class names of a dataset that `load_dataset` knows; None for other names."""
    return sources()[name].classes if name in sources() else None


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


def all_class_names(names: Iterable[object] | None, n_classes: int) -> tuple[str, ...]:
    """Return a name for each of `n_classes` classes: those in `names`, then numbers; numbers alone for unfit names.

    >>> all_class_names(["cat", "dog"], 3), all_class_names(["cat", "cat"], 2), all_class_names(None, 2)
    (('cat', 'dog', '2'), ('0', '1'), ('0', '1'))
    """
    numbers = tuple(map(str, range(n_classes)))
    try:
        known = check_class_names(names or (), "classes")
        return check_class_names((*known, *numbers[len(known) :]), "classes") if len(known) <= n_classes else numbers
    except DataError:
        return numbers


def parse_class_names(text: str) -> tuple[str, ...]:
    """Return the class names of a list with commas; a name with commas stands in double quotes.

    Raises `DataError` as `check_class_names`.

    >>> parse_class_names('cat, "dog, small"')
    ('cat', 'dog, small')
    """
    return check_class_names((name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])), "names")


def comma_list(values: Iterable[object]) -> str:
    """Return values as a list with commas, which `parse_class_names` reads: those with commas in double quotes.

    >>> comma_list(["cat", "dog, small"])
    'cat,"dog, small"'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


def classes_as_option(names: Iterable[str]) -> str:
    """Return the option `--classes` with these names, quoted for a shell where they need it."""
    return f"--classes {quote(comma_list(names))}"


def doubts(name: str, shape: Iterable[int], n_outputs: int) -> str | None:
    """Return a warning if a network does not fit a named dataset; None if it fits, or for other names.

    >>> doubts("mnist", [784], 128)
    'mnist has 10 classes, but the network has 128 outputs: it must end as with {kind: affine, features: 10}'
    >>> doubts("cifar-10", [1, 28, 28], 10)
    'cifar-10 has images of [3, 32, 32], but the network takes [1, 28, 28]'
    """
    if name not in sources():
        return None
    source = sources()[name]
    n_classes = len(source.classes)
    if not source.has_sounds and prod(shape) != prod(source.image_shape):
        return f"{name} has images of {list(source.image_shape)}, but the network takes {list(shape)}"
    if n_outputs != n_classes:
        return (
            f"{name} has {counted(n_classes, 'class')}, but the network has {counted(n_outputs, 'output')}: it must "
            f"end as with {{kind: affine, features: {n_classes}}}"
        )
    return None


def find_user_data(name: str) -> Path | None:
    """Return the path of a user's own images; None if `name` is the name of a dataset.

    >>> find_user_data("mnist")
    """
    path = Path(name)
    if name in dataset_names():
        return None
    is_there = os.path.exists(name)  # noqa: PTH110 - False for an invalid name
    if path.suffix in DATA_SUFFIXES or len(path.parts) > 1 or is_there:
        if not os.path.isdir(name):  # noqa: PTH112 - for the same reason
            check_data_file(path)
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


def check_data_file(path: Path) -> bool:
    """Return whether a data file is a tar archive; otherwise it is a zip archive, as an .npz is.

    Raises `DataError` for other files; the message says what the file is, if known.
    """
    check_given_file(path, error=DataError)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    refuse_imposter(head, path, wanted="dataset", error=DataError)
    if not (is_tar(head) or head.startswith(b"PK")):
        known = ", ".join(dataset_names())
        raise DataError(
            f"{path} is not a dataset: expected an .npz, a folder or a .tar of class folders, or a name ({known})"
        )
    return is_tar(head)


def unknown_dataset(name: str, known: Iterable[str]) -> DataError:
    """Return the error for an unknown dataset name, with the known names and the nearest one as a hint."""
    known = sorted(known)
    return DataError(f"unknown dataset {name!r}; known: {', '.join(known)}{suggest(name, known)}")
