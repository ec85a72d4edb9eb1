"""Datasets: search, downloads from a loopback server, the IDX parser and hostile files, the sample, the split."""

import gzip
import hashlib
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bootstrap_core.data import datasets
from bootstrap_core.data.datasets import (
    SOURCES,
    Dataset,
    DatasetSource,
    Split,
    check_split,
    dataset_names,
    find_dataset,
    load_dataset,
    parse_idx,
    pull_dataset,
    read_idx,
    train_validation_split,
)
from specs.dataset_sources import TRAINING_IMAGES
from specs.errors import DataError, IntegrityError, SnnZooError
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
    return {"tiny": DatasetSource("tiny", "Tiny", ("a", "b", "c"), ("http://mirror.invalid",), sha256)}


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


def test_names() -> None:
    assert dataset_names() == ("fashion-mnist", "mnist", "mnist-sample") == tuple(TRAINING_IMAGES)
    assert len(load_dataset("mnist-sample").train) == TRAINING_IMAGES["mnist-sample"]


def test_unknown_name_lists_the_known() -> None:
    for function in (load_dataset, find_dataset, pull_dataset):
        with pytest.raises(DataError, match="unknown dataset 'cifar'; known: fashion-mnist, mnist, mnist-sample"):
            function("cifar")


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


def test_a_folder_that_lacks_a_file_is_passed_over(tmp_path: Path) -> None:
    (write(tmp_path / "data" / "tiny") / f"{FILES[3]}.gz").unlink()
    in_cache = write(tmp_path / "cache" / "data" / "tiny")
    assert find_dataset("tiny", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", registry=REGISTRY) == in_cache


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
    registry = {**REGISTRY, "other": replace(make_registry(other)["tiny"], name="other", torchvision_folder="Other")}
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
    for words in (FILES[2], REGISTRY["tiny"].sha256[FILES[2]], hashlib.sha256(changed[FILES[2]]).hexdigest()):
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
    with pytest.raises(IntegrityError, match="expected N images"):
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
    registry = {"tiny": replace(REGISTRY["tiny"], mirrors=(f"{server.url}/tiny",))}
    assert pull_dataset("tiny", cache_dir=tmp_path, registry=registry) == tmp_path / "data" / "tiny"
    with pytest.raises(DataError, match="no mirror has it"):  # an empty list is not "the default"
        pull_dataset("tiny", cache_dir=tmp_path / "other", mirrors=[], registry=registry)


def test_missing_on_one_mirror_comes_from_the_next(tmp_path: Path, server) -> None:
    mirrors = [f"{server.url}/nothing", f"{server.url}/tiny"]
    pull_dataset("tiny", cache_dir=tmp_path, mirrors=mirrors, registry=REGISTRY)
    assert find_dataset("tiny", cache_dir=tmp_path, registry=REGISTRY) == tmp_path / "data" / "tiny"
    assert server.paths()[:2] == [f"/nothing/{FILES[0]}.gz", f"/tiny/{FILES[0]}.gz"]


def damaged_digest(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data)[:-1] + b"\x80")


def truncated(data: bytes) -> bytes:
    return data[:-100]


def oversized(data: bytes) -> bytes:
    return data + bytes(2**17)


@pytest.mark.parametrize(
    ("damage", "words"), [(damaged_digest, "expected"), (truncated, "truncated"), (oversized, "more than the limit")]
)
def test_damaged_download_leaves_nothing_and_the_next_mirror_serves(
    tmp_path: Path, server, monkeypatch: pytest.MonkeyPatch, damage: object, words: str
) -> None:
    assert callable(damage)
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


def test_a_body_shorter_than_announced_is_fetched_to_its_end(tmp_path: Path, server) -> None:
    server.script[f"/tiny/{FILES[0]}.gz"] = [server.half]
    pull_dataset("tiny", cache_dir=tmp_path / "cache", mirrors=[f"{server.url}/tiny"], registry=REGISTRY)
    assert [path for path, resumed in server.requests if resumed] == [f"/tiny/{FILES[0]}.gz"]
    assert len(load_dataset("tiny", cache_dir=tmp_path / "cache", offline=True, registry=REGISTRY).train) == 6


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "no-scheme"])
def test_an_unreachable_mirror_is_named_in_the_final_message(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match=f"not found. Tried:(.|\n)*{url}/{FILES[0]}.gz"):
        load_dataset("tiny", cache_dir=tmp_path, mirrors=[url], registry=REGISTRY)


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


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, server) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(SnnZooError, match=r"cannot write .*cache"):
        pull_dataset("tiny", cache_dir=tmp_path / "cache", mirrors=[f"{server.url}/tiny"], registry=REGISTRY)


