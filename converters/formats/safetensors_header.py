"""Header of a safetensors file: its length in 8 bytes, then JSON with name, dtype, shape and place of each tensor."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

from specs.errors import IntegrityError, UnsupportedError
from specs.files.given_file import check_given_file
from specs.files.limits import SAFETENSORS_HEADER_BYTES, unpacked_bytes
from specs.files.strict_json import unique_keys

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}
"""Dtypes by their names in safetensors (source: safetensors/torch.py)."""


@dataclass(frozen=True)
class Place:
    """Dtype and shape of a tensor, and the byte of the file at which it starts."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def n_bytes(self) -> int:
        """Size of the tensor in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Header:
    """Header of a file. The tensors fill the rest of the file without gaps or overlaps."""

    tensors: Mapping[str, Place]
    metadata: Mapping[str, str]


def claimed_bytes(shape: Sequence[int], dtype: torch.dtype) -> int:
    """Return the bytes of a tensor, with sides of 0 counted as 1: its norms, for example, may have all other sides.

    >>> claimed_bytes((1 << 40, 0), torch.float32) >> 40
    4
    """
    return math.prod(max(side, 1) for side in shape) * dtype.itemsize


def read_header(path: Path) -> Header:
    """Read and check a header; the tensors are not read."""
    size = check_given_file(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, SAFETENSORS_HEADER_BYTES):
            _refuse(
                path,
                f"a header of {length:,} bytes in a file of {size:,}; at most {SAFETENSORS_HEADER_BYTES:,} are read",
            )
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique_keys, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"the header is not JSON: {' '.join(str(error).split())[:200]}")
    if not isinstance(header, dict):
        _refuse(path, "the header is not a JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(map(_is_text, (*metadata, *metadata.values()))):
        _refuse(path, "the metadata are not texts")
    places = {name: _place(path, name, entry, 8 + length) for name, entry in header.items()}
    end = 8 + length
    for name, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].n_bytes)):
        if place.start != end:
            _refuse(path, f"tensor {name!r} starts at byte {place.start:,}, but the part before it ends at {end:,}")
        end += place.n_bytes
    if end != size:
        _refuse(path, f"the tensors end at byte {end:,}, but the file ends at {size:,}")
    for name, place in places.items():
        if claimed_bytes(place.shape, place.dtype) > unpacked_bytes(size):
            _refuse(path, f"tensor {name!r} has sides {list(place.shape)}, too many for the size of the file")
    return Header(places, metadata)


def _place(path: Path, name: str, entry: object, begin: int) -> Place:
    if not name.isprintable():
        raise IntegrityError(f"{path}: {name!r} is not a valid tensor name")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"tensor {name!r} needs exactly dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    whole = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2 and len(shape) <= 64
    if not whole or not all(type(number) is int and 0 <= number < 1 << 63 for number in (*shape, *offsets)):
        _refuse(path, f"tensor {name!r}: shape and data_offsets must be lists of whole numbers of at least 0")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise UnsupportedError(f"{path}: {name} has dtype {str(entry['dtype'])[:40]!r}, which is not supported")
    place = Place(DTYPES[entry["dtype"]], tuple(shape), begin + offsets[0])
    if place.n_bytes != offsets[1] - offsets[0]:
        _refuse(path, f"tensor {name!r} of shape {shape} takes {place.n_bytes:,} bytes, but its offsets are {offsets}")
    return place


def _refuse(path: Path, what: str) -> NoReturn:
    raise IntegrityError(f"{path}: not a safetensors file, or a damaged one: {what}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")
