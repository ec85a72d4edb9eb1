"""Variants of MNIST by name: small files in the form of each are downloaded, read, trained on; others are refused."""

import bz2
import gzip
import hashlib
import io
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from known_datasets import load_dataset

from bootstrap_core import build_network, evaluate, fit
from bootstrap_core.data.events.binning import EventBins
from bootstrap_core.data.splits import Dataset, train_validation_split
from specs import NetworkSpec
from specs.dataset_sources import DatasetSource, FileFormat, sources
from specs.errors import DataError, IntegrityError

Array = npt.NDArray[np.uint8]
PAIRS = {"dig-mnist": (0, 0, 3), "kannada-10k": (3, 2, 1), "kmnist-10k": (3, 2, 1), "notmnist-10k": (3, 2, 1)}
"""Sizes of the parts of each class, for datasets that divide one pair of files."""
ARRAYS = ("mnist-1d", "yin-yang")
MADE = ("smnist", "psmnist")
DOWNLOADED = (*PAIRS, "emnist-balanced", "emnist-digits", "emnist-letters", "kmnist", "qmnist", "usps")


class Examples(NamedTuple):
    images: Array
    classes: npt.NDArray[np.int64]


class Small(NamedTuple):
    """Dataset with few images: its registry, its files by name, and what they hold."""

    registry: Mapping[str, DatasetSource]
    files: Mapping[str, bytes]
    train: Examples
    test: Examples


def examples(source: DatasetSource, n: int, seed: int) -> Examples:
    shape = (n, *source.image_shape)
    return Examples(np.random.default_rng(seed).integers(0, 256, shape, np.uint8), np.arange(n) % len(source.classes))


