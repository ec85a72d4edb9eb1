"""Files as datasets are published, known by their digests: IDX of MNIST, CIFAR's batches, and libsvm's lines."""

import bz2
import gzip
import hashlib
import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedIOBase, BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.data.class_folders import read_file
from specs.errors import DataError, IntegrityError
from specs.files.given_archives import open_zip
from specs.files.given_file import check_given_file
from specs.files.limits import DATASET_ARCHIVE_BYTES, DATASET_FILE_BYTES

MD5 = "md5:"
"""Beginning of a digest that is an MD5; others are a sha256."""
DTYPES: dict[int, np.dtype[Any]] = {8: np.dtype("u1"), 12: np.dtype(">i4")}
"""Types of numbers by their code in the header: bytes, and the integers of QMNIST's labels."""
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
"""Names of the batches, without .bin; the last one has the test images."""
Arrays = tuple[Tensor, Tensor]
"""Images, uint8 `[N, C, H, W]`, and labels, uint8 `[N]`."""


def has_digest(content: bytes, expected: str) -> bool:
    """Return whether the content of a file has this digest.

    >>> has_digest(b"", "md5:d41d8cd98f00b204e9800998ecf8427e"), has_digest(b"", "00")
    (True, False)
    """
    return _digest(BytesIO(content), expected) == expected


def check_digest(file: BufferedIOBase, expected: str, what: str) -> None:
    """Raise `IntegrityError`, which begins with `what`, unless a file has the digest `expected`."""
    found = _digest(file, expected)
    if found != expected:
        kind = "MD5" if expected.startswith(MD5) else "sha256"
        raise IntegrityError(
            f"{what}: {kind} is {found.removeprefix(MD5)}, expected {expected.removeprefix(MD5)}: the file is damaged, "
            "another version, or of another dataset; replace or remove it"
        )


@contextmanager
def open_verified(path: Path, digest: str, *, what: str = "") -> Iterator[BinaryIO]:
    """Open a file after a comparison with its digest; `what` names it in errors, by default its path.

    Raises `IntegrityError` for another digest, `DataError` for a file that cannot be read.
    """
    what = what or str(path)
    check_given_file(path, limit=DATASET_ARCHIVE_BYTES, error=DataError)
    try:
        with path.open("rb") as file:
            check_digest(file, digest, what)
            file.seek(0)
            yield file
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _digest(file: BufferedIOBase, like: str) -> str:
    """Return the digest of a file, of the same kind as the digest `like`."""
    if like.startswith(MD5):
        return MD5 + hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return hashlib.file_digest(file, "sha256").hexdigest()


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


def read_batches(files: Mapping[Path, str], image_shape: Sequence[int]) -> tuple[Arrays, Arrays]:
    """Return training images and labels, and test images and labels.

    Every file is compared with its digest before anything in it is read.

    Args:
        files: sha256 of each file by its path: of six batches, or of one `.tar.gz` that contains them.
    """
    found = {}
    for path, sha256 in files.items():
        with open_verified(path, sha256) as file:
            for name, data in _batches(path, file):
                read = _from_records if name.endswith(".bin") else _from_pickle
                found[name.removesuffix(".bin")] = read(data, image_shape, f"{path}: {name}")
    if missing := [name for name in BATCHES if name not in found]:
        raise IntegrityError(f"{', '.join(map(str, files))}: no {', '.join(missing)}")
    images, labels = zip(*(found[name] for name in BATCHES), strict=True)
    return (torch.cat(images[:-1]), torch.cat(labels[:-1])), (images[-1], labels[-1])


def _batches(path: Path, file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the batches in a file: of itself, or of those in an archive."""
    if not path.name.endswith(".tar.gz"):
        yield path.name, file.read()
        return
    try:
        with tarfile.open(fileobj=file, mode="r|gz") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name.removesuffix(".bin") in BATCHES and (content := archive.extractfile(member)):
                    yield name, content.read()
    except tarfile.TarError as error:
        raise IntegrityError(f"{path} is a damaged archive: {error}") from None


def _from_records(data: bytes, image_shape: Sequence[int], what: str) -> Arrays:
    record = 1 + prod(image_shape)
    if not data or len(data) % record:
        raise IntegrityError(f"{what}: {len(data):,} bytes are not a whole number of records of {record:,} bytes")
    records = torch.from_numpy(np.frombuffer(data, np.uint8).reshape(-1, record).copy())
    return records[:, 1:].reshape(-1, *image_shape), records[:, 0]


def _from_pickle(data: bytes, image_shape: Sequence[int], what: str) -> Arrays:
    try:
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        labels, (_, shape, kind, by_columns, pixels) = batch[b"labels"], batch[b"data"].state
        if kind.arguments[0] != b"u1" or by_columns or shape != (len(labels), prod(image_shape)):
            raise ValueError(f"data must be uint8 [{len(labels)}, {prod(image_shape)}]")
        images = np.frombuffer(pixels, np.uint8).reshape(-1, *image_shape)
        return torch.from_numpy(images.copy()), torch.tensor(labels, dtype=torch.uint8)
    except Exception as error:  # a pickle can raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise IntegrityError(f"{what}: not a batch of CIFAR-10: {reason}") from None


class _Described:
    """NumPy object as its pickle describes it. NumPy itself is not called: a damaged state could do anything there."""

    def __init__(self, *arguments: object) -> None:
        self.arguments, self.state = arguments, ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Unpickler of plain values and of the three names that a pickled array has; it runs no other code."""

    ALLOWED = (("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct"))

    def find_class(self, module: str, name: str) -> type[_Described]:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")
        return type(name, (_Described,), {})  # a new class: a pickle may set attributes of what it gets


def read_libsvm(path: Path, sha256: str, image_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return images, uint8 `[N, *image_shape]`, and labels, uint8 `[N]`, of a `.bz2` of lines `7 1:-1 2:0.5 ...`.

    Classes and pixels count from 1 in the file. A pixel from -1 to 1 becomes 0 to 255; one that is not there is 0.
    """
    with open_verified(path, sha256) as file:
        try:
            lines = bz2.decompress(file.read()).decode("ascii").splitlines()
            values = np.zeros((len(lines), prod(image_shape)))
            labels = np.empty(len(lines), np.uint8)
            for row, line in enumerate(lines):
                label, *pixels = line.split()
                labels[row] = int(label) - 1
                for place, value in (pixel.split(":") for pixel in pixels):
                    values[row, int(place) - 1] = float(value)
        except (OSError, ValueError, IndexError, OverflowError) as error:
            raise IntegrityError(f"{path}: not a .bz2 of libsvm lines: {error}") from None
    images = np.round((values.clip(-1, 1) + 1) * (255 / 2)).astype(np.uint8)
    return torch.from_numpy(images.reshape(-1, *image_shape)), torch.from_numpy(labels)
