"""Read HDF5 files from untrusted sources: only data in the file itself, and no more than a network can need."""

import io
import math
import mmap
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import numpy.typing as npt

from specs.errors import IntegrityError, UnsupportedError
from specs.files.given_file import check_given_file
from specs.files.limits import HDF5_TEXTS, unpacked_bytes
from specs.files.memory import refuse_beyond_memory

__all__ = ["Budget", "Hdf5Node", "IntArray", "NameHeaps", "open_hdf5"]

EXACT_IN_FLOAT = 2.0**53
COPIES = 8
"""Memory that reading a dataset takes, in sizes of the dataset: raw, 64-bit integers, weights (make bench-readers)."""
DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError, zlib.error)
"""Exceptions that h5py raises on a damaged file."""
ATTRIBUTE_BYTES = 256
"""Bytes from the start of an attribute's name in which its value is searched for."""
MOST_ATTRIBUTES = 1000
"""Most places in a file where the name of one attribute may occur."""
HEAP_OBJECT = 16
"""Smallest size of an object in a global heap, in bytes."""
LONG_TEXT = 16
"""Bytes in a dataset that refer to a text of variable length; the text itself lies in a global heap."""
CHUNK_BYTES = 1 << 24
"""Chunk size that is accepted for any dataset, however small, in bytes."""
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
"""Supported HDF5 filters: gzip, and the shuffling and checksums that are used with it."""

