"""Quantised activations: rounding is left out; a lower bound of 0 is kept, with the upper bound of the type."""

import numpy as np
from onnx import TensorProto

from converters.onnx.ann_builder import INPUT, AnnBuilder
from converters.onnx.operands import affine, data_at, floats_at, input_at
from converters.onnx.operator_table import Inputs
from converters.onnx.reading.onnx_graph import GraphNode
from converters.onnx.tensor_layout import Data
from specs.errors import UnsupportedError

__all__ = ["dequantize_linear", "quantize_linear"]

QUANTISED = {"uint8", "int8", "uint16", "int16", "uint4", "int4"}


def quantize_linear(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read QuantizeLinear of activations: rounding is left out, a lower bound of 0 is kept as a ReLU.

    Quantisers drop a ReLU before a type whose smallest value stands for 0 (source: onnxruntime,
    quantization/operators/activation.py), so the bounds of such a type are kept.
    """
    data, scale = data_at(inputs, 0), floats_at(inputs, 1, "its scale")
    zero = input_at(inputs, 2)
    if isinstance(zero, Data) or scale.size != 1 or (zero is not None and zero.size != 1):
        raise UnsupportedError("quantises activations per channel, which is not supported: use one scale")
    name = _type_named(node) if zero is None else zero.dtype.name
    if name not in QUANTISED or scale.flat[0] <= 0:
        raise UnsupportedError(
            f"quantises to {name} with scale {scale.flat[0]:g}; expected integers of 4, 8 or 16 bits, a scale above 0"
        )
    builder.quantised[node.row] = None
    low, high = _bounds_of(name)
    step, zero_point = float(scale.flat[0]), 0 if zero is None else int(zero.flat[0])
    builder.grids[node.outputs[0]] = step, zero_point
    if zero_point != low or data.source == INPUT or data.ending is not None:
        return builder.unchanged(data, "rounding and the bounds of its type are left out")
    bound = (high - zero_point) * step
    builder.quantised[node.row] = bound
    made = builder.clip(data, bound)
    became = builder.account[node.row][0]
    builder.account[node.row] = (became, f"rounding is left out; its bounds, 0 to {bound:g}, are kept")
    return made


def dequantize_linear(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read DequantizeLinear, after QuantizeLinear or of an image of integers."""
    data, scale = data_at(inputs, 0), floats_at(inputs, 1, "its scale")
    zero = np.zeros(1) if input_at(inputs, 2) is None else floats_at(inputs, 2, "its zero point")
    if scale.size != 1 or zero.size != 1:
        raise UnsupportedError("dequantises activations per channel, which is not supported: use one scale")
    step, zero_point = float(scale.flat[0]), int(zero.flat[0])
    known = builder.grids.get(node.inputs[0])
    if known is None:
        return affine(builder, data, np.array(step), np.array(-step * zero_point))
    if known != (step, zero_point):
        raise UnsupportedError(
            f"its scale {step:g} and zero point {zero_point} must be those of the QuantizeLinear before it, "
            f"{known[0]:g} and {known[1]}"
        )
    builder.quantised[node.row] = None
    return builder.unchanged(data, "undoes a quantisation that is left out")


def _type_named(node: GraphNode) -> str:
    """Return the type to which a node without a zero point quantises."""
    kind = int(node.attributes.get("output_dtype", 0)) or TensorProto.UINT8
    names: dict[int, str] = {number: name.lower() for name, number in TensorProto.DataType.items()}
    return names.get(kind, f"type {kind}")


def _bounds_of(dtype: str) -> tuple[int, int]:
    """Return the smallest and the largest number of an integer type."""
    bits = int(dtype.removeprefix("u").removeprefix("int"))
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
