"""Pools of the reference, compared with those of onnx's evaluator."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from converters.onnx.reference_check import AveragePool, MaxPool


@pytest.mark.parametrize("kind", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ([2, 3, 7, 6], {"kernel_shape": [3, 2]}),
        ([2, 3, 7, 6], {"kernel_shape": [2, 3], "strides": [2, 1]}),
        ([2, 3, 9, 8], {"kernel_shape": [3, 2], "strides": [1, 3], "dilations": [2, 3]}),
        ([2, 3, 9], {"kernel_shape": [4], "strides": [2]}),
    ],
)
def test_pools_are_those_of_onnx(kind, shape, attributes) -> None:
    node = helper.make_node(kind, ["x"], ["y"], **attributes)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    model = helper.make_model(helper.make_graph([node], "pool", [x], [y]), opset_imports=[helper.make_opsetid("", 19)])
    images = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    (theirs,) = ReferenceEvaluator(model).run(None, images)
    (ours,) = ReferenceEvaluator(model, new_ops=[AveragePool, MaxPool]).run(None, images)
    assert ours.shape == theirs.shape
    assert np.allclose(ours, theirs, rtol=1e-6)
