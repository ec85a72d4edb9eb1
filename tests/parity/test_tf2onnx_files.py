"""Keras classifiers from tf2onnx, imported and compared with TensorFlow; see golden/onnx/README.md."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from converters.linear.ann import Flatten, run_ann
from converters.onnx.import_ann import import_ann

FOLDER = Path(__file__).parents[1] / "golden" / "onnx"
FILES = sorted(FOLDER.glob("*.onnx"))
SHAPES = {"mlp": (1, 8, 8), "cnn": (1, 12, 12), "residual": (3, 12, 12), "line": (2, 1, 32)}
"""Shape of one image of each case, channels first."""


def recorded(path):
    """Return images `[N, C, H, W]` and TensorFlow's logits for a file."""
    case = path.name.split("-")[0]
    with np.load(FOLDER / f"{case}.npz") as arrays:
        images, logits = (torch.from_numpy(arrays[name]) for name in ("x", "logits"))
    channels, *sides = SHAPES[case]
    return images.reshape(len(images), *sides, channels).movedim(3, 1), logits


def test_there_is_every_network_by_every_route() -> None:
    assert {path.name.split("-")[0] for path in FILES} == set(SHAPES)
    assert {path.name.split("-")[1] for path in FILES} == {"keras2", "keras3", "fixed", "nchw", "tflite", "int8"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_logits_are_those_of_tensorflow(path) -> None:
    images, wanted = recorded(path)
    found = import_ann(path)
    assert found.ann.shape == images.shape[1:]
    allowed = 2e-2 if "-int8-" in path.name else 1e-4  # int8 files round weights
    assert torch.allclose(run_ann(found.ann, images)[0], wanted, atol=allowed * float(wanted.abs().max()), rtol=0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_node_is_accounted_for(path) -> None:
    found = import_ann(path)
    made = {node.name for node in found.ann.nodes if not isinstance(node.operation, Flatten)}
    assert [(row["name"], row["op"]) for row in found.nodes] == [
        (node.name, node.op_type) for node in onnx.load(path).graph.node
    ]
    became = {row["became"] for row in found.nodes}
    assert made <= became <= made | {"input", "constant", "layout", "removed", "unused"}
    assert all(row["reason"] for row in found.nodes)
