"""Kinds of model files, detected from the content: suffixes can be wrong."""

from enum import StrEnum
from pathlib import Path

from converters.formats.hdf5_node import open_hdf5
from specs.errors import IntegrityError, SnnZooError, UnsupportedError
from specs.files.given_file import HEAD_BYTES, check_given_file
from specs.files.given_zip import open_zip
from specs.files.imposter import refuse_imposter

__all__ = ["EXPORT_ADVICE", "USES", "FileKind", "kind_of_file"]

HDF5 = b"\x89HDF\r\n\x1a\n"
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
SAFETENSORS = b"\0\0\0{"
"""Bytes 5 to 8 of a file: the end of the 8-byte header length, and the first character of the header."""
ZIP = b"PK\x03\x04"
ONNX_FIELDS = {0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42}
"""Tags that can follow `ir_version`, the first field of an ONNX model (source: onnx.proto)."""


class FileKind(StrEnum):
    """Kinds of model files; the value is the usual suffix."""

    SAFETENSORS = ".safetensors"
    NETX = ".net"
    NIR = ".nir"
    TORCH = ".pt"
    ONNX = ".onnx"


USES = {
    FileKind.SAFETENSORS: "a snnzoo model; zoo show describes it, and zoo train continues its training",
    FileKind.NETX: "a netx file; zoo show describes it, and zoo convert makes a model from it",
    FileKind.NIR: "a NIR graph; zoo show describes it, and zoo convert makes a model from it",
    FileKind.TORCH: "a torch file; zoo convert makes a model from lava-dl's, and zoo migrate changes its weight norms",
    FileKind.ONNX: "an ANN in ONNX; zoo convert makes a spiking network from it",
}
"""Description of each kind of file, with the commands that take it."""


EXPORT_ADVICE = (
    "To convert an ANN, export it in the program that made it, then convert the ONNX file:\n"
    'torch.onnx.export(model, example_images, "model.onnx")\n'
    "zoo convert model.onnx --data DATA -o model.safetensors"
)
"""Advice on a file of PyTorch that holds an ANN, or only its weights."""
PT2_ENTRIES = {"archive_format", "serialized_exported_program.json"}
"""Names that one of the entries has in a file of `torch.export.save`."""


def kind_of_file(path: Path) -> FileKind:
    """Return the kind of a model file.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: the file is not a model; the message says what it is, if known.
        UnsupportedError: the file holds a program of torch.export.
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
        raise IntegrityError(f"{path} is text, not a model ({kinds}); if it is a spec, zoo build makes a model from it")
    raise IntegrityError(f"{path} is not a model file of a known kind ({kinds})")


def _kind_of_hdf5(path: Path) -> FileKind:
    with open_hdf5(path) as root:
        names = root.names
    if "layer" in names:
        return FileKind.NETX
    if "node" in names:
        return FileKind.NIR
    what = "of Keras (export it to ONNX)" if "model_weights" in names else "of neither netx nor NIR"
    raise IntegrityError(f"{path} is an HDF5 file {what}; it holds {', '.join(names[:8]) or 'nothing'}")


def _kind_of_zip(path: Path) -> FileKind:
    with open_zip(path) as archive:
        names = archive.namelist()
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return FileKind.TORCH
    if any(name.rpartition("/")[2] in PT2_ENTRIES for name in names):
        raise UnsupportedError(f"{path} is a program of torch.export, not a model that snnzoo reads.\n{EXPORT_ADVICE}")
    inside = [name for name in names if Path(name).suffix in {*FileKind, ".pth"}]
    if any(name.endswith(".npy") for name in names):
        what = "a NumPy archive, not a model; if it holds images as x, give it as --data"
    elif inside:
        what = f"a zip archive that holds {inside[0]}: unpack it first"
    else:
        what = f"a zip archive, not a model; it holds {', '.join(names[:4]) or 'nothing'}"
    raise IntegrityError(f"{path} is {what}")
