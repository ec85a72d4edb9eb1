"""Import classifiers of torchvision and Keras with random weights, make their spiking forms, and compare the engines.

    python tests/benchmarks/check_graphs.py [MODEL...] [--keras-python PY] [--output FILE]

Needs `pip install torchvision`. MODEL is a name of torchvision, or one of keras.applications after `keras.`; default:
one of each family. --keras-python is a Python that runs `write_keras_model.py`; without it, the default leaves out the
models of Keras. Each model is exported by its own program and imported; its spiking form is calibrated on a random
image, without refit and tuning, since only the graph is tried. Exits with 1 if engines differ, or if a model that
should convert does not.
"""

import logging
import subprocess
import sys
import tempfile
import warnings
from math import prod
from pathlib import Path
from typing import Any

import torch
import torchvision
from programs import arguments, stamp, write_report
from torch import nn

from bootstrap_core import IntegerNetwork
from converters.ann_to_snn.calibrate import InputForm, calibrate
from converters.ann_to_snn.spiking_layers import MaxPooling, prepared, spiking_layers
from converters.onnx.import_ann import import_ann
from specs import SnnZooError, UnsupportedError
from specs.layers.input import Encoding

CONVERT = (
    "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "mobilenet_v2", "googlenet", "regnet_x_400mf", "densenet121",
    "resnet18", "inception_v3", "resnext50_32x4d", "vgg11_bn",
)  # fmt: skip
REFUSED = "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny"
KERAS = "keras."
KERAS_CONVERT = "MobileNet", "MobileNetV2", "ResNet50", "DenseNet121", "VGG16", "InceptionV3", "Xception"
KERAS_REFUSED = ("EfficientNetB0",)
SIDE, SIDES = 32, {"inception_v3": 80, "keras.InceptionV3": 80, "keras.Xception": 72}
IMAGES, AT_ONCE, CALIBRATING, TIME_STEPS = 32, 8, 1, 4


def model_of(name: str, side: int) -> nn.Module:
    """Return a model with random weights, and norms fitted to noise, which keep its activations in range."""
    torch.manual_seed(0)
    plain = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=10, **plain)
    if name.startswith("vgg"):  # its dense layers want maps of 7 x 7
        model.avgpool = nn.Identity()
        model.classifier[0] = nn.Linear(512 * (side // 32) ** 2, 4096)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        model.train()(torch.rand(16, 3, side, side))
    return model.eval()


def write_model(name: str, side: int, path: Path, keras_python: str) -> int:
    """Write a model as an ONNX file; return its number of parameters."""
    if name.startswith(KERAS):
        script = str(Path(__file__).with_name("write_keras_model.py"))
        command = [keras_python, "-W", "ignore", script, name.removeprefix(KERAS), str(side), str(path)]
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode:
            sys.exit(f"{name}: {keras_python} cannot write it: {found.stderr.strip()[-300:]}")
        return int(found.stdout.split()[-1])
    model = model_of(name, side)
    torch.onnx.export(model, (torch.rand(1, 3, side, side),), str(path), dynamo=False, verbose=False)
    return sum(x.numel() for x in model.parameters())


@torch.no_grad()
def check(name: str, folder: Path, keras_python: str) -> dict[str, Any]:
    """Return the row of a model."""
    side, path = SIDES.get(name, SIDE), folder / f"{name}.onnx"
    row: dict[str, Any] = {"side": side, "parameters": write_model(name, side, path, keras_python)}
    try:
        found = import_ann(path)
        row["error"] = found.relative_error
        ann = prepared(found.ann, MaxPooling.ANY)
        layers = spiking_layers(ann, MaxPooling.ANY)
        images = torch.rand(CALIBRATING, 3, side, side)
        form = InputForm(Encoding.SPIKE)
        made, _ = calibrate(ann, layers, images, name=name, time_steps=TIME_STEPS, input_form=form, balanced=False)
    except UnsupportedError as error:
        return row | {"refused": str(error).removeprefix(f"{path}: ")}
    except SnnZooError as error:
        return row | {"failed": str(error)}
    network = made.build().eval()
    exact, different = IntegerNetwork(network), 0
    for part in torch.rand(IMAGES, 3, side, side).split(AT_ONCE):
        (logits, trace), (others, other) = network.run(part), exact.run(part)
        different += int((logits != others).sum())
        different += sum(int((a != b).sum()) for a, b in zip(trace.spikes, other.spikes, strict=True))
    return row | {
        "blocks": len(layers),
        "neurons": sum(prod(layer.after) for layer in layers[:-1]),
        "weights": sum(each.linear.weight.numel() for layer in layers for each in (layer, *layer.skips)),
        "different": different,
    }


def main() -> None:
    parser = arguments(__doc__, output="graphs.json")
    parser.add_argument("models", nargs="*", help="Names of torchvision, or keras.NAME (default: one of each family).")
    parser.add_argument("--keras-python", default="", help="Python with keras, tensorflow-cpu and tf2onnx.")
    given = parser.parse_args()
    of_keras = [KERAS + name for name in (*KERAS_REFUSED, *KERAS_CONVERT)] if given.keras_python else []
    names = given.models or [*REFUSED, *CONVERT, *of_keras]
    if not given.keras_python and any(name.startswith(KERAS) for name in names):
        parser.error("models of Keras need --keras-python")
    refused = {*REFUSED, *(KERAS + name for name in KERAS_REFUSED)}
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    report = {**stamp(), "torchvision": torchvision.__version__, "images": IMAGES, "models": {}}
    if given.keras_python:
        ask = "from importlib.metadata import version; print(version('keras'))"
        report["keras"] = subprocess.check_output([given.keras_python, "-c", ask], text=True).strip()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            row = report["models"][name] = check(name, Path(folder), given.keras_python)
            print(name, row, flush=True)
            if "failed" in row or row.get("different") or ("refused" in row) != (name in refused):
                wrong.append(name)
            write_report(given.output, report)
    sys.exit(f"not as expected: {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
