"""State dicts in files, of torch and of safetensors, checked before memory is allocated for them."""

import json
import math
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from pickle import PicklingError
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from converters.formats.file_kind import (
    EXPORT_ADVICE,
    FileKind,
    ForeignModel,
    export_advice,
    is_torchscript,
    kind_of_file,
)
from converters.formats.pickles import allowed_objects, pickle_problem
from converters.weight_norm.migration_plan import TensorSpec
from converters.weight_norm.norm_styles import Keys, find_state_dicts, holds_tensors
from specs.errors import ConversionError, IntegrityError, SnnZooError, UnsupportedError
from specs.files.given_archives import open_zip
from specs.files.given_file import check_given_file, unique_keys
from specs.files.limits import SAFETENSORS_HEADER_BYTES, TORCH_PICKLE_BYTES, refuse_beyond_memory, unpacked_bytes
from specs.files.whole_file import whole_file
from specs.words import printable

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
TORCH_SUFFIXES = (".pt", ".pth", ".bin")

SCALE = "_scale"
"""End of the name of the tensor with the steps of a weight in 8 bits, in a model file."""

LEGACY_PICKLES = 4
"""Pickles before the tensors in a file of torch 1.5 or older: magic number, version, system, state dict."""
TENSORS_ALONE = 'save only the tensors in the program that made it: torch.save(model.state_dict(), "model.pt")'
MODULE_STARTS = (b"\x80\x02c", b"\x80\x02(X\x06\0\0\0moduleq\0c")
"""Begin of the pickle of a module, up to its class: now, and in torch 1.5 or older."""
MODULE_ATTRIBUTES = (b"_parameters", b"_buffers", b"_modules")
"""Attributes of every torch module, by which a pickle of one is told from one of another object."""

Read = Callable[[str, int, int], Tensor]
Write = Callable[[str, int, Tensor], None]


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


@dataclass(frozen=True)
class StateDictFile:
    """Open state dict file.

    Attributes:
        state: Entries by name. Tensors of a safetensors file are on the meta device: shape and dtype only.
        read: `read(name, start, stop)` returns elements of the flattened tensor.
        metadata: Metadata of a safetensors file.
        modules: `state_dict()._metadata`, the versions of the modules.
        checkpoint: All that a file of torch holds.
        keys: Path of the state dict in the checkpoint; empty if the file holds nothing else.
        others: Keys of the checkpoint's other entries.
    """

    state: Mapping[str, Any]
    read: Read
    metadata: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, Any] | None = None
    checkpoint: Any = None
    keys: Keys = ()
    others: Sequence[str] = ()

    @property
    def key(self) -> str:
        """Path of the state dict, with dots between keys."""
        return ".".join(self.keys)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Entries of `state` that are tensors."""
        return {name: value for name, value in self.state.items() if isinstance(value, Tensor)}

    def whole(self, name: str) -> Tensor:
        return self.read(name, 0, self.state[name].numel()).reshape(self.state[name].shape)


@contextmanager
def open_state_dict(path: Path, *, key: str | None = None) -> Iterator[StateDictFile]:
    """Open a state dict file of torch or safetensors; in a checkpoint, its only state dict or the one at `key`.

    Nothing in the file is executed; one that holds Python objects is refused.
    """
    kind = kind_of_file(path)
    if kind is FileKind.SAFETENSORS:
        if key is not None:
            raise ConversionError(f"{path}: a safetensors file has no keys to choose from; leave out --key {key}")
        with open_safetensors(path) as opened:
            yield opened
    elif kind is FileKind.TORCH:
        yield _load_torch(path, key)
    else:
        raise ConversionError(f"{path} is a {kind} file, not a state dict (to write it in another format: zoo convert)")


# --- safetensors


@contextmanager
def open_safetensors(path: Path) -> Iterator[StateDictFile]:
    """Open a safetensors file. Tensors are read by seeking: a memory map would count as memory of this process.

    Weights that a model file stores in 8 bits are read as float32.
    """
    header = read_header(path)
    is_model = METADATA_KEY in header.metadata
    packed = {name for name, place in header.tensors.items() if is_model and place.dtype == torch.int8}
    for name in sorted(packed):
        _check_packed(path, name, header.tensors)
    state = {
        name: torch.empty(place.shape, dtype=torch.float32 if name in packed else place.dtype, device="meta")
        for name, place in header.tensors.items()
        if name in packed or name.removesuffix(SCALE) not in packed
    }
    with path.open("rb") as file:

        def stored(name: str, start: int, stop: int) -> Tensor:
            place = header.tensors[name]
            raw = torch.empty((stop - start) * place.dtype.itemsize, dtype=torch.uint8)
            file.seek(place.start + start * place.dtype.itemsize)
            if file.readinto(raw.numpy().data) != len(raw):
                raise IntegrityError(f"{path} ends within tensor {name}")
            return raw.view(place.dtype)

        steps = {name: stored(f"{name}{SCALE}", 0, header.tensors[f"{name}{SCALE}"].shape[0]) for name in packed}
        for name, step in steps.items():
            if not ((step > 0) & step.isfinite()).all():
                raise IntegrityError(f"{path}: {name}{SCALE} must hold steps of weights, finite numbers above 0")

        def read(name: str, start: int, stop: int) -> Tensor:
            values = stored(name, start, stop)
            if name not in steps:
                return values
            channels, *sides = header.tensors[name].shape
            return values * steps[name].expand(channels)[torch.arange(start, stop) // max(1, prod(sides))]

        yield StateDictFile(state, read, header.metadata)


def _check_packed(path: Path, name: str, tensors: Mapping[str, Place]) -> None:
    """Refuse a tensor of int8 in a model file that is no weight, or has no steps that fit."""
    shape, step = tensors[name].shape, tensors.get(f"{name}{SCALE}")
    if not name.endswith(".weight") or not shape:
        raise IntegrityError(f"{path}: tensor {name} is int8; only weights may be")
    if step is None or step.dtype != torch.float32 or step.shape not in ((1,), shape[:1]):
        found = "is missing" if step is None else f"is {step.dtype} {list(step.shape)}".replace("torch.", "")
        sides = " or ".join(map(str, dict.fromkeys((1, shape[0]))))
        raise IntegrityError(
            f"{path}: {name} is int8 and needs {name}{SCALE}, float32 [{sides}]: its steps; that tensor {found}"
        )


@contextmanager
def write_safetensors_pieces(path: Path, specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> Iterator[Write]:
    """Write a safetensors file piece by piece; yields `write(name, start, piece)`, with start in elements.

    If it cannot be written, or its content is refused, no part of it remains.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    for spec in specs:
        if spec.dtype not in names or spec.name == "__metadata__":
            raise UnsupportedError(f"safetensors cannot hold {spec} of {spec.dtype}; write a .pt")
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offsets, end = {}, 0
    # Widest dtypes first, as the library does, so that each tensor starts at a multiple of its width.
    for spec in sorted(specs, key=lambda spec: (-spec.dtype.itemsize, spec.name)):
        offsets[spec.name], start, end = end, end, end + spec.n_bytes
        header[spec.name] = {"dtype": names[spec.dtype], "shape": spec.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)

        def write(name: str, start: int, piece: Tensor) -> None:
            raw = piece.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            file.seek(8 + len(text) + offsets[name] + start * piece.dtype.itemsize)
            file.write(raw.data)

        yield write


