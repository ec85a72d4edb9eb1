"""Datasets: search, downloads from a loopback server, the formats of files, the sample."""

import gzip
import hashlib
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from known_datasets import find_dataset, load_dataset, pull_dataset
from valid_files import cifar_pickle, image, tar

from bootstrap_core.data import datasets, idx_files
from specs.dataset_sources import DatasetFiles, DatasetSource, FileFormat, sources
from specs.errors import DataError, IntegrityError
from specs.files.download import cache_folder

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def make_contents(n_train: int = 6, n_test: int = 4) -> dict[str, bytes]:
    """Return the four IDX files of a tiny dataset with three classes."""
    generator = np.random.default_rng(0)
    arrays = []
    for n in (n_train, n_test):
        arrays.append(generator.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        arrays.append(generator.integers(0, 3, n, dtype=np.uint8))
    return dict(zip(FILES, map(idx, arrays), strict=True))


def make_registry(contents: dict[str, bytes]) -> dict[str, DatasetSource]:
    sha256 = {file: hashlib.sha256(data).hexdigest() for file, data in contents.items()}
    files = DatasetFiles(FileFormat.IDX, sha256, folder="Tiny/raw", mirrors=("http://mirror.invalid",))
    return {"tiny": DatasetSource("tiny", "Tiny", ("a", "b", "c"), (1, 28, 28), 6, (files,), "its four idx files")}


CONTENTS = make_contents()
REGISTRY = make_registry(CONTENTS)


def write(folder: Path, contents: dict[str, bytes] = CONTENTS, *, gz: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in contents.items():
        (folder / (f"{file}.gz" if gz else file)).write_bytes(gzip.compress(data) if gz else data)
    return folder


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the user's cache, data folders and proxies."""
    for name in ("ZOO_DATA_DIR", "ZOO_CACHE_DIR", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def server(web):
    """A loopback mirror of the tiny dataset."""
    write(web.folder / "tiny")
    return web


# --- The search


def test_unknown_name_lists_the_known() -> None:
    for function in (load_dataset, find_dataset, pull_dataset):
        with pytest.raises(DataError, match=r"unknown dataset 'cifar10'; known: cifar-10, .*, yin-yang; did"):
            function("cifar10")


@pytest.mark.parametrize("place", ["tiny", "Tiny/raw", "."])
@pytest.mark.parametrize("gz", [True, False])
def test_loads_each_layout_plain_and_gzipped(tmp_path: Path, place: str, gz: bool) -> None:
    folder = write(tmp_path / "data" / place, gz=gz)
    dataset = load_dataset("tiny", data_dir=tmp_path / "data", offline=True, registry=REGISTRY)
    for split, prefix in ((dataset.train, "train"), (dataset.test, "t10k")):
        images = np.frombuffer(CONTENTS[f"{prefix}-images-idx3-ubyte"][16:], np.uint8).reshape(-1, 1, 28, 28)
        labels = np.frombuffer(CONTENTS[f"{prefix}-labels-idx1-ubyte"][8:], np.uint8)
        np.testing.assert_array_equal(split.images.numpy(), images)
        np.testing.assert_array_equal(split.labels.numpy(), labels)
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
    assert (len(dataset.train), len(dataset.test)) == (6, 4)
    assert (dataset.name, dataset.classes, dataset.is_sample) == ("tiny", ("a", "b", "c"), False)
    assert str(folder) in dataset.source


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argument, environment, cache = tmp_path / "argument", tmp_path / "environment", tmp_path / "cache"
    monkeypatch.setenv("ZOO_DATA_DIR", str(environment))
    find = partial(find_dataset, "tiny", data_dir=argument, cache_dir=cache, registry=REGISTRY)
    assert find() is None
    for folder in (cache / "data" / "tiny", environment / "tiny", argument / "tiny"):  # the last one is preferred
        write(folder)
        assert find() == folder


def test_cache_folder_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", "~/mine")
    assert cache_folder(tmp_path) == tmp_path
    assert cache_folder() == tmp_path / "home" / "mine"
    monkeypatch.delenv("ZOO_CACHE_DIR")
    assert cache_folder() == tmp_path / "xdg" / "snnzoo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "home" / ".cache" / "snnzoo"


def test_not_found_names_every_place_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server) -> None:
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "environment"))
    (write(tmp_path / "argument") / f"{FILES[1]}.gz").unlink()
    with pytest.raises(DataError) as caught:
        load_dataset(
            "tiny",
            data_dir=tmp_path / "argument",
            cache_dir=tmp_path / "cache",
            offline=True,
            mirrors=[f"{server.url}/tiny"],
            registry=REGISTRY,
        )
    message = str(caught.value)
    for place in ("argument/tiny", "argument/Tiny/raw", "environment/tiny", "environment", "cache/data/tiny"):
        assert f"{tmp_path / place}: lacks" in message
    assert f"{tmp_path / 'argument'}: lacks {FILES[1]}\n" in message
    for words in ("offline", "data_dir", "ZOO_DATA_DIR", "mnist-sample"):
        assert words in message
    assert server.paths() == []
    assert not (tmp_path / "cache").exists()


