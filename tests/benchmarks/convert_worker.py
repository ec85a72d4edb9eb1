"""Convert an ONNX file with snnzoo, score it, and run the exported `.net` again, for `bench_convert.py`.

    python convert_worker.py '{"path": "model.onnx", "dataset": "mnist", "data": DIR or null, "mean": 0, "std": 1, ...}'

Prints a line of JSON: accuracies, seconds of the whole conversion, and the number of test images that the integer
engine classifies differently after the network went through its `.net`; or the error of a file that is refused.
"""

import contextlib
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bootstrap_core import IntegerNetwork
from bootstrap_core.analysis.evaluation import batches
from bootstrap_core.data.datasets import load_dataset
from converters import read_model, write_model
from converters.ann_to_snn.best_candidate import SpikingForms
from converters.ann_to_snn.onnx_conversion import import_onnx
from specs import SnnZooError
from specs.layers.neuron import Reset

BATCH = 250


def convert(request):
    """Convert and score the file of a request; return the answer."""
    dataset, path = load_dataset(request["dataset"], data_dir=request["data"]), Path(request["path"])
    try:
        found = import_onnx(
            path,
            dataset=dataset,
            mean=request["mean"],
            std=request["std"],
            time_steps=request["time_steps"],
            epochs=request["epochs"],
            forms=SpikingForms(resets=[Reset.ZERO]),  # as netx can hold it
        )
    except SnnZooError as error:
        return {"error": f"{type(error).__name__}: {error}".replace(str(path), path.name)}
    return {
        "ann": found.ann,
        "untuned": found.converted,
        "tuned": found.tuned,
        "seconds": round(found.seconds, 1),
        "notes": found.notes,
        "netx": from_netx(found.model, dataset.test),
    }


def from_netx(model, split):
    """Count the test images that the network of the exported file classifies differently; or return the error."""
    with TemporaryDirectory() as folder:
        try:
            again = read_model(write_model(model, Path(folder) / "model.net"))
        except SnnZooError as error:
            return {"error": str(error)}
    classes, classes_again = (classify(one, split) for one in (model, again))
    right = classes == split.labels
    return {
        "different": int((classes != classes_again).sum()),
        "accuracy": float(right.double().mean()),
        "images": len(split),
    }


def classify(model, split):
    """Return the classes of all images in the integer engine, int64 `[N]`."""
    exact = IntegerNetwork(model.build())
    return torch.cat([exact(images).argmax(1) for images, _ in batches(split, BATCH)])


def main():
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with contextlib.redirect_stdout(sys.stderr):  # libraries print to stdout
        answer = convert(json.loads(sys.argv[1]))
    print(json.dumps({**answer, "versions": {"snnzoo": version("snnzoo")}}))


if __name__ == "__main__":
    main()
