"""An ONNX graph as plain data: functions unfolded, nodes in order, those that the logits need told apart."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto
from onnx.inliner import inline_local_functions

from converters.onnx.reading.onnx_file import (
    DEFAULT_DOMAINS,
    Array,
    load_onnx,
    opset_of,
    tensor_array,
)
from specs.errors import IntegrityError, UnsupportedError
from specs.files.limits import ONNX_INPUT, ONNX_NODES

__all__ = ["Graph", "GraphInput", "GraphNode", "read_graph"]

FLOATS: dict[int, float] = {
    TensorProto.FLOAT: 1.0,
    TensorProto.DOUBLE: 1.0,
    TensorProto.FLOAT16: 1.0,
    TensorProto.BFLOAT16: 1.0,
}
ENTERING: dict[int, float] = {**FLOATS, TensorProto.UINT8: 255.0}
"""Types that images may have, and the value of a pixel of 1.0 in them."""


@dataclass(frozen=True)
class GraphNode:
    """A node.

    Attributes:
        row: its place in the file, with functions unfolded.
        version: the opset in which its operator got the meaning that it has here; 0 if onnx does not know it.
    """

    row: int
    proto: NodeProto = field(repr=False)
    opset: int
    version: int

    @property
    def op(self) -> str:
        """The operator, with its domain unless it is one of ONNX's own."""
        return f"{self.domain}.{self.proto.op_type}" if self.domain else self.proto.op_type

    @property
    def key(self) -> tuple[str, str]:
        """`(domain, operator)`."""
        return self.domain, self.proto.op_type

    @property
    def domain(self) -> str:
        """The operator's; empty for ONNX's own."""
        return "" if self.proto.domain in DEFAULT_DOMAINS else self.proto.domain

    @property
    def name(self) -> str:
        """Its name, or else that of its first output."""
        return self.proto.name or next((name for name in self.proto.output if name), f"node {self.row}")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names; empty where an optional one is left out."""
        return tuple(self.proto.input)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names; empty where an optional one is left out."""
        return tuple(self.proto.output)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Values as Python's, texts decoded."""
        values = {a.name: onnx.helper.get_attribute_value(a) for a in self.proto.attribute}
        return {k: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for k, v in values.items()}


@dataclass(frozen=True)
class GraphInput:
    """What images enter: its name, its shape with the batch (1 where the file leaves it open), and the value that a
    pixel of 1.0 has there."""

    name: str
    shape: tuple[int, ...]
    element_type: int

    @property
    def gain(self) -> float:
        """1, or 255 for bytes."""
        return ENTERING[self.element_type]


@dataclass(frozen=True)
class Graph:
    """A graph to import: `nodes` in an order in which each comes after its inputs; `texts` are constants, not read."""

    nodes: tuple[GraphNode, ...]
    constants: dict[str, Array]
    input: GraphInput
    outputs: tuple[str, ...]
    opset: int
    texts: frozenset[str] = frozenset()

    @cached_property
    def uses(self) -> Counter[str]:
        """How many inputs of nodes each tensor is; nodes that no output needs do not count."""
        return Counter(name for node in self.nodes if node.row in self.needed for name in node.inputs if name)

    @cached_property
    def needed(self) -> frozenset[int]:
        """Rows of the nodes that some output needs."""
        return self.ancestors(self.outputs)

    def ancestors(self, tensors: tuple[str, ...]) -> frozenset[int]:
        """Rows of the nodes that `tensors` come from."""
        wanted, rows = set(tensors), set()
        for node in reversed(self.nodes):
            if wanted.intersection(filter(None, node.outputs)):
                rows.add(node.row)
                wanted.update(node.inputs)
        return frozenset(rows)


def read_graph(path: Path) -> Graph:
    """The graph of a file.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: it is damaged, or its graph is none: a tensor made twice or never, a cycle.
        UnsupportedError: it has no single image input of a known size.
    """
    model = _unfold_functions(load_onnx(path), path)
    opset = opset_of(model, path)
    opsets = {entry.domain: entry.version for entry in model.opset_import} | dict.fromkeys(DEFAULT_DOMAINS, opset)
    graph = model.graph
    if graph.sparse_initializer:
        raise UnsupportedError(f"{path}: sparse initializers; save the model with dense ones")
    constants: dict[str, Array] = {}
    texts = set[str]()
    for tensor in graph.initializer:
        if tensor.name in constants or tensor.name in texts:
            raise IntegrityError(f"{path}: two initializers are named {tensor.name!r}")
        if tensor.data_type == TensorProto.STRING:
            texts.add(tensor.name)
        else:
            constants[tensor.name] = tensor_array(tensor, f"{path}: tensor {tensor.name!r}")
    nodes = [_graph_node(row, proto, opsets, path) for row, proto in enumerate(graph.node)]
    outputs = tuple(dict.fromkeys(output.name for output in graph.output))
    entering = [value.name for value in graph.input if value.name not in {*constants, *texts}]
    ordered = _in_order(nodes, [*constants, *texts, *entering], outputs, path)
    found = Graph(ordered, constants, GraphInput("", (), TensorProto.FLOAT), outputs, opset, frozenset(texts))
    return replace(found, input=_image_input(model, found, entering, path))


