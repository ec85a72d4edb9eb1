"""Reference for an import: onnx's own evaluator on the graph of the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import NodeProto, TensorProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import Tensor

from converters.linear.ann import Ann, run_ann
from converters.onnx.ann_builder import AnnBuilder
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import Graph, GraphNode
from converters.onnx.tensor_layout import Index
from converters.onnx.windows import Windows
from specs.errors import ConversionError
from specs.fields import Shape

__all__ = ["AveragePool", "GlobalMaxPool", "Layout", "MaxPool", "Reference", "largest_errors", "make_reference"]

WIDER: dict[int, int] = {TensorProto.FLOAT16: TensorProto.FLOAT, TensorProto.BFLOAT16: TensorProto.FLOAT}
LEAST = float(np.finfo(np.float32).min)
"""Padding value of MaxPool, which is never the maximum."""


@dataclass(frozen=True)
class Layout:
    """Layout of images in the file's input.

    Attributes:
        shape: shape of an image of the ANN.
        order: `order[i]` is the place, in an image of the ANN, of value i of an image of the file.
    """

    shape: Shape
    order: Index = field(repr=False)

    @property
    def index(self) -> Index:
        """Places counted from 1, as in `Data.index`."""
        return self.order + 1


@dataclass(frozen=True)
class Reference:
    """Graph for onnx's evaluator, up to the logits.

    It is the graph of the file with these changes: constants are given, half precision is computed in single, and
    quantised activations are not rounded, as in the import. Other nodes replace those that the evaluator of onnx 1.23
    lacks or computes wrongly: Dropout before opset 7, BatchNormalization before opset 14, pools with padding, and
    padding by `auto_pad` (MaxPool with SAME_LOWER and strides, or with pads [0, 1, 0, 1]). Pools are computed here:
    `GlobalMaxPool` is wrong there, and others walk through each window in Python.
    """

    evaluator: ReferenceEvaluator = field(repr=False)
    constants: dict[str, Array] = field(repr=False)
    graph: Graph = field(repr=False)
    layout: Layout

    def logits(self, images: Tensor) -> npt.NDArray[np.float64]:
        """Return logits `[N, classes]` for images `[N, *shape]` as the ANN takes them.

        Raises:
            ConversionError: the evaluator cannot run the graph.
        """
        entering, gain = self.graph.input, self.graph.input.gain
        batch = entering.shape[0]
        flat = images.flatten(1).numpy()[:, self.layout.order]  # [N, C * H * W], in the order of the file
        if gain != 1:
            flat = np.round(flat * gain)
        missing = -len(flat) % batch
        flat = np.concatenate([flat, np.zeros((missing, flat.shape[1]), flat.dtype)])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(WIDER.get(entering.element_type, entering.element_type))
        chunks = []
        for i in range(0, len(flat), batch):
            feeds = {**self.constants, entering.name: flat[i : i + batch].reshape(entering.shape).astype(dtype)}
            try:
                with np.errstate(all="ignore"):
                    result = np.asarray(next(iter(self.evaluator.run(None, feeds))))
                chunks.append(result.reshape(batch, -1).astype(np.float64))
            except Exception as error:  # the evaluator passes on any error of NumPy
                text = str(error).strip()[:300] or type(error).__name__
                raise ConversionError(f"onnx's evaluator cannot run the model: {text}") from None
        return np.concatenate(chunks)[: len(images)]


class GlobalMaxPool(OpRun):
    """Maximum of each map; the class in onnx 1.23 is right only for maps with height and width."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.maximum.reduce(x, axis=tuple(range(2, x.ndim)), keepdims=True),)


class MaxPool(OpRun):
    """Maximum of each window; the padding is a node of its own."""

    op_domain = ""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        return (np.maximum.reduce(_windows(x, attributes), axis=-1),)


class AveragePool(OpRun):
    """Mean of each window; the padding is a node of its own."""

    op_domain = ""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        return (_windows(x, attributes).mean(axis=-1).astype(x.dtype),)