# --- torch


def write_torch(
    path: Path,
    state: Mapping[str, Any],
    modules: Mapping[str, Any] | None,
    *,
    wrap: Callable[[Mapping[str, Any]], object] = lambda state: state,
) -> None:
    """Write a state dict, and the versions of its modules, as `torch.save` does.

    `wrap` returns what is written for the state dict, such as a checkpoint around it.
    """
    ordered = OrderedDict(state)
    if modules is not None:
        ordered._metadata = OrderedDict(modules)  # type: ignore[attr-defined]
    with whole_file(path) as file:
        try:
            torch.save(wrap(ordered), file)
        except (RuntimeError, TypeError, AttributeError, PicklingError) as error:
            raise SnnZooError(f"cannot write {path}: {error}") from error


def _load_torch(path: Path, key: str | None) -> StateDictFile:
    checkpoint, others = _unpickle(path), list[str]()
    _refuse_hidden_methods(checkpoint, path)
    found = find_state_dicts(checkpoint)
    candidates = {".".join(keys): keys for keys in found}
    if key is None:
        if len(found) > 1:
            several = ", ".join(".".join(keys) for keys in found)
            raise ConversionError(f"{path} holds several state dicts: {several}; choose one with --key")
        key = next(iter(candidates), "")
    state, keys = checkpoint, candidates.get(key, tuple(key.split(".")) if key else ())
    for part in keys:
        if not isinstance(state, Mapping) or part not in state:
            there = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            raise ConversionError(f"{path} has no entry {key!r}; found {there}")
        others += [str(name) for name in state if name != part]
        state = state[part]
    if not holds_tensors(state):
        place = f" at {key!r}" if key else ""
        raise ConversionError(
            f"{path} holds no state dict{place}: expected a dict with tensors, got {type(state).__name__}"
        )
    for name, value in state.items():
        if not (isinstance(name, str) and name.isprintable()):
            raise IntegrityError(f"{path}: {repr(name)[:80]} is not a valid tensor name")
        if isinstance(value, Tensor) and value.is_meta:
            raise IntegrityError(f"{path}: {name} was saved from the meta device and has no values")
        if isinstance(value, Tensor) and value.is_nested:
            raise UnsupportedError(f"{path}: {name} is a nested tensor, which is not supported")
    n_bytes = sum(claimed_bytes(value.shape, value.dtype) for value in state.values() if isinstance(value, Tensor))
    if n_bytes > unpacked_bytes(path.stat().st_size):
        raise IntegrityError(f"{path}: its tensors claim {n_bytes:,} bytes, too many for the size of the file")
    refuse_beyond_memory(n_bytes, f"{path}: reading its tensors")

    def read(name: str, start: int, stop: int) -> Tensor:
        value: Tensor = state[name]
        return value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)[start:stop]

    modules = getattr(state, "_metadata", None)
    if not isinstance(modules, Mapping | None):
        raise IntegrityError(f"{path}: the versions of its modules (_metadata) are not a mapping: {modules!r:.80}")
    return StateDictFile(state, read, modules=modules, checkpoint=checkpoint, keys=keys, others=others)


