"""Readers of ONNX operators, a function each, and the table of them.

A reader takes `(node, inputs, builder)`; an input is `Data` if it depends on the image, an array if it is constant. The
reader adds the node's work to the ANN and returns the node's output. Source of all definitions: Operators.md and
Changelog.md of onnx.
"""

import math
from dataclasses import replace

import numpy as np

from converters.onnx.ann_builder import PRODUCT_OF_TENSORS, AnnBuilder
from converters.onnx.operands import (
    affine,
    as_floats,
    bound_at,
    constant,
    data_at,
    floats_at,
    input_at,
    laid_out,
    one_number,
    only_data,
    shifted,
)
from converters.onnx.operator_table import Inputs, Operator, Registry, Value
from converters.onnx.quantised_activations import dequantize_linear, quantize_linear
from converters.onnx.reading.constant_folding import evaluate
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import FLOATS, GraphNode
from converters.onnx.refused_operators import REFUSED
from converters.onnx.tensor_layout import Data, Floats, spread_over
from converters.onnx.windows import windows_of
from specs.errors import IntegrityError, UnsupportedError

__all__ = [
    "OPERATIONS",
    "add",
    "arg_max",
    "average_pool",
    "batch_normalization",
    "cast",
    "cast_like",
    "clip",
    "convolution",
    "divide",
    "dropout",
    "fitted_from",
    "gemm",
    "global_average_pool",
    "global_max_pool",
    "identity",
    "leaky_relu",
    "log",
    "matmul",
    "max_pool",
    "maximum",
    "minimum",
    "multiply",
    "negate",
    "pad",
    "prelu",
    "rearrange",
    "reduce_max",
    "reduce_mean",
    "relu",
    "shape",
    "sigmoid",
    "softmax",
    "subtract",
    "total",
]

# --- layers


