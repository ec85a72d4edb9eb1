"""Table of operators, each with its function, versions and traits, and what these functions do with inputs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Flag, auto

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from converters.linear.ann import ScaleShift
from converters.linear.passes import narrowed
from converters.onnx.flat_graph import KEPT_WORK, TENSOR_WORK, FlatGraph
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import GraphNode
from converters.onnx.tensor_layout import Data, Floats, spread_over
from specs.errors import IntegrityError, UnsupportedError

SMOOTH = "a smooth function, which spiking neurons cannot compute: train the model with ReLU instead"
BOUNDED = "a function that spiking neurons cannot compute: train the model with ReLU instead"
RECURRENT = "a recurrent layer, which keeps a state between its own steps: use Conv or dense layers"
ATTENTION = "attention, which multiplies two tensors that depend on the image: use Conv or dense layers"
STATISTICS = "normalises by statistics of each image, which fixed weights cannot do: use BatchNormalization"
FUNCTION = "not supported on values that depend on the image: use Conv, Gemm, MatMul, pooling, Add and ReLU"
CONTROL = "control flow, whose branches are not read: export the model without it"
QONNX = (
    "quantisation of QONNX, which is not supported: export with QuantizeLinear and DequantizeLinear instead (in "
    "Brevitas: QCDQ)"
)
CLASSIFIER = "must have an intercept for each class, and post_transform NONE, SOFTMAX or LOGISTIC"
RANDOM = "draws random numbers, which a converted network cannot do: export the model in eval mode"
SAMPLING = "resamples, sorts or selects values, which is not supported: use Conv or pooling, or resize the images"

_REASONS = {
    SMOOTH: "Celu Elu Erf Exp Gelu HardSwish Mish Selu Softplus Softsign Swish SwiGLU Tanh",
    BOUNDED: "Abs HardSigmoid Hardmax Shrink Sign ThresholdedRelu",
    RECURRENT: "CausalConvWithState GRU LSTM LinearAttention RNN",
    ATTENTION: "Attention RotaryEmbedding",
    STATISTICS: (
        "GroupNormalization InstanceNormalization LRN LayerNormalization LpNormalization MeanVarianceNormalization "
        "RMSNormalization"
    ),
    FUNCTION: (
        "Cos Einsum GlobalLpPool LpPool Pow Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMin "
        "ReduceProd ReduceSumSquare Sin Sqrt"
    ),
    CONTROL: "If Loop Scan SequenceMap",
    RANDOM: "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    SAMPLING: "DeformConv GridSample MaxRoiPool MaxUnpool NonMaxSuppression RoiAlign TopK",
}

_QONNX_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas")

REFUSED = {
    **{("", name): reason for reason, names in _REASONS.items() for name in names.split()},
    **{(domain, name): QONNX for domain in _QONNX_DOMAINS for name in ("Quant", "BipolarQuant", "Trunc")},
    ("ai.onnx.ml", "LinearClassifier"): CLASSIFIER,
    ("ai.onnx.ml", "Normalizer"): STATISTICS,
}
"""Reason, with advice, by `(domain, operator)`."""
Value = Data | Array
"""Tensor of the file: `Data` if it depends on the image, an array if it is constant."""
Inputs = tuple[Value | None, ...]
"""Inputs of a node; None for an optional input that is left out."""
Reader = Callable[[GraphNode, Inputs, FlatGraph], Value | tuple[Value, ...]]
"""Function that appends the work of a node to the graph and returns the node's output, or several."""


class Trait(Flag):
    """Traits of an operator, whatever the attributes of a node are."""

    MOVES = auto()
    """Returns some of the numbers of its input, unchanged, so that these may be quantised."""
    AFTER_LOGITS = auto()
    """May follow a Softmax or similar node."""
    ENDS = auto()
    """Keeps the order of the classes, and so may follow the logits."""
    SIZE = auto()
    """Reads only the shape of its input."""
    PRODUCT = auto()
    """Multiplies its inputs, of which only one may depend on the image."""
    WEIGHS = auto()
    """Has weights: what it reads are not logits."""
    DEQUANTISES = auto()
    """Takes quantised numbers."""
    CHOOSES = auto()
    """Takes comparisons with 0."""
    ENDS_LAST = auto()
    """Keeps the order of the classes as the last node that does more than that."""


NO_TRAITS = Trait(0)


@dataclass(frozen=True)
class Operator:
    """An ONNX operator and the function that imports it.

    Attributes:
        versions: supported versions; a version is named by the opset that introduced it.
    """

    read: Reader
    versions: tuple[int, ...]
    traits: Trait = NO_TRAITS


