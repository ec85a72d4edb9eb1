"""Operators of quantised tensors, such as QLinearConv, as what they stand for: dequantise, compute, quantise.

Inputs and output are a model. Quantisers write such operators in the format `QOperator`, and the same network with
QuantizeLinear and DequantizeLinear in the format `QDQ`; so only the latter has to be read. Source: Operators.md of
onnx, and ContribOperators.md of onnxruntime for the domain com.microsoft.
"""

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node, make_tensor

from converters.onnx.reading.onnx_file import DEFAULT_DOMAINS

PLAIN = {
    "QLinearConv": "Conv", "QLinearMatMul": "MatMul", "QGemm": "Gemm", "QLinearAdd": "Add", "QLinearMul": "Mul",
    "QLinearLeakyRelu": "LeakyRelu", "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool", "QLinearConcat": "Concat", "QLinearSoftmax": "Softmax",
    "QLinearSigmoid": "Sigmoid",
}  # fmt: skip
"""Operator on floats by the name of that on quantised tensors."""
DOMAINS = (*DEFAULT_DOMAINS, "com.microsoft")
FLOAT = TensorProto.FLOAT


def dequantised(model: ModelProto) -> ModelProto:
    """Return the model without operators of quantised tensors; it is changed in place."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += _as_floats(node, ranks) if node.domain in DOMAINS and node.op_type in PLAIN else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _as_floats(node: NodeProto, ranks: dict[str, int]) -> Iterator[NodeProto]:
    """Yield the nodes that a node stands for; as it is if its channels come last, which no operator on floats does."""
    given = {attribute.name: attribute for attribute in node.attribute}
    if (last := given.pop("channels_last", None)) is not None and last.i:
        yield node
        return
    given.pop("opset", None)  # of the Softmax that onnxruntime replaced
    axis = 0 if node.op_type == "QLinearConv" or ("transB" in given and given["transB"].i) else -1
    inputs, bias = list(node.input), ""
    if node.op_type == "QLinearConv":
        bias = inputs.pop() if len(inputs) > 8 else ""
    elif node.op_type == "QGemm":
        bias = inputs.pop(6)
    elif node.op_type == "QLinearConcat":
        inputs = inputs[2:] + inputs[:2]
    result, *read = node.output[0], *range(0, len(inputs) - 2, 3)
    floats = []
    for i in read:
        tensor, scale, zero = inputs[i : i + 3]
        floats.append(name := f"{result}, input {i // 3}")
        if tensor in ranks:  # weights, perhaps with a scale for each output
            yield from _weights(name, tensor, scale, zero, axis, ranks[tensor])
        else:
            yield make_node("DequantizeLinear", [tensor, scale, zero], [name], f"{node.name}, input {i // 3}")
    if bias:
        yield make_node("Cast", [bias], [f"{result}, integers"], to=FLOAT)
        yield make_node("Mul", [inputs[1], inputs[4]], [f"{result}, unit"])
        yield make_node("Mul", [f"{result}, integers", f"{result}, unit"], [f"{result}, bias"])
        floats.append(f"{result}, bias")
    computed = make_node(PLAIN[node.op_type], floats, [f"{result}, floats"], node.name)
    computed.attribute.extend(given.values())
    yield computed
    yield make_node("QuantizeLinear", [computed.output[0], *inputs[-2:]], [result], f"{node.name}, rounded")


def _weights(name: str, tensor: str, scale: str, zero: str, axis: int, rank: int) -> Iterator[NodeProto]:
    """Yield nodes for `(tensor - zero) * scale`, where scale and zero are one number, or have one for each output."""
    shape = np.ones(max(rank, 1), np.int64)
    shape[axis] = -1
    sides = make_tensor("shape", TensorProto.INT64, shape.shape, shape)
    yield make_node("Constant", [], [f"{name}, shape"], value=sides)
    parts = []
    for part in filter(None, (tensor, zero, scale)):
        parts.append(made := f"{name}, {part}")
        yield make_node("Cast", [part], [made if part == tensor else f"{made}, flat"], to=FLOAT)
        if part != tensor:
            yield make_node("Reshape", [f"{made}, flat", f"{name}, shape"], [made])
    if zero:
        yield make_node("Sub", parts[:2], [f"{name}, shifted"])
    yield make_node("Mul", [f"{name}, shifted" if zero else parts[0], parts[-1]], [name])