def test_a_folder_of_another_dataset_s_files_is_passed_over(tmp_path) -> None:
    """Files of different datasets have the same names."""
    other = make_contents(n_test=5)
    registry = {**REGISTRY, "other": replace(make_registry(other)["tiny"], name="other")}
    flat, cache = write(tmp_path / "flat"), tmp_path / "cache"
    found = {name: partial(find_dataset, name, data_dir=flat, cache_dir=cache, registry=registry) for name in registry}
    assert (found["tiny"](), found["other"]()) == (flat, None)
    in_cache = write(cache / "data" / "other", other)
    assert (found["tiny"](), found["other"]()) == (flat, in_cache)
    with pytest.raises(DataError, match="flat: has another dataset"):
        load_dataset("other", data_dir=flat, cache_dir=tmp_path, offline=True, registry=registry)


@pytest.mark.parametrize("gz", [True, False])
def test_other_bytes_name_the_file_and_both_digests(tmp_path: Path, gz: bool) -> None:
    changed = CONTENTS | {FILES[2]: CONTENTS[FILES[2]][:-1] + b"\x80"}
    assert changed != CONTENTS
    write(tmp_path, changed, gz=gz)
    with pytest.raises(IntegrityError) as caught:
        load_dataset("tiny", data_dir=tmp_path, registry=REGISTRY)
    for words in (FILES[2], REGISTRY["tiny"].forms[0].sha256[FILES[2]], hashlib.sha256(changed[FILES[2]]).hexdigest()):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        (FILES[0], np.zeros((5, 28, 28), np.uint8)),  # 6 labels
        (FILES[0], np.zeros((6, 27, 28), np.uint8)),
        (FILES[1], np.zeros((6, 1), np.uint8)),
        (FILES[1], np.full(6, 3, np.uint8)),  # classes 0 to 2
    ],
)
def test_splits_that_do_not_fit_together_are_refused(tmp_path: Path, file: str, values: np.ndarray) -> None:
    contents = CONTENTS | {file: idx(values)}
    write(tmp_path, contents)
    with pytest.raises(IntegrityError, match=r"expected (N images|labels below 3)"):
        load_dataset("tiny", data_dir=tmp_path, registry=make_registry(contents))


# --- The download


def test_download_fills_the_cache_once(tmp_path: Path, server) -> None:
    load = partial(
        load_dataset, "tiny", cache_dir=tmp_path / "cache", mirrors=[f"{server.url}/tiny/"], registry=REGISTRY
    )
    assert len(load().train) == 6
    assert sorted(server.paths()) == sorted(f"/tiny/{file}.gz" for file in FILES)
    folder = tmp_path / "cache" / "data" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{file}.gz" for file in FILES)
    assert len(load(offline=True).train) == 6
    assert len(server.paths()) == 4


def test_the_dataset_s_own_mirrors_are_the_default(tmp_path: Path, server) -> None:
    tiny = REGISTRY["tiny"]
    registry = {"tiny": replace(tiny, forms=(replace(tiny.forms[0], mirrors=(f"{server.url}/tiny",)),))}
    assert pull_dataset("tiny", cache_dir=tmp_path, registry=registry) == tmp_path / "data" / "tiny"
    with pytest.raises(DataError, match="no mirror has it"):  # an empty list is not "the default"
        pull_dataset("tiny", cache_dir=tmp_path / "other", mirrors=[], registry=registry)


def damaged_digest(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data)[:-1] + b"\x80")


def truncated(data: bytes) -> bytes:
    return data[:-100]


def oversized(data: bytes) -> bytes:
    return data + bytes(2**17)


