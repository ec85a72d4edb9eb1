"""Kinds of model files, detected from the content: suffixes can be wrong. Some kinds are refused with advice.

The first bytes, and the names inside HDF5 and zip files, select the reader; the suffix selects the writer.
"""

import re
import shlex
import zipfile
from collections.abc import Iterable
from enum import Enum, StrEnum
from pathlib import Path

from converters.formats.hdf5.hdf5_node import open_hdf5
from specs.errors import IntegrityError, SnnZooError, UnsupportedError
from specs.files.given_archives import open_zip
from specs.files.given_file import HEAD_BYTES, check_given_file, refuse_imposter

CONVERT = "zoo convert model.onnx --data DATA -o model.safetensors"
EXPORT_ADVICE = (
    "To convert an ANN, export it in the program that made it, then convert the ONNX file:\n"
    'torch.onnx.export(model, example_images, "model.onnx")\n'
    f"{CONVERT}"
)
"""Advice on a file of PyTorch that holds an ANN, or only its weights."""

_TF2ONNX = "pip install tensorflow-cpu tf2onnx"
_FROM_FOLDER = "python -m tf2onnx.convert --saved-model {} --output model.onnx"
_KERAS = "python -c \"import sys, {0}; {0}.models.load_model(sys.argv[1], compile=False).export('exported')\" {{}}"
_TORCH = (
    'python -c "{before}import sys, torch; torch.onnx.export({loaded}.eval(), (torch.zeros(1, 1, 28, 28),), '
    "'model.onnx', dynamo=False)\" {{}}"
)
_PICKLE = "torch.load(sys.argv[1], map_location='cpu', weights_only=False)"
_APART = "In an environment of its own, run:"
_SHAPE = "with the shape of your images, channels first, in place of 1, 28, 28:"
_SCALE = "If the ANN takes pixels in 0..255, add --raw to the last command; if normalised ones, --mean and --std."
_TRUST = "Loading the file runs code in it. If you trust its author, run"
HDF5 = b"\x89HDF\r\n\x1a\n"
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
SAFETENSORS = b"\0\0\0{"
"""Bytes 5 to 8 of a file: the end of the 8-byte header length, and the first character of the header."""
ZIP = b"PK\x03\x04"
ONNX_FIELDS = {0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42}
"""Tags that can follow `ir_version`, the first field of an ONNX model (source: onnx.proto)."""


def _keras(module: str) -> tuple[str, ...]:
    packages = "tensorflow-cpu tf2onnx" if module == "keras" else f"tensorflow-cpu {module} tf2onnx"
    return f"pip install {packages}", _KERAS.format(module), _FROM_FOLDER.format("exported")


class ForeignModel(Enum):
    """Kinds of files that hold an ANN and that snnzoo does not read.

    The value is the way to ONNX: what the file is, advice before the commands, and the commands with {} for its path.
    """

    KERAS = "a model of Keras 3", _APART, *_keras("keras")
    KERAS_2 = "a model of Keras 2", _APART, *_keras("tf_keras")
    SAVED_MODEL = "a SavedModel of TensorFlow", _APART, _TF2ONNX, _FROM_FOLDER
    TFLITE = (
        "a model of TensorFlow Lite",
        _APART,
        _TF2ONNX,
        "python -m tf2onnx.convert --tflite {} --output model.onnx",
    )
    TORCHSCRIPT = (
        "TorchScript, a program (its weights alone are torch.jit.load(...).state_dict())",
        f"Run, {_SHAPE}",
        _TORCH.format(before="", loaded="torch.jit.load(sys.argv[1], map_location='cpu')"),
    )
    TORCH_PROGRAM = (
        "a program of torch.export",
        "Run:",
        "pip install onnxscript",
        'python -c "import sys, torch; '
        "torch.onnx.export(torch.export.load(sys.argv[1]), f='model.onnx', dynamo=True)\" {}",
    )
    MODULE = (
        "a pickled torch module",
        f"{_TRUST} where its classes can be imported, {_SHAPE}",
        _TORCH.format(before="", loaded=_PICKLE),
    )
    MODULE_OF_SCRIPT = (
        "a pickled torch module",
        f"{_TRUST}, with the script that defines its classes, without .py, in place of SCRIPT, and {_SHAPE}",
        _TORCH.format(before="from SCRIPT import *; ", loaded=_PICKLE),
    )


def export_advice(model: ForeignModel, path: Path, *, detail: str = "") -> str:
    """Return the message on a file: what it is, with a detail, and the commands that make ONNX of it and convert that.

    `path` is that of the file, or of the folder of a SavedModel.

    >>> print(export_advice(ForeignModel.TFLITE, Path("digits.tflite")))
    digits.tflite is a model of TensorFlow Lite; snnzoo takes ANNs as ONNX. In an environment of its own, run:
    pip install tensorflow-cpu tf2onnx
    python -m tf2onnx.convert --tflite digits.tflite --output model.onnx
    Then convert the ONNX file:
    zoo convert model.onnx --data DATA -o model.safetensors
    If the ANN takes pixels in 0..255, add --raw to the last command; if normalised ones, --mean and --std.
    """
    what, before, *commands = model.value
    first = f"{path} is {what}{detail}; snnzoo takes ANNs as ONNX. {before}"
    commands = [command.format(shlex.quote(str(path))) for command in commands]
    return "\n".join([first, *commands, "Then convert the ONNX file:", CONVERT, _SCALE])


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


