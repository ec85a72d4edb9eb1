"""MNIST and Fashion-MNIST, found on disk or downloaded, and a sample of MNIST that ships with the package.

A dataset is four idx files (http://yann.lecun.com/exdb/mnist, "file formats"), plain or gzipped. They are verified by
the sha256 of their plain bytes. `load_dataset` looks in the folder that is passed to it, then in $ZOO_DATA_DIR, then in
the cache; if downloads are allowed, it finally downloads into the cache.
"""

import hashlib
import math
import os
import reprlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.data.stored_images import StoredImages
from bootstrap_core.pictures import figure, image_uri
from specs.dataset_sources import SAMPLE_NAME, SOURCES, DatasetSource, dataset_names, unknown_dataset
from specs.errors import DataError, IntegrityError, TransferError
from specs.files.download import cache_folder, download, expand_user, fetch_whole
from specs.files.given_file import check_given_file
from specs.files.limits import DATASET_FILE_BYTES
from specs.outline import few_lines
from specs.words import counted

__all__ = [
    "SAMPLE_NAME",
    "SOURCES",
    "Dataset",
    "DatasetSource",
    "Split",
    "check_split",
    "dataset_names",
    "find_dataset",
    "hint_from_one",
    "load_dataset",
    "parse_idx",
    "pull_dataset",
    "read_idx",
    "train_validation_split",
]

IMAGE_SHAPE = (28, 28)
SHOWN_IMAGES, SHOWN_WIDTH = 20, 56
"""Number of images that a notebook shows of a split, and their width there in pixels."""

TRAIN_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