def _windows(x: Array, attributes: Mapping[str, Any]) -> Array:
    """Return the values in each window, `[N, C, *places, kernel]`."""
    kernel = attributes["kernel_shape"]
    steps, gaps = (
        [*(attributes.get(name) or ()), *[1] * len(kernel)][: len(kernel)] for name in ("strides", "dilations")
    )
    reach = [gap * (side - 1) + 1 for side, gap in zip(kernel, gaps, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, tuple(range(2, x.ndim)))
    seen = seen[:, :, *(slice(None, None, step) for step in [*steps, *gaps])]
    return seen.reshape(*seen.shape[: x.ndim], -1)


def make_reference(
    graph: Graph,
    logits: str,
    constants: dict[str, Array],
    layout: Layout,
    builder: AnnBuilder,
) -> Reference:
    """Return the reference for an import.

    Args:
        graph: graph of the file.
        logits: name of the tensor to compute.
        constants: all tensors that do not depend on the image, by name.
        layout: layout of images in the file's input.
        builder: builder of the ANN, with its records of the nodes.

    Raises:
        ConversionError: the evaluator lacks an operator.
    """
    values = {name: _wider(array) for name, array in constants.items()}
    nodes = []
    needed = graph.ancestors((logits,))
    for node in graph.nodes:
        if node.row not in needed or all(name in constants for name in node.outputs if name):
            continue
        if node.row in builder.quantised:
            nodes += _unrounded(node, builder.quantised[node.row], values)
        elif node.key == ("", "DequantizeLinear"):
            nodes += _dequantised(node, values)
        elif node.row in builder.windows:
            nodes += _padded(node, builder.windows[node.row], values)
        elif node.key == ("", "Dropout") and node.version < 7:
            nodes.append(onnx.helper.make_node("Identity", node.inputs, node.outputs[:1]))
        elif node.key == ("", "BatchNormalization") and node.version < 14:
            nodes += _normalised(node, builder.constant_shapes[node.row], values)
        else:
            nodes.append(_plain(node, builder.constant_shapes.get(node.row), values))
    given = [
        onnx.helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in [*values, graph.input.name]
    ]
    leaving = [onnx.helper.make_tensor_value_info(logits, TensorProto.UNDEFINED, None)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "reference", given, leaving),
        opset_imports=[onnx.helper.make_opsetid("", graph.opset)],
    )
    try:
        evaluator = ReferenceEvaluator(model, new_ops=[AveragePool, GlobalMaxPool, MaxPool])
    except Exception as error:  # it lacks some versions of operators
        raise ConversionError(f"onnx's evaluator cannot run the model: {str(error).strip()[:300]}") from None
    return Reference(evaluator, values, graph, layout)


def largest_errors(ann: Ann, reference: Reference, images: Tensor) -> tuple[float, float]:
    """Return the largest difference between logits of the ANN and of the reference, and the largest logit."""
    gain = reference.graph.input.gain
    images = images if gain == 1 else torch.round(images * gain) / gain
    wanted = reference.logits(images)
    with torch.no_grad():
        found = run_ann(ann, images)[0].double().numpy()
    if found.shape != wanted.shape:
        raise ConversionError(f"the import returns logits {list(found.shape)}, onnx's evaluator {list(wanted.shape)}")
    with np.errstate(all="ignore"):
        return float(np.abs(found - wanted).max()), float(np.abs(wanted).max())


def _plain(node: GraphNode, second: tuple[int, ...] | None, values: dict[str, Array]) -> NodeProto:
    """Return a node for the evaluator; its second input gets the shape `second`, if that is given."""
    proto = NodeProto()
    proto.CopyFrom(node.proto)
    proto.domain = ""
    for attribute in proto.attribute:
        if node.key == ("", "Cast") and attribute.name == "to":
            attribute.i = WIDER.get(attribute.i, attribute.i)
    if second is not None:
        _without(proto, ("axis", "broadcast"))
        proto.input[1] = f"{node.inputs[1]}, laid out for node {node.row}"
        values[proto.input[1]] = values[node.inputs[1]].reshape(second)
    return proto


