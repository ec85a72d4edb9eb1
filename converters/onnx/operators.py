"""Operators that are read: a function for each, which appends nodes to the graph as they stand in the file.

A function takes `(node, inputs, flat)`; an input is `Data` if it depends on the image, an array if it is constant. It
returns the node's output. Source of all definitions: Operators.md and Changelog.md of onnx.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto

from converters.linear.ann import Add, AvgPool, Bound, Concat, LeakyRelu, MaxPool, PRelu, Relu, ScaleShift, ZeroPad
from converters.linear.linear_fold import Conv, ungrouped
from converters.onnx.flat_graph import INPUT, TENSOR_WORK, WEIGHT_WORK, FlatGraph
from converters.onnx.operands import (
    as_floats,
    bound_at,
    constant,
    data_at,
    floats_at,
    input_at,
    one_number,
    only_data,
    scaled,
    tensor_of,
)
from converters.onnx.operator_table import Inputs, Operators, Trait, Value
from converters.onnx.reading.constant_folding import evaluate, fitted_from
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import FLOATS, GraphNode
from converters.onnx.tensor_layout import Data, Floats, Relayout, interleaved_by, one_of, rows_of, spread_over
from converters.onnx.windows import each_window, in_phases, part_counted, transposed_windows_of, windows_of
from specs.errors import IntegrityError, UnsupportedError
from specs.files.limits import ONNX_ELEMENTS, ONNX_TENSOR
from specs.shapes import Window, pads_of

OPERATORS = Operators()
LAYOUT = Trait.MOVES | Trait.AFTER_LOGITS
SIZE = Trait.SIZE | Trait.AFTER_LOGITS
ENDS = Trait.ENDS | Trait.AFTER_LOGITS

PRODUCT_OF_TENSORS = "multiplies or divides two tensors that depend on the image: one of them must be constant"
QUANTISED = {"uint8", "int8", "uint16", "int16", "uint4", "int4"}

# --- layers


@OPERATORS.reads("Conv", 1, 11, 22, traits=Trait.WEIGHS)
def _convolution(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    made = _without_bias(node, data_at(inputs, 0), floats_at(inputs, 1, "its weights"), flat)
    return _biased(node, made, inputs, flat)


@OPERATORS.reads("ConvTranspose", 1, 11, 22, traits=Trait.WEIGHS)
def _transposed_convolution(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read ConvTranspose: a convolution with its kernel turned round, of the values with zeros between and around."""
    data, weight = data_at(inputs, 0), floats_at(inputs, 1, "its weights")
    groups, kernel, sides = int(node.attributes.get("group", 1)), weight.shape[2:], data.index.shape[2:]
    if not 1 <= len(sides) == len(kernel) <= 2 or groups < 1 or len(weight) % groups:
        raise UnsupportedError(f"weights {list(weight.shape)} in {groups} groups on {list(data.index.shape)}")
    stride, dilation, pads = transposed_windows_of(node.attributes, kernel, sides)
    grown, edges = list[int](), list[tuple[int, int]]()
    for side, step, start, end in zip(sides, stride, *pads, strict=True):
        zeros = min(step - 1, max(0, end))  # whole steps, if the padding at the end allows it
        grown.append((side - 1) * step + 1 + zeros)
        edges.append((start, end - zeros))
    if (size := math.prod((*data.index.shape[:2], *grown))) > ONNX_TENSOR:
        raise UnsupportedError(f"makes {size:,} numbers; at most {ONNX_TENSOR:,} are supported")
    apart, every = np.zeros((*data.index.shape[:2], *grown), np.int64), [slice(None)] * 2
    every += [slice(None, (side - 1) * step + 1, step) for side, step in zip(sides, stride, strict=True)]
    apart[tuple(every)] = data.index
    inside = [slice(None)] * 2 + [slice(max(0, -start), min(0, end) or None) for start, end in edges]
    cropped = data.laid_out(apart[tuple(inside)])
    parts = np.flip(weight, tuple(range(2, weight.ndim))).reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
    padding = [max(0, pad) for each in zip(*edges, strict=True) for pad in each]
    plain = {"group": groups, "dilations": dilation, "pads": padding}
    made = _without_bias(node, cropped, parts.reshape(-1, *parts.shape[2:]), flat, plain)
    return _biased(node, made, inputs, flat)


def _biased(node: GraphNode, made: Data, inputs: Inputs, flat: FlatGraph) -> Data:
    """Append the bias of a convolution, if it has one."""
    if input_at(inputs, 2) is None:
        return made
    shift = floats_at(inputs, 2, "its bias").reshape(-1, *[1] * (made.index.ndim - 2))
    return scaled(node, made, flat, shift=shift)


