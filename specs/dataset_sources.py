"""Named datasets with their download addresses, digests and classes; and checks of a user's own data."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from pathlib import Path
from shlex import quote

from specs.errors import DataError
from specs.files.given_file import HEAD_BYTES, check_given_file
from specs.files.given_tar import is_tar
from specs.files.imposter import refuse_imposter
from specs.words import counted, suggest

__all__ = [
    "SAMPLE_NAME",
    "SOURCES",
    "DatasetFiles",
    "DatasetSource",
    "FileFormat",
    "check_class_names",
    "check_data_file",
    "classes_as_option",
    "comma_list",
    "dataset_names",
    "dataset_title",
    "doubts",
    "find_user_data",
    "found_data",
    "known_classes",
    "parse_class_names",
    "stored_data",
    "unknown_dataset",
]

SAMPLE_NAME = "mnist-sample"
DATA_SUFFIXES = {".npz", ".tar"}
"""Suffixes by which a missing file is known to be meant, and not the name of a dataset."""


class FileFormat(StrEnum):
    """Format of the files of a dataset."""

    IDX = "idx"
    """Four idx files: images and labels for training, images and labels for testing; plain or gzipped."""
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


@dataclass(frozen=True)
class DatasetFiles:
    """Files of a dataset, in one of the forms in which people have it.

    Attributes:
        format: format of the files.
        sha256: digest of each file by its name; of idx files, without .gz, the digest of their plain bytes; of a
            folder or `.tar` of recordings that of what `sha256sum *.wav` prints, with the names in the order of bytes;
            of class folders of events empty: nobody publishes one, and their files are counted instead.
        folder: folder that usually has the files, within the data folder; empty if there is none.
        mirrors: URLs of folders that hold the files; idx files are gzipped there.
    """

    format: FileFormat
    sha256: Mapping[str, str]
    folder: str = ""
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSource:
    """Facts about a named dataset.

    Attributes:
        name: name in commands and specs.
        title: name in texts for people.
        classes: names of the classes, in the order of the labels.
        image_shape: shape `(C, H, W)` of an image, or of a time step of events; of sounds that of the default
            `log_mel`.
        n_train: number of training images.
        forms: forms of its files, the preferred first; none if the package contains the images.
        advice: end of the message that the dataset was not found, after "Put ".
        credit: origin and terms of the data, for cards.
        in_cards: False if cards must not contain its images.
        n_test: number of test images, where it is checked.
        simulated_from: name of the dataset whose images a simulated event camera looks at; None for others.
    """

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


_DIGITS = tuple("0123456789")
_THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_IDX_ADVICE = "its four idx files (plain or .gz)"
_RECORDINGS_SHA256 = "1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959"
_ORCHARD = (
    "N-MNIST: G. Orchard, A. Jayawant, G. Cohen, N. Thakor, Converting Static Image Datasets to Spiking Neuromorphic "
    "Datasets Using Saccades, 2015, CC BY-SA 4.0"
)
_KRIZHEVSKY = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
_TORONTO = ("https://www.cs.toronto.edu/~kriz", "https://cave.cs.toronto.edu/kriz")

SOURCES: Mapping[str, DatasetSource] = {
    "cifar-10": DatasetSource(
        name="cifar-10",
        title="CIFAR-10",
        classes=_THINGS,
        image_shape=(3, 32, 32),
        n_train=50_000,
        forms=(
            DatasetFiles(
                FileFormat.CIFAR_BINARY,
                {
                    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
                    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
                    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
                    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
                    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
                    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
                },
                folder="cifar-10-batches-bin",
            ),
            DatasetFiles(
                FileFormat.CIFAR_PYTHON,
                {
                    "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
                    "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
                    "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
                    "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
                    "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
                    "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
                },
                folder="cifar-10-batches-py",
            ),
            DatasetFiles(
                FileFormat.CIFAR_BINARY,
                {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
                mirrors=_TORONTO,
            ),
            DatasetFiles(
                FileFormat.CIFAR_PYTHON,
                {"cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"},
            ),
        ),
        advice="cifar-10-python.tar.gz or cifar-10-binary.tar.gz, or what is in it,",
        credit=_KRIZHEVSKY,
        in_cards=False,
    ),
    "cifar-10-jpeg": DatasetSource(
        name="cifar-10-jpeg",
        title="CIFAR-10 (JPEG copies)",
        classes=_THINGS,
        image_shape=(3, 32, 32),
        n_train=50_000,
        forms=(
            DatasetFiles(
                FileFormat.CLASS_FOLDERS,
                {"cifar-10-jpeg.tar": "1ad627445b8629ff82b88551943f1ac202800b46e74b28ce7626d12a2b8d051d"},
            ),
        ),
        advice="cifar-10-jpeg.tar (zoo/README.md says how to make it)",
        credit=_KRIZHEVSKY,
        in_cards=False,
    ),
    "fashion-mnist": DatasetSource(
        name="fashion-mnist",
        title="Fashion-MNIST",
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        image_shape=(1, 28, 28),
        n_train=60_000,
        forms=(
            DatasetFiles(
                FileFormat.IDX,
                {
                    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                },
                folder="FashionMNIST/raw",
                mirrors=(
                    "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
                    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
                    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",  # as in torchvision; has no HTTPS
                ),
            ),
        ),
        advice=_IDX_ADVICE,
    ),
    "mnist": DatasetSource(
        name="mnist",
        title="MNIST",
        classes=_DIGITS,
        image_shape=(1, 28, 28),
        n_train=60_000,
        forms=(
            DatasetFiles(
                FileFormat.IDX,
                {
                    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                },
                folder="MNIST/raw",
                mirrors=(
                    "https://ossci-datasets.s3.amazonaws.com/mnist",
                    "https://storage.googleapis.com/cvdf-datasets/mnist",
                ),
            ),
        ),
        advice=_IDX_ADVICE,
    ),
    SAMPLE_NAME: DatasetSource(
        name=SAMPLE_NAME, title="sample of MNIST", classes=_DIGITS, image_shape=(1, 28, 28), n_train=2_000
    ),
    "nmnist": DatasetSource(
        name="nmnist",
        title="N-MNIST",
        classes=_DIGITS,
        image_shape=(2, 34, 34),
        n_train=60_000,
        n_test=10_000,
        forms=(DatasetFiles(FileFormat.EVENT_FOLDERS, {"Train": "", "Test": ""}, folder="NMNIST"),),
        advice="its folders Train and Test",
        credit=_ORCHARD,
        in_cards=False,
    ),
    "nmnist-simulated": DatasetSource(
        name="nmnist-simulated",
        title="simulated N-MNIST",
        classes=_DIGITS,
        image_shape=(2, 34, 34),
        n_train=60_000,
        simulated_from="mnist",
    ),
    "nmnist-simulated-sample": DatasetSource(
        name="nmnist-simulated-sample",
        title="sample of simulated N-MNIST",
        classes=_DIGITS,
        image_shape=(2, 34, 34),
        n_train=2_000,
        simulated_from=SAMPLE_NAME,
    ),
    "nmnist-small": DatasetSource(
        name="nmnist-small",
        title="first 1,100 recordings of N-MNIST",
        classes=_DIGITS,
        image_shape=(2, 34, 34),
        n_train=1_000,
        n_test=100,
        forms=(
            DatasetFiles(
                FileFormat.LISTED_EVENTS,
                {"nmnist-small.tar": "500bca8c249673b7ee6c7883ce71c5eca50152122845fd220248747e9eb8206a"},
            ),
        ),
        advice="nmnist-small.tar (zoo/README.md says how to make it)",
        credit=_ORCHARD,
        in_cards=False,
    ),
    "spoken-digits": DatasetSource(
        name="spoken-digits",
        title="Free Spoken Digit Dataset",
        classes=_DIGITS,
        image_shape=(1, 40, 48),
        n_train=2_700,
        forms=(
            DatasetFiles(FileFormat.RECORDINGS, {"fsdd.tar": _RECORDINGS_SHA256}),
            DatasetFiles(FileFormat.RECORDINGS, {"recordings": _RECORDINGS_SHA256}, folder="free-spoken-digit-dataset"),
        ),
        advice="a clone of github.com/Jakobovski/free-spoken-digit-dataset, or its folder recordings,",
        credit="Free Spoken Digit Dataset, https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0",
        in_cards=False,
    ),
}
"""Named datasets. Digests of CIFAR-10's archives have the MD5 that its page states, those of its batches that of
torchvision's."""


