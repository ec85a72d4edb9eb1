"""Types of the table of operators: a reader for each operator, and the versions that it supports."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from converters.onnx.ann_builder import AnnBuilder
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import GraphNode
from converters.onnx.tensor_layout import Data
from specs.errors import UnsupportedError

__all__ = ["Inputs", "Operator", "Registry", "Value"]

Value = Data | Array
"""Tensor of the graph: `Data` if it depends on the image, an array if it is constant."""
Inputs = tuple[Value | None, ...]
"""Inputs of a node; None for an optional input that is left out."""


@dataclass(frozen=True)
class Operator:
    """Supported operator.

    Attributes:
        read: function that adds the work of a node to the ANN and returns the node's output.
        versions: supported versions; a version is named by the opset that introduced it.
    """

    read: Callable[[GraphNode, Inputs, AnnBuilder], Value]
    versions: tuple[int, ...]


@dataclass(frozen=True)
class Registry:
    """Supported operators, and reasons to refuse others, by `(domain, name)`."""

    operators: Mapping[tuple[str, str], Operator]
    refused: Mapping[tuple[str, str], str]

    def find(self, node: GraphNode) -> Operator:
        """Return the operator of a node.

        Raises:
            UnsupportedError: the operator, or this version of it, is not supported; the message has the reason.
        """
        operator = self.operators.get(node.key)
        if operator is None:
            raise UnsupportedError(self.refused.get(node.key) or self._unknown(node))
        if node.version not in operator.versions:
            known = ", ".join(map(str, operator.versions))
            raise UnsupportedError(
                f"its version {node.version} is not supported, only {known}: export the model with another opset"
            )
        return operator

    def _unknown(self, node: GraphNode) -> str:
        """Return the reason to refuse an operator that has no entry."""
        if node.domain:
            return f"an operator of the domain {node.domain!r}; only ONNX's own operators are supported"
        return "an operator that is not supported: use Conv, Gemm, MatMul, pooling, Add and ReLU"
