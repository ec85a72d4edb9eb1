"""ONNX operators, a function each, and the one table of them.

A function reads a node: `(node, inputs, builder)`, inputs as `Data` where they depend on the image, as arrays where
they are constant. It adds to the ANN what the node does and gives the node's output. Source of all meanings:
Operators.md and Changelog.md of onnx.
"""

import math
from dataclasses import replace

import numpy as np

from converters.onnx.ann_builder import AnnBuilder
from converters.onnx.operands import (
    affine,
    as_floats,
    bound_at,
    constant,
    data_at,
    floats_at,
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
    """Conv."""
    data, weight = data_at(inputs, 0), floats_at(inputs, 1, "weights")
    groups = int(node.attributes.get("group", 1))
    if groups < 1 or weight.ndim != data.index.ndim or weight.ndim not in (3, 4):
        raise UnsupportedError(f"weights {list(weight.shape)} over {list(data.index.shape)}: maps of 1 or 2 axes only")
    given = tuple(node.attributes.get("kernel_shape") or weight.shape[2:])
    if given != weight.shape[2:]:
        raise IntegrityError(f"its kernel_shape {list(given)} is not that of its weights {list(weight.shape)}")
    windows = windows_of(node.attributes, given, data.index.shape[2:])
    weight = weight.reshape(*weight.shape[:2], *windows.kernel)
    builder.windows[node.row] = windows
    made = builder.conv(data, weight, windows, groups)
    bias = inputs[2] if len(inputs) > 2 else None
    if bias is None:
        return made
    shift = floats_at(inputs, 2, "a bias").reshape(-1, *[1] * (made.index.ndim - 2))
    return shifted(builder, made, shift)


def gemm(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Gemm: `alpha A B + beta C`, A and B transposed where it says so."""
    first, second = _transposed(inputs[0], node, "transA"), _transposed(inputs[1], node, "transB")
    made = _product(builder, first, second, float(node.attributes.get("alpha", 1.0)))
    beta = float(node.attributes.get("beta", 1.0))
    added = inputs[2] if len(inputs) > 2 else None
    if added is None or beta == 0:
        return made
    if isinstance(added, Data):
        return builder.add(made, builder.affine(added, np.full(added.shape, beta), None))
    return shifted(builder, made, as_floats(added) * beta)


def matmul(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """MatMul with a constant on either side."""
    return _product(builder, inputs[0], inputs[1], 1.0)


def batch_normalization(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """BatchNormalization by the statistics in the file: `scale (x - mean) / sqrt(variance + epsilon) + bias`."""
    trains = {6: not node.attributes.get("is_test", 0), 7: len(node.outputs) > 1, 9: len(node.outputs) > 1}
    if trains.get(node.version, node.attributes.get("training_mode", 0)):
        raise UnsupportedError("normalises by the batch: export the model in eval mode")
    data = data_at(inputs, 0)
    scale, bias, mean, variance = (
        floats_at(inputs, i, name) for i, name in ((1, "a scale"), (2, "a bias"), (3, "a mean"), (4, "a variance"))
    )
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
        shift = bias - mean * factor
    per_activation = node.version < 9 and not node.attributes.get("spatial", 1)
    builder.constant_shapes[node.row] = scale.shape if per_activation else (-1, *[1] * (data.index.ndim - 2))
    factor, shift = (values.reshape(builder.constant_shapes[node.row]) for values in (factor, shift))
    return affine(builder, data, factor, shift)


# --- pools


def average_pool(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """AveragePool; padding that the mean leaves out makes windows of different sizes, which no weights are."""
    data = data_at(inputs, 0)
    kernel, sides = tuple(node.attributes["kernel_shape"]), data.index.shape[2:]
    windows = windows_of(node.attributes, kernel, sides)
    floor = windows_of({**node.attributes, "ceil_mode": 0}, kernel, sides)
    if windows != floor:
        raise UnsupportedError("ceil_mode: its last windows reach beyond the maps, and average over fewer numbers")
    if any(windows.pads) and not node.attributes.get("count_include_pad", 0):
        raise UnsupportedError("padding that does not count (count_include_pad=0): its windows differ in size")
    builder.windows[node.row] = windows
    return builder.average_pool(data, windows)


def max_pool(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """MaxPool."""
    data = data_at(inputs, 0)
    windows = windows_of(node.attributes, tuple(node.attributes["kernel_shape"]), data.index.shape[2:])
    builder.windows[node.row] = windows
    return builder.max_pool(data, windows)


def global_average_pool(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """GlobalAveragePool."""
    data = data_at(inputs, 0)
    return builder.mean_over_maps(data, tuple(range(2, data.index.ndim)), keep=True, largest=False)


def global_max_pool(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """GlobalMaxPool."""
    data = data_at(inputs, 0)
    return builder.mean_over_maps(data, tuple(range(2, data.index.ndim)), keep=True, largest=True)


def reduce_mean(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """ReduceMean over height and width."""
    return _reduced(node, inputs, builder, largest=False)


def reduce_max(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """ReduceMax over height and width."""
    return _reduced(node, inputs, builder, largest=True)


# --- activations


def relu(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Relu; as the last node it is left out."""
    data = data_at(inputs, 0)
    if node.row not in builder.last:
        return builder.relu(data)
    return _ending(node, data, builder, but=", but where none is above 0")


def clip(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Clip from 0 to a bound (attributes until opset 10, inputs since 11)."""
    if node.version < 11:
        low, high = float(node.attributes.get("min", -math.inf)), float(node.attributes.get("max", math.inf))
    else:
        low, high = bound_at(inputs, 1, -math.inf), bound_at(inputs, 2, math.inf)
    return _bounded(builder, data_at(inputs, 0), low, high)


def maximum(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Max of a tensor and constants: from 0 on a ReLU."""
    data, bounds = only_data(inputs)
    return _bounded(builder, data, max(one_number(bound) for bound in bounds), math.inf) if bounds else data


def minimum(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Min of a tensor and constants: an upper bound."""
    data, bounds = only_data(inputs)
    return _bounded(builder, data, -math.inf, min(one_number(bound) for bound in bounds)) if bounds else data


def leaky_relu(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """LeakyRelu."""
    data, slope = data_at(inputs, 0), float(node.attributes.get("alpha", 0.01))
    if slope < 0:
        raise UnsupportedError(f"falls below 0, by a slope of {slope:g}: spikes only rise")
    return builder.leaky_relu(data, np.full(data.shape, slope))


def prelu(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """PRelu with constant slopes."""
    data, slope = data_at(inputs, 0), floats_at(inputs, 1, "slopes")
    if node.version < 7 and slope.ndim == 1 and slope.size > 1:  # a slope for each channel
        slope = slope.reshape(-1, *[1] * (data.index.ndim - 2))
    if node.version < 9 and slope.ndim == 1 and slope.size == data.index.shape[1] != data.index.shape[-1]:
        slope = slope.reshape(-1, *[1] * (data.index.ndim - 2))
    data, slopes = spread_over(data, slope, fill=float(slope.flat[0]) if slope.size else 0.0)
    return builder.leaky_relu(data, slopes)


# --- arithmetic


def add(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Add of two tensors, or of a tensor and a constant."""
    first, second = _fitted_by_axis(node, inputs, builder)
    if isinstance(first, Data) and isinstance(second, Data):
        return builder.add(first, second)
    data, constants = only_data((first, second))
    return shifted(builder, data, as_floats(constants[0]))


def total(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Sum of any number of tensors and constants."""
    tensors = [value for value in inputs if isinstance(value, Data)]
    made = tensors[0]
    for other in tensors[1:]:
        made = builder.add(made, other)
    for value in inputs:
        if not isinstance(value, Data) and value is not None:
            made = shifted(builder, made, as_floats(value))
    return made if len(inputs) > 1 else builder.unchanged(made, "a sum of one")


def subtract(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Sub: a constant from a tensor, a tensor from a constant or from a tensor."""
    first, second = _fitted_by_axis(node, inputs, builder)
    if isinstance(second, Data):
        minus = builder.affine(second, np.full(second.shape, -1.0), None)
        if isinstance(first, Data):
            return builder.add(first, minus)
        return shifted(builder, minus, as_floats(first))
    data, constants = only_data((first, second))
    return shifted(builder, data, -as_floats(constants[0]))


def multiply(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Mul by a constant."""
    data, constants = only_data(
        _fitted_by_axis(node, inputs, builder), "multiplies two tensors that depend on the image"
    )
    return affine(builder, data, as_floats(constants[0]), None)


def divide(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Div by a constant."""
    first, second = _fitted_by_axis(node, inputs, builder)
    if isinstance(second, Data):
        raise UnsupportedError("divides by a tensor that depends on the image")
    data, constants = only_data((first, second))
    with np.errstate(all="ignore"):
        return affine(builder, data, 1 / as_floats(constants[0]), None)


def negate(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Neg."""
    data = data_at(inputs, 0)
    return builder.affine(data, np.full(data.shape, -1.0), None)


# --- layout


def rearrange(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Whatever only moves numbers about: done to the places of the numbers by onnx itself."""
    data = data_at(inputs, 0)
    rest = [constant(value, "where its numbers go") for value in inputs[1:]]
    index = np.asarray(evaluate(node, [data.index, *rest])[0], dtype=np.int64)
    builder.account[node.row] = ("layout", "moves numbers; weights after it are laid out to match")
    return laid_out(data, index)


def pad(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Pad with zeros (index 0 stands for a zero)."""
    data = data_at(inputs, 0)
    if node.attributes.get("mode", "constant") != "constant":
        raise UnsupportedError(f"pads by mode={node.attributes['mode']!r}; zeros only")
    value = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros(1)
    if isinstance(value, Data) or value.any() or node.attributes.get("value", 0.0):
        raise UnsupportedError("pads with another number than 0")
    rest = [constant(value, "how much it pads") for value in inputs[1:]]
    rest[1:2] = [None if rest[1] is None else np.zeros((), np.int64)] if len(rest) > 1 else []
    index = np.asarray(evaluate(node, [data.index, *rest])[0], dtype=np.int64)
    builder.account[node.row] = ("layout", "zeros that the next layer pads with")
    return laid_out(data, index)


def shape(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Array:
    """Shape of a tensor: known."""
    builder.account[node.row] = ("constant", "the shape of a tensor, known beforehand")
    return evaluate(node, [data_at(inputs, 0).index])[0]


def identity(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Identity."""
    return builder.unchanged(data_at(inputs, 0), "changes nothing")


def dropout(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Dropout, which does nothing after training."""
    training = inputs[2] if len(inputs) > 2 else None
    if isinstance(training, Data) or (training is not None and training.any()):
        raise UnsupportedError("drops at random: export the model in eval mode")
    return builder.unchanged(data_at(inputs, 0), "does nothing after training")


def cast(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Cast between floating-point types, whose rounding is not kept."""
    data = data_at(inputs, 0)
    if node.attributes.get("to") not in FLOATS and data.ending is None:
        raise UnsupportedError("rounds to whole numbers")
    return builder.unchanged(data, "another type for the same numbers")


def cast_like(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Value:
    """CastLike a floating-point tensor."""
    value, like = inputs
    if isinstance(like, Data) and value is not None and not isinstance(value, Data):
        builder.account[node.row] = ("constant", "in the type of the input")
        return value.astype(builder.dtype)
    if not isinstance(like, Data) and like is not None and like.dtype.kind in "iub":
        raise UnsupportedError("rounds to whole numbers")
    return builder.unchanged(data_at(inputs, 0), "another type for the same numbers")


# --- endings


def softmax(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Softmax or LogSoftmax over the classes, as the last node."""
    data = data_at(inputs, 0)
    axis = int(node.attributes.get("axis", -1 if node.version >= 13 else 1))
    sides = data.index.shape[axis:] if node.version < 13 else data.index.shape[axis : axis + 1 or None]
    if math.prod(sides) != data.index.size // data.batch:
        raise UnsupportedError(f"over axis {axis} of {list(data.index.shape)}, not over the classes")
    return _ending(node, data, builder)


def log(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Log after Softmax."""
    data = data_at(inputs, 0)
    if data.ending is None:
        raise UnsupportedError("a logarithm that follows no Softmax")
    return _ending(node, data, builder)


def sigmoid(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """Sigmoid as the last node."""
    return _ending(node, data_at(inputs, 0), builder)


def arg_max(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Data:
    """ArgMax over the classes, as the last node; its input stands for it."""
    data = data_at(inputs, 0)
    axis = int(node.attributes.get("axis", 0))
    if not -data.index.ndim <= axis < data.index.ndim or data.index.shape[axis] != data.index.size // data.batch:
        raise UnsupportedError(f"over axis {axis} of {list(data.index.shape)}, not over the classes")
    return _ending(node, data, builder)


# --- parts


def _bounded(builder: AnnBuilder, data: Data, low: float, high: float) -> Data:
    """`min(max(x, low), high)` as far as it is an activation from 0 on."""
    rises = data.scale is None or bool((data.scale >= 0).all())
    never_negative = rises and data.shift is None and builder.ranges.get(data.source, (-math.inf, 0.0))[0] >= 0
    if math.isnan(low) or math.isnan(high):
        raise IntegrityError("a bound that is not a number")
    if low == -math.inf and math.isinf(high):
        return builder.unchanged(data, "bounds that leave everything as it is")
    if low == -math.inf and not never_negative:
        if data.cap is not None:
            high = min(high, data.cap[0])
        return replace(data, cap=(high, builder.row))
    if low > 0 or (low < 0 and not never_negative) or high <= 0:
        raise UnsupportedError(f"bounds {low:g} to {high:g}; an activation of spikes begins at 0")
    return builder.relu(data) if math.isinf(high) else builder.clip(data, high)


def _product(builder: AnnBuilder, first: Value | None, second: Value | None, factor: float) -> Data:
    """`factor A B`, one of them constant."""
    if isinstance(first, Data) and isinstance(second, Data):
        raise UnsupportedError("multiplies two tensors that depend on the image")
    if isinstance(first, Data):
        weight = _matrix(second) * factor
        if first.index.shape[-1] != len(weight):
            raise IntegrityError(f"its weights {list(weight.shape)} do not fit the tensor {list(first.index.shape)}")
        made = builder.dense(first, weight)
        return laid_out(made, made.index.reshape(*first.index.shape[:-1], weight.shape[1]))
    if not isinstance(second, Data):
        raise UnsupportedError("does not depend on the image")
    weight = _matrix(first).T * factor  # A x = (x^T A^T)^T
    if second.index.ndim > 1:
        second = laid_out(second, second.index.swapaxes(-1, -2))
    if second.index.shape[-1] != len(weight):
        raise IntegrityError(f"its weights {list(weight.shape)} do not fit the tensor {list(second.index.shape)}")
    made = builder.dense(second, weight)
    index = made.index.reshape(*second.index.shape[:-1], weight.shape[1])
    return laid_out(made, index.swapaxes(-1, -2) if index.ndim > 1 else index)


def _matrix(value: Value | None) -> Floats:
    weight = as_floats(value)
    if weight.ndim < 2 or math.prod(weight.shape[:-2]) != 1:
        raise UnsupportedError(f"weights {list(weight.shape)} are no matrix")
    return weight.reshape(weight.shape[-2:])


def _transposed(value: Value | None, node: GraphNode, attribute: str) -> Value | None:
    if value is None or not node.attributes.get(attribute, 0):
        return value
    return laid_out(value, value.index.T) if isinstance(value, Data) else value.T


def _fitted_by_axis(node: GraphNode, inputs: Inputs, builder: AnnBuilder) -> Inputs:
    """Inputs of a binary operator; until opset 6 a constant second one may fit the first from `axis` on."""
    first, second = inputs
    if node.version >= 7 or "axis" not in node.attributes or not isinstance(first, Data):
        return inputs
    if second is None or isinstance(second, Data):
        raise UnsupportedError("fits a tensor that depends on the image by axis")
    second = fitted_from(int(node.attributes["axis"]), first.index.ndim, second)
    builder.constant_shapes[node.row] = second.shape
    return first, second


def fitted_from(axis: int, rank: int, second: Array) -> Array:
    """The second operand of a binary operator of opset 6, so that it fits a first one of `rank` from `axis` on."""
    return second.reshape(*second.shape, *[1] * (rank - axis % rank - second.ndim))


def _reduced(node: GraphNode, inputs: Inputs, builder: AnnBuilder, *, largest: bool) -> Data:
    data = data_at(inputs, 0)
    given = inputs[1] if len(inputs) > 1 else None
    if isinstance(given, Data):
        raise UnsupportedError("over axes that depend on the image")
    axes = node.attributes.get("axes") if given is None else [int(axis) for axis in given.ravel()]
    if not axes:
        if node.attributes.get("noop_with_empty_axes", 0):
            return builder.unchanged(data, "over no axes")
        raise UnsupportedError("over all axes, the batch too")
    keep = bool(node.attributes.get("keepdims", 1))
    return builder.mean_over_maps(data, tuple(axes), keep=keep, largest=largest)


def _ending(node: GraphNode, data: Data, builder: AnnBuilder, *, but: str = "") -> Data:
    builder.account[node.row] = ("removed", f"comes last and keeps the classes' order{but}: its input are the logits")
    return replace(data, ending=node.row if data.ending is None else data.ending)


LAYOUT = (13, 14, 16, 19, 21, 23, 24, 25)

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
        ("", "Identity"): Operator(identity, (1, *LAYOUT)),
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
"""The one table of operators that are understood; `REFUSED` says why some others are not."""
