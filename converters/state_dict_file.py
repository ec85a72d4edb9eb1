"""State dicts in files: torch's own, and safetensors, read and written piece by piece."""

import json
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from converters.file_kind import FileKind, kind_of_file
from converters.migration_plan import TensorSpec
from specs.errors import ConversionError, IntegrityError, SnnZooError, UnsupportedError
from specs.whole_file import whole_file

__all__ = [
    "StateDictFile",
    "check_writable",
    "open_state_dict",
    "write_safetensors_pieces",
    "write_torch",
]

TORCH_SUFFIXES = (".pt", ".pth", ".bin")

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
"""Names of dtypes in safetensors (source: safetensors/torch.py)."""

NOT_A_MODEL = re.compile(r"optim|sched|scaler|rng|_extra_state", re.IGNORECASE)
"""Keys of a checkpoint whose tensors are no state dict of a model."""

DEPTH = 4
"""Of keys within keys."""

Read = Callable[[str, int, int], Tensor]
Write = Callable[[str, int, Tensor], None]


@dataclass(frozen=True)
class StateDictFile:
    """An open state dict.

    Attributes:
        state: What it holds. Tensors of a safetensors file are on the meta device: shape and dtype only.
        read: `read(name, start, stop)`: elements of a tensor, as if it were flat.
        metadata: Of a safetensors file.
        modules: `state_dict()._metadata`, the versions of the modules.
        key: Where in a checkpoint it was; empty if it is all there is.
        others: What else is in the checkpoint.
    """

    state: Mapping[str, Any]
    read: Read
    metadata: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, Any] | None = None
    key: str = ""
    others: Sequence[str] = ()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What of `state` is a tensor."""
        return {name: value for name, value in self.state.items() if isinstance(value, Tensor)}


@contextmanager
def open_state_dict(path: Path, *, key: str | None = None) -> Iterator[StateDictFile]:
    """Open a state dict file of either kind; of a checkpoint, the state dict in it, or the one at `key`.

    Nothing in the file is executed.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: it is no state dict file, or is damaged.
        ConversionError: it holds Python objects, no state dict, or several.
    """
    kind = kind_of_file(path)
    if kind is FileKind.SAFETENSORS:
        if key is not None:
            raise ConversionError(f"{path}: a safetensors file has no keys to choose from; leave out --key {key}")
        with _open_safetensors(path) as opened:
            yield opened
    elif kind is FileKind.TORCH:
        yield _load_torch(path, key)
    else:
        raise ConversionError(f"{path} is a {kind} file, no state dict (to write it in another format: convert)")


# --- safetensors: 8 bytes, the header's length; the header in JSON; the tensors' bytes


@contextmanager
def _open_safetensors(path: Path) -> Iterator[StateDictFile]:
    try:
        with safe_open(path, framework="pt"):
            pass  # The header is valid, and the tensors lie within the file.
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path}: not a safetensors file, or a damaged one: {error}") from None
    # Read by hand from here on: safetensors maps the file, and each page touched counts as memory of this process.
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None) or {}
        _check_names(header, path)
        state: dict[str, Tensor] = {}
        for name, entry in header.items():
            if entry["dtype"] not in DTYPES:
                raise UnsupportedError(f"{path}: {name} is {entry['dtype']}, which snnzoo does not read")
            state[name] = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]], device="meta")

        def read(name: str, start: int, stop: int) -> Tensor:
            dtype = state[name].dtype
            raw = torch.empty((stop - start) * dtype.itemsize, dtype=torch.uint8)
            file.seek(8 + length + header[name]["data_offsets"][0] + start * dtype.itemsize)
            if file.readinto(raw.numpy().data) != len(raw):
                raise IntegrityError(f"{path} ends within {name}")
            return raw.view(dtype)

        yield StateDictFile(state, read, metadata)


@contextmanager
def write_safetensors_pieces(path: Path, specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> Iterator[Write]:
    """Write a safetensors file piece by piece: gives `write(name, start, piece)`, start in elements.

    Raises:
        UnsupportedError: a tensor that safetensors cannot hold.
        SnnZooError: the file cannot be written; nothing is left behind.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    for spec in specs:
        if spec.dtype not in names or spec.name == "__metadata__":
            raise UnsupportedError(f"safetensors cannot hold {spec} of {spec.dtype}; write a .pt")
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offsets, end = {}, 0
    # The widest first, so that each lies at a multiple of its width: as the library does.
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


