"""Reference for an import: onnx's own evaluator on the graph of the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import NodeProto, TensorProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv import Conv as EvaluatedConv
from torch import Tensor
from torch.nn.functional import conv_transpose1d, conv_transpose2d

from converters.linear.ann import Ann, run_ann
from converters.onnx.reading.constant_folding import OURS as RESIZING
from converters.onnx.reading.constant_folding import fitted_from
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import Graph, GraphNode
from converters.onnx.tensor_layout import Floats, Index
from converters.onnx.windows import each_window, part_counted, transposed_windows_of, windows_of
from specs.errors import ConversionError
from specs.fields import Shape
from specs.shapes import pads_of

WIDER: dict[int, int] = {TensorProto.FLOAT16: TensorProto.FLOAT, TensorProto.BFLOAT16: TensorProto.FLOAT}


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
    quantised activations are not rounded, as in the import. `OURS` replaces what the evaluator of onnx 1.23 lacks or
    computes wrongly.
    """

    evaluator: ReferenceEvaluator = field(repr=False)
    constants: dict[str, Array] = field(repr=False)
    graph: Graph = field(repr=False)
    layout: Layout

    def logits(self, images: Tensor) -> npt.NDArray[np.float64]:
        """Return logits `[N, classes]` for images `[N, *shape]` as the ANN takes them.

        Raises `ConversionError` if the evaluator cannot run the graph.
        """
        entering, gain = self.graph.input, self.graph.input.gain
        batch = entering.shape[0]
        flat = images.flatten(1).numpy()[:, self.layout.order]  # [N, C * H * W], in the order of the file
        if gain != 1:
            flat = np.round(flat * gain) + entering.black
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
    """Maximum of each window; onnx 1.23 is wrong for SAME_LOWER with strides, and for pads [0, 1, 0, 1]."""

    op_domain = ""

    def _run(self, x: Floats, **attributes: Any) -> tuple[Array]:
        return (np.maximum.reduce(_windows(x, attributes, x.min(initial=0)), axis=-1),)


class AveragePool(OpRun):
    """Mean of each window; the class in onnx 1.23 walks through each window in Python."""

    op_domain = ""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        part = part_counted(_given(attributes), tuple(attributes["kernel_shape"]), x.shape[2:])
        return ((_windows(x, attributes, 0).mean(axis=-1) / part).astype(x.dtype),)


class Conv(EvaluatedConv):
    """Convolution with explicit padding; before 1.23 the class in onnx is wrong for `auto_pad`."""

    op_domain = ""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any) -> Any:  # type: ignore[override]
        if attributes.get("auto_pad") not in (None, "NOTSET"):
            n = x.ndim - 2
            pads = pads_of(windows_of(_given(attributes), weight.shape[2:], x.shape[2:]).padding)
            attributes |= {"auto_pad": "NOTSET", "pads": [*pads[2 - n : 2], *pads[4 - n :]]}
        return super()._run(x, weight, bias, **attributes)  # type: ignore[no-untyped-call]


class ConvTranspose(OpRun):
    """Transposed convolution by torch: the class in onnx 1.23 is wrong for groups and for `output_shape`."""

    op_domain = ""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        kernel, sides = weight.shape[2:], x.shape[2:]
        stride, dilation, pads = transposed_windows_of(_given(attributes), kernel, sides)
        convolve: Any = conv_transpose1d if len(sides) == 1 else conv_transpose2d
        tensors = torch.tensor(x), torch.tensor(weight)
        made = convolve(*tensors, stride=stride, groups=attributes["group"] or 1, dilation=dilation).numpy()
        for axis, (start, end) in enumerate(zip(*pads, strict=True), 2):
            reach = dilation[axis - 2] * (kernel[axis - 2] - 1)
            last = made.shape[axis] - reach + end
            made = np.take(np.concatenate([made, np.zeros_like(made)], axis), range(reach - start, last), axis)
        return (made if bias is None else made + bias.reshape(-1, *[1] * len(sides)),)


class BatchNormalization(OpRun):
    """Normalization by the file's statistics: until opset 13 the class in onnx 1.23 assumes training mode.

    Source: op_batch_normalization.py of onnx 1.23; https://github.com/onnx/onnx/pull/8442.
    """

    op_domain = ""

    def _run(
        self, x: Floats, scale: Floats, bias: Floats, mean: Floats, variance: Floats, **attributes: Any
    ) -> tuple[Array]:  # fmt: skip
        constants = [values.astype(np.float64) for values in (mean, variance, scale, bias)]
        if attributes.get("spatial") in (None, 1):  # until opset 8, 0 stands for a number for each activation
            constants = [values.reshape(-1, *[1] * (x.ndim - 2)) for values in constants]
        constants[1] = np.sqrt(constants[1] + attributes["epsilon"])
        mean, deviation, scale, bias = (values.astype(scale.dtype) for values in constants)
        return ((x - mean) / deviation * scale + bias,)


