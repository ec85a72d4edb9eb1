"""Images and recordings that stay in their files, for datasets larger than memory: rows are read when they are used.

Mapped pages would count as memory, and a file that is truncated would end the process. Reading rows costs a system call
each and has neither problem.
"""

import io
import math
import weakref
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.progress import each_file
from specs.errors import DataError
from specs.files.limits import refuse_beyond_memory

STORED_FROM = 1 << 28
"""Size in bytes from which images stay in their files."""
CHUNK = 1 << 20
HEADER_BYTES = 1 << 16
"""Bytes that are read to find a header; headers that NumPy accepts are shorter."""
DTYPES = {np.dtype(name) for name in ("uint8", "float16", "float32", "float64")}


class Rows(Protocol):
    """Array in files, of which some rows at a time are read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, rows: Tensor) -> npt.NDArray[Any]:
        """Return a copy of some rows, `[n, ...]`, in the order given. Raises `DataError` if they cannot be read."""


@dataclass(frozen=True, eq=False)
class MadeRows:
    """Array uint8 `[N, ...]` whose rows are made from files when they are read.

    Args:
        what: rows, for the message that they do not fit into memory.
        make: function that makes a row, for its number.
    """

    what: str
    shape: tuple[int, ...]
    make: Callable[[int], npt.ArrayLike]
    dtype: np.dtype[np.uint8] = np.dtype(np.uint8)  # noqa: RUF009 - immutable

    def read(self, rows: Tensor) -> npt.NDArray[np.uint8]:
        refuse_beyond_memory(2 * len(rows) * math.prod(self.shape[1:]), f"{len(rows):,} {self.what}")
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(each_file(rows.tolist())):
            found[place] = self.make(row)
        return found


class StoredArray:
    """Array in C order that starts at byte `offset` of a file.

    The file stays open, so that replacing it by another file does no harm. It is read and not mapped into memory: a
    mapped file that is cut short would crash the process, where a read raises an error.
    """

    def __init__(self, path: Path, *, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.offset, self.shape, self.dtype = path, offset, shape, dtype
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)

    def read(self, rows: Tensor) -> npt.NDArray[Any]:
        """Return a copy of some rows, `[n, ...]`, in the order given; consecutive rows are read at once."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        memory = found.reshape(-1).view(np.uint8).data
        breaks = (rows.diff() != 1).nonzero().flatten() + 1
        starts = [0, *breaks.tolist()]
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            place = self.offset + int(rows[start]) * row_bytes if len(rows) else 0
            if not self._fill(memory[start * row_bytes : stop * row_bytes], place):
                raise DataError(f"{self.path}: cut short or unreadable at byte {place}; it changed after it was opened")
        return found

    def _fill(self, memory: memoryview, place: int) -> bool:
        """Fill `memory` from byte `place` on; return False if the file is too short or cannot be read."""
        try:
            self._file.seek(place)
            return self._file.readinto(memory) == len(memory)
        except OSError:
            return False


class Header(NamedTuple):
    """Header of an `.npy`: shape, order and type of its array, and the size of the header in bytes."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    own_bytes: int

    @property
    def n_bytes(self) -> int:
        """Size of header and array, a Python integer: a hostile header cannot make it overflow."""
        return self.own_bytes + math.prod(self.shape) * self.dtype.itemsize


def read_header(member: IO[bytes], n_bytes: int, where: str) -> Header:
    """Read the header at the start of an `.npy` of `n_bytes`, before memory is allocated for its array.

    Raises `DataError`, which begins with `where`, if it is malformed or of an array of another size.
    """
    start = io.BytesIO(member.read(HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(start)
        if version not in {(1, 0), (2, 0), (3, 0)}:
            raise ValueError(f"unsupported .npy version {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        header = Header(*read(start), start.tell())
        if header.n_bytes != n_bytes and not header.dtype.hasobject:
            shape, dtype = list(header.shape)[:8], str(header.dtype)[:80]
            raise ValueError(f"shape {shape} and dtype {dtype}, but {n_bytes:,} bytes")
    except (ValueError, SyntaxError, TokenError, TypeError) as error:  # of NumPy and the parsers behind it
        raise DataError(f"{where} is not a plain array: {' '.join(str(error).split())[:200]}") from None
    return header


def stored_array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> StoredArray | None:
    """Return the array of an `.npz` entry as it lies in the file, after a check of its checksum.

    Return None if the array has to be loaded: if it is compressed or encrypted, in Fortran order, or of another type or
    byte order.
    """
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        return None
    with archive.open(entry) as member:
        header = read_header(member, entry.file_size, f"{path}: {entry.filename}")
        if header.fortran or header.dtype not in DTYPES or not header.shape:
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
    """Images uint8 `[N, C, H, W]` that stay in their files; `images[...]` reads only the images that it selects.

    Recordings of event cameras are `[N, T, C, H, W]`.

    Args:
        convert: function that converts rows of the array to images, uint8 `[n, C, H, W]`.
        image_shape: shape of an image, `(C, H, W)`, or of a recording, `(T, C, H, W)`.
    """

    array: Rows
    convert: Callable[[npt.NDArray[Any]], Tensor]
    rows: Tensor
    image_shape: torch.Size

    @classmethod
    def of(cls, array: Rows, convert: Callable[[npt.NDArray[Any]], Tensor]) -> "StoredImages":
        """Return all images of the array. Floats are converted once, so that errors of `convert` are raised here."""
        rows = torch.arange(array.shape[0])
        size = max(1, CHUNK // max(1, math.prod(array.shape[1:])))
        for part in (rows[:1] if array.dtype == np.uint8 else rows).split(size):
            image_shape = convert(array.read(part)).shape[1:]
        return cls(array, convert, rows, image_shape)

    def take(self, indices: Tensor | list[int] | slice) -> "StoredImages":
        return replace(self, rows=self.rows[indices])

    def __getitem__(self, indices: Tensor | list[int] | slice) -> Tensor:
        return self.convert(self.array.read(self.rows[indices]))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """Shape `[N, C, H, W]`, or `[N, T, C, H, W]`."""
        return torch.Size([len(self), *self.image_shape])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the images, uint8, whatever type the files have."""
        return torch.uint8

    @property
    def ndim(self) -> int:
        return len(self.shape)
