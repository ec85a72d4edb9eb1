"""Header of a safetensors file: its length in 8 bytes, then JSON with name, dtype, shape and place of each tensor."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open

from specs.errors import IntegrityError, UnsupportedError
from specs.files.given_file import check_given_file
from specs.files.limits import SAFETENSORS_HEADER_BYTES, unpacked_bytes
from specs.files.memory import refuse_beyond_memory
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
MOST_AXES = 64

METADATA_KEY = "snnzoo"
"""The only metadata key of a model file; its value is JSON. Several would be written in random order."""


@dataclass(frozen=True)
class Place:
    """Dtype and shape of a tensor, and the byte of the file at which it starts."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int


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
        with safe_open(path, framework="np"):  # which checks the types in the header, and the places of all tensors
            header = json.loads(text, object_pairs_hook=unique_keys)
    except (SafetensorError, ValueError, OSError) as error:
        _refuse(path, " ".join(str(error).split())[:200])
    except MemoryError:  # the process has a limit, within which the file cannot be mapped
        refuse_beyond_memory(size, f"{path}: reading its tensors")
        raise
    metadata = header.pop("__metadata__", None) or {}
    places = {name: _place(path, name, entry, 8 + length) for name, entry in header.items()}
    for name, place in places.items():
        if claimed_bytes(place.shape, place.dtype) > unpacked_bytes(size):
            _refuse(path, f"tensor {name!r} has sides {list(place.shape)}, too many for the size of the file")
    return Header(places, metadata)


def _place(path: Path, name: str, entry: Mapping[str, Any], begin: int) -> Place:
    if not name.isprintable():
        raise IntegrityError(f"{path}: {name!r} is not a valid tensor name")
    if len(entry["shape"]) > MOST_AXES:
        _refuse(path, f"tensor {name!r} has {len(entry['shape'])} axes; torch has at most {MOST_AXES}")
    if entry["dtype"] not in DTYPES:
        raise UnsupportedError(f"{path}: {name} has dtype {entry['dtype']!r}, which is not supported")
    return Place(DTYPES[entry["dtype"]], tuple(entry["shape"]), begin + entry["data_offsets"][0])


def _refuse(path: Path, what: str) -> NoReturn:
    raise IntegrityError(f"{path}: not a safetensors file, or a damaged one: {what}")