SYMBOL_TABLE, CONTINUATION = 0x11, 0x10
"""Types of messages in an object header."""
HEADER_BYTES = 1 << 16
"""Most bytes that are read of each block of an object header."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hdf5Node:
    """Group of an HDF5 file. Names may be paths, such as `neuron/type`.

    Attributes:
        group: the h5py group.
        where: path of the file and of the group, for error messages.
        budget: bytes that the arrays of the whole file may still take when unpacked.
        heaps: places of the names of all groups that were read so far.
    """

    group: h5py.Group
    where: str
    budget: "Budget"
    heaps: "NameHeaps"

    def __post_init__(self) -> None:
        self.heaps.check(self.group, self.where)

    @property
    def names(self) -> list[str]:
        """Names in the group, sorted. Raises `IntegrityError` for a name that is not printable text."""
        names = list(self.group)
        if not all(isinstance(name, str) and name.isprintable() for name in names):
            raise IntegrityError(f"{self.where}: holds a name that is not printable text")
        return sorted(names)

    def attribute(self, name: str) -> str | None:
        """Return an attribute that is a text; None if it is missing or not a text."""
        if name not in self.group.attrs:
            return None
        _refuse_damaged_attribute(Path(self.group.file.filename), name, self.where)
        value = self.group.attrs[name]
        return value if isinstance(value, str) else None

    def find(self, name: str) -> Any:
        """Return the h5py group or dataset, or None. Raises `IntegrityError` for a link, which could leave the file."""
        here: Any = self.group
        where = self.where
        for part in name.split("/"):
            where = f"{where}/{part}"
            if not isinstance(here, h5py.Group):
                return None
            if here is not self.group:
                self.heaps.check(here, where.rpartition("/")[0])
            if part not in here:
                return None
            if not isinstance(here.get(part, getlink=True), h5py.HardLink):
                raise IntegrityError(f"{where}: is a link; links are not followed")
            here = here[part]
        return here

    def child(self, name: str) -> "Hdf5Node | None":
        """Return a group, or None."""
        found = self.find(name)
        return replace(self, group=found, where=f"{self.where}/{name}") if isinstance(found, h5py.Group) else None

    def array(self, name: str) -> npt.NDArray[Any] | None:
        """Return the numbers of a dataset, or None. Raises `IntegrityError` unless all are finite numbers."""
        found = self.find(name)
        if not isinstance(found, h5py.Dataset):
            return None
        where = f"{self.where}/{name}"
        if found.dtype.kind not in "iufb":
            raise IntegrityError(f"{where}: holds {found.dtype}, not numbers")
        self._refuse_elsewhere(found, name)
        value = np.asarray(found[()])
        if not bool(np.isfinite(value).all()):
            raise IntegrityError(f"{where}: holds values that are not finite")
        return value

    def integers(self, name: str) -> IntArray | None:
        """Return whole numbers, flattened, or None. Raises `IntegrityError` for fractions and beyond 2^53."""
        value = self.array(name)
        if value is None:
            return None
        if not bool((np.trunc(value) == value).all()):
            raise IntegrityError(f"{self.where}/{name}: holds {value.ravel()[:4]}..., not whole numbers")
        if not bool((np.abs(value.astype(np.float64)) < EXACT_IN_FLOAT).all()):
            raise IntegrityError(f"{self.where}/{name}: holds {value.ravel()[:4]}..., beyond 2^53")
        return value.astype(np.int64).ravel()

    def integer(self, name: str) -> int | None:
        """Return a single whole number, or None. Raises `IntegrityError` for several."""
        value = self.integers(name)
        if value is not None and value.size != 1:
            raise IntegrityError(f"{self.where}/{name}: holds {value.size} numbers, not one")
        return None if value is None else int(value[0])

    def texts(self, name: str) -> str | npt.NDArray[Any] | None:
        """Return a string or an array of strings; None if there is no such dataset of strings."""
        found = self.find(name)
        if not isinstance(found, h5py.Dataset) or h5py.check_string_dtype(found.dtype) is None or found.shape is None:
            return None
        if found.size > HDF5_TEXTS:
            raise IntegrityError(f"{self.where}/{name}: holds {found.size:,} texts; at most {HDF5_TEXTS:,} are read")
        self._refuse_elsewhere(found, name)
        _refuse_damaged_texts(found, f"{self.where}/{name}")
        texts = found.asstr(errors="replace")[()]
        return texts if isinstance(texts, str) else np.asarray(texts, dtype=object)

    def text(self, name: str) -> str:
        """Return a string, or the only string of an array; empty if there is none."""
        texts = self.texts(name)
        if isinstance(texts, np.ndarray):
            return str(texts.flat[0]) if texts.size == 1 else ""
        return texts or ""

    def _refuse_elsewhere(self, dataset: h5py.Dataset, name: str) -> None:
        """Refuse values outside the file, an empty dataset, and more bytes than the budget allows."""
        where = f"{self.where}/{name}"
        if dataset.external or dataset.is_virtual:
            raise IntegrityError(f"{where}: values outside the file are not read")
        if dataset.size is None:
            raise IntegrityError(f"{where}: the dataset is empty")
        self.budget.take(dataset.size * dataset.dtype.itemsize, where)
        if dataset.chunks is not None:
            _refuse_bombs(dataset, where, self.budget)


@dataclass
class Budget:
    """Number of bytes that the arrays of a file may still take."""

    left: int

    def take(self, n_bytes: int, where: str) -> None:
        """Use `n_bytes` for an array; raise `SnnZooError` if that exceeds the budget or the free memory."""
        if n_bytes > self.left:
            raise IntegrityError(f"{where}: {n_bytes:,} bytes; at most {self.left:,} are read from a file of this size")
        refuse_beyond_memory(COPIES * n_bytes, f"{where}: reading it")
        self.left -= n_bytes


class NameHeaps:
    """Places of the group names in a file. If two groups share one, HDF5 follows a null pointer, so this is refused.

    A group has an object header with messages. One message, the symbol table, has the address of the local heap, and
    the heap has the address of the names. Headers of later versions refer to no such heap. Source: the HDF5 file format
    specification, III.D, "Local Heap"; IV.A.1.a, "Version 1 Data Object Header Prefix"; IV.A.2.r, "The Symbol Table
    Message".

    Args:
        raw: the open file.
        base: byte of the file from which addresses count.
    """

    def __init__(self, raw: BinaryIO, base: int) -> None:
        self._raw, self._base, self._seen = raw, base, set[int]()
        self._places: set[int] = set()

    def check(self, group: h5py.Group, where: str) -> None:
        """Raise `IntegrityError` if the group's names lie at the same place as those of a group checked before."""
        header = self._base + h5py.h5o.get_info(group.id).addr
        if header in self._seen:
            return
        self._seen.add(header)
        for heap in set(_name_heaps(self._raw, header, self._base)) - self._seen:
            self._seen.add(heap)
            (place,) = struct.unpack("<Q", _read(self._raw, heap + 24, 8))
            if place in self._places:
                raise IntegrityError(f"{where}: the group shares its names with another group")
            self._places.add(place)


def _name_heaps(raw: BinaryIO, header: int, base: int) -> Iterator[int]:
    """Yield the addresses of the heaps in an object header of version 1."""
    version, n_messages, size = struct.unpack("<BxH4xI4x", _read(raw, header, 16))
    blocks = [(header + 16, size)] if version == 1 else []
    for place, size in blocks:
        block, at = _read(raw, place, min(size, HEADER_BYTES)), 0
        while at + 24 <= len(block) and n_messages:
            kind, n_bytes, *values = struct.unpack_from("<HH4xQQ", block, at)
            if kind == SYMBOL_TABLE:
                yield base + values[1]
            elif kind == CONTINUATION:
                blocks.append((base + values[0], values[1]))
            at, n_messages = at + 8 + n_bytes, n_messages - 1


def _read(raw: BinaryIO, place: int, size: int) -> bytes:
    raw.seek(place)
    found = raw.read(size)
    if len(found) < size:
        raise IntegrityError(f"{raw.name}: damaged: the file ends before byte {place + size}")
    return found


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5Node]:
    """Open a file and yield its root group. Exceptions of h5py, in the `with` block too, become `IntegrityError`.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: the file is not HDF5, or is damaged.
    """
    budget = Budget(unpacked_bytes(check_given_file(path)))
    try:
        with h5py.File(path, "r") as file, path.open("rb", buffering=0) as raw:
            yield Hdf5Node(file, str(path), budget, NameHeaps(raw, file.userblock_size))
    except DAMAGE as error:
        raise IntegrityError(f"{path}: not an HDF5 file, or a damaged one: {error}") from None


