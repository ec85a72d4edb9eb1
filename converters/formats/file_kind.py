"""What a file is, told from its content: suffixes lie."""

from enum import StrEnum
from pathlib import Path

from converters.formats.hdf5_node import open_hdf5
from specs.errors import IntegrityError, SnnZooError
from specs.files.given_file import HEAD_BYTES, check_given_file
from specs.files.given_zip import open_zip
from specs.imposter import refuse_imposter

__all__ = ["USES", "FileKind", "kind_of_file"]

HDF5 = b"\x89HDF\r\n\x1a\n"
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
SAFETENSORS = b"\0\0\0{"
"""The end of the header's length, in eight bytes, and the start of the header."""
ZIP = b"PK\x03\x04"
ONNX_FIELDS = {0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42}
"""Tags that follow the first field of an ONNX model, its `ir_version` (source: onnx.proto)."""


class FileKind(StrEnum):
    """Kinds of files that hold models; the value is the suffix they usually have."""

    SAFETENSORS = ".safetensors"
    NETX = ".net"
    NIR = ".nir"
    TORCH = ".pt"
    ONNX = ".onnx"


USES = {
    FileKind.SAFETENSORS: "a model of snnzoo; zoo show tells of it, and zoo train trains it on",
    FileKind.NETX: "a netx file; zoo show tells of it, and zoo convert makes a model of it",
    FileKind.NIR: "a NIR graph; zoo show tells of it, and zoo convert makes a model of it",
    FileKind.TORCH: "a torch file; zoo convert makes a model of lava-dl's, and zoo migrate moves its weight norm",
    FileKind.ONNX: "an ANN in ONNX; zoo convert makes a spiking network of it",
}
"""What a file of each kind is, and which command takes it."""


def kind_of_file(path: Path) -> FileKind:
    """The kind of a model file.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: it is no model; says what it is, if that can be told.
    """
    check_given_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise SnnZooError(f"cannot read {path}: {error.strerror or error}") from None
    refuse_imposter(head, path)
    if head.startswith(HDF5):
        return _kind_of_hdf5(path)
    if head.startswith(ZIP):
        return _kind_of_zip(path)
    if path.suffix == FileKind.SAFETENSORS or head[5:9] == SAFETENSORS:
        return FileKind.SAFETENSORS
    if head.startswith(PICKLES):
        return FileKind.TORCH
    if len(head) > 2 and head[0] == 0x08 and head[2] in ONNX_FIELDS:
        return FileKind.ONNX
    kinds = ", ".join(FileKind)
    if head.isascii() and b"\0" not in head:
        raise IntegrityError(f"{path} is text, not a model ({kinds}); of a spec zoo build makes one")
    raise IntegrityError(f"{path} is of no known kind, not a model ({kinds})")


def _kind_of_hdf5(path: Path) -> FileKind:
    with open_hdf5(path) as root:
        names = root.names
    if "layer" in names:
        return FileKind.NETX
    if "node" in names:
        return FileKind.NIR
    what = "of Keras (write it as ONNX)" if "model_weights" in names else "of neither netx nor NIR"
    raise IntegrityError(f"{path} is an HDF5 file {what}; it holds {', '.join(names[:8]) or 'nothing'}")


def _kind_of_zip(path: Path) -> FileKind:
    with open_zip(path) as archive:
        names = archive.namelist()
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return FileKind.TORCH
    inside = [name for name in names if Path(name).suffix in {*FileKind, ".pth"}]
    if any(name.endswith(".npy") for name in names):
        what = "a NumPy archive, not a model; if it has images, x, --data takes it"
    elif inside:
        what = f"a zip archive with {inside[0]} in it: unpack it first"
    else:
        what = f"a zip archive, not a model; it holds {', '.join(names[:4]) or 'nothing'}"
    raise IntegrityError(f"{path} is {what}")