# --- Datasets


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N, C, H, W], 0 black to 255 white, and their class numbers, int64 [N].

    Images larger than memory stay in their file; `images[...]` returns a tensor in both cases.

    Raises `DataError` for other shapes or dtypes, or for NumPy arrays.
    """

    images: Tensor | StoredImages
    labels: Tensor

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("labels", self.labels)):
            if not isinstance(value, Tensor | StoredImages):
                raise DataError(f"{name} must be a tensor, not {type(value).__name__}: convert with torch.as_tensor")
        found = f"{self.images.dtype} {list(self.images.shape)}"
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or len(self.images) != len(self.labels):
            raise DataError(f"images must be uint8 [{len(self.labels)}, C, H, W], not {found}")
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise DataError(f"labels must be int64 [N], not {self.labels.dtype} {list(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        of = f", labels {int(self.labels.min())} to {int(self.labels.max())}" if len(self) else ""
        return f"Split of {len(self):,} images, uint8 {list(self.images.shape[1:])}{of}"

    def _repr_html_(self) -> str:
        """Return pictures of the first images with their class numbers, for a notebook."""
        return "".join(
            figure(image_uri(image), str(int(label)), width=SHOWN_WIDTH)
            for image, label in zip(*self[:SHOWN_IMAGES], strict=True)
        )

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return an image, uint8 `[C, H, W]`, and its class number, as torch's `DataLoader` expects.

        For a slice, a list or a tensor, return images `[n, C, H, W]` and class numbers `[n]`.

        >>> images, labels = load_dataset("mnist-sample").test[:3]
        >>> images.shape, labels.shape
        (torch.Size([3, 1, 28, 28]), torch.Size([3]))
        """
        labels = self.labels[index]
        images = self.images[index if labels.ndim else [int(index)]]  # type: ignore[index,arg-type]
        return (images if labels.ndim else images[0]), labels

    def pixels(self, indices: Tensor) -> Tensor:
        """Return images uint8 `[n, C, H, W]` for indices int64 `[n]`; faster than `images[indices]`."""
        images = self.images
        return images[indices] if isinstance(images, StoredImages) else images.index_select(0, indices)

    def take(self, indices: Tensor | list[int] | slice) -> "Split":
        """Return the images and labels at `indices`, in this order.

        A slice shares memory. Indices copy the images, unless these are stored in a file: then only indices are kept.

        >>> len(load_dataset("mnist-sample").test.take(slice(0, 10)))
        10
        """
        images = self.images
        return Split(
            images.take(indices) if isinstance(images, StoredImages) else images[indices], self.labels[indices]
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images of a named dataset.

    Attributes:
        name: name of the dataset, or its path.
        train, test: training and test images.
        classes: names of the classes.
        source: where the data came from, for people.
        is_sample: True for a small part of the real dataset; results on it must say so.
        is_drawn: True if the test images were drawn at random from all images.
        drawn_from: number of test images before `limited` drew some of them; None if `test` has all.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    source: str
    is_sample: bool = False
    is_drawn: bool = False
    drawn_from: int | None = None

    def limited(self, n_test: int | None) -> "Dataset":
        """Return the dataset with at most `n_test` test images, each class with its share; None keeps all.

        The same images are drawn each time.

        >>> load_dataset("mnist-sample").limited(50).test.labels.bincount().tolist()
        [5, 5, 5, 5, 5, 5, 5, 5, 5, 5]
        """
        if n_test is None or n_test >= len(self.test):
            return self
        test = self.test.take(_stratified(self.test, n_test, seed=0))
        return replace(self, test=test, drawn_from=len(self.test))

    @property
    def limit_note(self) -> str | None:
        """Note for people that scores are of some of the test images; None if `test` has all."""
        if self.drawn_from is None:
            return None
        return f"scored on {len(self.test):,} of the {self.drawn_from:,} test images, each class with its share"

    def __repr__(self) -> str:
        lines = [f"{len(self.classes)} classes: {reprlib.repr(self.classes)}", f"train: {self.train}"]
        return few_lines(f"Dataset {self.name!r}", [*lines, f"test: {self.test}"])


def check_split(split: object, n_classes: int) -> None:
    """Raise `DataError` unless `split` is a `Split` and its labels are from 0 to `n_classes` - 1."""
    if not isinstance(split, Split):
        hint = ": pass its train or its test" if isinstance(split, Dataset) else ""
        raise DataError(f"images and labels must be a Split, not {type(split).__name__}{hint}")
    least, most = map(int, split.labels.aminmax()) if len(split) else (0, 0)
    if least < 0 or most >= n_classes:
        wrong = most if 0 <= least < n_classes else least
        raise DataError(
            f"label {wrong}: the network has {counted(n_classes, 'class')}, so labels must be from 0 to "
            f"{n_classes - 1}{hint_from_one(least, most, n_classes)}"
        )


def hint_from_one(least: int, most: int, n_classes: int) -> str:
    """Return the end of a message on labels beyond the classes: advice if they seem to count from 1."""
    return "; if the labels count from 1, subtract 1" if least == 1 and most == n_classes else ""


def train_validation_split(split: Split, *, n_validation: int, seed: int) -> tuple[Split, Split]:
    """Set aside `n_validation` images; return (train, validation), each in the original order.

    Stratified: each class contributes its share of `n_validation`, rounded so that the total is exact (largest
    remainders). The choice within a class depends on `seed` alone. Raises `DataError` unless
    0 < n_validation < len(split).

    >>> train, validation = train_validation_split(load_dataset("mnist-sample").train, n_validation=200, seed=0)
    >>> len(train), validation.labels.bincount().unique().tolist()
    (1800, [20])
    """
    if not 0 < n_validation < len(split):
        raise DataError(
            f"n_validation = {n_validation} must be from 1 to {len(split) - 1}, as there are {len(split)} images"
        )
    is_validation = _stratified(split, n_validation, seed=seed)
    return split.take(~is_validation), split.take(is_validation)


def _stratified(split: Split, n: int, *, seed: int) -> Tensor:
    """Draw `n` images, each class with its share; return a mask, bool `[N]`. See `train_validation_split`."""
    class_sizes = split.labels.bincount()
    whole, remainders = (n * class_sizes) // len(split), (n * class_sizes) % len(split)
    by_remainder = remainders.argsort(descending=True, stable=True)
    whole[by_remainder[: n - int(whole.sum())]] += 1

    generator = torch.Generator().manual_seed(seed)
    is_taken = torch.zeros(len(split), dtype=torch.bool)
    for label, n_taken in enumerate(whole.tolist()):
        members = (split.labels == label).nonzero().flatten()
        is_taken[members[torch.randperm(len(members), generator=generator)[:n_taken]]] = True
    return is_taken


# --- Finding and loading


def load_dataset(
    name: str,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
    mirrors: Sequence[str] | None = None,
    registry: Mapping[str, DatasetSource] = SOURCES,
) -> Dataset:
    """Load a dataset from the first place that has it: `data_dir`, $ZOO_DATA_DIR, the cache, a download into the cache.

    In `data_dir` and $ZOO_DATA_DIR the files, plain or gzipped, may lie in `<dir>/<name>`, in `<dir>/MNIST/raw`
    (`FashionMNIST`), as torchvision leaves them, or in `<dir>`. `offline` forbids the download; `mirrors` replaces the
    URLs of the download; `registry` replaces the table of known datasets. "mnist-sample" ships with the package and
    ignores these options.

    Raises `DataError` for an unknown name, or when no place has the data; the message lists the places and the reasons.
    Raises `IntegrityError` when a file has the wrong sha256 or a wrong format.

    >>> dataset = load_dataset("mnist-sample")
    >>> dataset.test.images.shape, dataset.is_sample
    (torch.Size([1000, 1, 28, 28]), True)
    """
    if name == SAMPLE_NAME:
        return _load_sample()
    source = _get_source(name, registry)
    folder = find_dataset(name, data_dir=data_dir, cache_dir=cache_dir, registry=registry)
    if folder is None:
        folder = _pull_or_explain(source, data_dir, cache_dir, offline, mirrors, registry)
    return Dataset(
        name=name,
        train=_load_split(folder, TRAIN_FILES, source),
        test=_load_split(folder, TEST_FILES, source),
        classes=source.classes,
        source=f"{name} from {folder}",
    )


def find_dataset(
    name: str,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    registry: Mapping[str, DatasetSource] = SOURCES,
) -> Path | None:
    """Return the folder that `load_dataset` would read without a download, or None. Images are not opened.

    For "mnist-sample", return the embedded file. Raises `DataError` for an unknown name.
    """
    if name == SAMPLE_NAME:
        return Path(str(_sample_file()))
    source = _get_source(name, registry)
    places = _places(source, data_dir, cache_dir)
    return next((folder for folder in places if _has_files(folder, source, registry)), None)


def pull_dataset(
    name: str,
    *,
    cache_dir: Path | None = None,
    mirrors: Sequence[str] | None = None,
    registry: Mapping[str, DatasetSource] = SOURCES,
) -> Path:
    """Download a dataset's files into the cache and return their folder. Intact files in the cache are kept.

    Each file is verified before it appears under its name, and comes from the first of `mirrors` (by default those of
    the dataset) that has it intact. Raises `DataError` when no mirror has it, with the error of each mirror, or when
    the cache cannot be written. "mnist-sample" ships with the package and needs no download.
    """
    if name == SAMPLE_NAME:
        return Path(str(_sample_file()))
    source = _get_source(name, registry)
    folder = _cached(source, cache_dir)
    urls = source.mirrors if mirrors is None else mirrors
    for file, sha256 in source.sha256.items():
        if not _is_intact(_find_file(folder, file), sha256):
            _download(folder / f"{file}.gz", sha256, urls)
            (folder / file).unlink(missing_ok=True)  # a damaged plain copy would come first
    return folder


def _get_source(name: str, registry: Mapping[str, DatasetSource]) -> DatasetSource:
    if name not in registry:
        raise unknown_dataset(name, [*registry, SAMPLE_NAME])
    return registry[name]


def _cached(source: DatasetSource, cache_dir: Path | None) -> Path:
    return cache_folder(cache_dir) / "data" / source.name


def _places(source: DatasetSource, data_dir: Path | None, cache_dir: Path | None) -> Iterator[Path]:
    """Yield every folder where the files may lie, in the order of the search."""
    roots = [] if data_dir is None else [Path(data_dir)]
    if from_environment := os.environ.get("ZOO_DATA_DIR"):
        roots.append(expand_user(from_environment))
    for root in roots:
        yield from (root / source.name, root / source.torchvision_folder / "raw", root)
    yield _cached(source, cache_dir)


def _find_file(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def _missing_files(folder: Path, source: DatasetSource) -> list[str]:
    return [file for file in source.sha256 if _find_file(folder, file) is None]


def _has_files(folder: Path, source: DatasetSource, registry: Mapping[str, DatasetSource]) -> bool:
    """Return whether `folder` has the files of this dataset, and not those of another, which have the same names."""
    if _missing_files(folder, source):
        return False
    _, labels = TEST_FILES
    others = [other.sha256.get(labels) for other in registry.values() if other != source]
    return not any(sha256 is not None and _is_intact(_find_file(folder, labels), sha256) for sha256 in others)


def _pull_or_explain(
    source: DatasetSource,
    data_dir: Path | None,
    cache_dir: Path | None,
    offline: bool,
    mirrors: Sequence[str] | None,
    registry: Mapping[str, DatasetSource],
) -> Path:
    failure = "downloads are switched off (offline)"
    if not offline:
        try:
            return pull_dataset(source.name, cache_dir=cache_dir, mirrors=mirrors, registry=registry)
        except DataError as error:
            failure = str(error)
    tried = [
        f"{f}: {'lacks ' + ', '.join(lacking) if (lacking := _missing_files(f, source)) else 'has another dataset'}"
        for f in _places(source, data_dir, cache_dir)
    ]
    raise DataError(
        f"dataset {source.name!r} not found. Tried:\n"
        + "".join(f"  {line}\n" for line in [*tried, *failure.splitlines()])
        + "Put its four idx files (plain or .gz) in a folder and pass the folder with --data-dir\n"
        "(in Python data_dir=) or $ZOO_DATA_DIR. Commands with an option --data also take\n"
        f"{SAMPLE_NAME}, which comes with the package."
    )


def _load_split(folder: Path, files: tuple[str, str], source: DatasetSource) -> Split:
    images, labels = (_read_known(folder, file, source) for file in files)
    if images.shape != (len(labels), *IMAGE_SHAPE) or labels.ndim != 1 or labels.max() >= len(source.classes):
        raise IntegrityError(
            f"{folder}: expected N images of {IMAGE_SHAPE} and N labels below {len(source.classes)}, got {files[0]} "
            f"{list(images.shape)} and {files[1]} {list(labels.shape)}"
        )
    return Split(images[:, None], labels.long())  # [N, 28, 28] -> [N, 1, 28, 28]


def _read_known(folder: Path, file: str, source: DatasetSource) -> Tensor:
    path = _find_file(folder, file)
    if path is None:
        raise DataError(f"{folder / file}: the file was removed while the dataset was loaded")
    return read_idx(path, sha256=source.sha256[file])


def _sample_file() -> Traversable:
    return resources.files("bootstrap_core.data") / "mnist-sample.npz"


def _load_sample() -> Dataset:
    with _sample_file().open("rb") as file, np.load(file) as arrays:
        train, test = (
            Split(
                torch.from_numpy(arrays[f"{part}_images"])[:, None],  # [N, 28, 28] -> [N, 1, 28, 28]
                torch.from_numpy(arrays[f"{part}_labels"]).long(),
            )
            for part in ("train", "test")
        )
    return Dataset(
        name=SAMPLE_NAME,
        train=train,
        test=test,
        classes=SOURCES["mnist"].classes,
        source=f"the embedded sample of MNIST: {len(test):,} of its 10,000 test digits",
        is_sample=True,
    )


# --- Files


def read_idx(path: Path, *, sha256: str | None = None) -> Tensor:
    """Read an idx file of unsigned bytes, plain or gzipped, into a uint8 tensor of the shape that its header states.

    `sha256` is the expected digest of the plain bytes. Raises `IntegrityError` for another digest or a malformed file,
    `DataError` for a file that cannot be read.
    """
    return parse_idx(_read_plain(path, sha256), what=str(path))


def parse_idx(data: bytes, *, what: str = "idx data") -> Tensor:
    """Parse the plain bytes of an idx file of unsigned bytes; `what` names it in errors.

    The format: 00 00, 08 for unsigned bytes, the number of dimensions, each dimension as a big-endian uint32, the data.
    Raises `IntegrityError` unless the data is exactly as long as the header says.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    tensor([7, 8, 9], dtype=torch.uint8)
    """
    if data[:3] != b"\0\0\x08" or len(data) < 4:
        raise IntegrityError(f"{what}: not an idx file of unsigned bytes: starts with {data[:4].hex(' ') or 'nothing'}")
    n_dims = data[3]
    header_size = 4 + 4 * n_dims
    if not 1 <= n_dims <= 3 or len(data) < header_size:
        raise IntegrityError(f"{what}: {n_dims} dimensions (1 to 3 expected) in {len(data)} bytes: damaged idx header")
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, header_size, 4)]
    expected_size = header_size + math.prod(shape)  # Python integers: a hostile header cannot make them overflow
    if 0 in shape:
        raise IntegrityError(f"{what}: shape {shape} is empty")
    if len(data) != expected_size:
        raise IntegrityError(f"{what}: shape {shape} takes {expected_size} bytes, the file has {len(data)}")
    values = np.frombuffer(data, dtype=np.uint8, offset=header_size).reshape(shape)
    return torch.from_numpy(values.copy())