def idx(values: npt.NDArray[np.generic]) -> bytes:
    code, numbers = (8, values.astype("u1")) if values.ndim != 2 else (12, values.astype(">i4"))
    return bytes([0, 0, code, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + numbers.tobytes()


def npz(**arrays: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def libsvm(part: Examples) -> bytes:
    rows = zip(part.classes, part.images.reshape(len(part.images), -1) / 127.5 - 1, strict=True)
    lines = (f"{label + 1} {' '.join(f'{i + 1}:{x:.6f}' for i, x in enumerate(row) if x)}" for label, row in rows)
    return bz2.compress("\n".join(lines).encode())


def contents(
    source: DatasetSource, format: FileFormat, names: list[str], train: Examples, test: Examples
) -> list[bytes]:
    """Return the files of a dataset, packed as its mirror has them."""
    parts = (train, test)[-len(names) // 2 :] if format is FileFormat.IDX else (train, test)
    match format:
        case FileFormat.IDX if source.name == "qmnist":  # class, writer and six further numbers
            columns = [np.pad(part.classes[:, None], ((0, 0), (0, 7)), constant_values=300) for part in parts]
            arrays = [each for part, label in zip(parts, columns, strict=True) for each in (part.images[:, 0], label)]
        case FileFormat.IDX:
            arrays = [each for part in parts for each in (part.images[:, 0], part.classes)]
        case FileFormat.ZIPPED_IDX:
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                for part, of in zip(parts, ("train", "test"), strict=True):
                    pixels, labels = idx(part.images[:, 0].transpose(0, 2, 1)), idx(part.classes + source.first_label)
                    archive.writestr(f"{source.member}-{of}-images-idx3-ubyte.gz", gzip.compress(pixels))
                    archive.writestr(f"{source.member}-{of}-labels-idx1-ubyte.gz", gzip.compress(labels))
            return [file.getvalue()]
        case _:
            return [libsvm(part) for part in parts]
    return [gzip.compress(idx(array), mtime=0) for array in arrays]


def small(name: str, mirror: str) -> Small:
    """Return a dataset with few images in the form in which it is downloaded."""
    source = sources()[name]
    form = next(form for form in source.forms if form.mirrors)
    if name in PAIRS:
        source = replace(source, of_each_class=PAIRS[name])
        whole = examples(source, 10 * sum(PAIRS[name]), 0)  # the first image of each class, then the second, ...
        n_test = 10 * PAIRS[name][-1]
        train, test = (Examples(*(each[part] for each in whole)) for part in (slice(0, -n_test), slice(-n_test, None)))
        given = whole, whole
    else:
        train, test = given = examples(source, 4 * len(source.classes), 0), examples(source, len(source.classes), 1)
    names = list(form.sha256)
    files = dict(zip(names, contents(source, form.format, names, *given), strict=True))
    digests = {
        file: f"md5:{hashlib.md5(data).hexdigest()}"
        if form.sha256[file].startswith("md5:")
        else hashlib.sha256(gzip.decompress(data) if _is_unpacked(form.format, file) else data).hexdigest()
        for file, data in files.items()
    }
    source = replace(source, forms=(replace(form, sha256=digests, mirrors=(mirror,)),))
    served = {f"{file}.gz" if _is_unpacked(form.format, file) else file: data for file, data in files.items()}
    return Small({**sources(), name: source}, served, train, test)


def _is_unpacked(format: FileFormat, file: str) -> bool:
    return format is FileFormat.IDX and not file.endswith(".gz")


def check_images(dataset: Dataset, expected: Small) -> None:
    for split, part in ((dataset.train, expected.train), (dataset.test, expected.test)):
        np.testing.assert_array_equal(split.images[:].numpy(), part.images)
        assert split.labels.tolist() == part.classes.tolist()


def train_an_epoch(dataset: Dataset, input: dict[str, object], *, time_steps: int = 4) -> None:
    spec = NetworkSpec.model_validate(
        {
            "name": "small",
            "time_steps": time_steps,
            "input": input,
            "blocks": [{"kind": "dense", "features": 8}, {"kind": "affine", "features": len(dataset.classes)}],
            "training": {"epochs": 1, "snn_epochs": 1, "batch_size": 4, "validation": 0},
        }
    )
    network = build_network(spec, seed=0)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    assert fit(network, dataset.train, spec.training)
    assert any(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    assert 0 <= evaluate(network, dataset.test).accuracy <= 1


@pytest.mark.parametrize("name", DOWNLOADED)
def test_each_is_downloaded_read_and_trained_on(tmp_path: Path, web, name: str) -> None:
    expected = small(name, web.url)
    for file, data in expected.files.items():
        (web.folder / file).write_bytes(data)
    dataset = load_dataset(name, cache_dir=tmp_path, registry=expected.registry)
    check_images(dataset, expected)
    assert sorted(web.paths()) == sorted(f"/{file}" for file in expected.files)
    check_images(load_dataset(name, cache_dir=tmp_path, offline=True, registry=expected.registry), expected)
    if len(dataset.train):
        n_pixels = math.prod(sources()[name].image_shape)
        train_an_epoch(dataset, {"shape": [n_pixels], "encoding": "graded", "bits": 4})


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_damaged_download_is_refused_by_name(tmp_path: Path, web, name: str) -> None:
    expected = small(name, web.url)
    file, data = next(iter(expected.files.items()))
    (web.folder / file).write_bytes(data[:-9] + bytes(9))
    with pytest.raises(DataError, match=rf"{file}: no mirror has it intact\n.*{web.url}/{file}"):
        load_dataset(name, cache_dir=tmp_path, registry=expected.registry)


def test_missing_files_are_those_of_the_download_unless_another_form_is_there_in_part(tmp_path: Path) -> None:
    (tmp_path / "variants").mkdir()
    (tmp_path / "variants" / "kmnist-t10k-images-idx3-ubyte").touch()
    with pytest.raises(DataError) as caught:
        load_dataset("kmnist-10k", data_dir=tmp_path, cache_dir=tmp_path / "cache", offline=True)
    assert f"{tmp_path}: lacks t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte\n" in str(caught.value)
    assert f"{tmp_path / 'variants'}: lacks kmnist-t10k-labels-idx1-ubyte\n" in str(caught.value)
    with pytest.raises(DataError, match=r"usps: lacks usps\.bz2, usps\.t\.bz2\n"):
        load_dataset("usps", data_dir=tmp_path, cache_dir=tmp_path / "cache", offline=True)


@pytest.mark.parametrize("name", DOWNLOADED)
def test_files_of_another_dataset_are_refused_by_name(tmp_path: Path, web, name: str) -> None:
    expected = small(name, web.url)
    for file, data in expected.files.items():
        (tmp_path / file).write_bytes(data)
    with pytest.raises((DataError, IntegrityError), match=str(tmp_path)):
        load_dataset(name, data_dir=tmp_path, cache_dir=tmp_path / "cache", offline=True)


def test_three_datasets_of_emnist_are_one_download(tmp_path: Path, web) -> None:
    balanced, letters = small("emnist-balanced", web.url), small("emnist-letters", web.url)
    joined = io.BytesIO()
    with zipfile.ZipFile(joined, "w") as archive:
        for files in (balanced.files, letters.files):
            with zipfile.ZipFile(io.BytesIO(files["gzip.zip"])) as part:
                for member in part.namelist():
                    archive.writestr(member, part.read(member))
    (web.folder / "gzip.zip").write_bytes(joined.getvalue())
    digest = {"gzip.zip": hashlib.sha256(joined.getvalue()).hexdigest()}
    registry = {
        name: replace(source, forms=(replace(source.forms[0], sha256=digest, mirrors=(web.url,)),))
        for name, source in sources().items()
        if name.startswith("emnist")
    }
    for name, expected in (("emnist-letters", letters), ("emnist-balanced", balanced)):
        check_images(load_dataset(name, cache_dir=tmp_path, registry=registry), expected)
    assert web.paths() == ["/gzip.zip"]
    with pytest.raises(IntegrityError, match=r"gzip\.zip.*no item named 'gzip/emnist-digits-train-images"):
        load_dataset("emnist-digits", cache_dir=tmp_path, registry=registry)


# --- Arrays


def arrays_of(name: str) -> dict[str, npt.NDArray[np.generic]]:
    source = sources()[name]
    n_values, low, high = (40, -6.0, 6.0) if name == "mnist-1d" else (4, 0.0, 1.0)
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for seed, part in enumerate(("train", "test", *(("validation",) if name == "yin-yang" else ()))):
        values = np.random.default_rng(seed).integers(0, 256, (30 - 10 * seed, n_values))
        arrays[f"x_{part}"] = (low + values * (high - low) / 255).astype(np.float32)
        arrays[f"y_{part}"] = np.arange(len(values)) % len(source.classes)
    return arrays


def registry_of(name: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, DatasetSource]:
    digest = hashlib.sha256(b"".join(arrays[key].tobytes() for key in sorted(arrays))).hexdigest()
    form = sources()[name].forms[0]
    return {name: replace(sources()[name], forms=(replace(form, sha256=dict.fromkeys(form.sha256, digest)),))}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_are_known_by_their_numbers_however_they_are_packed(tmp_path: Path, name: str, write: object) -> None:
    arrays, file = arrays_of(name), next(iter(sources()[name].forms[0].sha256))
    assert callable(write)
    write(tmp_path / file, **arrays)
    dataset = load_dataset(name, data_dir=tmp_path, offline=True, registry=registry_of(name, arrays))
    low, high = sources()[name].value_range
    images = np.round((arrays["x_test"].astype(np.float64) - low) * 255 / (high - low))
    assert dataset.test.images[:].flatten(1).tolist() == images.tolist()
    assert dataset.test.labels.tolist() == arrays["y_test"].tolist()
    with pytest.raises(IntegrityError, match=rf"{file}: sha256 is"):
        load_dataset(name, data_dir=tmp_path, offline=True)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-30])
    with pytest.raises(IntegrityError, match=rf"{file} is a damaged zip archive"):
        load_dataset(name, data_dir=tmp_path, offline=True)


def test_yin_yang_brings_its_validation_points(tmp_path: Path) -> None:
    arrays = arrays_of("yin-yang")
    np.savez(tmp_path / "yin-yang.npz", **arrays)
    dataset = load_dataset("yin-yang", data_dir=tmp_path, offline=True, registry=registry_of("yin-yang", arrays))
    training, validation = train_validation_split(dataset.train, n_validation=10, seed=3)
    assert [len(training), len(validation)] == [30, 10]
    np.testing.assert_array_equal(
        validation.images[:].flatten(1), np.round(arrays["x_validation"].astype(np.float64) * 255)
    )
    _, drawn = train_validation_split(dataset.train, n_validation=9, seed=3)
    assert not torch.equal(drawn.images[:], validation.images[:9])
    train_an_epoch(dataset, {"shape": [4], "encoding": "graded", "bits": 4})


# --- Parts of each class


def test_one_pair_of_files_is_divided_class_by_class_in_file_order(tmp_path: Path, web) -> None:
    expected = small("kmnist-10k", web.url)
    for file, data in expected.files.items():
        (web.folder / file).write_bytes(data)
    dataset = load_dataset("kmnist-10k", cache_dir=tmp_path, registry=expected.registry)
    training, validation = train_validation_split(dataset.train, n_validation=20, seed=0)
    whole = np.concatenate([expected.train.images, expected.test.images])  # image 10 i + c is the i-th of class c
    for split, rows in ((training, whole[:30]), (validation, whole[30:50]), (dataset.test, whole[50:])):
        np.testing.assert_array_equal(split.images[:].numpy(), rows)
        assert split.labels.bincount().unique().numel() == 1


def test_classes_of_unequal_size_are_refused(tmp_path: Path, web) -> None:
    expected = small("kmnist-10k", web.url)
    source = replace(expected.registry["kmnist-10k"], of_each_class=(3, 1, 1))
    for file, data in expected.files.items():
        (web.folder / file).write_bytes(data)
    with pytest.raises(IntegrityError, match="expected 5 images of each class, got 6 to 6"):
        load_dataset("kmnist-10k", cache_dir=tmp_path, registry={"kmnist-10k": source})


# --- Sequences


@pytest.fixture
def mnist(tmp_path: Path) -> tuple[Path, dict[str, DatasetSource], Array]:
    """A small MNIST on disk, the registry that knows it, and its test images."""
    source = sources()["mnist"]
    parts = examples(source, 20, 0), examples(source, 10, 1)
    files = [idx(each) for part in parts for each in (part.images[:, 0], part.classes)]
    for file, data in zip(source.forms[0].sha256, files, strict=True):
        (tmp_path / file).write_bytes(data)
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in zip(source.forms[0].sha256, files, strict=True)}
    registry = {**sources(), "mnist": replace(source, forms=(replace(source.forms[0], sha256=digests),))}
    return tmp_path, registry, parts[1].images


def test_rows_of_digits_are_steps(mnist) -> None:
    folder, registry, images = mnist
    dataset = load_dataset("smnist", data_dir=folder, offline=True, registry=registry, events=EventBins(time_steps=28))
    assert dataset.test.images.shape == (10, 28, 1, 28, 1)
    np.testing.assert_array_equal(dataset.test.images[:, 5].flatten(1), (images[:, 0, 5] > 127).astype(int))
    grey = load_dataset("smnist", data_dir=folder, offline=True, registry=registry)
    np.testing.assert_array_equal(grey.test.images[:, 5].flatten(1), images[:, 0, 5])
    train_an_epoch(dataset, {"shape": [28], "encoding": "events"}, time_steps=28)
    with pytest.raises(DataError, match="smnist has 28 time steps, and the network takes 20: set time_steps"):
        load_dataset("smnist", data_dir=folder, offline=True, registry=registry, events=EventBins(time_steps=20))


def test_permuted_digits_have_one_order_for_all_images(mnist) -> None:
    folder, registry, images = mnist
    dataset = load_dataset("psmnist", data_dir=folder, offline=True, registry=registry)
    assert dataset.test.images.shape == (10, 784, 1, 1, 1)
    order = torch.randperm(784, generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(images).flatten(1)
    assert torch.equal(dataset.test.images[:].flatten(1), pixels[:, order])
    assert not torch.equal(dataset.test.images[:].flatten(1), pixels)


def test_pixels_of_mnist_1d_are_steps(tmp_path: Path) -> None:
    arrays = arrays_of("mnist-1d")
    np.savez(tmp_path / "mnist1d.npz", **arrays)
    bins = EventBins(time_steps=40, bits=8)
    registry = registry_of("mnist-1d", arrays)
    dataset = load_dataset("mnist-1d", data_dir=tmp_path, offline=True, registry=registry, events=bins)
    assert dataset.test.images.shape == (20, 40, 1, 1, 1)
    train_an_epoch(dataset, {"shape": [1], "encoding": "events", "bits": 8}, time_steps=40)


# --- Files


def test_a_line_that_is_not_libsvm_names_the_file(tmp_path: Path) -> None:
    source = sources()["usps"]
    form = next(form for form in source.forms if form.format is FileFormat.LIBSVM)
    for line in (b"1 1:0.5 257:0.1", b"1 0.5", b"x 1:0.5"):
        data = bz2.compress(line)
        for file in form.sha256:
            (tmp_path / file).write_bytes(data)
        digests = dict.fromkeys(form.sha256, hashlib.sha256(data).hexdigest())
        registry = {"usps": replace(source, forms=(replace(form, sha256=digests),))}
        with pytest.raises(IntegrityError, match=r"usps\.bz2: not a \.bz2 of libsvm lines"):
            load_dataset("usps", data_dir=tmp_path, offline=True, registry=registry)