def check_pickle(path: Path) -> tuple[bytes, bool]:
    """Check a file of torch before it is loaded; return its pickle, and whether the file is a zip archive.

    Raises `IntegrityError` if loading it would take forever, or all memory.
    """
    size = check_given_file(path)
    with path.open("rb") as file:
        head = file.read(TORCH_PICKLE_BYTES)
    is_zip = head.startswith(b"PK\x03\x04")
    if is_zip:
        head = _pickle_of_zip(path)
    else:
        refuse_beyond_memory(size, f"reading {path}")
    if problem := pickle_problem(head, n_pickles=1 if is_zip else LEGACY_PICKLES):
        raise IntegrityError(f"{path}: not a file of torch.save, or a damaged one: {problem}")
    return head, is_zip


def _unpickle(path: Path) -> Any:
    pickled, is_zip = check_pickle(path)
    try:
        with warnings.catch_warnings(), allowed_objects():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip or None)
    except Exception as error:  # An untrusted pickle can raise anything.
        text = str(error)
        if blocked := re.search(r"GLOBAL (\S+)", text):
            name = printable(blocked[1].removeprefix("builtins."))
            outer = "{0}\n{2}\n".format(*blocked[1].rpartition(".")).encode("utf-8", "replace")
            if any(start + outer in pickled for start in MODULE_STARTS) and all(
                attribute in pickled for attribute in MODULE_ATTRIBUTES
            ):
                kind = ForeignModel.MODULE_OF_SCRIPT if b"__main__" in pickled else ForeignModel.MODULE
                raise UnsupportedError(export_advice(kind, path, detail=f" ({name}; {TENSORS_ALONE})")) from None
            raise UnsupportedError(
                f"{path} holds Python objects ({name}), not only tensors, and loading them would run its code; "
                f"{TENSORS_ALONE}\n{EXPORT_ADVICE}"
            ) from None
        # Keep torch's finding, without its advice to load with weights_only=False.
        text = printable(text)
        found = re.search(r"WeightsUnpickler error:\s*(.+)", text) or re.match("(.+)", text)
        reason = found[1][:200] if found else type(error).__name__
        raise IntegrityError(f"{path}: not a file of torch.save, or a damaged one: {reason}") from None


def _pickle_of_zip(path: Path) -> bytes:
    """Return the pickle of a checkpoint. Compressed entries could be bombs and are refused; torch.save writes none."""
    with open_zip(path) as archive:
        if is_torchscript(archive.namelist()):
            raise UnsupportedError(export_advice(ForeignModel.TORCHSCRIPT, path))
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise IntegrityError(
                    f"{path}: {entry.filename[:80]} in it is compressed, unlike in files of torch.save"
                )
        found = next(entry for entry in archive.infolist() if entry.filename.rpartition("/")[2] == "data.pkl")
        if found.file_size > TORCH_PICKLE_BYTES:
            raise IntegrityError(f"{path}: a pickle of {found.file_size:,} bytes, more than {TORCH_PICKLE_BYTES:,}")
        return archive.read(found)


def _refuse_hidden_methods(state: object, path: Path) -> None:
    """Refuse mappings whose methods a pickle has replaced: it may set any attribute of an OrderedDict, as `items`."""
    left, seen = [state], set[int]()
    while left:
        value = left.pop()
        if isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            if hidden := getattr(value, "__dict__", {}).keys() & set(dir(dict)):
                raise IntegrityError(f"{path}: a mapping in it has an attribute {min(hidden)!r} instead of its method")
            left += dict.values(value)