def _refuse_bombs(dataset: h5py.Dataset, where: str, budget: Budget) -> None:
    """Refuse chunks that are too large or unpack to too much: HDF5 unpacks a chunk before it checks the size."""
    n_bytes = math.prod(dataset.chunks) * (LONG_TEXT if _is_long_text(dataset) else dataset.dtype.itemsize)
    if n_bytes > (most := max(budget.left, CHUNK_BYTES)):
        raise IntegrityError(f"{where}: chunks of {n_bytes:,} bytes; at most {most:,} are read")
    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if others := set(filters) - FILTERS:
        raise UnsupportedError(f"{where}: compressed by HDF5 filter {min(others)}; write it with gzip or uncompressed")
    if filters.count(h5py.h5z.FILTER_DEFLATE) > 1:
        raise IntegrityError(f"{where}: compressed twice by gzip; once is supported")
    if h5py.h5z.FILTER_DEFLATE in filters:
        for i in range(dataset.id.get_num_chunks()):
            place = dataset.id.get_chunk_info(i)
            mask, packed = dataset.id.read_direct_chunk(place.chunk_offset)
            if not mask and len(zlib.decompressobj().decompress(packed, n_bytes + 1)) > n_bytes:
                raise IntegrityError(f"{where}: a chunk unpacks to more than its {n_bytes:,} bytes")


def _is_long_text(dataset: h5py.Dataset) -> bool:
    """Return whether the dataset holds texts of variable length."""
    text = h5py.check_string_dtype(dataset.dtype)
    return text is not None and text.length is None


def _refuse_damaged_texts(dataset: h5py.Dataset, where: str) -> None:
    """Refuse texts with impossible lengths: HDF5 would allocate gigabytes for them, or search its heap forever.

    The `LONG_TEXT` bytes of a text are its length (4 bytes), the address of a global heap (8) and an index in it (4).
    Source: the HDF5 file format specification, III.E, "Global Heap".
    """
    start = dataset.id.get_offset()
    if start is None or not _is_long_text(dataset):
        return
    with Path(dataset.file.filename).open("rb") as raw:
        end = raw.seek(0, io.SEEK_END)
        raw.seek(start)
        entries = np.frombuffer(raw.read(LONG_TEXT * dataset.size), [("n", "<u4"), ("heap", "<u8"), ("i", "<u4")])
        heaps = np.unique(entries["heap"][entries["n"] > 0])
        left = _Steps(end // HEAP_OBJECT)  # heaps do not overlap, so the file bounds the total
        sound = all(_is_sound_heap(raw, int(heap), end, left) for heap in heaps)
    if not sound or int(entries["n"].max(initial=0)) > end:
        raise IntegrityError(f"{where}: a text is damaged")


def _refuse_damaged_attribute(path: Path, name: str, where: str) -> None:
    """Refuse a damaged text in an attribute. h5py does not report its place, so it is searched after the name."""
    with path.open("rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as content:
        left, places = _Steps(len(content) // HEAP_OBJECT), MOST_ATTRIBUTES
        place = content.find(name.encode())
        while place >= 0:
            places -= 1
            if places < 0:
                raise IntegrityError(f"{where}: more than {MOST_ATTRIBUTES} attributes named {name}")
            entry = content[place : place + ATTRIBUTE_BYTES]
            for i in range(4, len(entry) - 7):
                n_bytes, address = (int.from_bytes(entry[slice(*ends)], "little") for ends in ((i - 4, i), (i, i + 8)))
                if content[address : address + 4] == b"GCOL" and (
                    n_bytes > len(content) or not _is_sound_heap(raw, address, len(content), left)
                ):
                    raise IntegrityError(f"{where}: the text in the attribute {name} is damaged")
            place = content.find(name.encode(), place + 1)


@dataclass
class _Steps:
    """Number of heap objects that may still be visited, which ends loops."""

    left: int


def _is_sound_heap(raw: BinaryIO, address: int, end: int, steps: _Steps) -> bool:
    """Return whether the objects of a global heap follow each other inside the file."""
    if address + 16 > end:
        return False
    raw.seek(address)
    signature, last = raw.read(8)[:4], address + int.from_bytes(raw.read(8), "little")
    place = address + 16
    while signature == b"GCOL" and place + HEAP_OBJECT <= last <= end:
        steps.left -= 1
        if steps.left < 0:
            return False
        raw.seek(place)
        head = raw.read(16)
        size = int.from_bytes(head[8:], "little")
        if head[:2] == b"\0\0":  # object 0 is the free space, which takes the rest
            return place + size == last
        place += 16 + -(-size // 8) * 8
    return signature == b"GCOL" and place <= last <= end
