"""ONNX files to ANNs: the walk over a graph, the account of its nodes, the check of the result."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto

from converters.ann_to_snn.ann import Ann, PRelu
from converters.ann_to_snn.image_normalization import Normalization
from converters.onnx.ann_builder import BETWEEN, INPUT, AnnBuilder
from converters.onnx.operator_table import Value
from converters.onnx.operators import OPERATIONS, fitted_from
from converters.onnx.reading.constant_folding import FOLDABLE, evaluate
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import Graph, GraphNode, read_graph
from converters.onnx.reference_check import Layout, Reference, largest_errors, make_reference
from converters.onnx.tensor_layout import Data, Refused, Relayout
from specs.errors import ConversionError, IntegrityError, UnsupportedError
from specs.files.limits import ONNX_ELEMENTS

__all__ = ["TOLERANCE", "OnnxImport", "import_ann"]

TOLERANCE = 1e-4
"""Of the largest logit: how far an import may be from onnx's evaluator."""
IMAGES = 4
"""Of each kind that the check runs on."""


@dataclass(frozen=True)
class OnnxImport:
    """An ANN, and what became of the file that it comes from.

    Attributes:
        ann: the network.
        nodes: of each node of the file `name`, `op`, `became` and `reason`. `became` is the node of the ANN that does
            its work, `input` for its mean and std, or one of `constant`, `layout`, `removed`, `unused`.
        max_abs_error: the largest difference of a logit from onnx's evaluator.
        relative_error: the same as part of the largest logit.
        notes: what had to be chosen, or left out, for people.
        reference: onnx's evaluator on the file, to compare on other images.
    """

    ann: Ann
    nodes: list[dict[str, str]]
    max_abs_error: float
    relative_error: float
    notes: tuple[str, ...]
    reference: Reference = field(repr=False)


def import_ann(path: Path) -> OnnxImport:
    """Read a classifier of ReLU layers from an ONNX file, and check it against onnx's own evaluator.

    Images enter as `[N, *ann.shape]`, channels first, whatever the file's layout is; where its input is bytes, images
    are in 0..1 all the same. Trailing Softmax, LogSoftmax, Sigmoid, ReLU and ArgMax are left out, as they keep the
    order of the classes. Rounding of activations, of quantised models, is left out.

    Raises:
        SnnZooError: the file, or external data beside it, cannot be read.
        IntegrityError: it is damaged, or no ONNX model.
        UnsupportedError: what has no spiking meaning, all such nodes at once, by name, operator and reason.
        ConversionError: its opset is newer than the installed onnx; or the import differs from onnx's evaluator by more
            than 1e-4 of the largest logit.
    """
    graph = read_graph(path)
    walk, ann, data, output = _first_that_works(graph, path)
    logits = output if data.ending is None else next(n for n in graph.nodes if n.row == data.ending).inputs[0]
    reference = make_reference(graph, logits, walk.constants, walk.layout, walk.builder)
    error, largest = _errors(ann, reference)
    relative = error / largest if largest else error
    if not relative < TOLERANCE:
        raise ConversionError(
            f"{path}: the import differs from onnx's evaluator by {error:.3g}, {relative:.2g} of the largest logit; "
            f"{TOLERANCE:g} is allowed. A model whose numbers are near the end of 32 bits can do that; otherwise it is "
            "a bug of snnzoo"
        )
    notes = *_notes(graph, walk, output), *_falling(ann)
    return OnnxImport(ann, list(walk.table(ann)), error, relative, notes, reference)


def _errors(ann: Ann, reference: Reference) -> tuple[float, float]:
    """The largest error and the largest logit on images of uniform, and, if they are no bytes, normal numbers."""
    generator = torch.Generator().manual_seed(0)
    errors = [largest_errors(ann, reference, torch.rand(IMAGES, *ann.shape, generator=generator))]
    if reference.graph.input.gain == 1:
        errors.append(largest_errors(ann, reference, torch.randn(IMAGES, *ann.shape, generator=generator)))
    worst = max(errors, key=lambda pair: pair[0] / pair[1] if pair[1] else pair[0])
    return (worst[0], worst[1]) if not any(np.isnan(pair[0]) for pair in errors) else (float("nan"), 1.0)