def convolution(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Conv over one or two axes."""
    data, weight = data_at(inputs, 0), floats_at(inputs, 1, "its weights")
    groups = int(node.attributes.get("group", 1))
    if groups < 1 or weight.ndim != data.index.ndim or weight.ndim not in (3, 4):
        raise UnsupportedError(
            f"weights of shape {list(weight.shape)} in {groups} groups on {list(data.index.shape)}; only convolutions "
            "over 1 or 2 axes, in at least 1 group, are supported"
        )
    given = tuple(node.attributes.get("kernel_shape") or weight.shape[2:])
    if given != weight.shape[2:]:
        raise IntegrityError(f"its kernel_shape {list(given)} does not match its weights of shape {list(weight.shape)}")
    windows = windows_of(node.attributes, given, data.index.shape[2:])
    weight = weight.reshape(*weight.shape[:2], *windows.kernel)
    builder.windows[node.row] = windows
    made = builder.conv(data, weight, windows, groups)
    if input_at(inputs, 2) is None:
        return made
    shift = floats_at(inputs, 2, "its bias").reshape(-1, *[1] * (made.index.ndim - 2))
    return shifted(builder, made, shift)


def gemm(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Gemm: `alpha A B + beta C`, where A and B may be transposed."""
    first, second = _transposed(inputs[0], node, "transA"), _transposed(inputs[1], node, "transB")
    made = _product(builder, first, second, float(node.attributes.get("alpha", 1.0)))
    beta = float(node.attributes.get("beta", 1.0))
    added = input_at(inputs, 2)
    if added is None or beta == 0:
        return made
    if isinstance(added, Data):
        return builder.add(made, builder.affine(added, np.full(added.shape, beta), None))
    return shifted(builder, made, as_floats(added) * beta)


def matmul(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read MatMul with a constant on either side."""
    return _product(builder, inputs[0], inputs[1], 1.0)


def batch_normalization(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read BatchNormalization: `scale (x - mean) / sqrt(variance + epsilon) + bias`, with the file's statistics."""
    trains = {6: not node.attributes.get("is_test", 0), 7: len(node.outputs) > 1, 9: len(node.outputs) > 1}
    if trains.get(node.version, node.attributes.get("training_mode", 0)):
        raise UnsupportedError("normalises by the statistics of a batch: export the model in eval mode")
    data = data_at(inputs, 0)
    names = "its scale", "its bias", "its mean", "its variance"
    scale, bias, mean, variance = (floats_at(inputs, i, name) for i, name in enumerate(names, 1))
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
        shift = bias - mean * factor
    per_activation = node.version < 9 and not node.attributes.get("spatial", 1)
    builder.constant_shapes[node.row] = scale.shape if per_activation else (-1, *[1] * (data.index.ndim - 2))
    factor, shift = (values.reshape(builder.constant_shapes[node.row]) for values in (factor, shift))
    return affine(builder, data, factor, shift)


# --- pools


def average_pool(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read AveragePool; all windows must average over the same number of values, as fixed weights do."""
    data = data_at(inputs, 0)
    kernel, sides = tuple(node.attributes["kernel_shape"]), data.index.shape[2:]
    windows = windows_of(node.attributes, kernel, sides)
    floor = windows_of({**node.attributes, "ceil_mode": 0}, kernel, sides)
    if windows != floor:
        raise UnsupportedError("ceil_mode=1: the last windows average over fewer values than others; use ceil_mode=0")
    if any(windows.pads) and not node.attributes.get("count_include_pad", 0):
        raise UnsupportedError(
            "count_include_pad=0: windows at the edge average over fewer values than others; use count_include_pad=1"
        )
    builder.windows[node.row] = windows
    return builder.average_pool(data, windows)


def max_pool(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read MaxPool."""
    data = data_at(inputs, 0)
    windows = windows_of(node.attributes, tuple(node.attributes["kernel_shape"]), data.index.shape[2:])
    builder.windows[node.row] = windows
    return builder.max_pool(data, windows)


def global_average_pool(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read GlobalAveragePool."""
    data = data_at(inputs, 0)
    return builder.reduce_maps(data, tuple(range(2, data.index.ndim)), keep=True, largest=False)


def global_max_pool(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read GlobalMaxPool."""
    data = data_at(inputs, 0)
    return builder.reduce_maps(data, tuple(range(2, data.index.ndim)), keep=True, largest=True)


def reduce_mean(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read ReduceMean over height and width."""
    return _reduced(node, inputs, builder, largest=False)


def reduce_max(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read ReduceMax over height and width."""
    return _reduced(node, inputs, builder, largest=True)


# --- activations


def relu(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Relu; as the last node it is left out."""
    data = data_at(inputs, 0)
    if node.row not in builder.last:
        return builder.relu(data)
    return _ending(node, data, builder, but=", unless no logit is above 0")


def clip(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Clip from 0 to a bound (bounds are attributes until opset 10, inputs since 11)."""
    if node.version < 11:
        low, high = float(node.attributes.get("min", -math.inf)), float(node.attributes.get("max", math.inf))
    else:
        low, high = bound_at(inputs, 1, -math.inf), bound_at(inputs, 2, math.inf)
    return _bounded(builder, data_at(inputs, 0), low, high)


def maximum(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Max of a tensor and constants, whose largest number must be 0: a ReLU."""
    data, bounds = only_data(inputs)
    return _bounded(builder, data, max(one_number(bound) for bound in bounds), math.inf) if bounds else data


def minimum(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Min of a tensor and constants: an upper bound."""
    data, bounds = only_data(inputs)
    return _bounded(builder, data, -math.inf, min(one_number(bound) for bound in bounds)) if bounds else data


def leaky_relu(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read LeakyRelu with a slope of at least 0."""
    data, slope = data_at(inputs, 0), float(node.attributes.get("alpha", 0.01))
    if slope < 0:
        raise UnsupportedError(f"slope {slope:g}: spike rates only rise with the input; use a slope of at least 0")
    return builder.leaky_relu(data, np.full(data.shape, slope))


def prelu(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read PRelu with constant slopes."""
    data, slope = data_at(inputs, 0), floats_at(inputs, 1, "its slopes")
    if node.version < 7 and slope.ndim == 1 and slope.size > 1:  # one slope per channel
        slope = slope.reshape(-1, *[1] * (data.index.ndim - 2))
    if node.version < 9 and slope.ndim == 1 and slope.size == data.index.shape[1] != data.index.shape[-1]:
        slope = slope.reshape(-1, *[1] * (data.index.ndim - 2))
    data, slopes = spread_over(data, slope, fill=float(slope.flat[0]) if slope.size else 0.0)
    return builder.leaky_relu(data, slopes)


# --- arithmetic


def add(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Add of two tensors, or of a tensor and a constant."""
    first, second = _fitted_by_axis(node, inputs, builder)
    if isinstance(first, Data) and isinstance(second, Data):
        return builder.add(first, second)
    data, constants = only_data((first, second))
    return shifted(builder, data, as_floats(constants[0]))


def total(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Sum of any number of tensors and constants."""
    tensors = [value for value in inputs if isinstance(value, Data)]
    made = tensors[0]
    for other in tensors[1:]:
        made = builder.add(made, other)
    for value in inputs:
        if not isinstance(value, Data) and value is not None:
            made = shifted(builder, made, as_floats(value))
    return made if len(inputs) > 1 else builder.unchanged(made, "a sum of one tensor")


def subtract(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Sub of two tensors, or of a tensor and a constant, in either order."""
    first, second = _fitted_by_axis(node, inputs, builder)
    if isinstance(second, Data):
        minus = builder.affine(second, np.full(second.shape, -1.0), None)
        if isinstance(first, Data):
            return builder.add(first, minus)
        return shifted(builder, minus, as_floats(first))
    data, constants = only_data((first, second))
    return shifted(builder, data, -as_floats(constants[0]))


def multiply(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Mul by a constant."""
    data, constants = only_data(_fitted_by_axis(node, inputs, builder), PRODUCT_OF_TENSORS)
    return affine(builder, data, as_floats(constants[0]), None)


def divide(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Div by a constant."""
    first, second = _fitted_by_axis(node, inputs, builder)
    if isinstance(second, Data):
        raise UnsupportedError("divides by a tensor that depends on the image: the divisor must be constant")
    data, constants = only_data((first, second))
    with np.errstate(all="ignore"):
        return affine(builder, data, 1 / as_floats(constants[0]), None)


def negate(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Neg."""
    data = data_at(inputs, 0)
    return builder.affine(data, np.full(data.shape, -1.0), None)


# --- layout


def rearrange(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read an operator that only moves values: onnx itself applies it to the index of the tensor."""
    data = data_at(inputs, 0)
    rest = [constant(value, "its shape, axes or indices") for value in inputs[1:]]
    index = np.asarray(evaluate(node, [data.index, *rest])[0], dtype=np.int64)
    builder.account[node.row] = ("layout", "moves values; the weights after it are reordered to match")
    return laid_out(data, index)


def pad(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Pad with zeros; the index of a padding zero is 0."""
    data = data_at(inputs, 0)
    if node.attributes.get("mode", "constant") != "constant":
        raise UnsupportedError(f"mode={node.attributes['mode']!r} is not supported: pad with zeros")
    value = input_at(inputs, 2)
    if isinstance(value, Data) or (value is not None and value.any()) or node.attributes.get("value", 0.0):
        raise UnsupportedError("pads with a number other than 0, which is not supported: pad with zeros")
    rest = [constant(value, "its padding") for value in inputs[1:]]
    # the value that pads an index is an integer zero, whatever the type of the tensor
    rest[1:2] = [None if rest[1] is None else np.zeros((), np.int64)] if len(rest) > 1 else []
    index = np.asarray(evaluate(node, [data.index, *rest])[0], dtype=np.int64)
    builder.account[node.row] = ("layout", "its zeros become padding of the next layer")
    return laid_out(data, index)


def shape(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Array:
    """Read Shape or Size; both are known at import."""
    builder.account[node.row] = ("constant", "the shape of a tensor, known at import")
    return evaluate(node, [data_at(inputs, 0).index])[0]


def identity(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Identity."""
    return builder.unchanged(data_at(inputs, 0), "changes nothing")


def dropout(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Dropout, which does nothing after training."""
    training = input_at(inputs, 2)
    if isinstance(training, Data) or (training is not None and training.any()):
        raise UnsupportedError("drops values at random: export the model in eval mode")
    return builder.unchanged(data_at(inputs, 0), "does nothing after training")


def cast(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Cast to a floating-point type, or to any type after the logits; its rounding is left out."""
    data = data_at(inputs, 0)
    if node.attributes.get("to") not in FLOATS and data.ending is None:
        raise UnsupportedError("rounds to integers, which is not supported: keep floating-point types")
    return builder.unchanged(data, "changes only the type of the numbers")


def cast_like(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Value:
    """Read CastLike with the type of a floating-point tensor."""
    value, like = inputs
    if isinstance(like, Data) and value is not None and not isinstance(value, Data):
        builder.account[node.row] = ("constant", "a constant in the type of the input")
        return value.astype(builder.dtype)
    if not isinstance(like, Data) and like is not None and like.dtype.kind in "iub":
        raise UnsupportedError("rounds to integers, which is not supported: keep floating-point types")
    return builder.unchanged(data_at(inputs, 0), "changes only the type of the numbers")


# --- endings


def softmax(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Softmax or LogSoftmax over the classes, as the last node."""
    data = data_at(inputs, 0)
    axis = int(node.attributes.get("axis", -1 if node.version >= 13 else 1))
    sides = data.index.shape[axis:] if node.version < 13 else data.index.shape[axis : axis + 1 or None]
    if math.prod(sides) != data.index.size // data.batch:
        raise UnsupportedError(f"runs over axis {axis} of {list(data.index.shape)}, not over the classes")
    return _ending(node, data, builder)


def log(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Log after Softmax, as the last node."""
    data = data_at(inputs, 0)
    if data.ending is None:
        raise UnsupportedError("a logarithm is supported only after Softmax, as the last node")
    return _ending(node, data, builder)


def sigmoid(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read Sigmoid as the last node."""
    return _ending(node, data_at(inputs, 0), builder)


def arg_max(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Read ArgMax over the classes, as the last node; its input becomes the output."""
    data = data_at(inputs, 0)
    axis = int(node.attributes.get("axis", 0))
    if not -data.index.ndim <= axis < data.index.ndim or data.index.shape[axis] != data.index.size // data.batch:
        raise UnsupportedError(f"runs over axis {axis} of {list(data.index.shape)}, not over the classes")
    return _ending(node, data, builder)


# --- parts


def _bounded(builder: AnnBuilder, data: Data, low: float, high: float) -> Data:
    """Return `min(max(x, low), high)`; `low` must be 0, or may come from a later node."""
    never_negative = builder.is_never_negative(data)
    if math.isnan(low) or math.isnan(high):
        raise IntegrityError("one of its bounds is NaN")
    if low == -math.inf and math.isinf(high):
        return builder.unchanged(data, "its bounds change nothing")
    if low == -math.inf and not never_negative:
        if data.cap is not None:
            high = min(high, data.cap[0])
        return replace(data, cap=(high, builder.row))
    if low > 0 or (low < 0 and not never_negative) or high <= 0:
        raise UnsupportedError(f"bounds {low:g} to {high:g} are not supported: the lower must be 0, the upper above 0")
    return builder.relu(data) if math.isinf(high) else builder.clip(data, high)


def _product(builder: AnnBuilder, first: Value | None, second: Value | None, factor: float) -> Data:
    """Return `factor A B`, where A or B is constant."""
    if isinstance(first, Data) and isinstance(second, Data):
        raise UnsupportedError(PRODUCT_OF_TENSORS)
    if isinstance(first, Data):
        weight = _matrix(second) * factor
        if first.index.shape[-1] != len(weight):
            raise IntegrityError(f"its weights {list(weight.shape)} do not fit its input {list(first.index.shape)}")
        made = builder.dense(first, weight)
        return laid_out(made, made.index.reshape(*first.index.shape[:-1], weight.shape[1]))
    if not isinstance(second, Data):
        raise UnsupportedError("one of its inputs must depend on the image")
    weight = _matrix(first).T * factor  # A x = (x^T A^T)^T
    if second.index.ndim > 1:
        second = laid_out(second, second.index.swapaxes(-1, -2))
    if second.index.shape[-1] != len(weight):
        raise IntegrityError(f"its weights {list(weight.shape)} do not fit its input {list(second.index.shape)}")
    made = builder.dense(second, weight)
    index = made.index.reshape(*second.index.shape[:-1], weight.shape[1])
    return laid_out(made, index.swapaxes(-1, -2) if index.ndim > 1 else index)


def _matrix(value: Value | None) -> Floats:
    """Return a constant as a matrix, float64."""
    weight = as_floats(value)
    if weight.ndim < 2 or math.prod(weight.shape[:-2]) != 1:
        raise UnsupportedError(f"its weights of shape {list(weight.shape)} are not a matrix")
    return weight.reshape(weight.shape[-2:])


def _transposed(value: Value | None, node: GraphNode, attribute: str) -> Value | None:
    """Return an input of Gemm, transposed if the attribute says so."""
    if value is None or not node.attributes.get(attribute, 0):
        return value
    return laid_out(value, value.index.T) if isinstance(value, Data) else value.T


def _fitted_by_axis(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Inputs:
    """Return the inputs of a binary operator; until opset 6 a constant may align with the tensor from `axis` on."""
    first, second = inputs
    if node.version >= 7 or "axis" not in node.attributes or not isinstance(first, Data):
        return inputs
    if second is None or isinstance(second, Data):
        raise UnsupportedError("its attribute axis is supported only with a constant as second input")
    second = fitted_from(int(node.attributes["axis"]), first.index.ndim, second)
    builder.constant_shapes[node.row] = second.shape
    return first, second


def fitted_from(axis: int, rank: int, second: Array) -> Array:
    """Return the second operand with axes of 1 appended: it then aligns with one of `rank` axes from `axis` on."""
    return second.reshape(*second.shape, *[1] * (rank - axis % rank - second.ndim))


def _reduced(node: GraphNode, inputs: Inputs, builder: AnnBuilder, *, largest: bool) -> Data:
    """Read ReduceMean, or ReduceMax if `largest`."""
    data = data_at(inputs, 0)
    given = constant(input_at(inputs, 1), "its axes")
    axes = node.attributes.get("axes") if given is None else [int(axis) for axis in given.ravel()]
    if not axes:
        if node.attributes.get("noop_with_empty_axes", 0):
            return builder.unchanged(data, "reduces no axes")
        raise UnsupportedError("reduces all axes, the batch too: reduce only height and width")
    keep = bool(node.attributes.get("keepdims", 1))
    return builder.reduce_maps(data, tuple(axes), keep=keep, largest=largest)


def _ending(node: GraphNode, data: Data, builder: AnnBuilder, *, but: str = "") -> Data:
    """Leave out a node after which all nodes keep the order of the classes."""
    builder.account[node.row] = ("removed", f"keeps the order of the classes{but}: its input is taken as the logits")
    return replace(data, ending=node.row if data.ending is None else data.ending)


OPERATIONS = Registry(
    {
        ("", "Add"): Operator(add, (6, 7, 13, 14)),
        ("", "ArgMax"): Operator(arg_max, (1, 11, 12, 13)),
        ("", "AveragePool"): Operator(average_pool, (1, 7, 10, 11, 19, 22)),
        ("", "BatchNormalization"): Operator(batch_normalization, (6, 7, 9, 14, 15)),
        ("", "Cast"): Operator(cast, (6, 9, 13, 19, 21, 23, 24, 25, 28)),
        ("", "CastLike"): Operator(cast_like, (15, 19, 21, 23, 24, 25)),
        ("", "Clip"): Operator(clip, (6, 11, 12, 13)),
        ("", "Conv"): Operator(convolution, (1, 11, 22)),
        ("", "DequantizeLinear"): Operator(dequantize_linear, (10, 13, 19, 21, 23, 24, 25, 28)),
        ("", "Div"): Operator(divide, (6, 7, 13, 14)),
        ("", "Dropout"): Operator(dropout, (6, 7, 10, 12, 13, 22)),
        ("", "Expand"): Operator(rearrange, (8, 13)),
        ("", "Flatten"): Operator(rearrange, (1, 9, 11, 13, 21, 23, 24, 25)),
        ("", "Gather"): Operator(rearrange, (1, 11, 13)),
        ("", "Gemm"): Operator(gemm, (6, 7, 9, 11, 13)),
        ("", "GlobalAveragePool"): Operator(global_average_pool, (1, 22)),
        ("", "GlobalMaxPool"): Operator(global_max_pool, (1, 22)),
        ("", "Identity"): Operator(identity, (1, 13, 14, 16, 19, 21, 23, 24, 25)),
        ("", "LeakyRelu"): Operator(leaky_relu, (6, 16)),
        ("", "Log"): Operator(log, (6, 13)),
        ("", "LogSoftmax"): Operator(softmax, (1, 11, 13)),
        ("", "MatMul"): Operator(matmul, (1, 9, 13)),
        ("", "Max"): Operator(maximum, (6, 8, 12, 13)),
        ("", "MaxPool"): Operator(max_pool, (1, 8, 10, 11, 12, 22)),
        ("", "Min"): Operator(minimum, (6, 8, 12, 13)),
        ("", "Mul"): Operator(multiply, (6, 7, 13, 14)),
        ("", "Neg"): Operator(negate, (6, 13)),
        ("", "PRelu"): Operator(prelu, (6, 7, 9, 16)),
        ("", "Pad"): Operator(pad, (2, 11, 13, 18, 19, 21, 23, 24, 25)),
        ("", "QuantizeLinear"): Operator(quantize_linear, (10, 13, 19, 21, 23, 24, 25, 28)),
        ("", "ReduceMax"): Operator(reduce_max, (1, 11, 12, 13, 18, 20)),
        ("", "ReduceMean"): Operator(reduce_mean, (1, 11, 13, 18)),
        ("", "Relu"): Operator(relu, (6, 13, 14)),
        ("", "Reshape"): Operator(rearrange, (5, 13, 14, 19, 21, 23, 24, 25)),
        ("", "Shape"): Operator(shape, (1, 13, 15, 19, 21, 23, 24, 25)),
        ("", "Sigmoid"): Operator(sigmoid, (6, 13)),
        ("", "Size"): Operator(shape, (1, 13, 19, 21, 23, 24, 25)),
        ("", "Slice"): Operator(rearrange, (1, 10, 11, 13)),
        ("", "Softmax"): Operator(softmax, (1, 11, 13)),
        ("", "Squeeze"): Operator(rearrange, (1, 11, 13, 21, 23, 24, 25)),
        ("", "Sub"): Operator(subtract, (6, 7, 13, 14)),
        ("", "Sum"): Operator(total, (6, 8, 13)),
        ("", "Transpose"): Operator(rearrange, (1, 13, 21, 23, 24, 25)),
        ("", "Unsqueeze"): Operator(rearrange, (1, 11, 13, 21, 23, 24, 25)),
    },
    REFUSED,
)
"""Table of the supported operators; `REFUSED` has reasons and advice for some others."""
