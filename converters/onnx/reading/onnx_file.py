"""Reading an ONNX file safely: bounded, external data from beside it only, nothing in it executed."""

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from specs.errors import ConversionError, IntegrityError, SnnZooError, UnsupportedError
from specs.files.given_file import check_given_file
from specs.files.limits import ONNX_BYTES, ONNX_ELEMENTS, ONNX_NODES
from specs.files.memory import refuse_beyond_memory
from specs.imposter import refuse_imposter

__all__ = [
    "DEFAULT_DOMAINS",
    "OLDEST_OPSET",
    "Array",
    "load_onnx",
    "opset_of",
    "tensor_array",
]

Array = npt.NDArray[np.generic]

OLDEST_OPSET = 6
"""Opset 5 and older say shapes and broadcasting in other ways; no exporter in use writes them."""
COPIES = 8
"""Of a file's bytes in memory at a time: as they are, as a message, as arrays, as weights of 8 bytes. Source: make
bench-readers."""
DEFAULT_DOMAINS = ("", "ai.onnx")
"""Two names of one set of operators (source: onnx's IR.md)."""


def load_onnx(path: Path) -> ModelProto:
    """The model in a file, its external tensors in memory.

    Raises:
        SnnZooError: the file, or one beside it that it names, cannot be read.
        IntegrityError: it is no ONNX model, is damaged, or names a file elsewhere than beside it.
        UnsupportedError: its opset is older than 6.
        ConversionError: its opset is newer than the installed onnx package knows.
    """
    size = check_given_file(path)
    if size > ONNX_BYTES:
        raise IntegrityError(f"{path} is larger than {ONNX_BYTES >> 20} MiB, the most that protobuf reads")
    refuse_beyond_memory(COPIES * size, f"reading {path}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SnnZooError(f"cannot read {path}: {error.strerror or error}") from None
    refuse_imposter(content[:512], path)
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, RecursionError, ValueError):
        raise IntegrityError(f"{path} is no ONNX model, or a truncated or damaged one") from None
    if not model.HasField("graph") or not model.graph.node:
        raise IntegrityError(f"{path} is no ONNX model: it has no graph with nodes")
    if len(model.graph.node) > ONNX_NODES:
        raise IntegrityError(f"{path} has {len(model.graph.node):,} nodes; at most {ONNX_NODES:,} are read")
    if not _is_text(model):
        raise IntegrityError(f"{path} is damaged: a name in it is no text")
    opset_of(model, path)
    _embed_external_data(model, path)
    return model


def opset_of(model: ModelProto, path: Path) -> int:
    """The version of ONNX's own operators that a model names, one we can read.

    Raises:
        IntegrityError: it names none, or two.
        UnsupportedError, ConversionError: it is too old or too new.
    """
    versions = {entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS}
    if len(versions) != 1:
        found = f"{len(versions)} versions" if versions else "no version"
        raise IntegrityError(f"{path} names {found} of ONNX's operators, where one is needed")
    version = int(versions.pop())
    newest = onnx.defs.onnx_opset_version()
    if version < OLDEST_OPSET:
        raise UnsupportedError(f"{path} is of opset {version}; {OLDEST_OPSET} to {newest} are read: export it anew")
    if version > newest:
        raise ConversionError(
            f"{path} is of opset {version}; the installed onnx {onnx.__version__} knows up to {newest}: "
            "pip install --upgrade onnx, or export with an older opset"
        )
    return version


def tensor_array(tensor: TensorProto, where: str) -> Array:
    """The numbers of a tensor.

    Raises:
        IntegrityError: its data do not fill its shape, or are not numbers.
    """
    shape = list(tensor.dims)
    if any(side < 0 for side in shape) or math.prod(shape) > ONNX_ELEMENTS:
        raise IntegrityError(f"{where}: a tensor of shape {shape}; at most {ONNX_ELEMENTS:,} numbers are read")
    if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise IntegrityError(f"{where}: a tensor that holds no numbers")
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError):
        raise IntegrityError(f"{where}: its data do not fill a tensor of shape {shape}") from None


def _is_text(message: Message) -> bool:
    """Whether all texts of a message, and of those in it, are UTF-8; protobuf leaves others as bytes."""
    for descriptor, value in message.ListFields():
        if descriptor.type not in (descriptor.TYPE_STRING, descriptor.TYPE_MESSAGE):
            continue
        for one in [value] if isinstance(value, str | bytes | Message) else value:
            if isinstance(one, bytes) or (isinstance(one, Message) and not _is_text(one)):
                return False
    return True


def _embed_external_data(model: ModelProto, path: Path) -> None:
    """Replace references to files by what stands in them."""
    left = ONNX_BYTES
    for tensor, where in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        data = _read_external(tensor, path, f"{path}: {where}", left)
        left -= len(data)
        tensor.raw_data = data
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _tensors(model: ModelProto) -> Iterator[tuple[TensorProto, str]]:
    """All tensors but those of subgraphs, which nothing reads."""
    for tensor in model.graph.initializer:
        yield tensor, f"tensor {tensor.name!r}"
    nodes: list[NodeProto] = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t, f"{node.op_type} {node.name!r}, attribute {attribute.name!r}"


def _read_external(tensor: TensorProto, path: Path, where: str, left: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    # A model exported on Windows may be read elsewhere, and the reverse: a path counts as either's.
    parts = {*PurePosixPath(location).parts, *PureWindowsPath(location).parts}
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    if not location or "\0" in location or absolute or ".." in parts:
        raise IntegrityError(f"{where}: its data stand in {location!r}; only files in the model's folder are read")
    folder = path.parent.resolve()
    file = folder.joinpath(*PurePosixPath(location).parts)
    try:
        inside = file.resolve().is_relative_to(folder) and not _has_links(file, folder)
        if not inside:
            raise IntegrityError(f"{where}: its data stand in {location!r}, a link; links are not followed")
        if not file.is_file():
            raise SnnZooError(f"{where}: its data stand in {location!r}, which is not beside the model")
        offset, length = (int(entries.get(key, default)) for key, default in (("offset", "0"), ("length", "-1")))
        size = file.stat().st_size
        length = size - offset if length < 0 else length
        if not 0 <= offset <= size or offset + length > size:
            raise IntegrityError(f"{where}: {length:,} bytes at {offset:,} of {location!r}, which has {size:,}")
        if length > left:
            raise IntegrityError(f"{where}: more than {ONNX_BYTES >> 20} MiB of external data")
        refuse_beyond_memory(COPIES * length, f"{where}: reading {location!r}")
        with file.open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)
    except (OSError, RuntimeError) as error:
        raise SnnZooError(f"{where}: cannot read {location!r}: {getattr(error, 'strerror', None) or error}") from None
    except ValueError:
        raise IntegrityError(f"{where}: offset or length of its external data is no whole number") from None


def _has_links(file: Path, folder: Path) -> bool:
    """Whether any step from `folder` to `file` is a symbolic link."""
    return any(step.is_symlink() for step in (file, *file.parents) if step.is_relative_to(folder) and step != folder)