def _without_bias(
    node: GraphNode, data: Data, weight: Floats, flat: FlatGraph, attributes: Mapping[str, Any] | None = None
) -> Data:
    """Append the convolution that attributes, by default those of the node, describe."""
    attributes = node.attributes if attributes is None else attributes
    groups = int(attributes.get("group", 1))
    if groups < 1 or weight.ndim != data.index.ndim or weight.ndim not in (3, 4):
        raise UnsupportedError(
            f"weights of shape {list(weight.shape)} in {groups} groups on {list(data.index.shape)}; only convolutions "
            "over 1 or 2 axes, in at least 1 group, are supported"
        )
    given = tuple(attributes.get("kernel_shape") or weight.shape[2:])
    if given != weight.shape[2:]:
        raise IntegrityError(f"its kernel_shape {list(given)} does not match its weights of shape {list(weight.shape)}")
    window = windows_of(attributes, given, data.index.shape[2:])
    weight = weight.reshape(*weight.shape[:2], *window.kernel)
    return _convolved(node, data, weight, replace(window, groups=groups), flat)


def _convolved(node: GraphNode, data: Data, weight: Floats, window: Window, flat: FlatGraph) -> Data:
    """Append a cross-correlation with weight `[channels, C / groups, kh, kw]`."""
    if data.is_upright:
        return _convolved(node, data.turned(), weight.swapaxes(2, 3), window.turned(), flat).turned()
    channels, per_group = weight.shape[:2]
    if per_group * window.groups != data.index.shape[1] or channels % window.groups:
        raise UnsupportedError(
            f"its weights {list(weight.shape)} in {window.groups} groups do not fit {data.index.shape[1]} channels"
        )
    bias = tensor_of(np.zeros(channels))
    try:
        data, maps = flat.maps(node, data)
    except UnsupportedError:
        return _unrolled(node, data, weight, window, flat)
    if not maps.in_order and window.groups > 1:
        data, maps = flat.maps(node, flat.picked(node, data))
    window = window.padded(maps.pads)
    shape = flat.map_shape(data.shape, data.batch, window, channels, per_output=per_group)
    if not maps.in_order:
        in_order = np.zeros_like(weight)
        in_order[:, maps.channels] = weight
        weight = in_order
    if weight.size > ONNX_ELEMENTS:
        raise UnsupportedError(f"has {weight.size:,} weights; at most {ONNX_ELEMENTS:,} are supported")
    flat.budget.spend(WEIGHT_WORK * weight.size)
    conv = Conv(tensor_of(weight), bias, window.stride, window.padding, window.dilation, window.groups)
    return flat.add(node, conv, data, shape=shape, rank=maps.rank)


def _unrolled(node: GraphNode, data: Data, weight: Floats, window: Window, flat: FlatGraph) -> Data:
    """Append a convolution of a tensor of any layout, as one of the source's maps or as a dense layer."""
    if data.source in flat.movable and not flat.settled:
        raise Relayout(None)
    parts, bias = weight, tensor_of(np.zeros(len(weight)))
    weight = ungrouped(Conv(tensor_of(weight), bias, groups=window.groups)).weight.numpy()
    rank, batch, channels = data.index.ndim, data.batch, data.index.shape[1]
    data = data.shaped((len(data.index), channels, -1, data.index.shape[-1]))
    _, *sides = flat.map_shape(data.index.shape[1:], 1, window, len(weight))
    if (steps := interleaved_by(data)) is not None:
        most = min(ONNX_ELEMENTS, len(weight) * math.prod(sides) * data.size)
        if (phases := in_phases(weight, window, steps, data.index.shape[2:], most)) is not None:
            apart, inner, groups = phases
            made = _convolved(node, data.apart(steps), apart, inner, flat).together(groups)
            return made if rank == 4 else made.shaped((batch, len(weight), -1))
    if (blocks := flat.in_blocks(node, data)) is not None:
        made = _convolved(node, blocks, parts, window, flat)
        return made if rank == 4 else made.shaped((batch, len(weight), -1))
    top, left, bottom, right = pads_of(window.padding)
    index = one_of(data).reshape(data.index.shape[1:])
    seen = each_window(np.pad(index, ((0, 0), (top, bottom), (left, right))), window)  # [C, H, W, kh, kw]
    terms = np.asarray(seen.transpose(1, 2, 0, 3, 4).reshape(math.prod(sides), -1), np.int64)
    made = flat.unrolled(node, data, terms, weight.reshape(len(weight), -1))
    return made.shaped((batch, len(weight), *sides[4 - rank :]))