def _read_plain(path: Path, sha256: str | None, *, what: str = "") -> bytes:
    what = what or str(path)
    size = check_given_file(path, error=DataError)
    if size > DATASET_FILE_BYTES:
        raise IntegrityError(f"{what}: {size} bytes, more than the limit of {DATASET_FILE_BYTES}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return _verify(_gunzip(data, what), sha256, what)


def _gunzip(data: bytes, what: str) -> bytes:
    """Decompress gzipped data, to at most DATASET_FILE_BYTES; return other data unchanged."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    decompressor = zlib.decompressobj(wbits=31)  # 31: gzip, with its checksum
    try:
        plain = decompressor.decompress(data, DATASET_FILE_BYTES + 1)
    except zlib.error as error:
        raise IntegrityError(f"{what}: damaged gzip file: {error}") from error
    if len(plain) > DATASET_FILE_BYTES:
        raise IntegrityError(f"{what}: decompresses to more than the limit of {DATASET_FILE_BYTES} bytes")
    if not decompressor.eof:
        raise IntegrityError(f"{what}: truncated gzip file, {len(data)} bytes")
    if decompressor.unused_data:
        raise IntegrityError(f"{what}: {len(decompressor.unused_data)} bytes follow the end of the gzip file")
    return plain


def _verify(plain: bytes, sha256: str | None, what: str) -> bytes:
    found = hashlib.sha256(plain).hexdigest()
    if sha256 not in (None, found):
        raise IntegrityError(
            f"{what}: sha256 of its plain bytes is {found}, expected {sha256}: "
            "the file is damaged or belongs to another dataset; replace or remove it"
        )
    return plain


def _is_intact(path: Path | None, sha256: str) -> bool:
    if path is None:
        return False
    try:
        _read_plain(path, sha256)
    except (IntegrityError, DataError):
        return False
    return True


def _download(target: Path, sha256: str, mirrors: Sequence[str]) -> None:
    """Download one gzipped file from the first mirror that has it intact."""
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{target.name}"
        try:
            fetch_whole(
                target,
                partial(download, url, limit=DATASET_FILE_BYTES),
                partial(_read_plain, sha256=sha256, what=url),
            )
            return
        except (TransferError, IntegrityError) as error:
            failures.append(str(error))
    raise DataError("\n".join([f"{target.name}: no mirror has it intact", *failures]))
