"""Images that stay in their files, for datasets larger than memory: rows are read when they are asked for."""

import io
import math
import weakref
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specs.errors import DataError

__all__ = ["STORED_FROM", "Header", "Rows", "StoredArray", "StoredImages", "read_header", "stored_array"]

STORED_FROM = 1 << 28
"""Bytes from which images are left in their files."""
CHUNK = 1 << 20
HEADER_BYTES = 1 << 16
"""Most that are read of a header; those that NumPy takes are shorter."""
DTYPES = {np.dtype(name) for name in ("uint8", "float16", "float32", "float64")}


class Rows(Protocol):
    """An array beyond memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its numbers."""

    def read(self, rows: Tensor) -> npt.NDArray[Any]:
        """A copy of some rows, `[n, ...]`, in the order given. Raises `DataError` if they cannot be read."""


class StoredArray:
    """An array in C order, from byte `offset` of a file on.

    The file stays open, so that one put in its place does no harm. It is read, not mapped into memory: what has been
    read is not held, and a file cut short is an error, where a map would end the process.
    """

    def __init__(self, path: Path, *, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.offset, self.shape, self.dtype = path, offset, shape, dtype
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)

    def read(self, rows: Tensor) -> npt.NDArray[Any]:
        """A copy of some rows, `[n, ...]`, in the order given; those that follow each other are read at once."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        memory = found.reshape(-1).view(np.uint8).data
        breaks = (rows.diff() != 1).nonzero().flatten() + 1
        starts = [0, *breaks.tolist()]
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            place = self.offset + int(rows[start]) * row_bytes if len(rows) else 0
            if not self._fill(memory[start * row_bytes : stop * row_bytes], place):
                raise DataError(f"{self.path}: cut short or unreadable at byte {place}, since it was opened")
        return found

    def _fill(self, memory: memoryview, place: int) -> bool:
        """Read as many bytes as `memory` has from `place` on; whether there were as many."""
        try:
            self._file.seek(place)
            return self._file.readinto(memory) == len(memory)
        except OSError:
            return False


class Header(NamedTuple):
    """What an `.npy` says of its array, in `own_bytes` before it."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    own_bytes: int

    @property
    def n_bytes(self) -> int:
        """Of header and array; Python integers, so a hostile header can't overflow."""
        return self.own_bytes + math.prod(self.shape) * self.dtype.itemsize


def read_header(member: IO[bytes]) -> Header:
    """The header of an `.npy`, which is read from its beginning. Raises `ValueError` for what is none."""
    start = io.BytesIO(member.read(HEADER_BYTES))
    version = np.lib.format.read_magic(start)
    if version not in {(1, 0), (2, 0), (3, 0)}:
        raise ValueError(f"an .npy of version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return Header(*read(start), start.tell())


def stored_array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> StoredArray | None:
    """The array of an entry of an `.npz` as it lies in the file, after its checksum was found right.

    None if it must be loaded: compressed, in Fortran order, of another type or byte order, or longer than it says.
    """
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        return None
    with archive.open(entry) as member:
        header = read_header(member)
        if header.fortran or header.dtype not in DTYPES or not header.shape or header.n_bytes != entry.file_size:
            return None
        while member.read(CHUNK):  # to the end, where zipfile compares the checksum
            pass
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        local = file.read(30)
    name_bytes, extra_bytes = (int.from_bytes(local[at : at + 2], "little") for at in (26, 28))
    offset = entry.header_offset + len(local) + name_bytes + extra_bytes + header.own_bytes
    return StoredArray(path, offset=offset, shape=header.shape, dtype=header.dtype)


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images uint8 `[N, C, H, W]`, of which only those asked for are in memory; indexed as a tensor is, by images.

    Args:
        array: what is in the files.
        convert: makes images uint8 `[n, C, H, W]` of rows of the array.
        rows: which of them, in this order.
        image_shape: `(C, H, W)`.
    """

    array: Rows
    convert: Callable[[npt.NDArray[Any]], Tensor]
    rows: Tensor
    image_shape: torch.Size

    @classmethod
    def of(cls, array: Rows, convert: Callable[[npt.NDArray[Any]], Tensor]) -> "StoredImages":
        """All images of the array; floats are looked at once, as `convert` may refuse some. Raises what it raises."""
        rows = torch.arange(array.shape[0])
        size = max(1, CHUNK // max(1, math.prod(array.shape[1:])))
        for part in (rows[:1] if array.dtype == np.uint8 else rows).split(size):
            image_shape = convert(array.read(part)).shape[1:]
        return cls(array, convert, rows, image_shape)

    def take(self, indices: Tensor | list[int] | slice) -> "StoredImages":
        """Some of the images, still in their files."""
        return replace(self, rows=self.rows[indices])

    def __getitem__(self, indices: Tensor | list[int] | slice) -> Tensor:
        return self.convert(self.array.read(self.rows[indices]))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """`[N, C, H, W]`."""
        return torch.Size([len(self), *self.image_shape])

    @property
    def dtype(self) -> torch.dtype:
        """Of the images, not of what is in the files."""
        return torch.uint8

    @property
    def ndim(self) -> int:
        """Axes of all the images."""
        return len(self.shape)
