"""Damaged and malicious batches of CIFAR-10; that batches are read is tested in test_datasets."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from valid_files import cifar_pickle, tar

from bootstrap_core.data.published_files import BATCHES, read_batches
from specs.errors import DataError, IntegrityError

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 12)
GOOD = cifar_pickle([0, 1], PIXELS)
RECORDS = b"".join(bytes([label, *pixels]) for label, pixels in enumerate(PIXELS))


def read(folder: Path, last: bytes, suffix: str = "") -> object:
    """Read six batches with the right digests, of which the last is given."""
    files = {}
    for name in BATCHES:
        path = folder / f"{name}{suffix}"
        path.write_bytes(last if name == BATCHES[-1] else RECORDS if suffix else GOOD)
        files[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    return read_batches(files, (3, 2, 2))


def test_batches_are_in_order(tmp_path: Path) -> None:
    for suffix in ("", ".bin"):
        (train, labels), (test, _) = read(tmp_path, RECORDS if suffix else GOOD, suffix)
        assert (len(train), labels.tolist(), test.flatten().tolist()) == (10, [0, 1] * 5, list(range(24)))


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (cifar_pickle([0, 1], PIXELS, function=b"os\nsystem\n"), "os.system is not allowed"),
        (cifar_pickle([0, 1], PIXELS, function=b"builtins\neval\n"), "builtins.eval is not allowed"),
        (cifar_pickle([0], PIXELS), r"data must be uint8 \[1, 12\]"),
        (cifar_pickle([0, 1], PIXELS.reshape(3, 8)), r"data must be uint8 \[2, 12\]"),
        (GOOD.replace(b"u1", b"i1"), "data must be uint8"),
        (GOOD.replace(b"\x89T", b"\x88T"), "data must be uint8"),  # in the order of columns
        (GOOD.replace(b"labels", b"labelz"), "labels"),
        (cifar_pickle([0, 300], PIXELS), "not a batch"),
        (GOOD[:-30], "not a batch"),
        (b"", "not a batch"),
    ],
)
def test_a_pickle_with_other_contents_is_refused_by_name(tmp_path: Path, last: bytes, words: str) -> None:
    with pytest.raises(IntegrityError, match=words) as caught:
        read(tmp_path, last)
    assert "test_batch" in str(caught.value)


@pytest.mark.parametrize("last", [b"", RECORDS[:-1]])
def test_records_that_are_cut_short_are_refused(tmp_path: Path, last: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"test_batch\.bin: .* not a whole number of records of 13 bytes"):
        read(tmp_path, last, ".bin")


def test_other_bytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(cifar_pickle([0, 1], PIXELS, function=b"os\nsystem\n"))
    with pytest.raises(IntegrityError, match="sha256 is"):
        read_batches({tmp_path / "test_batch": "0" * 64}, (3, 2, 2))
    with pytest.raises(DataError, match="cannot read"):
        read_batches({tmp_path / "none": "0" * 64}, (3, 2, 2))


@pytest.mark.parametrize(
    ("data", "words"),
    [(tar({"a/test_batch": GOOD}, mode="w:gz"), "no data_batch_1"), (b"no archive", "damaged archive")],
)
def test_an_archive_without_the_batches_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(IntegrityError, match=words):
        read_batches({tmp_path / "a.tar.gz": hashlib.sha256(data).hexdigest()}, (3, 2, 2))
