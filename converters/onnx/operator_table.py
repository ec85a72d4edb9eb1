"""Table of operators: the function that reads an operator, the versions that it understands, and its traits."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto

from converters.onnx.flat_graph import FlatGraph
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import GraphNode
from converters.onnx.refused_operators import REFUSED
from converters.onnx.tensor_layout import Data
from specs.errors import UnsupportedError

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
