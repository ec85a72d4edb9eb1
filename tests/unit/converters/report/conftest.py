from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bootstrap_core.datasets import Dataset, Split
from converters.onnx_conversion import OnnxConversion, convert_onnx
from specs.block import Encoding

HOSTILE = '<script>alert("1")</script>'


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory) -> Path:
    """16 pixels, 12 hidden neurons of which the last is always 0, 4 classes; a node has a hostile name."""
    random = np.random.default_rng(0)
    first, second = random.normal(size=(12, 16)).astype(np.float32), random.normal(size=(4, 12)).astype(np.float32)
    first[-1] = 0
    weights = {"w": first, "v": second, "b": np.array([0.1] * 11 + [-5], np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["f"], "flat\u202e"),
            helper.make_node("Gemm", ["f", "w", "b"], ["g"], HOSTILE, transB=1),
            helper.make_node("Relu", ["g"], ["r"]),
            helper.make_node("Gemm", ["r", "v"], ["y"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path_factory.mktemp("report") / "four.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """300 images to learn from and 90 to test on, without labels that mean anything."""
    images = torch.randint(0, 256, (390, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    train, test = (Split(part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split([300, 90]))
    return Dataset("noise", train, test, ("<b>a", "b", "c", "d"), "drawn <at> random")


@pytest.fixture(scope="session")
def conversion(onnx_file, dataset) -> OnnxConversion:
    return convert_onnx(onnx_file, dataset=dataset, labelled=False, epochs=0, encodings=[Encoding.SPIKE])