def _padded(node: GraphNode, windows: Windows, values: dict[str, Array]) -> list[NodeProto]:
    """Return a node with its padding as a separate Pad; padding by `pads` of a convolution stays in the node."""
    top, left, bottom, right = windows.pads
    pads_itself = node.proto.op_type == "Conv" and node.attributes.get("auto_pad", "NOTSET") == "NOTSET"
    proto = _plain(node, None, values)
    if pads_itself:
        return [proto]
    _without(proto, ("auto_pad", "ceil_mode", "pads"))  # before 1.23 the evaluator is wrong for VALID too
    if not any(windows.pads):
        return [proto]
    name = f"{node.inputs[0]}, padded for node {node.row}"
    proto.input[0] = name
    pads = [0, 0, left, 0, 0, right] if windows.n_axes == 1 else [0, 0, top, left, 0, 0, bottom, right]
    value = LEAST if node.proto.op_type == "MaxPool" else 0.0
    if node.opset < 11:
        return [onnx.helper.make_node("Pad", [node.inputs[0]], [name], pads=pads, value=value), proto]
    values[f"{name}: pads"], values[f"{name}: value"] = np.array(pads), np.array(value, np.float32)
    given = [node.inputs[0], f"{name}: pads", f"{name}: value"]
    return [onnx.helper.make_node("Pad", given, [name]), proto]


def _unrounded(node: GraphNode, bound: float | None, values: dict[str, Array]) -> list[NodeProto]:
    """Return nodes for a quantisation without rounding: its bounds 0 to `bound`, or no change."""
    source, result = node.inputs[0], node.outputs[0]
    if bound is None:
        return [onnx.helper.make_node("Identity", [source], [result])]
    name, high = f"{result}, from 0", f"{result}, bound"
    values[high] = np.array(bound, np.float32)
    return [onnx.helper.make_node("Relu", [source], [name]), onnx.helper.make_node("Min", [name, high], [result])]


def _dequantised(node: GraphNode, values: dict[str, Array]) -> list[NodeProto]:
    """Return DequantizeLinear in elementary steps: the evaluator of onnx 1.23 lacks it before opset 19."""
    source, scale, *zero = node.inputs
    result, number, moved = node.outputs[0], f"{node.outputs[0]}, a number", f"{node.outputs[0]}, moved"
    values[f"{moved} by"] = values[zero[0]].astype(np.float32) if any(zero) else np.zeros(1, np.float32)
    return [
        onnx.helper.make_node("Cast", [source], [number], to=TensorProto.FLOAT),
        onnx.helper.make_node("Sub", [number, f"{moved} by"], [moved]),
        onnx.helper.make_node("Mul", [moved, scale], [result]),
    ]


def _normalised(node: GraphNode, shape: tuple[int, ...], values: dict[str, Array]) -> list[NodeProto]:
    """Return BatchNormalization in elementary steps: until opset 13 the evaluator assumes training mode.

    Source: op_batch_normalization.py of onnx 1.23; https://github.com/onnx/onnx/pull/8442.
    """
    x, scale, bias, mean, variance = node.inputs
    constants = {name: values[name].reshape(shape).astype(np.float64) for name in (scale, bias, mean, variance)}
    deviation = np.sqrt(constants[variance] + node.attributes.get("epsilon", 1e-5))
    steps = [("Sub", constants[mean]), ("Div", deviation), ("Mul", constants[scale]), ("Add", constants[bias])]
    nodes, last = [], x
    for op, constant in steps:
        result = node.outputs[0] if op == "Add" else f"{node.outputs[0]}: {op}"
        values[f"{result} by"] = constant.astype(values[scale].dtype)
        nodes.append(onnx.helper.make_node(op, [last, f"{result} by"], [result]))
        last = result
    return nodes


def _without(proto: NodeProto, names: tuple[str, ...]) -> None:
    """Remove attributes from a node."""
    kept = [attribute for attribute in proto.attribute if attribute.name not in names]
    del proto.attribute[:]
    proto.attribute.extend(kept)


def _wider(array: Array) -> Array:
    """Return half precision as single."""
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array