@pytest.mark.parametrize(
    ("damage", "words"),
    [(damaged_digest, "expected"), (truncated, "damaged gzip file"), (oversized, "more than the limit")],
)
def test_damaged_download_leaves_nothing_and_the_next_mirror_serves(
    tmp_path: Path, server, monkeypatch: pytest.MonkeyPatch, damage: object, words: str
) -> None:
    assert callable(damage)
    monkeypatch.setattr(idx_files, "DATASET_FILE_BYTES", 2**17)
    monkeypatch.setattr(datasets, "DATASET_FILE_BYTES", 2**17)
    bad = write(server.folder / "bad") / f"{FILES[0]}.gz"
    bad.write_bytes(damage(bad.read_bytes()))
    pull = partial(pull_dataset, "tiny", cache_dir=tmp_path / "cache", registry=REGISTRY)
    with pytest.raises(DataError) as caught:
        pull(mirrors=[f"{server.url}/bad", f"{server.url}/nothing"])
    assert f"{server.url}/bad/{FILES[0]}.gz" in str(caught.value)
    assert words in str(caught.value)
    assert f"{server.url}/nothing/{FILES[0]}.gz: HTTP Error 404" in str(caught.value)
    assert {path.suffix for path in tmp_path.joinpath("cache").rglob("*") if path.is_file()} == {".lock"}
    pull(mirrors=[f"{server.url}/bad", f"{server.url}/tiny"])
    assert len(load_dataset("tiny", cache_dir=tmp_path / "cache", offline=True, registry=REGISTRY).train) == 6


@pytest.mark.parametrize("gz", [True, False])
def test_pull_replaces_only_a_damaged_file(tmp_path: Path, server, gz: bool) -> None:
    folder = write(tmp_path / "data" / "tiny", gz=gz)
    damaged = folder / (f"{FILES[0]}.gz" if gz else FILES[0])
    damaged.write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=FILES[0]):
        load_dataset("tiny", cache_dir=tmp_path, offline=True, registry=REGISTRY)
    pull_dataset("tiny", cache_dir=tmp_path, mirrors=[f"{server.url}/tiny"], registry=REGISTRY)
    assert server.paths() == [f"/tiny/{FILES[0]}.gz"]
    load_dataset("tiny", cache_dir=tmp_path, offline=True, registry=REGISTRY)


def test_shipped_sources_are_complete() -> None:
    for name, source in sources().items():
        assert source.name == name
        assert len(set(source.classes)) == len(source.classes) >= 3
        assert source.made_from or source.name in {"mnist-sample", "nmnist-simulated-sample"} or source.forms
        for files in source.forms:
            n_bytes = 0 if files.format is FileFormat.EVENT_FOLDERS else 32
            for digest in files.sha256.values():
                assert len(bytes.fromhex(digest.removeprefix("md5:"))) == (16 if digest.startswith("md5:") else n_bytes)
            assert all(mirror.startswith("https://") for mirror in files.mirrors[:1])
            if files.format is FileFormat.IDX:
                assert len(files.sha256) == (4 if source.of_each_class is None else 2)
    assert [name for name, source in sources().items() if not source.is_downloadable] == [
        "cifar-10-jpeg",
        "mnist-1d",
        "mnist-sample",
        "nmnist",
        "nmnist-simulated",
        "nmnist-simulated-sample",
        "nmnist-small",
        "psmnist",
        "smnist",
        "spoken-digits",
        "yin-yang",
    ]


# --- CIFAR-10

PIXELS = np.random.default_rng(1).integers(0, 256, (12, 3 * 4 * 5), np.uint8)
LABELS = np.arange(12) % 3
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
BINARY = {
    f"{name}.bin": b"".join(bytes([LABELS[i], *PIXELS[i]]) for i in (2 * n, 2 * n + 1))
    for n, name in enumerate(BATCHES)
}
PICKLED = {
    name: cifar_pickle(LABELS[2 * n : 2 * n + 2].tolist(), PIXELS[2 * n : 2 * n + 2]) for n, name in enumerate(BATCHES)
}
FORMS = {
    "cifar-10-batches-bin": BINARY,
    "cifar-10-batches-py": PICKLED,
    "tiny-binary.tar.gz": tar({f"cifar-10-batches-bin/{name}": data for name, data in BINARY.items()}, mode="w:gz"),
    "tiny-python.tar.gz": tar({f"cifar-10-batches-py/{name}": data for name, data in PICKLED.items()}, mode="w:gz"),
}