def test_shipped_sources_are_complete() -> None:
    for name, source in SOURCES.items():
        assert source.name == name
        assert tuple(source.sha256) == FILES
        assert all(len(bytes.fromhex(digest)) == 32 for digest in source.sha256.values())
        assert len(set(source.classes)) == 10
        assert source.mirrors[0].startswith("https://")


# --- idx files


def test_reads_dimensions_in_order(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "file").write_bytes(gzip.compress(idx(values)))  # recognised by content, not by name
    np.testing.assert_array_equal(read_idx(tmp_path / "file").numpy(), values)


GOOD = idx(np.arange(6, dtype=np.uint8).reshape(2, 3))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "nothing"),
        (GOOD[:3], "not an idx file"),
        (b"\x01" + GOOD[1:], "not an idx file"),
        (GOOD[:2] + b"\x0d" + GOOD[3:], "00 00 0d"),  # floats
        (GOOD[:3] + b"\x00" + GOOD[4:], "0 dimensions"),
        (GOOD[:3] + b"\xff" + GOOD[4:], "255 dimensions"),
        (GOOD[:7], "damaged idx header"),
        (GOOD[:-1], "takes 18 bytes, the file has 17"),
        (GOOD + b"\0", "takes 18 bytes, the file has 19"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(100), "4294967295, 4294967295, 4294967295"),
        (bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 2**31, 4), "the file has 16"),  # 2**64 bytes: 0 after a wrap
        (bytes([0, 0, 8, 3]) + struct.pack(">3I", 0, 28, 28), r"shape \[0, 28, 28\]"),
        (b"\x1f\x8b" + bytes(20), "damaged gzip"),
        (gzip.compress(GOOD, mtime=0)[:-1], "truncated gzip"),
        (gzip.compress(GOOD, mtime=0) + b"x", "1 bytes follow"),
        (gzip.compress(GOOD, mtime=0)[:-8] + bytes(8), "damaged gzip"),  # checksum
    ],
)
def test_hostile_file_is_refused_by_name(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "hostile-idx"
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=words) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_gzip_bomb_is_refused_without_unpacking_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "DATASET_FILE_BYTES", 10_000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(10_000, np.uint8))))
    assert path.stat().st_size < 200
    with pytest.raises(IntegrityError, match="decompresses to more than the limit of 10000"):
        read_idx(path)
    path.write_bytes(gzip.compress(idx(np.zeros(10_000 - 8, np.uint8))))  # exactly the limit
    assert len(read_idx(path)) == 9992


def test_large_plain_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(datasets.DATASET_FILE_BYTES + 1)  # sparse
    with pytest.raises(IntegrityError, match="more than the limit"):
        read_idx(path)


def test_a_file_that_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path)


def test_parse_names_what_it_parses() -> None:
    with pytest.raises(IntegrityError, match=r"^labels: "):
        parse_idx(b"", what="labels")


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


def test_sample_looks_like_digits() -> None:
    """The nearest mean image classifies about 80 % of MNIST; with shuffled labels or a transposed batch, 10 %."""
    dataset = load_dataset("mnist-sample")
    train, test = (split.images.flatten(1).float() for split in (dataset.train, dataset.test))
    means = torch.stack([train[dataset.train.labels == label].mean(0) for label in range(10)])
    predictions = torch.cdist(test, means).argmin(1)
    assert (predictions == dataset.test.labels).float().mean() > 0.75


def test_sample_is_found_and_needs_no_pull() -> None:
    found = find_dataset("mnist-sample")
    assert found is not None
    assert found.is_file()
    assert pull_dataset("mnist-sample", mirrors=[]) == found


# --- Splits


def make_split(class_sizes: list[int]) -> Split:
    """Return a split whose images contain their own numbers, so that a wrong pairing shows."""
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(class_sizes)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    numbers = torch.arange(len(labels), dtype=torch.uint8)
    return Split(numbers[:, None, None, None].expand(-1, 1, 28, 28), labels)


def numbers(split: Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_a_split_is_a_dataset_of_torch() -> None:
    split = load_dataset("mnist-sample").train.take(slice(0, 7))
    batches = list(DataLoader(split, batch_size=4))
    assert [len(labels) for _, labels in batches] == [4, 3]
    assert torch.equal(torch.cat([images for images, _ in batches]), split.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), split.labels)
    assert sum(1 for _ in split) == 7


def test_labels_that_count_from_1_are_explained() -> None:
    split = make_split([3, 4])
    with pytest.raises(DataError, match=r"label 2: the network has 2 classes.* 0 to 1; if the labels count from 1"):
        check_split(replace(split, labels=split.labels + 1), 2)
    with pytest.raises(DataError, match=r"0 to 0$"):
        check_split(split, 1)


