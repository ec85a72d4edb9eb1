"""Open HDF5 files and read their datasets by pyfive, within bounds.

pyfive is written in Python, so a damaged file raises an exception, where the HDF5 library would end the process. What
pyfive reads is counted, so that loops and repetitions in a file come to an end. Errors here name no place; the caller
adds it.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pyfive import Dataset, File
from pyfive.btree import FLETCH32_FILTER, GZIP_DEFLATE_FILTER, SHUFFLE_FILTER, BTreeV1Groups, BTreeV1RawDataChunks
from pyfive.dataobjects import DATATYPE_MSG_TYPE, EXTERNAL_DATA_FILES_MSG_TYPE, DataObjects
from pyfive.misc_low_level import Heap, SymbolTable
from pyfive.p5t import P5SequenceType

from specs.errors import IntegrityError, UnsupportedError
from specs.files.limits import HDF5_HEADER_BYTES, HDF5_NAME_BYTES, HDF5_STRUCTURE_BYTES, HDF5_TEXTS

LEAST_READ = 32
"""Bytes that each read counts as, at least: many short reads take time, too."""
CHUNK_COST = 64
"""Bytes that a chunk counts as, besides its entry in the index and its numbers."""
SPARE = 32
"""Bytes that a chunk may be longer before its filters are undone: checksums, and the frame of gzip."""
LONG_TEXT = np.dtype("V16")
"""Place of a text of variable length; the text itself lies in a global heap."""
FILTERS = {GZIP_DEFLATE_FILTER, SHUFFLE_FILTER, FLETCH32_FILTER}
EXTERNAL_LINK = 64
INTEGER, FLOAT = 0, 1
IEEE = {2: (10, 5, 0, 10, 15), 4: (23, 8, 0, 23, 127), 8: (52, 11, 0, 52, 1023)}
"""Place and size of exponent and mantissa, and the exponent's bias, by the bytes of a float."""