def dataset_names() -> tuple[str, ...]:
    """Return the names of the datasets that `load_dataset` knows.

    >>> dataset_names()
    ('cifar-10', 'cifar-10-jpeg', 'fashion-mnist', 'mnist', 'mnist-sample', 'nmnist', 'nmnist-simulated', \
'nmnist-simulated-sample', 'nmnist-small', 'spoken-digits')
    """
    return tuple(sorted(SOURCES))


def dataset_title(name: str) -> str:
    """Return the name of a dataset for people; `name` itself for other data.

    >>> dataset_title("cifar-10-jpeg"), dataset_title("fruit.npz")
    ('CIFAR-10 (JPEG copies)', 'fruit.npz')
    """
    return SOURCES[name].title if name in SOURCES else name


def known_classes(name: str) -> tuple[str, ...] | None:
    """Return the class names of a dataset that `load_dataset` knows; None for other names."""
    return SOURCES[name].classes if name in SOURCES else None


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

    Args:
        name: name of the dataset.
        shape: shape of the network's input.
        n_outputs: number of the network's outputs.

    >>> doubts("mnist", [784], 128)
    'mnist has 10 classes, but the network has 128 outputs: the last block, the readout, needs features: 10'
    >>> doubts("cifar-10", [1, 28, 28], 10)
    'cifar-10 has images of [3, 32, 32], but the network takes [1, 28, 28]'
    """
    if name not in SOURCES:
        return None
    source = SOURCES[name]
    n_classes = len(source.classes)
    if not source.has_sounds and prod(shape) != prod(source.image_shape):
        return f"{name} has images of {list(source.image_shape)}, but the network takes {list(shape)}"
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
