"""Commands that make ONNX of ANNs in formats of TensorFlow, Keras and PyTorch, which snnzoo does not read.

`tests/benchmarks/check_exporters.py` runs all of them on models that it makes.
"""

import shlex
from enum import Enum
from pathlib import Path

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
