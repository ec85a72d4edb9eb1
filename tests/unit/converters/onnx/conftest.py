"""Small ONNX files, written from their text form."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ideal_layers import forward
from onnx import ModelProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from tiny_onnx import numbers

from bootstrap_core import IntegerNetwork
from converters.ann_to_snn.calibrate import InputForm, calibrate
from converters.ann_to_snn.spiking_layers import MaxPooling, prepared, spiking_layers
from converters.linear.ann import run_ann
from converters.onnx.import_ann import OnnxImport, import_ann
from specs.layers.input import Encoding


def model_of(
    nodes: str, weights: dict[str, np.ndarray], *, shape: str, opset: int, output: str = "y", dtype: str = "float"
) -> ModelProto:
    """Return a model with the input `x` and one output, without shapes in between."""
    graph = onnx.parser.parse_graph(f"tiny ({dtype}[{shape}] x) => (float {output}) {{ {nodes} }}")
    graph.output[0].type.tensor_type.ClearField("shape")
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """`write(nodes, weights, shape="1,2,6,6", opset=13)` writes a graph from x to y and returns its path."""

    def write(nodes: str, weights: dict | None = None, *, shape: str = "1,2,6,6", opset: int = 13, **options) -> Path:
        path = tmp_path / "tiny.onnx"
        path.write_bytes(model_of(nodes, weights or {}, shape=shape, opset=opset, **options).SerializeToString())
        return path

    return write


@pytest.fixture
def classify(write) -> Callable[..., OnnxImport]:
    """`classify(nodes, weights)` imports a graph from x to h, followed by a dense layer from h to y.

    The weights of that layer all differ, so that swapped elements of h change y. With `spikes=True`, its spiking layers
    are checked, too.
    """

    def classify(nodes: str, weights=None, *, shape="1,2,6,6", opset=13, features=None, spikes=False) -> OnnxImport:
        weights = dict(weights or {})
        if features is None:
            before = model_of(nodes, weights, shape=shape, opset=opset, output="h")
            sides = [int(side) if side.isdigit() else 1 for side in shape.split(",")]
            features = ReferenceEvaluator(before).run(None, {"x": np.zeros(sides, np.float32)})[0].size // sides[0]
        weights |= {"W": numbers(features, 3, seed=9)}
        found = import_ann(write(f"{nodes} flat = Flatten(h) y = MatMul(flat, W)", weights, shape=shape, opset=opset))
        images = torch.rand(5, *found.ann.shape)
        assert np.allclose(run_ann(found.ann, images)[0], found.reference.logits(images), rtol=1e-4, atol=1e-4)
        if spikes:
            check_spikes(found)
        return found

    return classify


def check_spikes(found: OnnxImport) -> None:
    """Assert that the spiking layers of an import are exact with ideal neurons, and that both engines agree."""
    ann = prepared(found.ann, MaxPooling.ANY)
    layers = spiking_layers(ann, MaxPooling.ANY)
    images = torch.rand(4, *ann.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(forward(layers, images).float(), run_ann(ann, images)[0], rtol=1e-4, atol=1e-4)
    form = InputForm(Encoding.SPIKE)
    made, _ = calibrate(ann, layers, images, name="tiny", time_steps=4, input_form=form, balanced=False)
    network = made.build().eval()
    with torch.no_grad():
        (logits, trace), (exact, integers) = network.run(images), IntegerNetwork(network).run(images)
    assert torch.equal(logits, exact)
    assert all(torch.equal(a, b) for a, b in zip(trace.spikes, integers.spikes, strict=True))
