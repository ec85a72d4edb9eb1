"""The idx parser and hostile files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from bootstrap_core.data import published_files as idx_files
from bootstrap_core.data.published_files import read_idx
from specs.errors import DataError, IntegrityError


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


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
        (gzip.compress(GOOD, mtime=0)[:-1], "damaged gzip file: Compressed file ended"),
        (gzip.compress(GOOD, mtime=0) + b"x", "damaged gzip file: Not a gzipped file"),
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
    monkeypatch.setattr(idx_files, "DATASET_FILE_BYTES", 10_000)
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
        file.truncate(idx_files.DATASET_FILE_BYTES + 1)  # sparse
    with pytest.raises(DataError, match="more than the limit"):
        read_idx(path)


def test_a_file_that_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path)
