"""Safe reading of an ONNX file: sizes are limited, external data must be in its folder, and no code runs."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from converters.formats.file_kind import kind_of_file
from specs.errors import ConversionError, IntegrityError, SnnZooError, UnsupportedError
from specs.files.given_file import check_given_file, real_path, refuse_imposter
from specs.files.limits import ONNX_BYTES, ONNX_ELEMENTS, ONNX_NODES, refuse_beyond_memory

Array = npt.NDArray[np.generic]

OLDEST_OPSET = 6
"""Oldest opset that is read. Older ones define shapes and broadcasting differently; no exporter in use writes them."""
COPIES = 8
"""Memory that reading takes, in multiples of the file's bytes: for the bytes, the protobuf message, the arrays and the
64-bit weights. Source: make bench-readers."""
DEFAULT_DOMAINS = ("", "ai.onnx")
"""The two names of the domain of ONNX's own operators (source: IR.md of onnx)."""


def load_onnx(path: Path) -> ModelProto:
    """Read a model from a file, with its external data.

    Raises:
        SnnZooError: the file, or a file with its external data, cannot be read.
        IntegrityError: the file is not an ONNX model, is damaged or too large, or names data outside its folder.
        UnsupportedError: its opset is older than `OLDEST_OPSET`, or it is an ANN in a format of another program.
        ConversionError: its opset is newer than the installed onnx package supports.
    """
    size = check_given_file(path)
    if size > ONNX_BYTES:
        raise IntegrityError(f"{path} is larger than {ONNX_BYTES >> 20} MiB, the limit of protobuf")
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
        _refuse_foreign(path)
        raise IntegrityError(f"{path} is not an ONNX model, or it is truncated or damaged") from None
    if not model.HasField("graph") or not model.graph.node:
        _refuse_foreign(path)
        raise IntegrityError(f"{path} is not an ONNX model: it has no graph with nodes")
    if len(model.graph.node) > ONNX_NODES:
        raise IntegrityError(f"{path} has {len(model.graph.node):,} nodes; at most {ONNX_NODES:,} are supported")
    if not _is_text(model):
        raise IntegrityError(f"{path} is damaged: a name in it is not valid UTF-8")
    opset_of(model, path)
    _embed_external_data(model, path)
    return model


def _refuse_foreign(path: Path) -> None:
    """Raise `UnsupportedError` with the commands that make ONNX of a file, if it is an ANN of another program."""
    with suppress(IntegrityError):
        kind_of_file(path)


def opset_of(model: ModelProto, path: Path) -> int:
    """Return the opset of ONNX's own operators that a model declares.

    Raises:
        IntegrityError: the model declares no opset, or several.
        UnsupportedError: the opset is older than `OLDEST_OPSET`.
        ConversionError: the opset is newer than the installed onnx package supports.
    """
    versions = {entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS}
    if len(versions) != 1:
        found = f"{len(versions)} opsets" if versions else "no opset"
        raise IntegrityError(f"{path} declares {found} for ONNX's own operators, expected one")
    version = int(versions.pop())
    newest = onnx.defs.onnx_opset_version()
    if version < OLDEST_OPSET:
        raise UnsupportedError(f"{path} has opset {version}; supported are {OLDEST_OPSET} to {newest}: export it anew")
    if version > newest:
        raise ConversionError(
            f"{path} has opset {version}; the installed onnx {onnx.__version__} supports up to {newest}: "
            "pip install --upgrade onnx, or export with an older opset"
        )
    return version


def tensor_array(tensor: TensorProto, where: str) -> Array:
    """Return the values of a tensor; `where` names it in messages.

    Raises:
        IntegrityError: its type is not numeric, its data do not fit its shape, or it exceeds `ONNX_ELEMENTS` numbers.
    """
    shape = list(tensor.dims)
    if any(side < 0 for side in shape) or math.prod(shape) > ONNX_ELEMENTS:
        raise IntegrityError(f"{where}: shape {shape}; expected at most {ONNX_ELEMENTS:,} numbers, sides from 0 on")
    if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise IntegrityError(f"{where}: its type is not numeric")
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError):
        raise IntegrityError(f"{where}: its data do not fit its type and shape {shape}") from None


def _is_text(message: Message) -> bool:
    """Return whether all strings in a message, at any depth, are UTF-8; protobuf leaves other strings as bytes."""
    for descriptor, value in message.ListFields():
        if descriptor.type not in (descriptor.TYPE_STRING, descriptor.TYPE_MESSAGE):
            continue
        for one in [value] if isinstance(value, str | bytes | Message) else value:
            if isinstance(one, bytes) or (isinstance(one, Message) and not _is_text(one)):
                return False
    return True


def _embed_external_data(model: ModelProto, path: Path) -> None:
    """Replace references to external files by the data in them."""
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
    """Yield all tensors and their places, except those in bodies of If, Loop and Scan, which are not read."""
    for tensor in model.graph.initializer:
        yield tensor, f"tensor {tensor.name!r}"
    nodes: list[NodeProto] = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t, f"{node.op_type} {node.name!r}, attribute {attribute.name!r}"


def _read_external(tensor: TensorProto, path: Path, where: str, left: int) -> bytes:
    """Return the external data of a tensor, at most `left` bytes."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    # The model may come from Windows or go there: the path must be harmless on both kinds of system.
    parts = {*PurePosixPath(location).parts, *PureWindowsPath(location).parts}
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    if not location or "\0" in location or absolute or ".." in parts:
        raise IntegrityError(f"{where}: its data are in {location!r}; only files in the model's folder are read")
    folder = real_path(path.parent)
    file = folder.joinpath(*PurePosixPath(location).parts)
    try:
        inside = real_path(file).is_relative_to(folder) and not _has_links(file, folder)
        if not inside:
            raise IntegrityError(f"{where}: its data are in {location!r}, behind a link; links are not followed")
        if not file.is_file():
            raise SnnZooError(f"{where}: its data are in {location!r}, which is not beside the model")
        offset, length = (int(entries.get(key, default)) for key, default in (("offset", "0"), ("length", "-1")))
        size = file.stat().st_size
        length = size - offset if length < 0 else length
        if not 0 <= offset <= size or offset + length > size:
            raise IntegrityError(f"{where}: needs {length:,} bytes at {offset:,} of {location!r}, which has {size:,}")
        if length > left:
            raise IntegrityError(f"{where}: more than {ONNX_BYTES >> 20} MiB of external data, the limit")
        refuse_beyond_memory(COPIES * length, f"{where}: reading {location!r}")
        with file.open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)
    except (OSError, RuntimeError) as error:
        raise SnnZooError(f"{where}: cannot read {location!r}: {getattr(error, 'strerror', None) or error}") from None
    except ValueError:
        raise IntegrityError(f"{where}: offset or length of its external data is not an integer") from None


def _has_links(file: Path, folder: Path) -> bool:
    """Return whether any part of the path from `folder` to `file` is a symbolic link."""
    return any(step.is_symlink() for step in (file, *file.parents) if step.is_relative_to(folder) and step != folder)
