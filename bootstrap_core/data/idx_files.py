"""idx files, the format of MNIST: http://yann.lecun.com/exdb/mnist, "file formats"."""

import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.data.class_folders import read_file
from specs.errors import IntegrityError
from specs.files.limits import DATASET_FILE_BYTES


def read_idx(path: Path, *, sha256: str | None = None) -> Tensor:
    """Read an idx file of unsigned bytes, plain or gzipped, into a uint8 tensor of the shape that its header states.

    `sha256` is the expected digest of the plain bytes. Raises `IntegrityError` for another digest or a malformed file,
    `DataError` for a file that cannot be read.
    """
    return parse_idx(read_plain(path, sha256), what=str(path))


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


def read_plain(path: Path, sha256: str | None, *, what: str = "") -> bytes:
    """Return the plain bytes of a file, gzipped or not. `what` names it in errors, by default its path.

    Raises `IntegrityError` for another digest or damaged data, `DataError` for a file that cannot be read.
    """
    what, data = what or str(path), read_file(path, DATASET_FILE_BYTES)
    if data.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(DATASET_FILE_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise IntegrityError(f"{what}: damaged gzip file: {error}") from error
        if len(data) > DATASET_FILE_BYTES:
            raise IntegrityError(f"{what}: decompresses to more than the limit of {DATASET_FILE_BYTES} bytes")
    found = hashlib.sha256(data).hexdigest()
    if sha256 not in (None, found):
        raise IntegrityError(
            f"{what}: sha256 of its plain bytes is {found}, expected {sha256}: "
            "the file is damaged or belongs to another dataset; replace or remove it"
        )
    return data
