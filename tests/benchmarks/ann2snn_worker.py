"""Convert an ONNX file with SpikingJelly and score the result, for `bench_convert.py`.

Runs under a Python that has spikingjelly and onnx2torch.

    python ann2snn_worker.py '{"path": "model.onnx", "images": "images.npz", "recipe": "max", "time_steps": [8], ...}'

onnx2torch makes a torch module of the file, and `ann2snn.Converter` makes a spiking network of the module, used as in
SpikingJelly's example: each step reads the unchanged image, weights are floats, neurons are reset by subtraction, and
the outputs of all steps are added up. The converter refuses a Softmax. A Softmax at the end is removed, since it keeps
the order of the classes.

Prints a line of JSON: the accuracy of the ANN, and that of the SNN for each number of time steps; or the error of the
program that failed.
"""

import contextlib
import json
import os
import re
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnx2torch
import torch
from spikingjelly.activation_based import ann2snn, functional
from torch import nn

BATCH, CALIBRATION_BATCH = 250, 100

RECIPES = {
    "99.9%": lambda batches: ann2snn.RateCodingRecipe(batches, mode="99.9%"),
    "max": lambda batches: ann2snn.RateCodingRecipe(batches, mode="max"),
    "local": ann2snn.LocalThresholdBalancingRecipe,
}
"""Recipes of SpikingJelly's example; `local` balances thresholds of channels and starts neurons at half of them."""


class PeerError(Exception):
    """One of the programs failed; the message names it."""


@contextlib.contextmanager
def blaming(program):
    """Raise every exception of the block as an error of `program`."""
    try:
        yield
    except Exception as error:
        text = re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")
        raise PeerError(f"{program}: {text.splitlines()[0]}") from error


def load(path):
    """Return the ANN as a module, and the shape of one image."""
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    entering = next(value for value in model.graph.input if value.name not in constants)
    module = onnx2torch.convert(model).eval()
    return without_softmax(module), [axis.dim_value for axis in entering.type.tensor_type.shape.dim[1:]]


def without_softmax(module):
    """Remove a Softmax that is the last step of the module."""
    output = next(node for node in module.graph.nodes if node.op == "output")
    last = output.args[0]
    if getattr(last, "op", "") == "call_module" and isinstance(
        module.get_submodule(last.target), nn.Softmax | nn.LogSoftmax
    ):
        output.args = (last.args[0],)
        module.graph.erase_node(last)
        module.recompile()
    return module


@torch.inference_mode()
def n_correct(network, images, labels, steps):
    """Return the number of correct answers after 1, 2, ... `steps` steps."""
    found = torch.zeros(steps, dtype=torch.int64)
    for start in range(0, len(images), BATCH):
        x, wanted = images[start : start + BATCH], labels[start : start + BATCH]
        functional.reset_net(network)
        total = 0
        for t in range(steps):
            total = total + network(x)
            found[t] += (total.argmax(1) == wanted).sum()
    return found.tolist()


def convert(request):
    """Convert and score the file of a request; return the answer."""
    with np.load(request["images"]) as arrays:
        seen, images = (
            (torch.from_numpy(arrays[name]).float() / 255 - request["mean"]) / request["std"]
            for name in ("calibration", "test")
        )
        labels = torch.from_numpy(arrays["labels"])
    steps = request["time_steps"]
    try:
        with blaming("onnx2torch"):
            ann, shape = load(request["path"])
            seen, images = (part.reshape(len(part), *shape) for part in (seen, images))
            right = n_correct(ann, images, labels, 1)[0]
        with blaming("spikingjelly"):
            recipe = RECIPES[request["recipe"]](seen.split(CALIBRATION_BATCH))
            snn = ann2snn.Converter(recipe).convert(ann).eval()
            spiking = n_correct(snn, images, labels, max(steps))
    except PeerError as error:
        return {"error": str(error)}
    return {"ann": right / len(labels), "accuracy": {t: spiking[t - 1] / len(labels) for t in steps}}


def main():
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    with contextlib.redirect_stdout(sys.stderr):  # libraries print to stdout
        answer = convert(json.loads(sys.argv[1]))
    print(json.dumps({**answer, "versions": {name: version(name) for name in ("spikingjelly", "onnx2torch")}}))


if __name__ == "__main__":
    main()