class BoundedFile:
    """File of which `left` bytes may still be read."""

    closed = False

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self.left = raw, HDF5_STRUCTURE_BYTES

    def seek(self, place: int, whence: int = 0) -> int:
        return self._raw.seek(place, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def take(self, n_bytes: int) -> None:
        """Count `n_bytes`; raise `IntegrityError` if fewer may be read."""
        self.left -= n_bytes
        if self.left < 0:
            raise IntegrityError(
                f"names, texts, headers and indices take more than {HDF5_STRUCTURE_BYTES:,} bytes, "
                f"or one header more than {HDF5_HEADER_BYTES:,}"
            )

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes. Raises `IntegrityError` if the file has fewer, or if fewer may be read."""
        if size < 0:
            raise IntegrityError(f"damaged: {size} bytes to read")
        self.take(max(size, LEAST_READ))
        found = self._raw.read(size)
        if len(found) < size:
            raise IntegrityError(f"damaged: the file ends before byte {self._raw.tell() - len(found) + size:,}")
        return found

    @contextmanager
    def at_most(self, n_bytes: int) -> Iterator[None]:
        """Let only `n_bytes` be read in the `with` block."""
        kept = max(0, self.left - n_bytes)
        self.left -= kept
        try:
            yield
        finally:
            self.left += kept


class _Names(Heap):  # type: ignore[misc]
    """Names in a group; many groups could use the same long one."""

    def get_object_name(self, offset: int) -> bytes:
        return bytes(self.data[offset : self.data.index(b"\0", offset, offset + HDF5_NAME_BYTES)])


class _Objects(DataObjects):  # type: ignore[misc]
    """Header of a group or dataset, with bounds; forms of HDF5 that only other programs write are refused."""

    def __init__(self, file: BoundedFile, address: int, global_heaps: dict[int, Any]) -> None:
        with file.at_most(HDF5_HEADER_BYTES):
            super().__init__(file, address, global_heaps=global_heaps)
        if self.find_msg_type(EXTERNAL_DATA_FILES_MSG_TYPE):
            raise IntegrityError("values outside the file are not read")
        if self.is_dataset and self.shape is None:
            raise IntegrityError("the dataset is empty")
        for message in self.find_msg_type(DATATYPE_MSG_TYPE):
            self._refuse_odd_numbers(message["offset_to_message"])

    def _refuse_odd_numbers(self, start: int) -> None:
        """Refuse integers with unused bits, and floats such as bfloat16: pyfive would take them for plain ones."""
        kind, n_bytes = struct.unpack_from("<B3xI", self.msg_data, start)
        if kind & 15 not in (INTEGER, FLOAT):
            return
        bits = struct.unpack_from("<HH", self.msg_data, start + 8)
        form = struct.unpack_from("<BBBBI", self.msg_data, start + 12) if kind & 15 == FLOAT else IEEE.get(n_bytes)
        if bits != (0, 8 * n_bytes) or form != IEEE.get(n_bytes):
            raise UnsupportedError(f"numbers of {n_bytes} bytes in an unusual form; write them as IEEE floats")

    def get_attributes(self) -> dict[str, Any]:
        return {} if self.is_dataset else dict(super().get_attributes())

    def _attr_value(self, ptype: Any, buf: bytes, count: int, offset: int) -> Any:
        if count > HDF5_TEXTS or isinstance(ptype, P5SequenceType):
            raise IntegrityError(f"an attribute of {count:,} values or of sequences; at most {HDF5_TEXTS:,} are read")
        return super()._attr_value(ptype, buf, count, offset)

    def _iter_links_btree_v1(self, btree_address: int, heap_address: int) -> Iterator[tuple[str, int | str]]:
        names = _Names(self.fh, heap_address)
        for address in BTreeV1Groups(self.fh, btree_address).symbol_table_addresses():
            table = SymbolTable(self.fh, address)
            table.assign_name(names)
            yield from table.get_links(names).items()

    @staticmethod
    def _decode_link_msg(data: bytes, offset: int) -> Any:
        kind = offset + 2  # a field that is there if bit 3 of the flags is set
        if data[offset + 1] & 8 and data[kind] == EXTERNAL_LINK:  # pyfive knows soft links, of the same layout
            data = data[:kind] + b"\1" + data[kind + 1 :]
        return DataObjects._decode_link_msg(data, offset)

    def _iter_links_btree_v2(self, *addresses: int | None) -> Any:
        raise UnsupportedError("a group in a form of newer HDF5 versions; write it by h5py's default options")

    def _get_attributes_from_attr_info(self, *messages: Any) -> Any:
        raise UnsupportedError("attributes in a form of newer HDF5 versions; write them by h5py's default options")


class BoundedRoot(File):  # type: ignore[misc]
    """Root group of a file; headers are read with bounds."""

    def _get_dataobjects(self, address: int) -> _Objects:
        if address not in self._dataobjects_cache:
            self._dataobjects_cache[address] = _Objects(self._fh, address, self._global_heaps)
        found: _Objects = self._dataobjects_cache[address]
        return found


def stored_bytes(dataset: Dataset) -> int:
    """Return the size of a dataset in bytes, unpacked, with what its chunks hold beyond its shape."""
    n_values: int = math.prod(_n_chunks(dataset)) * math.prod(dataset.chunks or dataset.shape)
    return n_values * _item(dataset).itemsize


def read_numbers(dataset: Dataset, file: BoundedFile) -> npt.NDArray[Any]:
    """Return the values of a dataset of numbers, or of texts of fixed length."""
    if dataset.chunks is not None:
        return _read_chunks(dataset, file)
    _let_read(dataset, file)
    return np.asarray(dataset[()])


def read_texts(dataset: Dataset, file: BoundedFile) -> npt.NDArray[Any]:
    """Return the texts of a dataset as an array of objects, or of zero dimensions for a single one."""
    found = read_numbers(dataset, file)
    if found.dtype == LONG_TEXT:
        objects = dataset.file._get_dataobjects(dataset._dataobjects.offset)
        found = np.array([objects._vlen_size_and_data(place.tobytes(), 0)[1] for place in found.ravel()], object)
    texts = [b"" if text is None else bytes(text) for text in found.ravel().tolist()]
    file.take(sum(map(len, texts)))  # many could be the same in the file
    result = np.empty(len(texts), object)
    result[:] = [text.decode("utf-8", "replace") for text in texts]
    return result.reshape(dataset.shape)


def _item(dataset: Dataset) -> np.dtype[Any]:
    """Return the type of one stored value."""
    kind: np.dtype[Any] = dataset.dtype
    return LONG_TEXT if kind.kind == "O" else kind


def _n_chunks(dataset: Dataset) -> list[int]:
    """Return the number of chunks along each axis; none if the dataset is not in chunks, but whole."""
    if dataset.chunks is None:
        return []
    return [-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True)]


def _let_read(dataset: Dataset, file: BoundedFile) -> None:
    """Check how a dataset that is not in chunks is stored, and let it be read at once."""
    match dataset.id.layout_class:
        case 0:
            return
        case 1:
            dataset.id.set_pseudo_chunk_size(0)
            file.left += max(stored_bytes(dataset), LEAST_READ)
        case _:
            raise IntegrityError("values outside the file are not read")


def _read_chunks(dataset: Dataset, file: BoundedFile) -> npt.NDArray[Any]:
    """Return the values of a dataset in chunks. pyfive would unpack a chunk before it checks the size."""
    item, sides, counts = _item(dataset), dataset.chunks, _n_chunks(dataset)
    n_bytes = math.prod(sides) * item.itemsize
    filters = [entry["filter_id"] for entry in dataset.id.filter_pipeline or ()]
    if others := set(filters) - FILTERS:
        raise UnsupportedError(f"compressed by HDF5 filter {min(others)}; write it with gzip or uncompressed")
    index = dataset.id.index
    if len(index) != math.prod(counts):
        raise IntegrityError(f"{len(index):,} of {math.prod(counts):,} chunks are in the file")
    values = np.empty(dataset.shape, item)
    for place, stored in index.items():
        if any(start % side or start >= end for start, side, end in zip(place, sides, values.shape, strict=True)):
            raise IntegrityError(f"a chunk at {list(place)}, outside the dataset")
        if stored.size > 2 * n_bytes + SPARE:
            raise IntegrityError(f"a chunk of {n_bytes:,} bytes is packed into {stored.size:,}")
        file.take(CHUNK_COST)
        file.left += max(stored.size, LEAST_READ)
        mask, packed = dataset.id.read_direct_chunk(place)
        used = [kind for i, kind in enumerate(filters) if not mask >> i & 1]
        block = np.frombuffer(_unpacked(packed, used, n_bytes, item.itemsize), item).reshape(sides)
        region = tuple(slice(start, start + side) for start, side in zip(place, sides, strict=True))
        target = values[region]
        target[...] = block[tuple(slice(side) for side in target.shape)]
    return values


def _unpacked(packed: bytes, filters: list[int], n_bytes: int, item_bytes: int) -> bytes:
    """Undo the filters of a chunk, which were applied in their order. Raises `IntegrityError` for damage."""
    for kind in reversed(filters):
        if kind == GZIP_DEFLATE_FILTER:
            stream = zlib.decompressobj()
            packed = stream.decompress(packed, n_bytes + SPARE)
            if not stream.eof:
                raise IntegrityError(f"a chunk unpacks to more than its {n_bytes:,} bytes, or is cut short")
        elif kind == SHUFFLE_FILTER:
            whole = len(packed) // item_bytes * item_bytes
            planes = np.frombuffer(packed, np.uint8, whole).reshape(item_bytes, -1)
            packed = planes.T.tobytes() + packed[whole:]
        else:
            BTreeV1RawDataChunks._verify_fletcher32(packed)
            packed = packed[:-4]
    if len(packed) != n_bytes:
        raise IntegrityError(f"a chunk unpacks to {len(packed):,} bytes, expected {n_bytes:,}")
    return packed