def _graph_node(row: int, proto: NodeProto, opsets: dict[str, int], path: Path) -> GraphNode:
    domain = proto.domain = "" if proto.domain in DEFAULT_DOMAINS else proto.domain
    opset = opsets.get(domain, 0)
    try:
        version = onnx.defs.get_schema(proto.op_type, opset, domain).since_version if opset else 0
    except onnx.defs.SchemaError:
        version = 0
    if version:
        context = onnx.checker.C.CheckerContext()
        context.ir_version, context.opset_imports = onnx.IR_VERSION, {domain: opset}
        try:
            onnx.checker.check_node(proto, context)
        except onnx.checker.ValidationError as error:
            what = " ".join(str(error).split("\n\n==>")[0].split())
            raise IntegrityError(f"{path}: node {proto.name!r} ({proto.op_type}): {what[:300]}") from None
    return GraphNode(row, proto, opset, version)


def _in_order(nodes: list[GraphNode], given: list[str], outputs: tuple[str, ...], path: Path) -> tuple[GraphNode, ...]:
    """Nodes sorted so that each comes after its inputs; those that could be next stay in the file's order."""
    maker: dict[str, GraphNode] = {}
    for node in nodes:
        for name in filter(None, node.outputs):
            if name in maker or name in given:
                raise IntegrityError(f"{path}: the tensor {name!r} is made twice")
            maker[name] = node
    known = set(given)
    for name in [*(name for node in nodes for name in node.inputs if name), *outputs]:
        if name not in maker and name not in known:
            raise IntegrityError(f"{path}: nothing makes the tensor {name!r}")
    sorter = TopologicalSorter(dict.fromkeys(range(len(nodes)), ()))
    for node in nodes:
        sorter.add(node.row, *(maker[name].row for name in node.inputs if name in maker))
    try:
        return tuple(nodes[row] for row in sorter.static_order())
    except CycleError as error:
        stuck = nodes[error.args[1][0]]
        raise IntegrityError(f"{path}: the graph goes round in circles through {stuck.name!r} ({stuck.op})") from None


def _image_input(model: ModelProto, graph: Graph, entering: list[str], path: Path) -> GraphInput:
    values = [value for value in model.graph.input if value.name in entering]
    used = [value for value in values if graph.uses[value.name] or value.name in graph.outputs]
    if len(used) != 1:
        names = ", ".join(value.name for value in used) or "none"
        raise UnsupportedError(f"{path}: a classifier has one input; this model uses {len(used)}: {names}")
    tensor = used[0].type.tensor_type
    if tensor.elem_type not in ENTERING:
        kind = TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type in TensorProto.DataType.values() else "?"
        raise UnsupportedError(f"{path}: the input {used[0].name!r} is of type {kind}; images are floats or bytes")
    sides = [(side.dim_value, side.dim_param) for side in tensor.shape.dim]
    if not 2 <= len(sides) <= 4:
        raise UnsupportedError(
            f"{path}: the input {used[0].name!r} has {len(sides)} axes; [N, features], [N, C, L], [N, C, H, W] or "
            "[N, H, W, C] is needed"
        )
    shape = (max(sides[0][0], 1), *(value for value, _ in sides[1:]))
    if any(side < 1 for side in shape):
        told = ", ".join(str(value or name or "?") for value, name in sides)
        raise UnsupportedError(f"{path}: the input {used[0].name!r} is [{told}]: only the batch may be left open")
    if math.prod(shape) > ONNX_INPUT:
        raise IntegrityError(
            f"{path}: the input {used[0].name!r} is {list(shape)}; at most {ONNX_INPUT:,} numbers are read"
            f"{': export it with a batch of 1' if shape[0] > 1 else ''}"
        )
    return GraphInput(used[0].name, shape, tensor.elem_type)


_Function = tuple[str, str, str]
"""Domain, name and overload, by which onnx knows a function."""


def _called(nodes: Iterable[NodeProto]) -> Iterator[_Function]:
    """What nodes call, those in the bodies of If, Loop and Scan too."""
    for node in nodes:
        yield node.domain, node.op_type, node.overload
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _called(graph.node)


def _unfold_functions(model: ModelProto, path: Path) -> ModelProto:
    """The model with its own functions written out, as onnx does it, unless that never ends."""
    if not model.functions:
        return model
    bodies = {(f.domain, f.name, f.overload): f.node for f in model.functions}
    sizes: dict[_Function, int] = {}

    def size(key: _Function, inside: frozenset[_Function]) -> int:
        if key in inside or len(inside) > 64:
            raise IntegrityError(f"{path}: the function {key[1]!r} calls itself, or too many others in turn")
        if key not in sizes:
            called = _called(bodies[key])
            sizes[key] = min(ONNX_NODES + 1, sum(size(k, inside | {key}) if k in bodies else 1 for k in called))
        return sizes[key]

    if sum(size(key, frozenset()) if key in bodies else 1 for key in _called(model.graph.node)) > ONNX_NODES:
        raise IntegrityError(f"{path}: more than {ONNX_NODES:,} nodes when its functions are unfolded")
    try:
        unfolded = inline_local_functions(model)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise IntegrityError(f"{path}: its functions cannot be unfolded: {str(error)[:200]}") from None
    if unfolded.functions:
        names = ", ".join(sorted(f.name for f in unfolded.functions))
        raise UnsupportedError(f"{path}: functions that cannot be unfolded: {names}")
    return unfolded
