"""Named datasets, found on disk or downloaded, and a sample of MNIST that ships with the package.

A dataset has one or more forms (`DatasetFiles`), and every file is verified by its sha256. `load_dataset` looks in the
folder that is passed to it, then in $ZOO_DATA_DIR, then in the cache; if downloads are allowed, it finally downloads
into the cache.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.data.events.binning import EventBins
from bootstrap_core.data.image_arrays import read_named_arrays
from bootstrap_core.data.image_files import load_images
from bootstrap_core.data.published_files import (
    open_verified,
    read_batches,
    read_idx,
    read_libsvm,
    read_plain,
    read_zipped_idx,
)
from bootstrap_core.data.sound_files import read_recordings
from bootstrap_core.data.splits import Dataset, Split
from bootstrap_core.data.timed_datasets import read_event_folders, read_listed_events, sequences, simulated
from specs.dataset_sources import SAMPLE_NAME, DatasetFiles, DatasetSource, FileFormat, sources, unknown_dataset
from specs.errors import DataError, IntegrityError, SnnZooError, TransferError
from specs.files.download import cache_folder, download, expand_user, fetch_whole
from specs.files.limits import DATASET_ARCHIVE_BYTES, DATASET_FILE_BYTES
from specs.layers.input import LogMelSpec

Found = tuple[Path, DatasetFiles]
"""Folder that has a dataset, and the form in which it has it."""


def load_dataset(
    name: str,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
    mirrors: Sequence[str] | None = None,
    log_mel: LogMelSpec | None = None,
    events: EventBins | None = None,
) -> Dataset:
    """Load a dataset from the first place that has it: `data_dir`, $ZOO_DATA_DIR, the cache, a download into the cache.

    In `data_dir` and $ZOO_DATA_DIR the files may lie in the folder itself, in a folder with the dataset's name, or in
    either as torchvision leaves them, in `MNIST/raw` or `cifar-10-batches-py`. `offline` forbids the download;
    `mirrors` replaces the URLs of the download. "mnist-sample" ships with the package and ignores these options.
    `log_mel` says how sounds become images, by default as `LogMelSpec()`; `events` how recordings of an event camera
    become frames, by default as `EventBins()`. Recordings are read, or simulated, when they are first used. If both are
    given, sounds become time steps, the columns of these images, of `events.bits` bits.

    Raises `DataError` for an unknown name, or when no place has the data; the message lists the places and the reasons.
    Raises `IntegrityError` when a file has the wrong sha256 or a wrong format.

    >>> dataset = load_dataset("mnist-sample")
    >>> dataset.test.images.shape, dataset.is_sample
    (torch.Size([1000, 1, 28, 28]), True)
    """
    if name == SAMPLE_NAME:
        return _load_sample()
    source = _get_source(name)
    if (seen := source.made_from) is not None:
        still = load_dataset(seen, data_dir=data_dir, cache_dir=cache_dir, offline=offline, mirrors=mirrors)
        if source.sequence is None:
            return simulated(still, name, _bins(source, events))
        train, test = (sequences(split, source.sequence, events, name) for split in (still.train, still.test))
        return replace(still, name=name, train=train, test=test)
    found = _find(source, _places(source, data_dir, cache_dir))
    folder, files = found or _pull_or_explain(source, data_dir, cache_dir, offline, mirrors)
    paths = {_find_file(folder, files, file) or folder / file: sha256 for file, sha256 in files.sha256.items()}
    if source.has_sounds:
        log_mel = log_mel or LogMelSpec()
        train, test = read_recordings(paths, log_mel, None if events is None else events.bits)
    elif source.has_events:
        read = read_event_folders if files.format is FileFormat.EVENT_FOLDERS else read_listed_events
        train, test = read(source, paths, _bins(source, events))
    else:
        train, test = READERS[files.format](source, paths)
        if source.sequence is not None:
            train, test = (sequences(split, source.sequence, events, name) for split in (train, test))
    return Dataset(
        name=name,
        train=train,
        test=test,
        classes=source.classes,
        source=f"{source.name} from {folder}",
        log_mel=log_mel if source.has_sounds else None,
        credit=source.credit,
        in_cards=source.in_cards,
    )


def find_dataset(
    name: str,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
) -> Path | None:
    """Return the folder that `load_dataset` would read without a download, or None. Images are not opened.

    For "mnist-sample", return the embedded file; for data that are made from others, the place of these.

    Raises `DataError` for an unknown name.
    """
    if (stored := _stored_as(name)) == SAMPLE_NAME:
        return Path(str(_sample_file()))
    source = _get_source(stored)
    found = _find(source, _places(source, data_dir, cache_dir))
    return found and found[0]


def pull_dataset(name: str, *, cache_dir: Path | None = None, mirrors: Sequence[str] | None = None) -> Path:
    """Download a dataset's files into the cache and return their folder. Intact files in the cache are kept.

    Each file is verified before it appears under its name, and comes from the first of `mirrors` (by default those of
    the dataset) that has it intact. Raises `DataError` when no mirror has it, with the error of each mirror, or when
    the cache cannot be written. "mnist-sample" ships with the package and needs no download.
    """
    if (stored := _stored_as(name)) == SAMPLE_NAME:
        return Path(str(_sample_file()))
    return _pull(_get_source(stored), cache_dir, mirrors)[0]


def _pull(source: DatasetSource, cache_dir: Path | None, mirrors: Sequence[str] | None) -> Found:
    files = next((files for files in source.forms if files.mirrors), None)
    if files is None:
        raise DataError(f"{source.name} cannot be downloaded; zoo/README.md says where it comes from")
    folder = _cached(source, cache_dir)
    urls = files.mirrors if mirrors is None else mirrors
    for file, sha256 in files.sha256.items():
        if not _is_intact(_find_file(folder, files, file), files, sha256):
            packed = files.format is FileFormat.IDX and not file.endswith(".gz")
            target = folder / (f"{file}.gz" if packed else file)
            _download(target, files, sha256, urls)
            if target.name != file:
                (folder / file).unlink(missing_ok=True)  # a damaged plain copy would come first
    return folder, files


def _get_source(name: str) -> DatasetSource:
    if name not in sources():
        raise unknown_dataset(name, {*sources(), SAMPLE_NAME})
    return sources()[name]


def _stored_as(name: str) -> str:
    """Return the name of the dataset that has the files: for one that is made from another, that one."""
    return name if name == SAMPLE_NAME else _get_source(name).made_from or name


def _cached(source: DatasetSource, cache_dir: Path | None) -> Path:
    return cache_folder(cache_dir) / "data" / (source.cache or source.name)


def _places(source: DatasetSource, data_dir: Path | None, cache_dir: Path | None) -> list[Path]:
    """Return every folder where files may lie, in the order of the search."""
    roots = [] if data_dir is None else [Path(data_dir)]
    if from_environment := os.environ.get("ZOO_DATA_DIR"):
        roots.append(expand_user(from_environment))
    bases = [place for root in roots for place in (root / source.name, root)]
    folders = dict.fromkeys([*(files.folder for files in source.forms), ""])
    places = [base / folder for base in (*bases, _cached(source, cache_dir)) for folder in folders]
    return list(dict.fromkeys(places))


def _find(source: DatasetSource, places: Sequence[Path]) -> Found | None:
    found = ((folder, files) for folder in places for files in source.forms)
    return next((each for each in found if _has_files(*each, source)), None)


def _find_file(folder: Path, files: DatasetFiles, file: str) -> Path | None:
    names = (file, f"{file}.gz") if files.format is FileFormat.IDX else (file,)
    folders = {FileFormat.RECORDINGS, FileFormat.EVENT_FOLDERS}
    is_there = Path.exists if files.format in folders else Path.is_file
    return next((path for name in names if is_there(path := folder / name)), None)


def _missing_files(folder: Path, files: DatasetFiles) -> list[str]:
    return [file for file in files.sha256 if _find_file(folder, files, file) is None]


def _missing_part(folder: Path, files: DatasetFiles) -> float:
    return len(_missing_files(folder, files)) / len(files.sha256)


def _has_files(folder: Path, files: DatasetFiles, source: DatasetSource) -> bool:
    """Return whether `folder` has these files, and not those of another dataset, which may have the same names."""
    if _missing_files(folder, files):
        return False
    last = list(files.sha256)[-1]  # of idx files the test labels, which are short
    others = [form.sha256.get(last) for other in sources().values() if other != source for form in other.forms]
    path = _find_file(folder, files, last)
    return not any(_is_intact(path, files, sha256) for sha256 in {*others} - {None, files.sha256[last]} if sha256)


def _pull_or_explain(
    source: DatasetSource,
    data_dir: Path | None,
    cache_dir: Path | None,
    offline: bool,
    mirrors: Sequence[str] | None,
) -> Found:
    failure = "downloads are switched off (offline)"
    if not offline:
        try:
            return _pull(source, cache_dir, mirrors)
        except DataError as error:
            failure = str(error)
    tried = []
    for place in _places(source, data_dir, cache_dir):
        lacking = _missing_files(place, min(source.forms, key=partial(_missing_part, place)))
        tried.append(f"{place}: {'lacks ' + ', '.join(lacking) if lacking else 'has another dataset'}")
    raise DataError(
        f"dataset {source.name!r} not found. Tried:\n"
        + "".join(f"  {line}\n" for line in [*tried, *failure.splitlines()])
        + f"Put {source.advice} in a folder and pass the folder with --data-dir\n"
        "(in Python data_dir=) or $ZOO_DATA_DIR. Commands with an option --data also take\n"
        f"{SAMPLE_NAME}, which comes with the package."
    )


def _is_intact(path: Path | None, files: DatasetFiles, sha256: str) -> bool:
    if path is None:
        return False
    try:
        _verify(path, files, sha256)
    except SnnZooError:
        return False
    return True


def _verify(path: Path, files: DatasetFiles, sha256: str, what: str = "") -> None:
    if files.format is FileFormat.IDX:
        read_plain(path, sha256, what=what)
    elif files.format is FileFormat.ARRAYS:
        read_named_arrays(path, sha256, what=what)
    else:
        with open_verified(path, sha256, what=what):
            pass


def _download(target: Path, files: DatasetFiles, sha256: str, mirrors: Sequence[str]) -> None:
    limit = DATASET_FILE_BYTES if files.format is FileFormat.IDX else DATASET_ARCHIVE_BYTES
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{target.name}"
        try:
            fetch_whole(
                target, partial(download, url, limit=limit), partial(_verify, files=files, sha256=sha256, what=url)
            )
            return
        except (TransferError, IntegrityError) as error:
            failures.append(str(error))
    raise DataError("\n".join([f"{target.name}: no mirror has it intact", *failures]))


# --- Reading


def _read_idx_files(source: DatasetSource, files: Mapping[Path, str]) -> tuple[Split, Split]:
    arrays = [read_idx(path, sha256=sha256) for path, sha256 in files.items()]
    return _from_idx(source, next(iter(files)).parent, arrays)


def _read_zipped_idx(source: DatasetSource, files: Mapping[Path, str]) -> tuple[Split, Split]:
    ((path, sha256),) = files.items()
    images, labels, test_images, test_labels = read_zipped_idx(path, sha256, source.member)
    upright = [images.transpose(1, 2), labels, test_images.transpose(1, 2), test_labels]
    return _from_idx(source, path, upright)


def _from_idx(source: DatasetSource, folder: Path, arrays: Sequence[Tensor]) -> tuple[Split, Split]:
    """Return the splits of arrays of images `[N, H, W]` and labels in turn."""
    parts, shape = [], source.image_shape[1:]
    for images, labels in zip(arrays[::2], arrays[1::2], strict=True):
        classes = labels[:, 0] if labels.dtype == torch.int32 and labels.ndim == 2 else labels  # QMNIST: and writers
        if images.shape != (len(classes), *shape) or classes.ndim != 1:
            raise IntegrityError(
                f"{folder}: expected N images of {shape} and N labels, got {list(images.shape)} and "
                f"{list(labels.shape)}"
            )
        parts.append((images[:, None], classes))
    if source.of_each_class is not None:
        return _divided(_split(source, folder, *parts[0]), source.of_each_class, folder)
    return _splits(source, folder, parts)


def _divided(split: Split, sizes: tuple[int, int, int], folder: Path) -> tuple[Split, Split]:
    """Return the first images of each class for training and the next for validation; and the last, for testing."""
    n, most = min(split.labels.bincount()), max(split.labels.bincount())
    if not n == most == sum(sizes):
        raise IntegrityError(f"{folder}: expected {sum(sizes)} images of each class, got {n} to {most}")
    of_class = split.labels.argsort(stable=True).view(-1, sum(sizes))
    rows = [part.flatten().sort().values for part in of_class.split(sizes, dim=1)]
    training = split.take(torch.cat(rows[:2]))
    return replace(training, n_validation=len(rows[1])), split.take(rows[2])


def _read_arrays(source: DatasetSource, files: Mapping[Path, str]) -> tuple[Split, Split]:
    ((path, sha256),) = files.items()
    named = read_named_arrays(path, sha256)
    low, high = source.value_range
    found = {}
    for part in ("train", "validation", "test"):
        if (x := named.get(f"x_{part}")) is not None:
            pixels = x if x.dtype == np.uint8 else np.round((x - low) * (255 / (high - low))).clip(0, 255)
            images = torch.from_numpy(pixels.astype(np.uint8).reshape(len(x), *source.image_shape[:2], -1))
            found[part] = images, torch.from_numpy(named[f"y_{part}"])
    images, labels = (torch.cat([found[part][i] for part in ("train", "validation") if part in found]) for i in (0, 1))
    train, test = _splits(source, path, [(images, labels), found["test"]])
    return replace(train, n_validation=len(found["validation"][1]) if "validation" in found else 0), test


def _read_libsvm(source: DatasetSource, files: Mapping[Path, str]) -> tuple[Split, Split]:
    parts = [read_libsvm(path, sha256, source.image_shape) for path, sha256 in files.items()]
    return _splits(source, next(iter(files)).parent, parts)


def _read_cifar(source: DatasetSource, files: Mapping[Path, str]) -> tuple[Split, Split]:
    return _splits(source, next(iter(files)).parent, read_batches(files, source.image_shape))


def _read_class_folders(source: DatasetSource, files: Mapping[Path, str]) -> tuple[Split, Split]:
    ((path, sha256),) = files.items()
    with open_verified(path, sha256):
        found = load_images(path, shape=source.image_shape)
    if found.classes != source.classes or found.is_drawn:
        raise IntegrityError(f"{path}: expected folders train and test of the classes {', '.join(source.classes)}")
    return found.train, found.test


def _bins(source: DatasetSource, events: EventBins | None) -> EventBins:
    """Return how recordings become frames; a flat input takes the frames of the dataset's camera."""
    bins = events or EventBins()
    return bins if len(bins.shape) == 3 else replace(bins, shape=source.image_shape)