class Dropout(OpRun):
    """Dropout after training, which changes nothing; onnx 1.23 lacks it before opset 7."""

    op_domain = ""

    def _run(self, x: Array, *_: Array, **attributes: Any) -> tuple[Array]:
        return (x,)


class DequantizeLinear(OpRun):
    """Numbers of a quantised tensor; onnx 1.23 lacks it before opset 19."""

    op_domain = ""

    def _run(self, x: Array, scale: Floats, zero: Floats | None = None, **attributes: Any) -> tuple[Array]:
        return ((x.astype(np.float32) - np.float32(0 if zero is None else zero)) * scale,)


class _Fitting(OpRun):
    """Operator of opset 6, whose second input may align with the first from an axis on."""

    op_domain = ""
    apply: ClassVar[np.ufunc]

    def _run(self, x: Array, y: Array, axis: int | None = None, **attributes: Any) -> tuple[Array]:
        return (self.apply(x, y if axis is None else fitted_from(axis, x.ndim, y)),)


OURS = (
    GlobalMaxPool,
    MaxPool,
    AveragePool,
    Conv,
    ConvTranspose,
    BatchNormalization,
    Dropout,
    DequantizeLinear,
    *RESIZING,
)
OF_OPSET_6 = [
    type(name, (_Fitting,), {"apply": apply})
    for name, apply in (("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", np.divide))
]


def _windows(x: Array, attributes: Mapping[str, Any], padding: float) -> Array:
    """Return the values in each window, `[N, C, *places, kernel]`."""
    window = windows_of(_given(attributes), tuple(attributes["kernel_shape"]), x.shape[2:])
    top, left, bottom, right = pads_of(window.padding)
    maps = x if x.ndim == 4 else x[:, :, None]
    maps = np.pad(maps, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=padding)
    seen = each_window(maps, window)
    seen = seen.reshape(*seen.shape[:4], -1)
    return seen if x.ndim == 4 else seen[:, :, 0]


def _given(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def make_reference(
    graph: Graph,
    logits: str,
    constants: dict[str, Array],
    layout: Layout,
    quantised: Mapping[int, float | None],
    weights: Mapping[int, Floats],
) -> Reference:
    """Return the reference for an import.

    Args:
        logits: name of the tensor to compute.
        constants: all tensors that do not depend on the image, by name.
        layout: layout of images in the file's input.
        quantised: rows of quantisations without rounding, with the upper bound that is kept, or None.
        weights: float weights of integer products, by row.

    Raises `ConversionError` if the evaluator lacks an operator.
    """
    values = {name: _wider(array) for name, array in constants.items()}
    nodes = []
    needed = graph.ancestors((logits,))
    for node in graph.nodes:
        if node.row not in needed or all(name in constants for name in node.outputs if name):
            continue
        if node.row in quantised:
            nodes += _unrounded(node, quantised[node.row], values)
        elif node.row in weights:
            values[name := f"{node.outputs[0]}, weights"] = weights[node.row].astype(np.float32)
            product = _plain(node)
            product.op_type = node.proto.op_type.removesuffix("Integer")
            product.input[:] = [node.inputs[0], name]
            nodes.append(product)
        else:
            nodes.append(_plain(node))
    given = [
        onnx.helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in [*values, graph.input.name]
    ]
    leaving = [onnx.helper.make_tensor_value_info(logits, TensorProto.UNDEFINED, None)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "reference", given, leaving),
        opset_imports=[onnx.helper.make_opsetid("", graph.opset)],
    )
    try:
        evaluator = ReferenceEvaluator(model, new_ops=[*OURS, *(OF_OPSET_6 if graph.opset < 7 else [])])
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


def _plain(node: GraphNode) -> NodeProto:
    """Return a node for the evaluator."""
    proto = NodeProto()
    proto.CopyFrom(node.proto)
    proto.domain = ""
    for attribute in proto.attribute:
        if node.key == ("", "Cast") and attribute.name == "to":
            attribute.i = WIDER.get(attribute.i, attribute.i)
    return proto


def _unrounded(node: GraphNode, bound: float | None, values: dict[str, Array]) -> list[NodeProto]:
    """Return nodes for a quantisation without rounding: its bounds 0 to `bound`, or no change."""
    source, result = node.inputs[0], node.outputs[0]
    if bound is None:
        return [onnx.helper.make_node("Identity", [source], [result])]
    name, high = f"{result}, from 0", f"{result}, bound"
    values[high] = np.array(bound, np.float32)
    return [onnx.helper.make_node("Relu", [source], [name]), onnx.helper.make_node("Min", [name, high], [result])]


def _wider(array: Array) -> Array:
    """Return half precision as single."""
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array