def cifar(forms: dict[str, dict[str, bytes] | bytes] = FORMS, mirror: str = "") -> dict[str, DatasetSource]:
    """Return a registry of a tiny dataset in the forms of CIFAR-10."""
    found = []
    for name, content in forms.items():
        files = {name: content} if isinstance(content, bytes) else content
        format = FileFormat.CIFAR_BINARY if "bin" in name else FileFormat.CIFAR_PYTHON
        sha256 = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
        mirrors = (mirror,) if mirror and name == "tiny-binary.tar.gz" else ()
        found.append(DatasetFiles(format, sha256, "" if isinstance(content, bytes) else name, mirrors))
    return {"tiny": DatasetSource("tiny", "Tiny", ("a", "b", "c"), (3, 4, 5), 10, tuple(found), "its archive")}


@pytest.mark.parametrize("place", ["", "tiny"])
@pytest.mark.parametrize("form", FORMS)
def test_cifar_is_the_same_in_all_its_forms(tmp_path: Path, form: str, place: str) -> None:
    content, folder = FORMS[form], tmp_path / place
    for file, data in ({form: content} if isinstance(content, bytes) else content).items():
        path = folder / file if isinstance(content, bytes) else folder / form / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    dataset = load_dataset("tiny", data_dir=tmp_path, offline=True, registry=cifar())
    images = torch.from_numpy(PIXELS).reshape(12, 3, 4, 5)
    assert torch.equal(dataset.train.images, images[:10])
    assert torch.equal(dataset.test.images, images[10:])
    assert dataset.train.labels.tolist() + dataset.test.labels.tolist() == LABELS.tolist()


def test_cifar_is_downloaded_as_an_archive_and_verified(tmp_path: Path, web) -> None:
    archive = FORMS["tiny-binary.tar.gz"]
    (web.folder / "tiny-binary.tar.gz").write_bytes(archive[:-20] + bytes(20))
    load = partial(load_dataset, "tiny", cache_dir=tmp_path / "cache", registry=cifar(mirror=web.url))
    with pytest.raises(DataError, match=r"no mirror has it intact\n.*tiny-binary.tar.gz: sha256 is"):
        load()
    (web.folder / "tiny-binary.tar.gz").write_bytes(archive)
    assert len(load().train) == 10
    assert (tmp_path / "cache" / "data" / "tiny" / "tiny-binary.tar.gz").read_bytes() == archive
    load(offline=True)


def test_a_dataset_without_a_mirror_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks cifar-10-jpeg\.tar\n(.|\n)*Put cifar-10-jpeg\.tar \(zoo/README"):
        load_dataset("cifar-10-jpeg", cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"cifar-10-jpeg cannot be downloaded; zoo/README\.md says"):
        pull_dataset("cifar-10-jpeg", cache_dir=tmp_path)


# --- Tar archives of class folders


def class_tar(classes: str = "abc") -> bytes:
    names = (f"{part}/{name}/{i}.png" for part in ("train", "test") for name in classes for i in range(2))
    return tar({name: image(size=(4, 5)) for name in names})


def test_a_named_tar_of_class_folders_is_verified(tmp_path: Path) -> None:
    files = DatasetFiles(FileFormat.CLASS_FOLDERS, {"tiny.tar": hashlib.sha256(class_tar()).hexdigest()})
    source = DatasetSource("tiny", "Tiny", ("a", "b", "c"), (3, 5, 4), 6, (files,))
    load = partial(load_dataset, "tiny", data_dir=tmp_path, offline=True)
    (tmp_path / "tiny.tar").write_bytes(class_tar())
    dataset = load(registry={"tiny": source})
    assert (dataset.train.images.shape, dataset.test.labels.tolist()) == ((6, 3, 5, 4), [0, 0, 1, 1, 2, 2])
    with pytest.raises(IntegrityError, match="expected folders train and test of the classes a, c, b"):
        load(registry={"tiny": replace(source, classes=("a", "c", "b"))})
    (tmp_path / "tiny.tar").write_bytes(class_tar("abd"))
    with pytest.raises(IntegrityError, match="sha256 is"):
        load(registry={"tiny": source})


# --- The embedded sample


def test_sample_is_balanced_and_says_that_it_is_a_sample() -> None:
    dataset = load_dataset("mnist-sample", offline=True)
    assert dataset.is_sample
    assert "sample" in dataset.source
    assert dataset.train.labels.bincount().tolist() == [200] * 10
    assert dataset.test.labels.bincount().tolist() == [100] * 10
    assert dataset.classes == tuple("0123456789")


def test_sample_bytes() -> None:
    dataset = load_dataset("mnist-sample")
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        digest.update(split.images.numpy().tobytes())
        digest.update(split.labels.numpy().astype(np.uint8).tobytes())
    assert digest.hexdigest() == "27a3c4b58d57ab2ba2c29d4ea48e7dbe5f4b310c515a90ce52c51bc0dd3b6631"