PT2_ENTRIES = {"archive_format", "serialized_exported_program.json"}
"""Names that one of the entries has in a file of `torch.export.save`."""
KERAS_ENTRIES = {"metadata.json", "config.json", "model.weights.h5"}
"""Names of the entries of a file of Keras."""
KERAS_VERSION = re.compile(rb'"keras_version": *"([0-9.]+)')
METADATA_BYTES = 1024
TFLITE = b"TFL3"
"""Bytes 4 to 7 of a model of TensorFlow Lite, the identifier of the flatbuffer."""
SAVED_MODEL = "saved_model.pb"
SAVED_MODEL_HEAD = re.compile(rb"\x08[\x00-\x7f]\x12[\x80-\xff]*[\x00-\x7f]\x0a", re.DOTALL)
"""Begin of that file: version, then a MetaGraphDef whose first field is a message; an ONNX file has text there, the
producer's name (sources: saved_model.proto, onnx.proto)."""
ARCHIVED = {*FileKind, ".pth", ".keras", ".h5", ".tflite", ".pb"}
"""Suffixes of models that zip archives contain."""


def kind_of_file(path: Path) -> FileKind:
    """Return the kind of a model file.

    Of what is no model, the error says what it is; of an ANN of another program, by which commands it becomes ONNX.
    """
    if path.is_dir() and (path / SAVED_MODEL).is_file():
        raise UnsupportedError(export_advice(ForeignModel.SAVED_MODEL, path))
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
    if head[4:8] == TFLITE:
        raise UnsupportedError(export_advice(ForeignModel.TFLITE, path))
    if SAVED_MODEL_HEAD.match(head):
        raise UnsupportedError(export_advice(ForeignModel.SAVED_MODEL, path.parent))
    if path.suffix == FileKind.SAFETENSORS or head[5:9] == SAFETENSORS:
        return FileKind.SAFETENSORS
    if head.startswith(PICKLES):
        return FileKind.TORCH
    if len(head) > 2 and head[0] == 0x08 and head[2] in ONNX_FIELDS:
        return FileKind.ONNX
    kinds = ", ".join(FileKind)
    if head.startswith(b"/*") and b"by snnzoo" in head:
        raise UnsupportedError(f"{path} is C source, which nothing reads back: give the model that it was written from")
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
        version = root.attribute("keras_version")
    if "model_weights" in names:
        raise UnsupportedError(export_advice(_keras_of(version or ""), path))
    if version is not None or {"layers", "vars"} <= set(names):
        raise UnsupportedError(
            f"{path} holds the weights of a Keras model, but not its layers. In the program that made it, build the "
            f'model, call model.load_weights({str(path)!r}) and model.save("model.keras"), then:\n'
            "zoo convert model.keras"
        )
    there = ", ".join(names[:8]) or "nothing"
    raise IntegrityError(f"{path} is an HDF5 file of neither netx nor NIR; it holds {there}")


def _kind_of_zip(path: Path) -> FileKind:
    with open_zip(path) as archive:
        names = archive.namelist()
        if set(names) >= KERAS_ENTRIES:
            raise UnsupportedError(export_advice(_keras_of(_metadata_version(archive)), path))
    last = {name.rpartition("/")[2] for name in names}
    if is_torchscript(names):
        raise UnsupportedError(export_advice(ForeignModel.TORCHSCRIPT, path))
    if "data.pkl" in last:
        return FileKind.TORCH
    if last & PT2_ENTRIES:
        raise UnsupportedError(export_advice(ForeignModel.TORCH_PROGRAM, path))
    inside = [name for name in names if Path(name).suffix in ARCHIVED]
    if any(name.endswith(".npy") for name in names):
        what = "a NumPy archive, not a model; if it holds images as x, give it as --data"
    elif inside:
        what = f"a zip archive that holds {inside[0]}: unpack it first"
    else:
        what = f"a zip archive, not a model; it holds {', '.join(names[:4]) or 'nothing'}"
    raise IntegrityError(f"{path} is {what}")


def is_torchscript(names: Iterable[str]) -> bool:
    """Return whether a zip archive with entries of these names is TorchScript, a program that torch would run."""
    return {"data.pkl", "constants.pkl"} <= {name.rpartition("/")[2] for name in names}


def _metadata_version(archive: zipfile.ZipFile) -> str:
    """Return the version of Keras that wrote an archive; empty if it does not say."""
    with archive.open("metadata.json") as metadata:
        found = KERAS_VERSION.search(metadata.read(METADATA_BYTES))
    return found[1].decode() if found else ""


def _keras_of(version: str) -> ForeignModel:
    return ForeignModel.KERAS_2 if version.startswith("2.") else ForeignModel.KERAS
