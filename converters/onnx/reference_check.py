"""What onnx's own evaluator makes of a graph, to hold an import against."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import NodeProto, TensorProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import Tensor

from converters.ann_to_snn.ann import Ann, run_ann
from converters.onnx.ann_builder import AnnBuilder
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import Graph, GraphNode
from converters.onnx.tensor_layout import Index
from converters.onnx.windows import Windows
from specs.errors import ConversionError
from specs.fields import Shape

__all__ = ["GlobalMaxPool", "Layout", "Reference", "largest_errors", "make_reference"]

WIDER: dict[int, int] = {TensorProto.FLOAT16: TensorProto.FLOAT, TensorProto.BFLOAT16: TensorProto.FLOAT}
LEAST = float(np.finfo(np.float32).min)
"""What never is a maximum."""


@dataclass(frozen=True)
class Layout:
    """How images `[N, *shape]` stand in the file's input: number i of an image there is number `order[i]` here."""

    shape: Shape
    order: Index = field(repr=False)

    @property
    def index(self) -> Index:
        """`order` as places from 1 on, as `Data` has them."""
        return self.order + 1


@dataclass(frozen=True)
class Reference:
    """A graph for onnx's evaluator, up to its logits.

    It is the file's but for this: what is constant is given; half precision is computed in single; quantised
    activations are not rounded, as in the import. And what the evaluator of onnx 1.23 gets wrong is written in other
    nodes: BatchNormalization before opset 14, and padding of pools, or by `auto_pad` (MaxPool with
    SAME_LOWER and strides, or with pads [0, 1, 0, 1]); or computed here: `GlobalMaxPool`.
    """

    evaluator: ReferenceEvaluator = field(repr=False)
    constants: dict[str, Array] = field(repr=False)
    graph: Graph = field(repr=False)
    layout: Layout

    def logits(self, images: Tensor) -> npt.NDArray[np.float64]:
        """`[N, classes]` for images `[N, *shape]` of the ANN's shape.

        Raises:
            ConversionError: the evaluator cannot compute them.
        """
        entering, gain = self.graph.input, self.graph.input.gain
        batch = entering.shape[0]
        flat = images.flatten(1).numpy()[:, self.layout.order]  # [N, C * H * W], as the file has them
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
            except Exception as error:  # whatever NumPy raises on what a file holds
                text = str(error).strip()[:300] or type(error).__name__
                raise ConversionError(f"onnx's evaluator cannot run the model: {text}") from None
        return np.concatenate(chunks)[: len(images)]


class GlobalMaxPool(OpRun):
    """The maximum of each map; that of onnx 1.23 takes the axes of maps with height and width, whatever they have."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.maximum.reduce(x, axis=tuple(range(2, x.ndim)), keepdims=True),)


def make_reference(
    graph: Graph,
    logits: str,
    constants: dict[str, Array],
    layout: Layout,
    builder: AnnBuilder,
) -> Reference:
    """The reference for the tensor `logits`.

    Args:
        constants: all tensors that do not depend on the image.
        builder: what the import found out about the nodes.
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
        evaluator = ReferenceEvaluator(model, new_ops=[GlobalMaxPool])
    except Exception as error:  # of operators that it lacks in some version
        raise ConversionError(f"onnx's evaluator cannot run the model: {str(error).strip()[:300]}") from None
    return Reference(evaluator, values, graph, layout)


def largest_errors(ann: Ann, reference: Reference, images: Tensor) -> tuple[float, float]:
    """The largest difference between the ANN's logits and the reference's, and the largest logit."""
    gain = reference.graph.input.gain
    images = images if gain == 1 else torch.round(images * gain) / gain
    wanted = reference.logits(images)
    with torch.no_grad():
        found = run_ann(ann, images)[0].double().numpy()
    if found.shape != wanted.shape:
        raise ConversionError(f"the import gives logits {list(found.shape)}, onnx's evaluator {list(wanted.shape)}")
    with np.errstate(all="ignore"):
        return float(np.abs(found - wanted).max()), float(np.abs(wanted).max())


def _plain(node: GraphNode, second: tuple[int, ...] | None, values: dict[str, Array]) -> NodeProto:
    """The node as the evaluator understands it; its second input in the shape that it says by its axis."""
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
    """The node with its padding as a node of its own, unless there is none or a convolution says it by `pads`."""
    top, left, bottom, right = windows.pads
    says_it = node.proto.op_type == "Conv" and node.attributes.get("auto_pad", "NOTSET") == "NOTSET"
    proto = _plain(node, None, values)
    if says_it:
        return [proto]
    _without(proto, ("auto_pad", "ceil_mode", "pads"))  # before 1.23 the evaluator cannot do VALID either
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
    """A quantisation without its rounding: nothing, or its bounds."""
    source, result = node.inputs[0], node.outputs[0]
    if bound is None:
        return [onnx.helper.make_node("Identity", [source], [result])]
    name, high = f"{result}, from 0", f"{result}, bound"
    values[high] = np.array(bound, np.float32)
    return [onnx.helper.make_node("Relu", [source], [name]), onnx.helper.make_node("Min", [name, high], [result])]


def _dequantised(node: GraphNode, values: dict[str, Array]) -> list[NodeProto]:
    """DequantizeLinear in elementary steps: the evaluator of onnx 1.23 has none before opset 19."""
    source, scale, *zero = node.inputs
    result, number, moved = node.outputs[0], f"{node.outputs[0]}, a number", f"{node.outputs[0]}, moved"
    values[f"{moved} by"] = values[zero[0]].astype(np.float32) if any(zero) else np.zeros(1, np.float32)
    return [
        onnx.helper.make_node("Cast", [source], [number], to=TensorProto.FLOAT),
        onnx.helper.make_node("Sub", [number, f"{moved} by"], [moved]),
        onnx.helper.make_node("Mul", [moved, scale], [result]),
    ]


def _normalised(node: GraphNode, shape: tuple[int, ...], values: dict[str, Array]) -> list[NodeProto]:
    """BatchNormalization in elementary steps: until opset 13 the evaluator takes it for training.

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
    kept = [attribute for attribute in proto.attribute if attribute.name not in names]
    del proto.attribute[:]
    proto.attribute.extend(kept)


def _wider(array: Array) -> Array:
    """Single precision for half."""
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array
