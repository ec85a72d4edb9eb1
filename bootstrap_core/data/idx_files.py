"""idx files, the format of MNIST: http://yann.lecun.com/exdb/mnist, "file formats"."""

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.data.class_folders import read_file
from bootstrap_core.data.digests import check_digest, has_digest, open_verified
from specs.errors import IntegrityError
from specs.files.given_zip import open_zip
from specs.files.limits import DATASET_ARCHIVE_BYTES, DATASET_FILE_BYTES

DTYPES: dict[int, np.dtype[Any]] = {8: np.dtype("u1"), 12: np.dtype(">i4")}
"""Types of numbers by their code in the header: bytes, and the integers of QMNIST's labels."""


def read_idx(path: Path, *, sha256: str | None = None) -> Tensor:
    """Read an idx file, plain or gzipped, into a tensor of the shape that its header states.

    `sha256` is the expected digest, see `read_plain`. Raises `IntegrityError` for another digest or a malformed file,
    `DataError` for a file that cannot be read.
    """
    return parse_idx(read_plain(path, sha256), what=str(path))


def parse_idx(data: bytes, *, what: str = "idx data") -> Tensor:
    """Parse the plain bytes of an idx file into a uint8 or int32 tensor; `what` names it in errors.

    The format: 00 00, 08 for unsigned bytes or 0c for int32, the number of dimensions, each dimension as a big-endian
    uint32, the data. Raises `IntegrityError` unless the data is exactly as long as the header says.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    tensor([7, 8, 9], dtype=torch.uint8)
    """
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in DTYPES:
        raise IntegrityError(
            f"{what}: not an idx file of unsigned bytes or int32: starts with {data[:4].hex(' ') or 'nothing'}"
        )
    n_dims = data[3]
    header_size = 4 + 4 * n_dims
    if not 1 <= n_dims <= 3 or len(data) < header_size:
        raise IntegrityError(f"{what}: {n_dims} dimensions (1 to 3 expected) in {len(data)} bytes: damaged idx header")
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, header_size, 4)]
    dtype = DTYPES[data[2]]
    # Python integers: a hostile header cannot make them overflow
    expected_size = header_size + math.prod(shape) * dtype.itemsize
    if 0 in shape:
        raise IntegrityError(f"{what}: shape {shape} is empty")
    if len(data) != expected_size:
        raise IntegrityError(f"{what}: shape {shape} takes {expected_size} bytes, the file has {len(data)}")
    values = np.frombuffer(data, dtype, offset=header_size).reshape(shape)
    return torch.from_numpy(values.astype(dtype.newbyteorder("=")))


def read_zipped_idx(path: Path, sha256: str, member: str) -> list[Tensor]:
    """Return images and labels for training, and images and labels for testing, of a zip of gzipped idx files.

    Args:
        member: name of the files in the zip before `-train-images-idx3-ubyte.gz` and so on.
    """
    found = []
    with open_verified(path, sha256), open_zip(path) as archive:
        for end in ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1"):
            name = f"{member}-{end}-ubyte.gz"
            where = f"{path}: {name}"
            found.append(parse_idx(_unpacked(archive.read(name), where, DATASET_ARCHIVE_BYTES), what=where))
    return found


def read_plain(path: Path, sha256: str | None, *, what: str = "") -> bytes:
    """Return the plain bytes of a file, gzipped or not. `what` names it in errors, by default its path.

    `sha256` is the digest of the plain bytes or of the file itself.

    Raises `IntegrityError` for another digest or damaged data, `DataError` for a file that cannot be read.
    """
    what, data = what or str(path), read_file(path, DATASET_FILE_BYTES)
    is_known = sha256 is None or has_digest(data, sha256)
    if data.startswith(b"\x1f\x8b"):
        data = _unpacked(data, what, DATASET_FILE_BYTES)
    if sha256 is not None and not is_known:
        check_digest(io.BytesIO(data), sha256, f"{what}, unpacked")
    return data


def _unpacked(data: bytes, what: str, limit: int) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            data = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise IntegrityError(f"{what}: damaged gzip file: {error}") from error
    if len(data) > limit:
        raise IntegrityError(f"{what}: decompresses to more than the limit of {limit} bytes")
    return data
