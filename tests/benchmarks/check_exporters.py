"""Make small ANNs in the formats of other programs, and run what `zoo convert` advises for each of them.

    python tests/benchmarks/check_exporters.py --tensorflow TF_PYTHON

TF_PYTHON is a separate Python with `pip install tensorflow-cpu tf_keras tf2onnx`. Without it, only files of PyTorch are
checked. For each file, the advice is read from the error of `kind_of_file` or `read_model`, all its commands but
`pip install` run in a shell, `python` being that Python or this one, and the ONNX file that they write is imported and
compared with the answers of the program that made the ANN. One file also goes through the last command, `zoo convert`.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import torch

from converters.formats.model_files import read_model
from converters.linear.ann import run_ann
from converters.onnx.import_ann import import_ann
from specs import UnsupportedError

ROOT = Path(__file__).parents[2]
MAKE_KERAS = """
import sys, numpy as np, tensorflow as tf
import {keras} as keras
from {keras} import layers
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).uniform(0, 1, (6, 12, 10, 3)).astype("float32")
model = keras.Sequential([
    keras.Input((12, 10, 3)),
    layers.Conv2D(8, 3, strides=2, padding="same"), layers.BatchNormalization(), layers.ReLU(),
    layers.DepthwiseConv2D(3, padding="same", activation="relu"), layers.MaxPooling2D(2),
    layers.Flatten(), layers.Dense(5),
])
model.save("{old}model.keras")
model.save("{old}model.h5")
model.export("{old}saved")
open("{old}model.tflite", "wb").write(tf.lite.TFLiteConverter.from_keras_model(model).convert())
np.savez("{old}answers.npz", x=x.transpose(0, 3, 1, 2), logits=model(x, training=False).numpy())
"""
MAKE_TORCH = """
import numpy as np, torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 5))
    def forward(self, x):
        return self.body(x)

if __name__ == "__main__":
    torch.manual_seed(0)
    model, x = Net().eval(), torch.rand(6, 1, 28, 28)
    torch.jit.script(model).save("script.pt")
    torch.jit.trace(model, x).save("trace.pt")
    torch.save(model, "module.pt")
    torch.save(model, "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(model.body, "sequential.pt")
    torch.export.save(torch.export.export(model, (x[:1],)), "program.pt2")
    np.savez("answers.npz", x=x.numpy(), logits=model(x).detach().numpy())
"""
KERAS_FILES = "model.keras", "model.h5", "saved", "model.tflite"
TORCH_FILES = "script.pt", "trace.pt", "module.pt", "legacy.pt", "sequential.pt", "program.pt2"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensorflow", metavar="TF_PYTHON", help="Python with TensorFlow, tf_keras and tf2onnx.")
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.py").write_text(MAKE_TORCH)
        run_python(sys.executable, ["net.py"], folder)
        for file in TORCH_FILES:
            failed += not checked(folder, file, "answers.npz", sys.executable)
        if given.tensorflow:
            for keras, old in (("keras", ""), ("tf_keras", "old-")):
                run_python(given.tensorflow, ["-c", MAKE_KERAS.format(keras=keras, old=old)], folder)
                for file in KERAS_FILES:
                    failed += not checked(folder, f"{old}{file}", f"{old}answers.npz", given.tensorflow)
        failed += not converted(folder)
    sys.exit(failed > 0)


def checked(folder, file, answers, python):
    """Run the advice on a file; return whether it makes an ONNX file with the same answers, and print that."""
    path = folder / file
    try:
        read_model(path)
        sys.exit(f"{file} was read")
    except UnsupportedError as error:
        commands = [line for line in str(error).splitlines()[1:] if line.startswith("python ")]
    (folder / "model.onnx").unlink(missing_ok=True)
    for command in commands:
        run_python(python, shlex.split(command.replace("from SCRIPT", "from net"))[1:], folder)
    with np.load(folder / answers) as arrays:
        images, wanted = (torch.from_numpy(arrays[name]) for name in ("x", "logits"))
    found = import_ann(folder / "model.onnx").ann
    worst = float((run_ann(found, images)[0] - wanted).abs().max() / wanted.abs().max())
    print(f"{file:18} {len(commands)} commands, shape {list(found.shape)}, differs by {worst:.1e}", flush=True)
    return commands and tuple(found.shape) == images.shape[1:] and worst < 1e-4


def converted(folder):
    """Run the last command of the advice on the latest ONNX file; return whether it writes a model."""
    with np.load(folder / ("old-answers.npz" if (folder / "old-answers.npz").exists() else "answers.npz")) as arrays:
        images = np.tile(arrays["x"], (20, 1, 1, 1))
        np.savez(folder / "images.npz", x=images, y=np.tile(arrays["logits"].argmax(1), 20))
    command = "from converters.cli import main_convert; main_convert()"
    options = ["model.onnx", "--data", "images.npz", "--limit", "12", "--epochs", "1", "-o", "model.safetensors"]
    print(run_python(sys.executable, ["-c", command, *options], folder)[-800:])
    return (folder / "model.safetensors").exists()


def run_python(python, arguments, folder):
    """Run Python in a folder, without a GPU; return its output, and end this program if it fails."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if python == sys.executable:
        environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([python, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(arguments)[:300]} failed:\n{textwrap.indent(done.stderr[-2000:], '    ')}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