class Operators(dict[str, Operator]):
    """Supported operators of ONNX's own domain by name."""

    def reads(self, name: str, *versions: int, traits: Trait = NO_TRAITS) -> Callable[[Reader], Reader]:
        """Decorate a function that reads an operator in these versions."""

        def add(read: Reader) -> Reader:
            assert name not in self
            self[name] = Operator(read, versions, traits)
            return read

        return add

    def has(self, node: GraphNode, traits: Trait) -> bool:
        """Return whether a node's operator has one of these traits."""
        return not node.domain and node.proto.op_type in self and bool(self[node.proto.op_type].traits & traits)

    def find(self, node: GraphNode) -> Operator:
        """Return the operator of a node.

        Raises:
            UnsupportedError: the operator, or this version of it, is not supported; the message has the reason.
        """
        operator = None if node.domain else self.get(node.proto.op_type)
        if operator is None:
            unknown = "an operator that is not supported: use Conv, Gemm, MatMul, pooling, Add and ReLU"
            if node.domain:
                unknown = (
                    f"an operator of the domain {node.domain!r}: supported are ONNX's own, quantised ones of "
                    "onnxruntime, LinearClassifier, Scaler and ZipMap"
                )
            raise UnsupportedError(REFUSED.get(node.key) or unknown)
        if node.version not in operator.versions:
            known = ", ".join(map(str, operator.versions))
            raise UnsupportedError(
                f"its version {node.version} is not supported, only {known}: export the model with another opset"
            )
        return operator


def input_at(inputs: Inputs, place: int) -> Value | None:
    """Return an input; None if it is left out."""
    return inputs[place] if place < len(inputs) else None


def data_at(inputs: Inputs, place: int) -> Data:
    """Return an input that must depend on the image."""
    value = input_at(inputs, place)
    if not isinstance(value, Data):
        raise UnsupportedError(f"its input {place + 1} must depend on the image, not be constant")
    return value


def constant(value: Value | None, what: str) -> Array | None:
    """Return an input that must be constant; `what` names it in the message."""
    if isinstance(value, Data):
        raise UnsupportedError(f"{what} must be constant, not computed from the image")
    return value


def floats_at(inputs: Inputs, place: int, what: str) -> Floats:
    """Return a required constant input as float64; `what` names it in the message."""
    value = constant(input_at(inputs, place), what)
    if value is None:
        raise UnsupportedError(f"{what} must be given")
    return as_floats(value)


def as_floats(value: Value | None) -> Floats:
    """Return a constant as float64; numbers that overflow become infinite."""
    if isinstance(value, Data) or value is None:
        raise UnsupportedError("one of its inputs must be constant")
    with np.errstate(all="ignore"):
        return value.astype(np.float64)


def bound_at(inputs: Inputs, place: int, default: float) -> float:
    """Return the number in an optional constant input, or `default` if it is left out."""
    return default if input_at(inputs, place) is None else one_number(floats_at(inputs, place, "its bound"))


def one_number(values: npt.NDArray[np.generic]) -> float:
    """Return the number that all elements of an array are equal to."""
    numbers = values.astype(np.float64).ravel()
    if not numbers.size or (numbers != numbers[0]).any():
        raise UnsupportedError("its bounds must be one number, the same for all values")
    return float(numbers[0])


def only_data(
    inputs: Inputs, otherwise: str = "exactly one of its inputs may depend on the image, the others must be constant"
) -> tuple[Data, list[Array]]:
    """Return the one input that depends on the image, and the constant inputs."""
    tensors = [value for value in inputs if isinstance(value, Data)]
    if len(tensors) != 1:
        raise UnsupportedError(otherwise)
    return tensors[0], [value for value in inputs if isinstance(value, np.ndarray)]


def scaled(
    node: GraphNode, data: Data, flat: FlatGraph, scale: Floats | None = None, shift: Floats | None = None
) -> Data:
    """Return `scale * x + shift`; both broadcast with the tensor, and are 1 and 0 if left out."""
    parts = []
    for values, fill in ((scale, 1.0), (shift, 0.0)):
        if values is not None and not np.isfinite(values).all():
            raise IntegrityError("its factor or shift is not finite")
        each = np.full([1] * len(data.shape), fill)
        if values is not None:
            flat.budget.spend(TENSOR_WORK * data.index.size)
            try:
                data, each = spread_over(data, values, fill=fill, moves=values is shift)
            except UnsupportedError:
                made = flat.plain(node, data)
                if made is data:
                    raise
                return scaled(node, made, flat, scale, shift)
        few = narrowed(tensor_of(each))
        if bool((few == few.flatten()[0]).all()):
            few = few.flatten()[:1].reshape([1] * few.dim()).clone()
        flat.budget.spend(KEPT_WORK * few.numel())
        parts.append(few)
    made = flat.add(node, ScaleShift(*parts), data)
    return replace(made, grid=data.grid, ending=data.ending)


def tensor_of(array: Floats) -> Tensor:
    """Return a copy as float64; a broadcast view could not be written to."""
    return torch.from_numpy(np.array(array, dtype=np.float64))
