"""Activations close to a rectifier: found however a file writes them, and replaced by Relu.

Exporters write GELU, SiLU and others as one node or as several, such as Erf or Sigmoid with products. So a part of the
graph is an activation if it computes one of `SMOOTH` from a single tensor; its values on a few numbers decide this.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import torch

from converters.linear.ann import SMOOTH, Ann, Relu, Smooth
from converters.onnx.reading.constant_folding import evaluate
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import Graph, GraphNode
from converters.onnx.tensor_layout import Floats
from specs.errors import IntegrityError, UnsupportedError

CURVES = frozenset(
    {
        *("Celu", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Mish", "Selu", "Sigmoid", "Softplus"),
        *("Swish", "Tanh"),
    }
)
ARITHMETIC = frozenset(
    {"Add", "Clip", "Div", "Identity", "Log", "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Sub"}
)
MOST_NODES = 16
"""Largest number of nodes that are one activation."""
NUMBERS = np.concatenate([[-40.0, 1.0], np.linspace(-12, 12, 97)])
"""Numbers on which functions are compared: from the first two follows the constant of the function."""
TOLERANCE = 1e-5
"""Largest difference from a function, as a part of 1 + |x|; the two forms of GELU differ by 5e-4."""


def activations_of(graph: Graph) -> dict[int, tuple[str, Smooth]]:
    """Return the tensor that each activation reads, and its function, by the row of its last node."""
    found, inside = dict[int, tuple[str, Smooth]](), set[int]()
    makers = {name: node for node in graph.nodes for name in node.outputs if name}
    places = {node.row: place for place, node in enumerate(graph.nodes)}
    numbers = _numbers(graph)
    for node in reversed(graph.nodes):  # so that the whole of an activation comes before its parts
        if node.row in inside or not _may_be_part(node):
            continue
        part, reads = dict[int, GraphNode](), {node.outputs[0]}
        while len(part) < MOST_NODES:
            last = max((makers[name] for name in reads if name in makers), key=lambda n: places[n.row], default=None)
            if last is None or not _may_be_part(last):
                break
            part[last.row] = last
            reads = (reads - set(last.outputs)) | {name for name in last.inputs if name and name not in numbers}
            if len(reads) == 1 and (function := _function(list(part.values())[::-1], min(reads), numbers)):
                found[node.row] = min(reads), function
                inside.update(part)
                break
    return found


def with_rectifiers(graph: Graph, activations: Mapping[int, tuple[str, Smooth]]) -> Graph:
    """Return the graph with Relu in the place of the activations; each has the name and row of the last node."""
    version = onnx.defs.get_schema("Relu", graph.opset).since_version
    nodes = [
        replace(
            node,
            proto=onnx.helper.make_node("Relu", [activations[node.row][0]], [node.outputs[0]], node.name),
            opset=graph.opset,
            version=version,
        )
        if node.row in activations
        else node
        for node in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


def with_activations(ann: Ann, rows: Mapping[str, int], activations: Mapping[int, tuple[str, Smooth]]) -> Ann:
    """Return an ANN as read with the functions of the file in the place of its rectifiers; `rows` are of its nodes."""
    functions = {name: activations[row][1] for name, row in rows.items() if row in activations}
    nodes = [
        replace(node, operation=functions[node.name])
        if isinstance(node.operation, Relu) and node.name in functions
        else node
        for node in ann.nodes
    ]
    return replace(ann, nodes=tuple(nodes))


def named(activations: Mapping[int, tuple[str, Smooth]]) -> str:
    """Return the activations in words: the number of each function.

    >>> named({3: ("x", Smooth("gelu")), 5: ("y", Smooth("gelu")), 9: ("z", Smooth("silu"))})
    '2 gelu, 1 silu'
    """
    kinds = Counter(function.name for _, function in activations.values())
    return ", ".join(f"{n} {name}" for name, n in kinds.most_common())


def _numbers(graph: Graph) -> dict[str, Array]:
    """Return the constants of one number by name."""
    found: dict[str, Array] = {
        name: array.reshape(()).astype(np.float64) for name, array in graph.constants.items() if array.size == 1
    }
    for node in graph.nodes:
        if node.key == ("", "Constant") and not node.inputs:
            (value,) = evaluate(node, [])
            if value.size == 1 and value.dtype.kind in "iuf":
                found[node.outputs[0]] = value.reshape(()).astype(np.float64)
    return found


def _may_be_part(node: GraphNode) -> bool:
    """Return whether a node may be part of an activation."""
    return not node.domain and node.proto.op_type in CURVES | ARITHMETIC and len(node.outputs) == 1


def _function(nodes: list[GraphNode], source: str, numbers: Mapping[str, Array]) -> Smooth | None:
    """Return the function of `SMOOTH` that nodes, in their order, compute from a tensor; None if it is another."""
    bends = any(node.proto.op_type in CURVES for node in nodes)
    if not bends and not any(node.proto.op_type == "Mul" and numbers.keys().isdisjoint(node.inputs) for node in nodes):
        return None  # lines and bounds, which the importer reads as they are
    values: dict[str, Array] = {**numbers, source: NUMBERS}
    try:
        for node in nodes:
            (values[node.outputs[0]],) = evaluate(node, [values[name] if name else None for name in node.inputs])
    except (IntegrityError, UnsupportedError):
        return None
    wanted = np.asarray(values[nodes[-1].outputs[0]], np.float64)
    if wanted.shape != NUMBERS.shape or not np.isfinite(wanted).all():
        return None
    return next((found for name in SMOOTH if _computes(found := _fitted(name, wanted), wanted)), None)


def _fitted(name: str, wanted: Floats) -> Smooth:
    """Return a function with the constant that its values `wanted` imply."""
    below, at_one = wanted[:2]
    match name:
        case "elu" | "celu":
            return Smooth(name, max(float(-below), 1e-6))
        case "silu":
            part = min(max(float(at_one), 1e-6), 1 - 1e-6)
            return Smooth(name, float(np.log(part / (1 - part))))
        case _:
            return Smooth(name)


def _computes(function: Smooth, wanted: Floats) -> bool:
    """Return whether a function has the values `wanted`."""
    computed = function(torch.from_numpy(NUMBERS)).numpy()
    return bool((np.abs(computed - wanted) <= TOLERANCE * (1 + np.abs(NUMBERS))).all())