def _first_that_works(graph: Graph, path: Path) -> tuple["_Walk", Ann, Data, str]:
    """The walk to the first output that is a row of logits: of those that no other output depends on, or else of those
    behind which nothing has weights, as a label that is made of the logits."""
    first: UnsupportedError | None = None
    before = {name: graph.ancestors((name,)) for name in graph.outputs}
    makers = {name: node.row for node in graph.nodes for name in node.outputs if name}
    last = [
        name
        for name in graph.outputs
        if not any(makers.get(name) in before[other] for other in graph.outputs if before[other] > before[name])
    ]
    others = [name for name in graph.outputs if name not in last and not _is_weighed(graph, {name})]
    for output in [*last, *sorted(others, key=lambda name: len(before[name]), reverse=True)]:
        try:
            return _walk_to(graph, output, path)
        except UnsupportedError as error:
            first = first or error
    raise first or UnsupportedError(f"{path} has no output")


def _walk_to(graph: Graph, output: str, path: Path) -> tuple["_Walk", Ann, Data, str]:
    """The walk under the likelier layout of the input, or, if that does not work, under the other."""
    first: UnsupportedError | None = None
    needed = graph.ancestors((output,))
    for node in graph.nodes:
        if node.row in needed and not graph.texts.isdisjoint(node.inputs):
            raise UnsupportedError(f"{path}: the output {output!r} is made of texts")
    for layout in _layouts(graph.input.shape[1:]):
        try:
            return _walk_with(layout, graph, output, path)
        except UnsupportedError as error:
            first = first or error
    raise first or UnsupportedError(f"{path}: an input without numbers")


def _walk_with(layout: Layout, graph: Graph, output: str, path: Path) -> tuple["_Walk", Ann, Data, str]:
    settled = False
    while True:
        walk = _Walk(graph, output, layout, settled=settled)
        try:
            walk.run(path)
        except Relayout as found:
            places = np.empty(found.index.size, dtype=np.int64)
            places[found.index.ravel() - 1] = np.arange(found.index.size)
            layout, settled = Layout(found.index.shape, places[layout.order]), True
            continue
        ann, data = walk.finished(path)
        return walk, ann, data, output


def _is_weighed(graph: Graph, behind: set[str], needed: Container[int] | None = None) -> bool:
    """Whether a layer has weights for what is made of these tensors; of all nodes, or of those `needed`."""
    for node in graph.nodes:
        if (needed is None or node.row in needed) and not behind.isdisjoint(node.inputs):
            if node.proto.op_type in (*PRODUCTS, "Gemm", "Conv"):
                return True
            behind.update(node.outputs)
    return False


def _layouts(shape: tuple[int, ...]) -> list[Layout]:
    """How an input may be laid out, the likelier first.

    Channels first, unless the last axis alone could be that of channels; maps without channels have one.
    """
    places = np.arange(int(np.prod(shape)))
    if len(shape) < 3:
        return [Layout((1, *shape) if len(shape) == 2 else shape, places)]
    order = places.reshape(shape[2], *shape[:2]).transpose(1, 2, 0).ravel()  # [C, H, W] -> [H, W, C]
    both = [Layout(shape, places), Layout((shape[2], *shape[:2]), order)]
    return both[::-1] if shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4) else both


def _notes(graph: Graph, walk: "_Walk", output: str) -> Iterator[str]:
    others = [name for name in graph.outputs if name != output]
    if others:
        yield f"the output {output!r} is read; {', '.join(map(repr, others))} are not"
    if walk.builder.quantised:
        yield "the rounding of activations is left out; the check is against the file without it"
    if walk.layout.shape != graph.input.shape[1:]:
        yield f"the file's images are {list(graph.input.shape[1:])}; the ANN's are {list(walk.layout.shape)}"
    if graph.input.gain != 1:
        yield f"the file's images are bytes; the ANN's are in 0..1, {graph.input.gain:g} being 1"


def _falling(ann: Ann) -> Iterator[str]:
    for node in ann.nodes:
        if isinstance(node.operation, PRelu) and (n := int((node.operation.slope < 0).sum())):
            yield f"{node.name}: slopes below 0, of {n} of its channels, are 0 as spikes, which only rise"