def write_torch(path: Path, state: Mapping[str, Any], modules: Mapping[str, Any] | None) -> None:
    """Write a state dict as `torch.save` does."""
    ordered = OrderedDict(state)
    if modules is not None:
        ordered._metadata = OrderedDict(modules)  # type: ignore[attr-defined]
    with whole_file(path) as file:
        try:
            torch.save(ordered, file)
        except RuntimeError as error:
            raise SnnZooError(f"cannot write {path}: {error}") from error


def check_writable(path: Path) -> None:
    """Raise unless the suffix is of a format that state dicts are written in."""
    if path.suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise UnsupportedError(f"{path}: a state dict is written as .safetensors or {', '.join(TORCH_SUFFIXES)}")


def _load_torch(path: Path, key: str | None) -> StateDictFile:
    state, others = _unpickle(path), list[str]()
    candidates = {".".join(keys): keys for keys in _state_dicts(state, (), set())}
    if key is None:
        if len(candidates) > 1:
            raise ConversionError(f"{path} holds several state dicts: {', '.join(candidates)}; choose one with --key")
        key = next(iter(candidates), "")
    for part in candidates.get(key, key.split(".") if key else ()):
        if not isinstance(state, Mapping) or part not in state:
            there = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            raise ConversionError(f"{path} has no {key!r}; there is {there}")
        others += [str(name) for name in state if name != part]
        state = state[part]
    if not _holds_tensors(state):
        raise ConversionError(f"{path} holds no state dict{f' at {key!r}' if key else ''}: {type(state).__name__}")
    _check_names(state, path)
    for name, value in state.items():
        if isinstance(value, Tensor) and value.is_meta:
            raise IntegrityError(f"{path}: {name} was saved from the meta device and has no values")

    def read(name: str, start: int, stop: int) -> Tensor:
        value: Tensor = state[name]
        return value.detach().resolve_conj().contiguous().reshape(-1)[start:stop]

    return StateDictFile(state, read, modules=getattr(state, "_metadata", None), key=key, others=others)


def _unpickle(path: Path) -> Any:
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip or None)
    except Exception as error:  # A stranger's pickle can raise anything.
        text = str(error)
        if blocked := re.search(r"GLOBAL (\S+)", text):
            raise ConversionError(
                f"{path} holds Python objects ({blocked[1]}), not only tensors, and to load those would run its code; "
                'save model.state_dict() first, in the program that made it: torch.save(model.state_dict(), "model.pt")'
            ) from None
        if "TorchScript" in text:
            raise ConversionError(f"{path} is TorchScript; save torch.jit.load(...).state_dict() first") from None
        # Of what torch says, only the finding; not its advice to load without weights_only.
        found = re.search(r"WeightsUnpickler error:\s*(.+)", text) or re.match("(.+)", text)
        reason = found[1][:200] if found else type(error).__name__
        raise IntegrityError(f"{path}: not a file of torch.save, or a damaged one: {reason}") from None


def _check_names(state: Mapping[Any, Any], path: Path) -> None:
    for name in state:
        if not (isinstance(name, str) and name.isprintable()):
            raise IntegrityError(f"{path}: {name!r} is no name of a tensor")


def _holds_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(entry, Tensor) for entry in value.values())


def _state_dicts(value: object, keys: tuple[str, ...], seen: set[int]) -> list[tuple[str, ...]]:
    """The keys of mappings of tensors in a checkpoint, the innermost ones, but for optimizers and the like."""
    inside: list[tuple[str, ...]] = []
    if isinstance(value, Mapping) and len(keys) < DEPTH and id(value) not in seen:
        seen.add(id(value))  # A mapping may hold itself, or one other a thousand times.
        for name, entry in value.items():
            if isinstance(name, str) and not NOT_A_MODEL.search(name):
                inside += _state_dicts(entry, (*keys, name), seen)
    return inside or ([keys] if _holds_tensors(value) else [])