@pytest.mark.parametrize("chosen", [slice(2, 5), [5, 0, 2], torch.tensor([5, 0, 2]), torch.arange(7) % 3 == 1, []])
def test_an_index_of_several_returns_matching_images_and_labels(chosen) -> None:
    split = make_split([3, 4])
    images, labels = split[chosen]
    assert torch.equal(images, split.images[chosen])
    assert torch.equal(labels, split.labels[chosen])


@pytest.mark.parametrize("chosen", [2, -5, np.int64(2), torch.tensor(2)])
def test_an_index_of_one_returns_an_image_and_its_label(chosen) -> None:
    split = make_split([3, 4])
    image, label = split[chosen]
    assert torch.equal(image, split.images[2])
    assert label == split.labels[2]


def test_take_keeps_the_order_and_the_pairs() -> None:
    split = make_split([3, 4])
    for indices in ([5, 0, 2], torch.tensor([5, 0, 2])):
        taken = split.take(indices)
        assert numbers(taken) == [5, 0, 2]
        assert taken.labels.tolist() == split.labels[[5, 0, 2]].tolist()
    assert numbers(split.take(slice(2, 4))) == [2, 3]


def test_validation_split_is_stratified_and_disjoint() -> None:
    split = make_split([40, 20, 60])
    train, validation = train_validation_split(split, n_validation=30, seed=0)
    assert validation.labels.bincount().tolist() == [10, 5, 15]
    assert train.labels.bincount().tolist() == [30, 15, 45]
    assert sorted(numbers(train) + numbers(validation)) == list(range(120))
    for part in (train, validation):
        assert numbers(part) == sorted(numbers(part))
        assert part.labels.tolist() == split.labels[numbers(part)].tolist()


@pytest.mark.parametrize(("n_validation", "expected"), [(1, [1, 0, 0]), (4, [2, 1, 1]), (9, [4, 3, 2])])
def test_validation_shares_round_by_largest_remainder(n_validation: int, expected: list[int]) -> None:
    # Exact shares: 0.4 0.4 0.2; 1.6 1.6 0.8; 3.6 3.6 1.8. Of equal remainders, the lower class is rounded up
    _, validation = train_validation_split(make_split([4, 4, 2]), n_validation=n_validation, seed=0)
    assert validation.labels.bincount(minlength=3).tolist() == expected


def test_validation_split_depends_on_the_seed_alone() -> None:
    split = make_split([50, 50])
    before = torch.get_rng_state()
    first, again, other = (numbers(train_validation_split(split, n_validation=20, seed=s)[1]) for s in (3, 3, 4))
    assert first == again
    assert first != other
    assert torch.equal(before, torch.get_rng_state())


def test_a_limited_dataset_has_each_class_with_its_share() -> None:
    dataset = Dataset("a", make_split([6]), make_split([40, 20, 60]), ("x", "y", "z"), "here")
    some = dataset.limited(30)
    assert some.test.labels.bincount().tolist() == [10, 5, 15]
    assert some.test.labels.tolist() == dataset.test.labels[numbers(some.test)].tolist()
    assert numbers(some.test) == numbers(dataset.limited(30).test) != list(range(30))
    assert some.train is dataset.train
    assert (some.drawn_from, dataset.limited(120).drawn_from, dataset.limited(None).drawn_from) == (120, None, None)
    assert some.limit_note == "scored on 30 of the 120 test images, each class with its share"
    assert dataset.limit_note is None


@pytest.mark.parametrize("n_validation", [-1, 0, 10, 11])
def test_validation_split_refuses_to_leave_a_part_empty(n_validation: int) -> None:
    with pytest.raises(DataError, match=f"n_validation = {n_validation} must be from 1 to 9"):
        train_validation_split(make_split([10]), n_validation=n_validation, seed=0)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 28, 28, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.zeros(2, dtype=torch.uint8)),
    ],
)
def test_split_refuses_other_shapes_and_dtypes(images: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match="must be"):
        Split(images, labels)


@pytest.mark.parametrize("arrays", [{"images"}, {"labels"}])
def test_split_refuses_arrays_and_tells_what_makes_tensors_of_them(arrays: set[str]) -> None:
    numbers = {"images": torch.zeros(2, 1, 28, 28, dtype=torch.uint8), "labels": torch.zeros(2, dtype=torch.int64)}
    given = {name: tensor.numpy() if name in arrays else tensor for name, tensor in numbers.items()}
    with pytest.raises(DataError, match=f"{arrays.pop()} must be a tensor, not ndarray: convert with torch.as_tensor"):
        Split(**given)
