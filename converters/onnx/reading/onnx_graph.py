"""An ONNX graph as plain data: functions are inlined, nodes are sorted, and it is known which nodes an output needs."""

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

from converters.onnx.reading.composed_operators import OPSET as COMPOSED_OPSET
from converters.onnx.reading.composed_operators import composed
from converters.onnx.reading.onnx_file import DEFAULT_DOMAINS, Array, load_onnx, opset_of, tensor_array
from specs.errors import IntegrityError, UnsupportedError
from specs.files.limits import ONNX_INPUT, ONNX_NODES, ONNX_OUTPUTS

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
ENTERING: dict[int, tuple[float, float]] = {
    **dict.fromkeys(FLOATS, (0.0, 1.0)), TensorProto.UINT8: (0.0, 255.0), TensorProto.INT8: (-128.0, 127.0)
}  # fmt: skip
"""Element types that an input may have, and the values that stand for pixels of 0.0 and 1.0."""


@dataclass(frozen=True)
class GraphNode:
    """Node of a graph.

    Attributes:
        row: position in the file, after functions are inlined.
        opset: opset of the operator's domain that the model declares.
        version: opset in which this definition of the operator appeared; 0 if onnx does not know the operator.
    """

    row: int
    proto: NodeProto = field(repr=False)
    opset: int
    version: int

    @property
    def op(self) -> str:
        """Name of the operator, with its domain unless it is one of ONNX's own."""
        return f"{self.domain}.{self.proto.op_type}" if self.domain else self.proto.op_type

    @property
    def key(self) -> tuple[str, str]:
        """Key of the operator in tables: `(domain, name)`."""
        return self.domain, self.proto.op_type

    @property
    def domain(self) -> str:
        """Domain of the operator; empty for ONNX's own."""
        return "" if self.proto.domain in DEFAULT_DOMAINS else self.proto.domain

    @property
    def name(self) -> str:
        """Name of the node, or of its first output if it has none."""
        return self.proto.name or next((name for name in self.proto.output if name), f"node {self.row}")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs; empty for an optional input that is left out."""
        return tuple(self.proto.input)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs; empty for an optional output that is left out."""
        return tuple(self.proto.output)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attributes by name, as Python values; strings are decoded."""
        values = {a.name: onnx.helper.get_attribute_value(a) for a in self.proto.attribute}
        return {k: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for k, v in values.items()}


@dataclass(frozen=True)
class GraphInput:
    """Input that takes the images.

    Attributes:
        shape: shape with the batch, which is 1 if the file leaves it open.
        element_type: type of the numbers, a key of `ENTERING`.
    """

    name: str
    shape: tuple[int, ...]
    element_type: int

    @property
    def black(self) -> float:
        """Value that stands for a pixel of 0.0: -128 if the input takes signed bytes, otherwise 0."""
        return ENTERING[self.element_type][0]

    @property
    def gain(self) -> float:
        """Difference of the values that stand for pixels of 1.0 and 0.0: 255 if the input takes bytes, otherwise 1."""
        return ENTERING[self.element_type][1] - self.black


@dataclass(frozen=True)
class Graph:
    """Graph to import.

    Attributes:
        nodes: sorted, so that each node comes after its inputs.
        constants: initializers by name.
        input: the input that takes the images.
        opset: opset of ONNX's own operators.
        texts: names of initializers that contain strings, which are not read.
        n_bytes: size of the file or, if it is larger, of its initializers.
    """

    nodes: tuple[GraphNode, ...]
    constants: dict[str, Array]
    input: GraphInput
    outputs: tuple[str, ...]
    opset: int
    texts: frozenset[str] = frozenset()
    n_bytes: int = 0

    @cached_property
    def uses(self) -> Counter[str]:
        """Number of times that each tensor is an input of a node in `needed`."""
        return Counter(name for node in self.nodes if node.row in self.needed for name in node.inputs if name)

    @cached_property
    def needed(self) -> frozenset[int]:
        """Rows of the nodes that some output depends on."""
        return self.ancestors(self.outputs)

    def ancestors(self, tensors: tuple[str, ...]) -> frozenset[int]:
        """Return the rows of the nodes that `tensors` depend on."""
        wanted, rows = set(tensors), set()
        for node in reversed(self.nodes):
            if wanted.intersection(filter(None, node.outputs)):
                rows.add(node.row)
                wanted.update(node.inputs)
        return frozenset(rows)


def read_graph(path: Path) -> Graph:
    """Read the graph of a file.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: the file is damaged, or its graph is invalid: a tensor is produced twice or never, or a cycle.
        UnsupportedError: the graph does not have exactly one image input of a known size, or its opset is too old.
        ConversionError: its opset is newer than the installed onnx package supports.
    """
    model = _inline_functions(load_onnx(path), path)
    opset = opset_of(model, path)
    opsets = {entry.domain: entry.version for entry in model.opset_import} | dict.fromkeys(DEFAULT_DOMAINS, opset)
    graph = model.graph
    if graph.sparse_initializer:
        raise UnsupportedError(f"{path}: sparse initializers are not supported; save the model with dense ones")
    constants: dict[str, Array] = {}
    texts = set[str]()
    for tensor in graph.initializer:
        if tensor.name in constants or tensor.name in texts:
            raise IntegrityError(f"{path}: two initializers are named {tensor.name!r}")
        if tensor.data_type == TensorProto.STRING:
            texts.add(tensor.name)
        else:
            constants[tensor.name] = tensor_array(tensor, f"{path}: tensor {tensor.name!r}")
    nodes = list[GraphNode]()
    newer = opsets | dict.fromkeys(DEFAULT_DOMAINS, max(opset, COMPOSED_OPSET))
    for proto in graph.node:
        for part in composed(proto):
            nodes.append(_graph_node(len(nodes), part, opsets if part is proto else newer, path))
    outputs = tuple(dict.fromkeys(output.name for output in graph.output))
    if len(outputs) > ONNX_OUTPUTS:
        raise IntegrityError(
            f"{path} has {len(outputs):,} outputs; at most {ONNX_OUTPUTS} are supported: keep the logits"
        )
    entering = [value.name for value in graph.input if value.name not in {*constants, *texts}]
    ordered = _in_order(nodes, [*constants, *texts, *entering], outputs, path)
    n_bytes = max(path.stat().st_size, sum(array.nbytes for array in constants.values()))
    found = Graph(ordered, constants, GraphInput("", (), TensorProto.FLOAT), outputs, opset, frozenset(texts), n_bytes)
    return replace(found, input=_image_input(model, found, entering, path))


def _graph_node(row: int, proto: NodeProto, opsets: dict[str, int], path: Path) -> GraphNode:
    """Return a node with the version of its operator, once onnx has checked its inputs and attributes."""
    domain = proto.domain = "" if proto.domain in DEFAULT_DOMAINS else proto.domain
    opset = opsets.get(domain, 0)
    try:
        version = onnx.defs.get_schema(proto.op_type, opset, domain).since_version if opset else 0
    except onnx.defs.SchemaError:
        version = 0
    if version and not any(attribute.HasField("g") or attribute.graphs for attribute in proto.attribute):
        # onnx would look for tensors from outside in the bodies of If, Loop and Scan, which are not read
        context = onnx.checker.C.CheckerContext()
        context.ir_version, context.opset_imports = onnx.IR_VERSION, {domain: opset}
        try:
            onnx.checker.check_node(proto, context)
        except onnx.checker.ValidationError as error:
            what = " ".join(str(error).split("\n\n==>")[0].split())
            raise IntegrityError(f"{path}: node {proto.name!r} ({proto.op_type}): {what[:300]}") from None
    return GraphNode(row, proto, opset, version)


def _in_order(nodes: list[GraphNode], given: list[str], outputs: tuple[str, ...], path: Path) -> tuple[GraphNode, ...]:
    """Sort nodes so that each comes after its inputs, otherwise in the order of the file."""
    maker: dict[str, GraphNode] = {}
    for node in nodes:
        for name in filter(None, node.outputs):
            if name in maker or name in given:
                raise IntegrityError(f"{path}: the tensor {name!r} is produced twice")
            maker[name] = node
    known = set(given)
    for name in [*(name for node in nodes for name in node.inputs if name), *outputs]:
        if name not in maker and name not in known:
            raise IntegrityError(f"{path}: no node or initializer produces the tensor {name!r}")
    sorter = TopologicalSorter(dict.fromkeys(range(len(nodes)), ()))
    for node in nodes:
        sorter.add(node.row, *(maker[name].row for name in node.inputs if name in maker))
    try:
        return tuple(nodes[row] for row in sorter.static_order())
    except CycleError as error:
        stuck = nodes[error.args[1][0]]
        raise IntegrityError(f"{path}: the graph has a cycle through {stuck.name!r} ({stuck.op})") from None


def _image_input(model: ModelProto, graph: Graph, entering: list[str], path: Path) -> GraphInput:
    """Return the one input that the graph uses, once its type and shape are checked."""
    values = [value for value in model.graph.input if value.name in entering]
    used = [value for value in values if graph.uses[value.name] or value.name in graph.outputs]
    if len(used) != 1:
        names = ", ".join(value.name for value in used) or "none"
        raise UnsupportedError(f"{path}: a classifier has one input; this model uses {len(used)}: {names}")
    tensor = used[0].type.tensor_type
    if tensor.elem_type not in ENTERING:
        kind = TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type in TensorProto.DataType.values() else "?"
        raise UnsupportedError(
            f"{path}: the input {used[0].name!r} has type {kind}; expected a float type, UINT8 or INT8"
        )
    sides = [(side.dim_value, side.dim_param) for side in tensor.shape.dim]
    if not 2 <= len(sides) <= 4:
        raise UnsupportedError(
            f"{path}: the input {used[0].name!r} has {len(sides)} axes; expected [N, features], [N, C, L], "
            "[N, C, H, W] or [N, H, W, C]"
        )
    shape = (max(sides[0][0], 1), *(value for value, _ in sides[1:]))
    if any(side < 1 for side in shape):
        known = ", ".join(str(value or name or "?") for value, name in sides)
        raise UnsupportedError(
            f"{path}: the input {used[0].name!r} has shape [{known}]: only the batch may be left open; export the "
            "model with fixed sides"
        )
    if math.prod(shape) > ONNX_INPUT:
        raise IntegrityError(
            f"{path}: the input {used[0].name!r} has shape {list(shape)}; at most {ONNX_INPUT:,} numbers are supported"
            f"{': export it with a batch of 1' if shape[0] > 1 else ''}"
        )
    return GraphInput(used[0].name, shape, tensor.elem_type)


_Function = tuple[str, str, str]
"""Key of a function: domain, name and overload."""


def _called(nodes: Iterable[NodeProto]) -> Iterator[_Function]:
    """Yield the operators and functions that nodes call, also in bodies of If, Loop and Scan."""
    for node in nodes:
        yield node.domain, node.op_type, node.overload
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _called(graph.node)


def _inline_functions(model: ModelProto, path: Path) -> ModelProto:
    """Return the model with its own functions inlined by onnx, once it is known that this ends."""
    if not model.functions:
        return model
    bodies = {(f.domain, f.name, f.overload): f.node for f in model.functions}
    sizes: dict[_Function, int] = {}

    def size(key: _Function, inside: frozenset[_Function]) -> int:
        if key in inside or len(inside) > 64:
            raise IntegrityError(f"{path}: the function {key[1]!r} calls itself, or calls are nested too deeply")
        if key not in sizes:
            called = _called(bodies[key])
            sizes[key] = min(ONNX_NODES + 1, sum(size(k, inside | {key}) if k in bodies else 1 for k in called))
        return sizes[key]

    if sum(size(key, frozenset()) if key in bodies else 1 for key in _called(model.graph.node)) > ONNX_NODES:
        raise IntegrityError(f"{path}: more than {ONNX_NODES:,} nodes when its functions are inlined")
    try:
        inlined = inline_local_functions(model)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise IntegrityError(f"{path}: its functions cannot be inlined: {str(error)[:200]}") from None
    if inlined.functions:
        names = ", ".join(sorted(f.name for f in inlined.functions))
        raise UnsupportedError(f"{path}: these functions cannot be inlined: {names}")
    return inlined
