"""Operators of other domains, and quantised ones, that are read as several operators of ONNX, as if these stood there.

Sources: ContribOperators.md of onnxruntime; Operators.md and Operators-ml.md of onnx.
"""

from collections.abc import Callable, Iterator
from typing import Any

import onnx
from onnx import NodeProto

from converters.onnx.reading.onnx_file import DEFAULT_DOMAINS
from specs.errors import IntegrityError

OPSET = 13
"""Least opset of the operators below: since it, DequantizeLinear has scales for each channel."""

ENDINGS = {"NONE": "Identity", "SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}
"""Last operator of a LinearClassifier by its `post_transform`."""
WINDOWS = (
    "auto_pad: string = @auto_pad, kernel_shape: ints = @kernel_shape, pads: ints = @pads, strides: ints = @strides"
)


def _of_one(operator: str) -> str:
    """Return the graph of a quantised operator with one input."""
    return (
        f"(x, xs, xz, ys, yz) => (y) {{ d = DequantizeLinear(x, xs, xz) m = {operator}(d) "
        "y = QuantizeLinear(m, ys, yz) }"
    )


def _of_two(operator: str) -> str:
    """Return the graph of a quantised operator with two inputs."""
    return (
        "(x, xs, xz, w, ws, wz, ys, yz) => (y) { d = DequantizeLinear(x, xs, xz) v = DequantizeLinear(w, ws, wz) "
        f"m = {operator}(d, v) y = QuantizeLinear(m, ys, yz) }}"
    )


def _concat(node: NodeProto) -> str:
    """Return the graph of a QLinearConcat, which has a tensor, scale and zero point for each part."""
    parts = range((len(node.input) - 2) // 3)
    return (
        f"(ys, yz, {', '.join(f'x{i}, s{i}, z{i}' for i in parts)}) => (y) {{ "
        f"{' '.join(f'd{i} = DequantizeLinear(x{i}, s{i}, z{i})' for i in parts)} "
        f"c = Concat<axis: int = @axis>({', '.join(f'd{i}' for i in parts)}) y = QuantizeLinear(c, ys, yz) }}"
    )


def _gemm(node: NodeProto) -> str:
    """Return the graph of a QGemm, whose bias is added before `alpha`; without a scale at the end it gives floats."""
    return (
        "(x, xs, xz, w, ws, wz, b, ys, yz) => (y) { d = DequantizeLinear(x, xs, xz) "
        f"v = DequantizeLinear<axis={0 if _given(node, 'transB', 0) else 1}>(w, ws, wz) "
        "s = Mul(xs, ws) f = Cast<to=1>(b) t = Mul(f, s) g = Gemm<alpha: float = @alpha, beta: float = @alpha, "
        "transA: int = @transA, transB: int = @transB>(d, v, t) "
        f"y = {'QuantizeLinear(g, ys, yz)' if len(node.input) > 7 else 'Identity(g)'} }}"
    )


def _linear_classifier(node: NodeProto) -> str:
    """Return the graph of a LinearClassifier with a row of coefficients for each class; empty for others."""
    n_classes = len(_given(node, "intercepts", ()))
    labels = _given(node, "classlabels_ints", ()) or _given(node, "classlabels_strings", ())
    ending = ENDINGS.get(_given(node, "post_transform", b"NONE").decode("utf-8", "replace"))
    if ending is None or not n_classes or len(labels) not in (0, n_classes):
        return ""
    return (
        "(x) => (label, y) { c = Constant<value_floats: floats = @coefficients>() "
        f"n = Constant<value_ints=[{n_classes}, -1]>() w = Reshape(c, n) "
        "b = Constant<value_floats: floats = @intercepts>() g = Gemm<transB=1>(x, w, b) label = ArgMax<axis=1>(g) "
        f"y = {ending}(g) }}"
    )


GRAPHS: dict[tuple[str, str], str | Callable[[NodeProto], str]] = {
    ("", "QLinearConv"): (
        "(x, xs, xz, w, ws, wz, ys, yz, b) => (y) { d = DequantizeLinear(x, xs, xz) "
        "v = DequantizeLinear<axis=0>(w, ws, wz) s = Mul(xs, ws) f = Cast<to=1>(b) t = Mul(f, s) "
        f"c = Conv<{WINDOWS}, dilations: ints = @dilations, group: int = @group>(d, v, t) "
        "y = QuantizeLinear(c, ys, yz) }"
    ),
    ("", "QLinearMatMul"): _of_two("MatMul"),
    ("com.microsoft", "QLinearAdd"): _of_two("Add"),
    ("com.microsoft", "QLinearMul"): _of_two("Mul"),
    ("com.microsoft", "QLinearAveragePool"): _of_one(
        f"AveragePool<{WINDOWS}, ceil_mode: int = @ceil_mode, count_include_pad: int = @count_include_pad>"
    ),
    ("com.microsoft", "QLinearGlobalAveragePool"): _of_one("GlobalAveragePool"),
    ("com.microsoft", "QLinearLeakyRelu"): _of_one("LeakyRelu<alpha: float = @alpha>"),
    ("com.microsoft", "QLinearSigmoid"): _of_one("Sigmoid"),
    ("com.microsoft", "QLinearSoftmax"): _of_one("Softmax<axis: int = @axis>"),
    ("com.microsoft", "QLinearConcat"): _concat,
    ("com.microsoft", "QGemm"): _gemm,
    ("ai.onnx.ml", "Scaler"): (
        "(x) => (y) { o = Constant<value_floats: floats = @offset>() s = Constant<value_floats: floats = @scale>() "
        "d = Sub(x, o) y = Mul(d, s) }"
    ),
    ("ai.onnx.ml", "LinearClassifier"): _linear_classifier,
    ("ai.onnx.ml", "ZipMap"): "(x) => (y) { y = Identity(x) }",
}
"""Operators by `(domain, name)`: their graph in ONNX's text form, or a function that makes it of a node.

Where an optional input is left out, so are the operators that take it first.
"""


def composed(node: NodeProto) -> Iterator[NodeProto]:
    """Yield the operators that a node stands for, each with the name of the node; the node itself if it is simple.

    Raises `IntegrityError` if the node has more inputs than its operator, or attributes of other types.
    """
    domain = "" if node.domain in DEFAULT_DOMAINS else node.domain
    graph = GRAPHS.get((domain, node.op_type))
    if graph is None or not node.output or _given(node, "channels_last", 0):
        yield node
        return
    given = {attribute.name: attribute for attribute in node.attribute}
    try:
        text = graph if isinstance(graph, str) else graph(node)
    except (TypeError, AttributeError, ValueError):
        raise IntegrityError(f"node {node.name!r} ({node.op_type}) has attributes of wrong types") from None
    if not text:
        yield node
        return
    function = onnx.parser.parse_function(f'<domain: "x", opset_import: ["": {OPSET}]> f {text}')
    if len(node.input) > len(function.input):
        raise IntegrityError(f"node {node.name!r} ({node.op_type}) has {len(node.input)} inputs, too many")
    name = node.name or node.output[0]
    names = dict.fromkeys(function.input, "") | dict(zip(function.input, node.input, strict=False)) | {"": ""}
    names |= {own: other or f"{name}, {own}" for own, other in zip(function.output, node.output, strict=False)}
    for part in function.node:
        if part.input and not names.setdefault(part.input[0], f"{name}, {part.input[0]}"):
            names |= dict.fromkeys(part.output, "")
            continue
        made = NodeProto()
        made.CopyFrom(part)
        made.name = name
        for tensors in (made.input, made.output):
            tensors[:] = [names.setdefault(own, f"{name}, {own}") for own in tensors]
        del made.attribute[:]
        for attribute in part.attribute:
            if not attribute.ref_attr_name:
                made.attribute.append(attribute)
            elif attribute.ref_attr_name in given:
                made.attribute.add().CopyFrom(given[attribute.ref_attr_name])
                made.attribute[-1].name = attribute.name
        yield made


def _given(node: NodeProto, name: str, default: Any) -> Any:
    values = (onnx.helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name)
    return next(values, default)