@OPERATORS.reads("Gemm", 6, 7, 9, 11, 13, traits=Trait.WEIGHS)
def _gemm(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read Gemm: `alpha A B + beta C`, where A and B may be transposed."""
    first, second = _transposed(inputs[0], node, "transA"), _transposed(inputs[1], node, "transB")
    made = _product(node, first, second, float(node.attributes.get("alpha", 1.0)), flat)
    beta = float(node.attributes.get("beta", 1.0))
    added = input_at(inputs, 2)
    if added is None or beta == 0:
        return made
    if isinstance(added, Data):
        return _sum(node, made, scaled(node, added, flat, np.array(beta)), flat)
    return scaled(node, made, flat, shift=as_floats(added) * beta)


@OPERATORS.reads("MatMul", 1, 9, 13, traits=Trait.WEIGHS | Trait.PRODUCT)
def _matmul(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    return _product(node, inputs[0], inputs[1], 1.0, flat)


def _product(node: GraphNode, first: Value | None, second: Value | None, factor: float, flat: FlatGraph) -> Data:
    """Append `factor A B`, where A or B is constant."""
    if isinstance(first, Data) and isinstance(second, Data):
        raise UnsupportedError(PRODUCT_OF_TENSORS)
    if isinstance(second, Data):  # A x = (x^T A^T)^T
        return _turned(_product(node, _turned(second), _matrix(first).T, factor, flat))
    if not isinstance(first, Data):
        raise UnsupportedError("one of its inputs must depend on the image")
    weight = _matrix(second) * factor
    if first.index.shape[-1] != len(weight):
        raise IntegrityError(f"its weights {list(weight.shape)} do not fit its input {list(first.index.shape)}")
    features, outputs = weight.shape
    made = flat.dense(node, first, rows_of(first, features)[None], weight.T)
    return made.shaped((*first.index.shape[:-1], outputs))


def _turned(data: Data) -> Data:
    return data.laid_out(data.index.swapaxes(-1, -2)) if data.index.ndim > 1 else data


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
    return value.laid_out(value.index.T) if isinstance(value, Data) else value.T


@OPERATORS.reads("BatchNormalization", 6, 7, 9, 14, 15)
def _batch_normalization(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
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
    if node.version >= 9 or node.attributes.get("spatial", 1):  # one number for each channel
        factor, shift = (values.reshape(-1, *[1] * (data.index.ndim - 2)) for values in (factor, shift))
    return scaled(node, data, flat, factor, shift)


# --- pools


@OPERATORS.reads("AveragePool", 1, 7, 10, 11, 19, 22)
def _average_pool(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read AveragePool; windows that average over fewer values than others have a factor, which differs by place."""
    data = data_at(inputs, 0)
    kernel, sides = tuple(node.attributes["kernel_shape"]), data.index.shape[2:]
    window = windows_of(node.attributes, kernel, sides)
    made = _pooled(node, data, window, flat, largest=False)
    counted = part_counted(node.attributes, kernel, sides)
    return made if bool((counted == 1).all()) else scaled(node, made, flat, 1 / counted)


@OPERATORS.reads("MaxPool", 1, 8, 10, 11, 12, 22, traits=Trait.MOVES)
def _max_pool(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    data = data_at(inputs, 0)
    window = windows_of(node.attributes, tuple(node.attributes["kernel_shape"]), data.index.shape[2:])
    return _pooled(node, data, window, flat, largest=True)


@OPERATORS.reads("GlobalAveragePool", 1, 22)
@OPERATORS.reads("GlobalMaxPool", 1, 22, traits=Trait.MOVES)
def _global_pool(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    data = data_at(inputs, 0)
    return _reduced(node, data, tuple(range(2, data.index.ndim)), flat, keep=True)


@OPERATORS.reads("ReduceMean", 1, 11, 13, 18)
@OPERATORS.reads("ReduceSum", 1, 11, 13)
@OPERATORS.reads("ReduceMax", 1, 11, 12, 13, 18, 20, traits=Trait.MOVES)
def _reduce(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    data = data_at(inputs, 0)
    given = constant(input_at(inputs, 1), "its axes")
    axes = node.attributes.get("axes") if given is None else [int(axis) for axis in given.ravel()]
    if not axes:
        if node.attributes.get("noop_with_empty_axes", 0):
            return flat.unchanged(node, data, "reduces no axes")
        raise UnsupportedError("reduces all axes, the batch too: reduce only height and width")
    return _reduced(node, data, tuple(axes), flat, keep=bool(node.attributes.get("keepdims", 1)))


def _pooled(node: GraphNode, data: Data, window: Window, flat: FlatGraph, *, largest: bool) -> Data:
    """Append the mean over windows, in which padding counts as zeros, or the maximum, in which it does not count."""
    if data.is_upright:
        return _pooled(node, data.turned(), window.turned(), flat, largest=largest).turned()
    try:
        data, maps = flat.maps(node, data)
    except UnsupportedError:
        if largest:
            raise
        channels = data.index.shape[1]
        weight = np.full((channels, 1, *window.kernel), 1 / math.prod(window.kernel))
        return _convolved(node, data, weight, replace(window, groups=channels), flat)
    channels = data.shape[0]
    whole = window.padded(maps.pads)
    if largest and window.dilation != (1, 1):
        raise UnsupportedError(f"dilations {list(window.dilation)} of a maximum are not supported: use 1")
    if largest and any(pad >= window.kernel[i % 2] for i, pad in enumerate(pads_of(whole.padding))):
        raise UnsupportedError(
            f"padding {list(pads_of(whole.padding))} must be smaller than the windows {list(window.kernel)}"
        )
    shape = flat.map_shape(data.shape, data.batch, whole, channels)
    if largest:
        if any(maps.pads):
            top, left, bottom, right = maps.pads
            padded = channels, top + data.shape[1] + bottom, left + data.shape[2] + right
            data = flat.add(node, ZeroPad(maps.pads), data, shape=padded)
        made = flat.add(node, MaxPool(window.kernel, window.stride, window.padding), data, shape=shape, rank=maps.rank)
    elif window.dilation == (1, 1):
        average = AvgPool(window.kernel, window.stride, whole.padding)
        made = flat.add(node, average, data, shape=shape, rank=maps.rank)
    else:
        ones = tensor_of(np.full((channels, 1, *window.kernel), 1 / math.prod(window.kernel)))
        bias = tensor_of(np.zeros(channels))
        mean = Conv(ones, bias, window.stride, whole.padding, window.dilation, groups=channels)
        made = flat.add(node, mean, data, shape=shape, rank=maps.rank)
    return made.laid_out(made.index[:, maps.channels])


def _reduced(node: GraphNode, data: Data, axes: tuple[int, ...], flat: FlatGraph, *, keep: bool) -> Data:
    """Append the mean or maximum of each map; `keep` keeps the axes, with size 1."""
    rank = data.index.ndim
    axes = tuple(sorted({axis % rank for axis in axes if -rank <= axis < rank}))
    others = [axis for axis in range(rank) if axis not in axes]
    count = math.prod(data.index.shape[axis] for axis in axes)
    largest = node.proto.op_type in ("GlobalMaxPool", "ReduceMax")
    if not largest and axes == (2, 3) and (steps := interleaved_by(data)) not in (None, (1, 1)):
        parts = _reduced(node, data.apart(steps), axes, flat, keep=True)  # the mean of each map of the source
        return _reduced(node, parts.shaped((data.batch, data.index.shape[1], -1, 1)), axes, flat, keep=keep)
    if len(data.shape) == 3 and count != data.shape[1] * data.shape[2]:
        data = flat.plain(node, data)
    moved = data.index.transpose(*others, *axes).reshape(data.batch, -1, count)  # [N, C, H * W] for maps
    if len(data.shape) == 3 and count == data.shape[1] * data.shape[2]:
        maps = data.laid_out(np.sort(moved, axis=2).reshape(data.batch, -1, *data.shape[1:]))
        made = _pooled(node, maps, Window((data.shape[1], data.shape[2])), flat, largest=largest)
    elif largest:
        raise UnsupportedError(
            f"reduces axes {list(axes)} of {list(data.index.shape)}; only height and width together are supported"
        )
    else:
        terms = one_of(data.laid_out(moved)).reshape(-1, count)
        made = flat.unrolled(node, data, terms, np.full((1, count), 1 / count)).shaped(moved.shape[:2])
    if node.proto.op_type == "ReduceSum":
        made = scaled(node, made, flat, np.array(float(count)))
    shape = [1 if axis in axes else side for axis, side in enumerate(data.index.shape) if keep or axis not in axes]
    return made.laid_out(made.index.reshape(shape))


# --- activations


@OPERATORS.reads("Relu", 6, 13, 14, traits=Trait.ENDS_LAST)
def _relu(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read Relu; as the last node it is left out."""
    data = data_at(inputs, 0)
    if node.row in flat.last:
        return _ending(node, data, flat, but=", unless no logit is above 0")
    return flat.add(node, Relu(), data)


@OPERATORS.reads("Clip", 6, 11, 12, 13)
def _clip(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read Clip from 0 to a bound (bounds are attributes until opset 10, inputs since 11)."""
    if node.version < 11:
        low, high = float(node.attributes.get("min", -math.inf)), float(node.attributes.get("max", math.inf))
    else:
        low, high = bound_at(inputs, 1, -math.inf), bound_at(inputs, 2, math.inf)
    return _bounded(node, data_at(inputs, 0), low, high, flat)


@OPERATORS.reads("Max", 6, 8, 12, 13)
def _maximum(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read Max of a tensor and constants, whose largest number must be 0: a ReLU."""
    data, bounds = only_data(inputs)
    return _bounded(node, data, max(map(one_number, bounds), default=-math.inf), math.inf, flat)


@OPERATORS.reads("Min", 6, 8, 12, 13)
def _minimum(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read Min of a tensor and constants: an upper bound."""
    data, bounds = only_data(inputs)
    return _bounded(node, data, -math.inf, min(map(one_number, bounds), default=math.inf), flat)


def _bounded(node: GraphNode, data: Data, low: float, high: float, flat: FlatGraph) -> Data:
    if math.isnan(low) or math.isnan(high):
        raise IntegrityError("one of its bounds is NaN")
    return flat.add(node, Bound(low, high), data)


@OPERATORS.reads("LeakyRelu", 6, 16)
def _leaky_relu(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    slope = float(node.attributes.get("alpha", 0.01))
    if slope < 0:
        raise UnsupportedError(f"slope {slope:g}: spike rates only rise with the input; use a slope of at least 0")
    return _leaky(node, data_at(inputs, 0), np.array([slope]), flat)


@OPERATORS.reads("PRelu", 6, 7, 9, 16)
def _prelu(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    data, slope = data_at(inputs, 0), floats_at(inputs, 1, "its slopes")
    if node.version < 7 and slope.ndim == 1 and slope.size > 1:  # one slope per channel
        slope = slope.reshape(-1, *[1] * (data.index.ndim - 2))
    if node.version < 9 and slope.ndim == 1 and slope.size == data.index.shape[1] != data.index.shape[-1]:
        slope = slope.reshape(-1, *[1] * (data.index.ndim - 2))
    data, slopes = spread_over(data, slope, fill=float(slope.flat[0]) if slope.size else 0.0)
    each = slopes.reshape(len(slopes), -1)
    if (each != each[:, :1]).any():
        raise UnsupportedError("its slopes differ over height and width: use one slope per channel")
    return _leaky(node, data, each[:, 0], flat)


def _leaky(node: GraphNode, data: Data, slopes: Floats, flat: FlatGraph) -> Data:
    """Append `x` above 0 and `slope * x` below, with one slope or one for each channel."""
    first = float(slopes[0])
    if np.ptp(slopes) or first < 0:
        return flat.add(node, PRelu(tensor_of(np.broadcast_to(slopes, data.shape[:1]))), data)
    if first == 1:
        return flat.unchanged(node, data, "its slope is 1 on both sides")
    return flat.add(node, LeakyRelu(first) if first else Relu(), data)


@OPERATORS.reads("Greater", 1, 7, 9, 13)
@OPERATORS.reads("GreaterOrEqual", 12, 16)
@OPERATORS.reads("Less", 1, 7, 9, 13)
@OPERATORS.reads("LessOrEqual", 12, 16)
def _compare(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read a comparison of a tensor with 0."""
    given = _fitted_by_axis(node, inputs)
    data, (bound,) = only_data(given)
    if bound.any():
        raise UnsupportedError("compares with a number other than 0, which is not supported: use Clip or Max")
    flat.account[node.row] = ("layout", "the condition of a ReLU that Where writes")
    rises = node.proto.op_type.startswith("Greater") == isinstance(given[0], Data)
    return replace(data, sign=1 if rises else -1)


@OPERATORS.reads("Where", 9, 16, traits=Trait.CHOOSES)
def _where(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read Where as a ReLU or a leaky ReLU: `x` where it is above 0, elsewhere 0 or a multiple of it."""
    condition, above, below = inputs
    if isinstance(condition, Data) and condition.sign < 0:
        above, below = below, above
    scale = _multiple(condition, below, flat)
    if not isinstance(condition, Data) or _multiple(condition, above, flat) != 1 or scale is None:
        raise UnsupportedError("chooses between values, which is supported only as x where x > 0, else 0 or a x")
    return _leaky(node, replace(condition, sign=0), np.array([scale]), flat)


def _multiple(condition: Value | None, value: Value | None, flat: FlatGraph) -> float | None:
    """Return the number by which the compared values are multiplied in a tensor; None if it is another tensor."""
    if not isinstance(value, Data) or not isinstance(condition, Data):
        return None if value is None or isinstance(value, Data) or value.any() else 0.0
    if not np.array_equal(value.index, condition.index):
        return None
    made = flat.nodes.get(value.source)
    if made is not None and isinstance(made.operation, ScaleShift) and made.inputs == (condition.source,):
        scale, shift = made.operation.scale, made.operation.shift
        return None if shift.any() or scale.numel() != 1 else float(scale)
    return 1.0 if value.source == condition.source else None


# --- arithmetic


@OPERATORS.reads("Add", 6, 7, 13, 14)
def _add(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    first, second = _fitted_by_axis(node, inputs)
    if isinstance(first, Data) and isinstance(second, Data):
        return _sum(node, first, second, flat)
    data, constants = only_data((first, second))
    return scaled(node, data, flat, shift=as_floats(constants[0]))


@OPERATORS.reads("Sum", 6, 8, 13)
def _total(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    return _summed(node, inputs, flat)


def _summed(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    made, *tensors = [value for value in inputs if isinstance(value, Data)]
    for other in tensors:
        made = _sum(node, made, other, flat)
    for value in inputs:
        if not isinstance(value, Data) and value is not None:
            made = scaled(node, made, flat, shift=as_floats(value))
    return made if len(inputs) > 1 else flat.unchanged(node, made, "a sum of one tensor")


@OPERATORS.reads("Mean", 6, 8, 13)
def _mean(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    return scaled(node, _summed(node, inputs, flat), flat, np.array(1 / len(inputs)))


@OPERATORS.reads("Sub", 6, 7, 13, 14)
def _subtract(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read Sub of two tensors, or of a tensor and a constant, in either order."""
    first, second = _fitted_by_axis(node, inputs)
    if isinstance(second, Data):
        minus = scaled(node, second, flat, np.array(-1.0))
        if isinstance(first, Data):
            return _sum(node, first, minus, flat)
        return scaled(node, minus, flat, shift=as_floats(first))
    data, constants = only_data((first, second))
    return scaled(node, data, flat, shift=-as_floats(constants[0]))


@OPERATORS.reads("Mul", 6, 7, 13, 14, traits=Trait.WEIGHS | Trait.PRODUCT)
def _multiply(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    data, constants = only_data(_fitted_by_axis(node, inputs), PRODUCT_OF_TENSORS)
    return scaled(node, data, flat, as_floats(constants[0]))


@OPERATORS.reads("Div", 6, 7, 13, 14, traits=Trait.WEIGHS | Trait.PRODUCT)
def _divide(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    first, second = _fitted_by_axis(node, inputs)
    if isinstance(second, Data):
        raise UnsupportedError("divides by a tensor that depends on the image: the divisor must be constant")
    data, constants = only_data((first, second))
    with np.errstate(all="ignore"):
        return scaled(node, data, flat, 1 / as_floats(constants[0]))


@OPERATORS.reads("Neg", 6, 13)
def _negate(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    return scaled(node, data_at(inputs, 0), flat, np.array(-1.0))


def _sum(node: GraphNode, first: Data, second: Data, flat: FlatGraph) -> Data:
    """Append the sum of two tensors of the same shape and layout."""
    flat.budget.spend(TENSOR_WORK * first.index.size)
    if first.index.shape != second.index.shape:
        raise UnsupportedError(
            f"adds {first.source} {list(first.index.shape)} and {second.source} {list(second.index.shape)}, which must "
            "have the same shape"
        )
    if first.shape != second.shape or not np.array_equal(first.index, second.index):
        first, second = flat.plain(node, first), flat.plain(node, second)
    if first.shape != second.shape or not np.array_equal(first.index, second.index):
        first, second = flat.alike(node, first, second)
    return flat.add(node, Add(), first, second)


def _fitted_by_axis(node: GraphNode, inputs: Inputs) -> Inputs:
    """Return the inputs of a binary operator; until opset 6 a constant may align with the tensor from `axis` on."""
    first, second = inputs
    if node.version >= 7 or "axis" not in node.attributes or not isinstance(first, Data):
        return inputs
    if second is None or isinstance(second, Data):
        raise UnsupportedError("its attribute axis is supported only with a constant as second input")
    return first, fitted_from(int(node.attributes["axis"]), first.index.ndim, second)


# --- layout


@OPERATORS.reads("DepthToSpace", 1, 11, 13, 28, traits=LAYOUT)
@OPERATORS.reads("Expand", 8, 13, traits=LAYOUT)
@OPERATORS.reads("Flatten", 1, 9, 11, 13, 21, 23, 24, 25, traits=LAYOUT)
@OPERATORS.reads("Gather", 1, 11, 13, traits=LAYOUT)
@OPERATORS.reads("Reshape", 5, 13, 14, 19, 21, 23, 24, 25, traits=LAYOUT)
@OPERATORS.reads("Slice", 1, 10, 11, 13, traits=LAYOUT)
@OPERATORS.reads("SpaceToDepth", 1, 13, 28, traits=LAYOUT)
@OPERATORS.reads("Squeeze", 1, 11, 13, 21, 23, 24, 25, traits=LAYOUT)
@OPERATORS.reads("Tile", 6, 13, traits=LAYOUT)
@OPERATORS.reads("Transpose", 1, 13, 21, 23, 24, 25, traits=LAYOUT)
@OPERATORS.reads("Unsqueeze", 1, 11, 13, 21, 23, 24, 25, traits=LAYOUT)
def _rearrange(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read an operator that only moves values: onnx itself applies it to the index of the tensor."""
    data = data_at(inputs, 0)
    rest = [constant(value, "its shape, axes or indices") for value in inputs[1:]]
    flat.account[node.row] = ("layout", "moves values; the weights after it are reordered to match")
    return data.laid_out(np.asarray(evaluate(node, [data.index, *rest])[0], dtype=np.int64))


@OPERATORS.reads("Resize", 10, 11, 13, 18, 19, traits=LAYOUT)
@OPERATORS.reads("Upsample", 1, 7, 9, 10, traits=LAYOUT)
def _resize(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Value | tuple[Value, ...]:
    """Read Resize or Upsample to the nearest value, which copies or leaves out values."""
    if (mode := node.attributes.get("mode", "nearest")) != "nearest":
        raise UnsupportedError(f"mode={mode!r} is not supported: resize to the nearest value")
    if node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise UnsupportedError("crops before it resizes, which is not supported: use Slice")
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedError("keeps the aspect ratio, which is not supported: give the sizes or scales")
    return _rearrange(node, inputs, flat)


@OPERATORS.reads("Split", 2, 11, 13, 18, traits=LAYOUT)
def _split(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> tuple[Data, ...]:
    data = data_at(inputs, 0)
    rest = [constant(value, "its sizes") for value in inputs[1:]]
    flat.account[node.row] = ("layout", "parts of a tensor, which the weights after it pick")
    return tuple(data.laid_out(np.asarray(part, np.int64)) for part in evaluate(node, [data.index, *rest]))


@OPERATORS.reads("Concat", 4, 11, 13, traits=Trait.AFTER_LOGITS)
def _concat(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read Concat of tensors and of zeros: the sources are concatenated by channels, and the index as the node says."""
    if any(isinstance(value, np.ndarray) and value.any() for value in inputs):
        raise UnsupportedError("joins a tensor with constants other than 0, which is not supported: use a bias")
    tensors = [value for value in inputs if isinstance(value, Data)]
    if len({data.source for data in tensors}) > 1:
        tensors = [flat.compact(node, data) for data in tensors]
    sources = list({data.source: data for data in tensors}.values())
    if len({(len(data.shape), data.shape[1:]) for data in sources}) > 1:
        tensors, sources = ([flat.flat(data) for data in each] for each in (tensors, sources))
    starts = dict(
        zip([data.source for data in sources], np.cumsum([0, *[data.size for data in sources]]), strict=False)
    )
    made = sources[0]
    if len(sources) > 1:
        channels = sum(data.shape[0] for data in sources)
        made = flat.add(node, Concat(), *sources, shape=(channels, *made.shape[1:]))
    else:
        flat.account[node.row] = ("layout", "moves values; the weights after it are reordered to match")
    moved, rest = [], iter(tensors)
    for value in inputs:
        if isinstance(value, Data):
            data = next(rest)
            image, place = np.divmod(data.index - 1, data.size)
            moved.append(np.where(data.index > 0, image * made.size + starts[data.source] + place + 1, 0))
        elif value is not None:
            moved.append(np.zeros(value.shape, np.int64))
    return made.laid_out(np.asarray(evaluate(node, list(moved))[0], np.int64))


@OPERATORS.reads("Pad", 2, 11, 13, 18, 19, 21, 23, 24, 25, traits=Trait.AFTER_LOGITS)
def _pad(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read Pad with zeros, or with copies of values; the index of a padding zero is 0."""
    data = data_at(inputs, 0)
    value = input_at(inputs, 2)
    if isinstance(value, Data) or (value is not None and value.any()) or node.attributes.get("value", 0.0):
        raise UnsupportedError("pads with a number other than 0, which is not supported: pad with zeros")
    rest = [constant(value, "its padding") for value in inputs[1:]]
    # the value that pads an index is an integer zero, whatever the type of the tensor
    rest[1:2] = [None if rest[1] is None else np.zeros((), np.int64)] if len(rest) > 1 else []
    flat.account[node.row] = ("layout", "its zeros or copies of values become part of the next layer")
    return data.laid_out(np.asarray(evaluate(node, [data.index, *rest])[0], dtype=np.int64))


@OPERATORS.reads("Shape", 1, 13, 15, 19, 21, 23, 24, 25, traits=SIZE)
@OPERATORS.reads("Size", 1, 13, 19, 21, 23, 24, 25, traits=SIZE)
def _shape(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Array:
    flat.account[node.row] = ("constant", "the shape of a tensor, known at import")
    return evaluate(node, [data_at(inputs, 0).index])[0]


@OPERATORS.reads("Identity", 1, 13, 14, 16, 19, 21, 23, 24, 25, traits=LAYOUT | Trait.ENDS)
def _identity(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    return flat.unchanged(node, data_at(inputs, 0), "changes nothing")


@OPERATORS.reads("Dropout", 6, 7, 10, 12, 13, 22, traits=Trait.AFTER_LOGITS)
def _dropout(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    training = input_at(inputs, 2)
    if isinstance(training, Data) or (training is not None and training.any()):
        raise UnsupportedError("drops values at random: export the model in eval mode")
    return flat.unchanged(node, data_at(inputs, 0), "does nothing after training")


@OPERATORS.reads("Cast", 6, 9, 13, 19, 21, 23, 24, 25, 28, traits=Trait.AFTER_LOGITS)
def _cast(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read Cast to a floating-point type, or to any type after the logits; its rounding is left out."""
    data = data_at(inputs, 0)
    if node.attributes.get("to") not in FLOATS and data.ending is None:
        raise UnsupportedError("rounds to integers, which is not supported: keep floating-point types")
    return flat.unchanged(node, data, "changes only the type of the numbers")


@OPERATORS.reads("CastLike", 15, 19, 21, 23, 24, 25, traits=Trait.AFTER_LOGITS)
def _cast_like(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Value:
    value, like = inputs
    if isinstance(like, Data) and value is not None and not isinstance(value, Data):
        flat.account[node.row] = ("constant", "a constant in the type of the input")
        return value.astype(flat.dtype)
    if not isinstance(like, Data) and like is not None and like.dtype.kind in "iub":
        raise UnsupportedError("rounds to integers, which is not supported: keep floating-point types")
    return flat.unchanged(node, data_at(inputs, 0), "changes only the type of the numbers")


# --- quantised activations: rounding is left out; a lower bound of 0 is kept, with the upper bound of the type


@OPERATORS.reads("QuantizeLinear", 10, 13, 19, 21, 23, 24, 25, 28, traits=Trait.AFTER_LOGITS)
def _quantize_linear(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read QuantizeLinear of activations.

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
    low, high = _bounds_of(name)
    step, zero_point = float(scale.flat[0]), 0 if zero is None else int(zero.flat[0])
    grid, bound = (step, zero_point), (high - zero_point) * step
    is_bounded = zero_point == low and data.source != INPUT and data.ending is None
    flat.quantised[node.row] = bound if is_bounded else None
    if not is_bounded:
        return replace(flat.unchanged(node, data, "rounding and the bounds of its type are left out"), grid=grid)
    made = flat.add(node, Bound(0.0, bound), data)
    flat.account[node.row] = (made.source, f"rounding is left out; its bounds, 0 to {bound:g}, are kept")
    return replace(made, grid=grid)


@OPERATORS.reads("DequantizeLinear", 10, 13, 19, 21, 23, 24, 25, 28, traits=Trait.AFTER_LOGITS | Trait.DEQUANTISES)
def _dequantize_linear(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read DequantizeLinear, after QuantizeLinear or of an image of integers."""
    data, scale = data_at(inputs, 0), floats_at(inputs, 1, "its scale")
    zero = np.zeros(1) if input_at(inputs, 2) is None else floats_at(inputs, 2, "its zero point")
    if scale.size != 1 or zero.size != 1:
        raise UnsupportedError("dequantises activations per channel, which is not supported: use one scale")
    step, zero_point = float(scale.flat[0]), int(zero.flat[0])
    if data.grid is None:
        return scaled(node, data, flat, np.array(step), np.array(-step * zero_point))
    if data.grid != (step, zero_point):
        raise UnsupportedError(
            f"its scale {step:g} and zero point {zero_point} must be those of the QuantizeLinear before it, "
            f"{data.grid[0]:g} and {data.grid[1]}"
        )
    flat.quantised[node.row] = None
    return replace(flat.unchanged(node, data, "undoes a quantisation that is left out"), grid=None)


@OPERATORS.reads("DynamicQuantizeLinear", 11)
def _dynamic_quantize_linear(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> tuple[Value, ...]:
    """Read DynamicQuantizeLinear without its rounding: each number stands for itself, at a scale of 1."""
    flat.quantised[node.row] = None
    data = flat.unchanged(node, data_at(inputs, 0), "rounding by the range of each image is left out")
    return replace(data, grid=(1.0, 0)), np.array(1.0, np.float32), np.array(0, np.uint8)


@OPERATORS.reads("MatMulInteger", 10, traits=Trait.WEIGHS | Trait.PRODUCT | Trait.DEQUANTISES)
def _matmul_integer(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    data, weight = _of_integers(node, inputs, flat)
    return _product(node, data, weight, 1.0, flat)


@OPERATORS.reads("ConvInteger", 10, traits=Trait.WEIGHS | Trait.DEQUANTISES)
def _conv_integer(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    data, weight = _of_integers(node, inputs, flat)
    return _without_bias(node, data, weight, flat)


def _of_integers(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> tuple[Data, Floats]:
    """Return the numbers that integers stand for, and the weights for these, given those for the integers."""
    data, weight = data_at(inputs, 0), floats_at(inputs, 1, "its weights")
    if data.grid is None:
        raise UnsupportedError(
            "multiplies integers that no QuantizeLinear or DynamicQuantizeLinear made: export floats"
        )
    zeros = [np.zeros(1) if input_at(inputs, i) is None else floats_at(inputs, i, "its zero point") for i in (2, 3)]
    scale, zero_point = data.grid
    if (zeros[0] != zero_point).any():
        raise UnsupportedError(f"its zero point must be that of the quantisation before it, {zero_point}")
    of_output = zeros[1].reshape(-1, *[1] * (weight.ndim - 1)) if weight.ndim > 2 else zeros[1]
    flat.weights[node.row] = (weight - of_output) / scale
    return replace(data, grid=None), flat.weights[node.row]


def _type_named(node: GraphNode) -> str:
    """Return the type to which a node without a zero point quantises."""
    kind = int(node.attributes.get("output_dtype", 0)) or TensorProto.UINT8
    names: dict[int, str] = {number: name.lower() for name, number in TensorProto.DataType.items()}
    return names.get(kind, f"type {kind}")


def _bounds_of(dtype: str) -> tuple[int, int]:
    bits = int(dtype.removeprefix("u").removeprefix("int"))
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


# --- endings


@OPERATORS.reads("LogSoftmax", 1, 11, 13, traits=ENDS)
@OPERATORS.reads("Softmax", 1, 11, 13, traits=ENDS)
def _softmax(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read Softmax or LogSoftmax over the classes, as the last node."""
    data = data_at(inputs, 0)
    axis = int(node.attributes.get("axis", -1 if node.version >= 13 else 1))
    sides = data.index.shape[axis:] if node.version < 13 else data.index.shape[axis : axis + 1 or None]
    if math.prod(sides) != data.index.size // data.batch:
        raise UnsupportedError(f"runs over axis {axis} of {list(data.index.shape)}, not over the classes")
    return _ending(node, data, flat)


@OPERATORS.reads("Log", 6, 13, traits=ENDS)
def _log(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    data = data_at(inputs, 0)
    if data.ending is None:
        raise UnsupportedError("a logarithm is supported only after Softmax, as the last node")
    return _ending(node, data, flat)


@OPERATORS.reads("Sigmoid", 6, 13, traits=ENDS)
def _sigmoid(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    return _ending(node, data_at(inputs, 0), flat)


@OPERATORS.reads("ArgMax", 1, 11, 12, 13, traits=ENDS)
def _arg_max(node: GraphNode, inputs: Inputs, flat: FlatGraph) -> Data:
    """Read ArgMax over the classes, as the last node; its input becomes the output."""
    data = data_at(inputs, 0)
    axis = int(node.attributes.get("axis", 0))
    if not -data.index.ndim <= axis < data.index.ndim or data.index.shape[axis] != data.index.size // data.batch:
        raise UnsupportedError(f"runs over axis {axis} of {list(data.index.shape)}, not over the classes")
    return _ending(node, data, flat)


def _ending(node: GraphNode, data: Data, flat: FlatGraph, *, but: str = "") -> Data:
    """Leave out a node after which all nodes keep the order of the classes."""
    reason = f"keeps the order of the classes{but}: its input is taken as the logits"
    return replace(flat.unchanged(node, data, reason), ending=node.row if data.ending is None else data.ending)