WORK = 8
"""Times that each number of the largest constants may be looked at while they are folded."""
NODES_TOLD = 100
"""Refused nodes that a message names."""
UNKNOWN = None
"""Stands for a tensor that a refused node would have made."""
ENDINGS = "ArgMax", "Identity", "Log", "LogSoftmax", "Sigmoid", "Softmax"
"""Operators that keep the order of the classes."""
LAYOUT = "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"
MOVES = *LAYOUT, "GlobalMaxPool", "MaxPool", "ReduceMax"
"""Operators that give some of the numbers that they read."""
SIZES = "Shape", "Size"
BINARY = "Add", "Sub", "Mul", "Div"
"""Of which the second operand may fit the first from an axis on, until opset 6."""
"""Operators that do not look at numbers."""
PRODUCTS = "MatMul", "Mul", "Div"
"""Operators that may multiply what depends on the image by itself."""


class _Walk:
    """One walk over the nodes that an output needs."""

    def __init__(self, graph: Graph, output: str, layout: Layout, *, settled: bool) -> None:
        self.graph, self.output, self.layout, self.settled = graph, output, layout, settled
        self.needed = graph.ancestors((output,))
        self.made = self.touched = 0
        self.uses = dict.fromkeys([output], 1)
        for node in graph.nodes:
            for name in node.inputs if node.row in self.needed and node.proto.op_type not in SIZES else ():
                self.uses[name] = self.uses.get(name, 0) + 1
        double = graph.input.element_type == TensorProto.DOUBLE
        self.builder = AnnBuilder(layout.shape, np.float64 if double else np.float32)
        self.builder.normalization = Normalization.of(0.0, 1 / graph.input.gain)
        self.builder.last = self._last_rows()
        self.constants: dict[str, Array] = dict(graph.constants)
        self.problems: dict[int, str] = {}
        self.unread = set[str]()
        """Constants that no one knows: sizes of what a refused node would have made, and what is computed of these."""
        batch, size = graph.input.shape[0], layout.order.size
        index = np.arange(batch)[:, None] * size + layout.index
        self.values: dict[str, Data | None] = {
            graph.input.name: Data(INPUT, layout.shape, index.reshape(graph.input.shape))
        }

    def run(self, path: Path) -> None:
        """Read all nodes.

        Raises:
            Relayout: the input should be laid out otherwise.
            IntegrityError: a node cannot be computed.
        """
        for node in self.graph.nodes:
            if node.row not in self.needed:
                self.builder.account[node.row] = ("unused", "the logits do not depend on it")
                continue
            self.builder.row = node.row
            try:
                self._read(node)
            except Refused as refused:
                for row in refused.rows:
                    self.problems.setdefault(row, str(refused))
                self._give_up(node)
            except UnsupportedError as error:
                self.problems[node.row] = str(error)
                for data in map(self.values.get, node.inputs):
                    if data is not None and data.ending is not None:
                        self.problems.setdefault(data.ending, BETWEEN)
                self._give_up(node)
            except IntegrityError as error:
                raise IntegrityError(f"{path}: {node.name} ({node.op}): {error}") from None
            except Relayout:
                if not self.settled:
                    raise
                self.problems[node.row] = "reads the input in another layout than other layers do"
                self._give_up(node)

    def finished(self, path: Path) -> tuple[Ann, Data]:
        """The ANN, and the tensor of its logits.

        Raises:
            UnsupportedError: all nodes that have no spiking meaning.
        """
        data = self.values.get(self.output, UNKNOWN)
        ann = None
        if not self.problems and data is not None:
            try:
                ann = self.builder.finish(data, self.output)
            except Refused as refused:
                self.problems.update(dict.fromkeys(refused.rows, str(refused)))
            except UnsupportedError as error:
                raise UnsupportedError(f"{path}: {error}") from None
            except ConversionError as error:
                raise ConversionError(f"{path}: {error}") from None
        if self.problems:
            named = {node.row: node for node in self.graph.nodes}
            told = [f"{named[row].name} ({named[row].op}): {self.problems[row]}" for row in sorted(self.problems)]
            more = [f"and {len(told) - NODES_TOLD} more"] if len(told) > NODES_TOLD else []
            raise UnsupportedError(
                f"{path} has no spiking meaning in {len(told)} of its nodes: {'; '.join([*told[:NODES_TOLD], *more])}"
            )
        if ann is None or data is None:
            raise UnsupportedError(f"{path}: the output {self.output!r} does not depend on the image")
        return ann, data

    def table(self, ann: Ann) -> Iterator[dict[str, str]]:
        """What became of each node, in the file's order."""
        lost = self.builder.nodes.keys() - {node.name for node in ann.nodes}
        for node in sorted(self.graph.nodes, key=lambda node: node.row):
            became, reason = self.builder.account[node.row]
            if became in lost:
                became, reason = "unused", "only its shape is read"
            yield {"name": node.name, "op": node.op, "became": became, "reason": reason}

    def _read(self, node: GraphNode) -> None:
        constant = all(name in self.constants for name in node.inputs if name)
        if constant and not node.domain and node.proto.op_type in FOLDABLE:
            given = [self.constants.get(name) for name in node.inputs]
            if node.version < 7 and "axis" in node.attributes and node.proto.op_type in BINARY:
                first, second = (self.constants[name] for name in node.inputs)
                given = [first, fitted_from(int(node.attributes["axis"]), first.ndim, second)]
            self.touched += sum(array.size for array in given if array is not None)
            if self.touched > WORK * ONNX_ELEMENTS:
                raise IntegrityError(f"the constants before it take more than {WORK * ONNX_ELEMENTS:,} numbers to fold")
            results = evaluate(node, given, made=self.made)
            self.made += sum(array.size for array in results)
            names = [name for name in node.outputs if name]
            self.constants.update(zip(names, results, strict=True))
            self.builder.account[node.row] = ("constant", "computed once, by onnx's evaluator")
            return
        variable = [name for name in node.inputs if name and name not in self.constants]
        from_image = [name for name in variable if name not in self.unread]
        is_unknown = any(self.values[name] is UNKNOWN for name in variable)
        if is_unknown and (not from_image or node.proto.op_type in SIZES):
            self.unread.update(node.outputs)
            self._give_up(node)
            return
        operator = OPERATIONS.find(node)
        if is_unknown:
            self._refuse_unknown(node, from_image)
            self._give_up(node)
            return
        inputs = [self._value(name) for name in node.inputs]
        for name in node.outputs[1:]:
            if self.uses.get(name):
                raise UnsupportedError(f"its output {name!r} is read; only its first has a meaning here")
        steps = self.builder.steps
        if any(name in steps for name in node.inputs):
            if node.proto.op_type not in (*MOVES, *SIZES, *ENDINGS, "DequantizeLinear"):
                raise UnsupportedError("computes with quantised numbers, which first want a DequantizeLinear")
            if node.proto.op_type in MOVES:
                steps[node.outputs[0]] = steps[node.inputs[0]]
        result = operator.read(node, tuple(inputs), self.builder)
        if isinstance(result, Data):
            self.values[node.outputs[0]] = result
            self.builder.account.setdefault(node.row, ("removed", "changes nothing"))
        else:
            self.constants[node.outputs[0]] = result

    def _refuse_unknown(self, node: GraphNode, from_image: list[str]) -> None:
        """Raise `UnsupportedError` for what has no meaning, whatever its inputs `from_image` are."""
        op = node.proto.op_type
        if op in PRODUCTS and len(from_image) > 1:
            raise UnsupportedError("joins two tensors that depend on the image by a product")
        if op in ("Softmax", "LogSoftmax") and _is_weighed(self.graph, set(node.outputs), self.needed):
            raise UnsupportedError(BETWEEN)

    def _last_rows(self) -> set[int]:
        """Rows of the nodes whose first output is read by nothing but `ENDINGS`, and by the user."""
        last, middle = set[int](), set[str]()
        for node in reversed(self.graph.nodes):
            if node.row not in self.needed:
                continue
            if not middle.isdisjoint(node.outputs):
                middle.update(node.inputs)
                continue
            last.add(node.row)
            if node.proto.op_type not in ENDINGS:
                middle.update(node.inputs)
        return last

    def _value(self, name: str) -> Value | None:
        if not name:
            return None
        if name in self.constants:
            return self.constants[name]
        data = self.values[name]
        if data is not None and self.uses.get(name, 0) > 1:
            self.builder.shared.add(data.source)
        return data

    def _give_up(self, node: GraphNode) -> None:
        """Go on without what a refused node would give, to find what else there is to refuse."""
        self.builder.account.setdefault(node.row, ("removed", ""))
        self.values.update(dict.fromkeys(filter(None, node.outputs), UNKNOWN))
