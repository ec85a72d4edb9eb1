"""What a table of operators is: each with the versions of it that are understood."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from converters.onnx.ann_builder import AnnBuilder
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import GraphNode
from converters.onnx.tensor_layout import Data
from specs.errors import UnsupportedError

__all__ = ["Inputs", "Operator", "Registry", "Value"]

Value = Data | Array
"""What a tensor of the graph is: something that depends on the image, or a constant."""
Inputs = tuple[Value | None, ...]
"""Of a node; `None` where an optional one is left out."""


@dataclass(frozen=True)
class Operator:
    """An operator that is understood, in these of its versions (each is known by the opset that it came with)."""

    read: Callable[[GraphNode, Inputs, AnnBuilder], Value]
    versions: tuple[int, ...]


@dataclass(frozen=True)
class Registry:
    """Operators by `(domain, name)`, and why others are not among them."""

    operators: Mapping[tuple[str, str], Operator]
    refused: Mapping[tuple[str, str], str]

    def find(self, node: GraphNode) -> Operator:
        """What reads a node.

        Raises:
            UnsupportedError: nothing does; says why.
        """
        operator = self.operators.get(node.key)
        if operator is None:
            raise UnsupportedError(self.refused.get(node.key) or self._unknown(node))
        if node.version not in operator.versions:
            raise UnsupportedError(f"its meaning since opset {node.version} is not known here")
        return operator

    def _unknown(self, node: GraphNode) -> str:
        if node.domain:
            return f"an operator of the domain {node.domain!r}; only ONNX's own have a known meaning"
        return "an operator that is not known to have a spiking meaning"