def _splits(source: DatasetSource, folder: Path, parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Split, Split]:
    train, test = (_split(source, folder, images, labels) for images, labels in parts)
    return train, test


def _split(source: DatasetSource, folder: Path, images: Tensor, labels: Tensor) -> Split:
    """Return a split of images `[N, C, H, W]` and labels `[N]`. Raise `IntegrityError` for unknown labels."""
    own = labels.long() - source.first_label
    if own.min() < 0 or own.max() >= len(source.classes):
        least, bound = source.first_label, source.first_label + len(source.classes)
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise IntegrityError(f"{folder}: expected labels below {bound} and from {least} on, got {found}")
    return Split(images, own)


READERS: Mapping[FileFormat, Callable[[DatasetSource, Mapping[Path, str]], tuple[Split, Split]]] = {
    FileFormat.IDX: _read_idx_files,
    FileFormat.ZIPPED_IDX: _read_zipped_idx,
    FileFormat.ARRAYS: _read_arrays,
    FileFormat.LIBSVM: _read_libsvm,
    FileFormat.CIFAR_BINARY: _read_cifar,
    FileFormat.CIFAR_PYTHON: _read_cifar,
    FileFormat.CLASS_FOLDERS: _read_class_folders,
}
"""Readers of images by format: they take the sha256 of each file by its path, and return training and test images."""


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
        classes=sources()["mnist"].classes,
        source=f"the embedded sample of MNIST: {len(test):,} of its 10,000 test digits",
        is_sample=True,
    )
