"""Constant folding with onnx's own evaluator, one node at a time, within limits on sizes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_resize import Resize as EvaluatedResize

from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import GraphNode
from specs.errors import IntegrityError, UnsupportedError
from specs.files.limits import ONNX_ELEMENTS, ONNX_TENSOR

BINARY = "Add", "Sub", "Mul", "Div"
"""Operators whose second input may, until opset 6, align with the first from an axis on."""

ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Equal", "Less", "Greater", "And", "Or", "Where", "Mod")
FOLDABLE = frozenset(
    {
        *ELEMENTWISE,
        *("Abs", "Cast", "CastLike", "Ceil", "Concat", "Constant", "ConstantOfShape", "DequantizeLinear", "Exp"),
        *("Expand", "Flatten", "Floor", "Gather", "Identity", "Log", "MatMul", "Neg", "Not", "Pad", "QuantizeLinear"),
        *("Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape"),
        *("Shape", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sum", "Tile", "Transpose", "Unsqueeze"),
    }
)
"""Operators that are computed at import if all their inputs are constant."""

MACS = 32
"""Number of multiplications in a MatMul that count as one number: the limit on numbers then limits the time too."""

EVALUATED_AS = {"DequantizeLinear": 19, "QuantizeLinear": 19}
"""Opset in which onnx evaluates an operator of an older opset: it lacks the older versions, which mean the same."""


class Resize(EvaluatedResize):
    """Resize to the nearest value, an axis at a time: older versions of onnx walk through all numbers for each one.

    With fewer than two inputs after the tensor it is Upsample, or Resize of opset 10, which the class lacks.
    """

    op_domain = ""

    def _run(self, x: Array, *given: Array | None, axes: list[int] | None = None, **attributes: Any) -> tuple[Array]:  # type: ignore[override]
        names = "coordinate_transformation_mode", "nearest_mode"
        options = {name: attributes[name] for name in names if attributes.get(name)}
        if len(given) < 2:
            plain = [1.0, 1.0, attributes.get("height_scale"), attributes.get("width_scale")]  # of opset 1
            given = None, given[0] if given else np.array(attributes.get("scales") or plain, np.float32)
            options = dict(zip(names, ("asymmetric", "floor"), strict=True))
        for i, axis in enumerate(range(x.ndim) if axes is None else axes):
            side = np.arange(x.shape[axis], dtype=np.float64)
            scales, sizes = (None if v is None or not v.size else v[i : i + 1] for v in (*given[1:], None)[:2])
            options |= {"mode": "nearest", "keep_aspect_ratio_policy": "stretch"}
            places = super()._run(side, None, scales, sizes, **options)[0]
            x = np.take(x, np.rint(places).astype(np.int64), axis)
        return (x,)


class Upsample(Resize):
    """Upsample to the nearest value; the class in onnx lacks opset 7, and factors that are no whole numbers."""


OURS = Resize, Upsample


def evaluate(node: GraphNode, inputs: list[Array | None], *, limit: int = ONNX_TENSOR) -> list[Array]:
    """Compute the outputs of a node from the values of its inputs.

    Args:
        inputs: value of each input; None for an optional input that is left out.
        limit: largest number of elements that the node may compute.

    Raises:
        IntegrityError: onnx's evaluator cannot compute the node from these values.
        UnsupportedError: the result exceeds `limit`, or is not a tensor.
    """
    if (n_results := _n_results(node, inputs)) > limit:
        raise UnsupportedError(f"computes up to {n_results:,} numbers; at most {limit:,} are supported here")
    for attribute in node.proto.attribute:
        if attribute.HasField("t") and math.prod(attribute.t.dims) > ONNX_ELEMENTS:
            raise UnsupportedError(f"its attribute {attribute.name!r} exceeds {ONNX_ELEMENTS:,} numbers, the limit")
    if node.version < 7 and "axis" in node.attributes and node.proto.op_type in BINARY:
        first, second = inputs
        if first is not None and second is not None:
            inputs = [first, fitted_from(int(node.attributes["axis"]), first.ndim, second)]
    opset = max(node.opset, EVALUATED_AS.get(node.proto.op_type, 0))
    feeds = {name: array for name, array in zip(node.inputs, inputs, strict=True) if array is not None}
    given, made = (
        [onnx.helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in names]
        for names in (feeds, filter(None, node.outputs))
    )
    graph = onnx.helper.make_graph([node.proto], "constant", given, made)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model, new_ops=[*OURS]).run(None, feeds)
    except Exception as error:  # the evaluator passes on any error of NumPy
        raise IntegrityError(f"onnx cannot compute it: {str(error).strip()[:200] or type(error).__name__}") from None
    if not all(isinstance(result, np.ndarray | np.generic) for result in results):
        raise UnsupportedError("its output is not a tensor")
    return [np.asarray(result) for result in results]


def fitted_from(axis: int, rank: int, second: Array) -> Array:
    """Return the second operand with axes of 1 appended: it then aligns with one of `rank` axes from `axis` on."""
    return second.reshape(*second.shape, *[1] * (rank - axis % rank - second.ndim))


def _n_results(node: GraphNode, inputs: list[Array | None]) -> int:
    """Return an upper bound on the numbers that a node computes; for MatMul the bound also covers its time."""
    first, second = [*inputs, None, None][:2]
    match node.proto.op_type:
        case "ConstantOfShape" if first is not None:
            return _product(first)
        case "Expand" if first is not None and second is not None:
            return _broadcast([first.shape, tuple(int(side) for side in second.ravel()[:64])])
        case "Tile" if first is not None and second is not None:
            return first.size * _product(second)
        case "Gather" if first is not None and second is not None:
            axis = int(node.attributes.get("axis", 0))
            side = first.shape[axis] if -first.ndim <= axis < first.ndim else 1
            return int(second.size * first.size // max(1, side))
        case "MatMul" if first is not None and second is not None:
            results = math.prod(first.shape[:-1]) * math.prod((*second.shape[:-2], *second.shape[-1:]))
            return int(results * max(1, math.prod(first.shape[-1:]) // MACS))
        case "Pad" if first is not None:
            pads = second if second is not None else np.array(node.attributes.get("pads", []))
            axes = inputs[3] if len(inputs) > 3 and inputs[3] is not None else np.arange(first.ndim)
            return _padded(first.shape, pads.ravel(), axes.ravel())
        case "Resize" | "Upsample" if first is not None:
            scales, sizes = [*inputs[2:], None, None][:2] if len(inputs) > 2 else (second, None)
            named = [value for name, value in node.attributes.items() if "scale" in name]
            given = np.hstack([np.ones(1), *named]) if scales is None else scales
            grown = first.size * math.prod(max(1.0, float(scale)) for scale in given.ravel()[:64])
            return int(min(grown if sizes is None else max(first.size, 1) * _product(sizes), 2.0**62))
        case "Range" if all(array is not None and array.size == 1 for array in inputs):
            start, limit, step = (float(np.asarray(array).item()) for array in inputs)
            return int(min(abs((limit - start) / step), 2.0**62)) if step else 0
        case op if op in (*ELEMENTWISE, "Sum"):
            return _broadcast([array.shape for array in inputs if array is not None])
        case _:
            return sum(array.size for array in inputs if array is not None)


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> int:
    """Return an upper bound on the numbers that arrays of these shapes broadcast to."""
    rank = max(map(len, shapes), default=0)
    return math.prod(max(([1] * (rank - len(s)) + [*s])[i] for s in shapes) for i in range(rank))


def _padded(shape: tuple[int, ...], pads: Array, axes: Array) -> int:
    """Return an upper bound on the numbers of a padded array; `pads` holds a begin for each axis, then the ends."""
    if len(pads) != 2 * len(axes) or len(axes) > len(shape):  # the evaluator refuses it
        return math.prod(side + 2 * int(np.abs(pads.astype(np.float64)).max(initial=0)) for side in shape)
    sides = list(shape)
    for axis, begin, end in zip(axes, pads, pads[len(axes) :], strict=False):
        if -len(sides) <= axis < len(sides):
            sides[int(axis)] += abs(int(begin)) + abs(int(end))
    return math.prod(sides)


def _product(shape: Array) -> int:
    """Return the number of elements of a shape; sides below 1 count as 1."""
    return math.prod(max(1, int(side)) for side in shape.ravel()[:64])
