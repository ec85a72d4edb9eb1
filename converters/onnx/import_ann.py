"""Import of ONNX files as ANNs: a pass over the nodes, a record of each, and a check of the result."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto

from converters.linear.ann import Ann, PRelu
from converters.linear.passes import PART, folded, in_single_precision
from converters.onnx.flat_graph import INPUT, LAYER, TENSOR_WORK, Budget, FlatGraph
from converters.onnx.operator_table import Trait
from converters.onnx.operators import OPERATORS, PRODUCT_OF_TENSORS
from converters.onnx.reading.constant_folding import FOLDABLE, evaluate
from converters.onnx.reading.onnx_file import Array
from converters.onnx.reading.onnx_graph import Graph, GraphNode, read_graph
from converters.onnx.reference_check import Layout, Reference, largest_errors, make_reference
from converters.onnx.replaced_activations import activations_of, named, with_activations, with_rectifiers
from converters.onnx.tensor_layout import Data, Relayout, rows_of
from specs.errors import ConversionError, IntegrityError, UnsupportedError
from specs.files.limits import onnx_constants, onnx_work

TOLERANCE = 1e-4
"""Largest allowed difference between an import and onnx's evaluator, as a part of the largest logit."""
IMAGES, CHECK_WORK = 4, 1 << 25
"""Number of random images of each kind for the check; fewer if they would take more than this work, see `Budget`."""
NODE_WORK = 1 << 14
"""Work for each node, see `Budget`."""
UNKNOWN = None
"""Placeholder for the output of a refused node."""
BETWEEN = "stands between layers, and is supported only as the last node: use ReLU between layers"
"""Reason to refuse a Softmax or similar node."""


@dataclass(frozen=True)
class OnnxImport:
    """ANN from an ONNX file, with a record of the import.

    Attributes:
        nodes: `name`, `op`, `became` and `reason` of each node of the file. `became` is the node of the ANN that does
            its work, `input` if the ANN's normalization does, or one of `constant`, `layout`, `removed`, `unused`.
        max_abs_error: largest difference of a logit from onnx's evaluator.
        relative_error: the same, as a part of the largest logit.
        notes: choices and omissions that the user should know.
        reference: onnx's evaluator on the file, for comparisons on other images.
        original: the ANN with the activations of the file, if rectifiers replace some in `ann`; or None. Errors and
            `reference` are then of the file with rectifiers.
        replaced: these activations in words, such as "2 gelu"; empty if there are none.
    """

    ann: Ann = field(repr=False)
    nodes: list[dict[str, str]] = field(repr=False)
    max_abs_error: float
    relative_error: float
    notes: tuple[str, ...]
    reference: Reference = field(repr=False)
    original: Ann | None = field(default=None, repr=False)
    replaced: str = ""


def import_ann(path: Path, *, replace_activations: bool = False) -> OnnxImport:
    """Read a classifier of ReLU layers from an ONNX file, and check it against onnx's own evaluator.

    The ANN takes images `[N, *ann.shape]`, channels first, whatever the layout in the file, and in 0..1 even if the
    file takes bytes. Softmax, LogSoftmax, Sigmoid, ReLU and ArgMax at the end are left out, as they keep the order of
    the classes. Activations of quantised models are not rounded.

    Args:
        replace_activations: True to read activations close to a rectifier, such as GELU, as ReLU.

    Raises:
        SnnZooError: the file, or its external data, cannot be read.
        IntegrityError: the file is damaged, or is not an ONNX model.
        UnsupportedError: some nodes cannot be converted; the message lists all of them with the reason.
        ConversionError: the opset is newer than the installed onnx supports, or the import differs from onnx's
            evaluator by more than `TOLERANCE` of the largest logit.
    """
    original = read_graph(path)
    budget = Budget(onnx_work(original.n_bytes))
    activations = activations_of(original) if replace_activations else {}
    graph = with_rectifiers(original, activations) if activations else original
    try:
        walk, ann, data = _first_that_works(graph, path, budget)
    except UnsupportedError as error:
        if not replace_activations and (others := named(activations_of(original))):
            raise UnsupportedError(
                f"{error}; --replace-activations relu puts ReLU in the place of {others}, and tunes the ANN to its own "
                "former answers"
            ) from None
        raise
    n = max(1, min(IMAGES, CHECK_WORK // budget.spent))
    reference = _reference(walk, graph, data)
    difference, relative = _checked(ann, reference, n, path)
    before = None
    if activations:
        before = in_single_precision(with_activations(walk.read_ann(data), walk.flat.rows, activations))
        _checked(before, _reference(walk, original, data), n, path)
    rows = list(walk.table(ann))
    for row, node in zip(rows, sorted(original.nodes, key=lambda node: node.row), strict=True):
        row["op"] = node.op
    replaced = named({row: found for row, found in activations.items() if walk.flat.account[row][0] != "unused"})
    notes = [*_notes(walk, ann), *([f"ReLU takes the place of {replaced}"] if replaced else [])]
    return OnnxImport(ann, rows, difference, relative, tuple(notes), reference, before, replaced)


def _reference(walk: "_Walk", graph: Graph, data: Data) -> Reference:
    """Return onnx's evaluator for the logits that were imported."""
    logits = walk.output if data.ending is None else next(n for n in walk.graph.nodes if n.row == data.ending).inputs[0]
    return make_reference(graph, logits, walk.constants, walk.layout, walk.flat.quantised, walk.flat.weights)


def _checked(ann: Ann, reference: Reference, n: int, path: Path) -> tuple[float, float]:
    """Return the largest error on `n` images, and the same as a part of the largest logit."""
    error, largest = _errors(ann, reference, n)
    relative = error / largest if largest else error
    if not relative < TOLERANCE:
        raise ConversionError(
            f"{path}: the import differs from onnx's evaluator by {error:.3g}, {relative:.2g} of the largest logit; "
            f"at most {TOLERANCE:g} is allowed. Numbers near the limits of 32-bit floats can cause this; otherwise it "
            "is a bug in snnzoo"
        )
    return error, relative


def _errors(ann: Ann, reference: Reference, n: int) -> tuple[float, float]:
    """Return the largest error and the largest logit, on `n` uniform images or, if they are worse, `n` normal ones."""
    generator = torch.Generator().manual_seed(0)
    errors = [largest_errors(ann, reference, torch.rand(n, *ann.shape, generator=generator))]
    if reference.graph.input.gain == 1:
        errors.append(largest_errors(ann, reference, torch.randn(n, *ann.shape, generator=generator)))
    worst = max(errors, key=lambda pair: pair[0] / pair[1] if pair[1] else pair[0])
    return (worst[0], worst[1]) if not any(np.isnan(pair[0]) for pair in errors) else (float("nan"), 1.0)


def _first_that_works(graph: Graph, path: Path, budget: Budget) -> tuple["_Walk", Ann, Data]:
    """Import the first output that is a row of logits, with the first layout of the input that fits."""
    errors = list[UnsupportedError]()
    for settled in (False, True):
        errors, unread = [], False
        for output, layout in product(_outputs(graph), _layouts(graph.input.shape[1:])):
            try:
                return _imported(graph, output, layout, path, budget, settled=settled)
            except UnsupportedError as error:
                errors.append(error)
            except Relayout:
                unread = True
        if not unread:
            break
    raise errors[0] if errors else UnsupportedError(f"{path} has no output")


def _outputs(graph: Graph) -> list[str]:
    """Return the outputs that may be logits: those first that no other output depends on.

    Then follow outputs with no weights after them, such as logits from which another output computes a label.
    """
    before = {name: graph.ancestors((name,)) for name in graph.outputs}
    makers = {name: node.row for node in graph.nodes for name in node.outputs if name}
    last = [
        name
        for name in graph.outputs
        if not any(makers.get(name) in before[other] for other in graph.outputs if before[other] > before[name])
    ]
    weighed = _before_weights(graph)
    others = [name for name in graph.outputs if name not in last and name not in weighed]
    return [*last, *sorted(others, key=lambda name: len(before[name]), reverse=True)]


def _imported(
    graph: Graph, output: str, layout: Layout, path: Path, budget: Budget, *, settled: bool
) -> tuple["_Walk", Ann, Data]:
    """Import one output with this layout of the input, or with the layout in which the first layer reads it.

    Raises:
        Relayout: it reads the input in no layout of whole maps; with `settled`, its layer becomes a dense one.
    """
    needed = graph.ancestors((output,))
    if any(node.row in needed and not graph.texts.isdisjoint(node.inputs) for node in graph.nodes):
        raise UnsupportedError(f"{path}: the output {output!r} is computed from strings, not a row of logits")
    walk = _Walk(graph, output, layout, budget, settled=settled)
    try:
        walk.run(path)
    except Relayout as found:
        if found.index is None:
            raise
        places = np.empty(found.index.size, dtype=np.int64)
        places[found.index.ravel() - 1] = np.arange(found.index.size)
        walk = _Walk(graph, output, Layout(found.index.shape, places[layout.order]), budget, settled=True)
        walk.run(path)
    return walk, *walk.finished(path)


def _before_weights(graph: Graph) -> set[str]:
    """Return the names of the tensors that a node with weights depends on."""
    names = set[str]()
    for node in reversed(graph.nodes):
        if OPERATORS.has(node, Trait.WEIGHS) or not names.isdisjoint(node.outputs):
            names.update(node.inputs)
    return names


def _layouts(shape: tuple[int, ...]) -> list[Layout]:
    """Return possible layouts of an input of this shape, the likelier one first.

    Channels are first, unless only the last axis has a usual number of channels. Maps without channels get one.
    """
    places = np.arange(int(np.prod(shape)))
    if len(shape) < 3:
        return [Layout((1, *shape) if len(shape) == 2 else shape, places)]
    order = places.reshape(shape[2], *shape[:2]).transpose(1, 2, 0).ravel()  # [C, H, W] -> [H, W, C]
    both = [Layout(shape, places), Layout((shape[2], *shape[:2]), order)]
    return both[::-1] if shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4) else both


def _notes(walk: "_Walk", ann: Ann) -> Iterator[str]:
    """Yield notes on choices and omissions."""
    graph, output = walk.graph, walk.output
    others = [name for name in graph.outputs if name != output]
    if others:
        yield f"the output {output!r} is converted; other outputs are ignored: {', '.join(map(repr, others))}"
    if walk.flat.quantised:
        yield "the rounding of activations is left out; the check compares with the file without this rounding"
    if walk.layout.shape != graph.input.shape[1:]:
        theirs, ours = list(graph.input.shape[1:]), list(walk.layout.shape)
        yield f"the file takes images {theirs}, the SNN {ours}, channels first; --data may have either"
    if graph.input.gain != 1:
        entering = graph.input
        zero = f"0 stands for {entering.black:g} and " if entering.black else ""
        yield (
            f"the file takes pixels as bytes; the SNN takes them from 0 to 1, where {zero}1 stands for "
            f"{entering.black + entering.gain:g}"
        )
    for node in ann.nodes:
        if isinstance(node.operation, PRelu) and (n := int((node.operation.slope < 0).sum())):
            yield f"{node.place}: slopes below 0, in {n} of its channels, become 0: spike rates only rise"


class _Walk:
    """One pass over the nodes that an output needs; with `settled`, the layout of the input is not changed any more."""

    def __init__(self, graph: Graph, output: str, layout: Layout, budget: Budget, *, settled: bool) -> None:
        self.graph, self.output, self.layout = graph, output, layout
        self.needed = graph.ancestors((output,))
        self.constants_left = onnx_constants(graph.n_bytes)
        self.before_weights = _before_weights(graph)
        readers = [node for node in graph.nodes if node.row in self.needed]
        self.last_reader = {name: node.row for node in readers for name in node.inputs}
        self.last_reader.pop(output, None)
        read = (name for node in readers if not OPERATORS.has(node, Trait.SIZE) for name in node.inputs)
        self.read = {output, *read}
        double = graph.input.element_type == TensorProto.DOUBLE
        self.flat = FlatGraph(layout.shape, budget, np.float64 if double else np.float32, settled)
        self.flat.last = self._last_rows()
        self.constants: dict[str, Array] = dict(graph.constants)
        self.problems: dict[int, str] = {}
        self.unread = set[str]()
        """Names of unknown constants: sizes of a refused node's output, and what is computed from them."""
        batch, size = graph.input.shape[0], layout.order.size
        index = np.arange(batch)[:, None] * size + layout.index
        self.values: dict[str, Data | None] = {
            graph.input.name: Data(INPUT, layout.shape, index.reshape(graph.input.shape))
        }

    def run(self, path: Path) -> None:
        """Read all nodes, and collect refusals in `problems`.

        Raises:
            Relayout: the first layer reads the input in another layout.
            IntegrityError: a node is invalid.
        """
        for node in self.graph.nodes:
            if node.row not in self.needed:
                self.flat.account[node.row] = ("unused", "the logits do not depend on it")
                continue
            try:
                self._read(node)
            except UnsupportedError as error:
                self.problems[node.row] = str(error)
                self._refuse_endings(node)
                self._give_up(node)
            except IntegrityError as error:
                raise IntegrityError(f"{path}: {node.name} ({node.op}): {error}") from None
            except Relayout:
                if not self.flat.settled:
                    raise
                self.problems[node.row] = "reads the input in another layout than other layers do: use one layout"
                self._give_up(node)
            for name in node.inputs:
                if self.last_reader.get(name) == node.row:
                    self.values.pop(name, None)  # large maps: only those that are still needed stay in memory

    def finished(self, path: Path) -> tuple[Ann, Data]:
        """Return the ANN and the tensor of its logits.

        Raises:
            UnsupportedError: some nodes cannot be converted, and the message lists them; or the output is not logits.
            ConversionError: a weight does not fit into 32 bits.
        """
        data = self.values.get(self.output, UNKNOWN)
        try:
            logits = self._logits(data) if data is not None and not self.problems else None
            ann = folded(self.flat.ann(self.graph.input, logits))
        except UnsupportedError as error:
            raise UnsupportedError(f"{path}: {error}") from None
        except ConversionError as error:
            raise ConversionError(f"{path}: {error}") from None
        for name, reason in ann.refused.items():
            self.problems.setdefault(self.flat.rows[name.removesuffix(PART).removesuffix(PART)], reason)
        if self.problems:
            raise UnsupportedError(
                f"{path}: {len(self.problems)} of its nodes cannot become spiking layers: {self._refusals()}"
            )
        if data is None:
            raise UnsupportedError(f"{path}: the output {self.output!r} does not depend on the image")
        return ann, data

    def read_ann(self, data: Data) -> Ann:
        """Return the ANN as read, before its nodes are folded."""
        return self.flat.ann(self.graph.input, self._logits(data))

    def _logits(self, data: Data) -> Data:
        """Return the output as one row of logits for each image."""
        row = None
        if data.index.size == data.batch * data.size:
            row = rows_of(data.laid_out(data.index.reshape(data.batch, -1)), data.size)
        if data.source == INPUT or math.prod(data.shape[1:]) != 1 or row is None:
            raise UnsupportedError(
                f"the output {self.output!r} {list(data.index.shape)} is not one row of logits per image"
            )
        if not np.array_equal(row, np.arange(1, data.size + 1)):
            raise UnsupportedError(f"the output {self.output!r} has the logits of {data.source} in another order")
        return self.flat.flat(data)

    def _refusals(self) -> str:
        """Return the refused nodes as text: one of each reason, and the number of the others."""
        kinds: dict[str, list[GraphNode]] = {}
        for node in sorted(self.graph.nodes, key=lambda node: node.row):
            if node.row in self.problems:
                kinds.setdefault(self.problems[node.row], []).append(node)
        return "; ".join(
            f"{nodes[0].name} ({nodes[0].op}): {reason}"
            if len(nodes) == 1
            else f"{len(nodes)} nodes, such as {nodes[0].name} ({nodes[0].op}): {reason}"
            for reason, nodes in sorted(kinds.items(), key=lambda kind: -len(kind[1]))
        )

    def table(self, ann: Ann) -> Iterator[dict[str, str]]:
        """Yield the rows of `OnnxImport.nodes`, in the order of the file."""
        kept = {node.name for node in ann.nodes}
        for node in sorted(self.graph.nodes, key=lambda node: node.row):
            became, reason = self.flat.account[node.row]
            if became in ann.folded:
                became, how = ann.folded[became]
                reason = how if reason == LAYER else reason
                while became not in kept and became in ann.folded:
                    became, _ = ann.folded[became]
            elif became in self.flat.nodes and became not in kept:
                became, reason = "unused", "its numbers are not read"
            yield {"name": node.name, "op": node.op, "became": became, "reason": reason}

    def _read(self, node: GraphNode) -> None:
        """Read one node: compute it if it is constant, otherwise add its work to the ANN."""
        given = [self.constants[name] for name in node.inputs if name in self.constants]
        self.flat.budget.spend(NODE_WORK + sum(array.size for array in given))
        constant = all(name in self.constants for name in node.inputs if name)
        if constant and not node.domain and node.proto.op_type in FOLDABLE:
            values = [self.constants.get(name) for name in node.inputs]
            self.unread.update(node.outputs)
            results = evaluate(node, values, limit=self.constants_left)
            self.unread.difference_update(node.outputs)
            size = sum(array.size for array in results)
            self.flat.budget.spend(size)
            self.constants_left -= size
            names = [name for name in node.outputs if name]
            self.constants.update(zip(names, results, strict=True))
            self.flat.account[node.row] = ("constant", "computed at import, by onnx's evaluator")
            return
        variable = [name for name in node.inputs if name and name not in self.constants]
        from_image = [name for name in variable if name not in self.unread]
        is_unknown = any(self.values[name] is UNKNOWN for name in variable)
        if is_unknown and (not from_image or OPERATORS.has(node, Trait.SIZE)):
            self.unread.update(node.outputs)
            self._give_up(node)
            return
        operator = OPERATORS.find(node)
        if is_unknown:
            self._refuse_unknown(node, from_image)
            self._give_up(node)
            return
        inputs = tuple(self.constants[n] if n in self.constants else self.values[n] if n else None for n in node.inputs)
        grids = {data.grid for data in inputs if isinstance(data, Data)} - {None}
        if grids and not operator.traits & (Trait.MOVES | Trait.SIZE | Trait.ENDS | Trait.DEQUANTISES):
            raise UnsupportedError("computes with quantised numbers: put a DequantizeLinear before it")
        if not operator.traits & Trait.CHOOSES and any(isinstance(value, Data) and value.sign for value in inputs):
            raise UnsupportedError("computes with a comparison, which is supported only as the condition of Where")
        is_end = operator.traits & Trait.AFTER_LOGITS or (
            operator.traits & Trait.ENDS_LAST and node.row in self.flat.last
        )
        if not is_end and self._refuse_endings(node):
            self._refuse_unknown(node, from_image)
            return
        made = operator.read(node, inputs, self.flat)
        outputs: tuple[Data | Array, ...] = made if isinstance(made, tuple) else (made,)
        for name in node.outputs[len(outputs) :]:
            if name in self.read:
                raise UnsupportedError(f"its output {name!r} is read; only its first output is supported")
        grid = grids.pop() if grids and operator.traits & Trait.MOVES else None
        for name, result in zip(node.outputs, outputs, strict=False):
            if isinstance(result, Data):
                self.flat.budget.spend(TENSOR_WORK * result.index.size)
                self.values[name] = result if grid is None else replace(result, grid=grid)
                self.flat.account.setdefault(node.row, ("removed", "changes nothing"))
            else:
                self.constants[name] = result

    def _refuse_endings(self, node: GraphNode) -> bool:
        """Refuse each Softmax or similar node that a node reads; return whether there is one, and give up the node."""
        read = [data for name in node.inputs if (data := self.values.get(name)) is not None]
        endings = [data.ending for data in read if data.ending is not None]
        for row in endings:
            self.problems.setdefault(row, BETWEEN)
        if endings:
            self._give_up(node)
        return bool(endings)

    def _refuse_unknown(self, node: GraphNode, from_image: list[str]) -> None:
        """Raise `UnsupportedError` if the node would be refused whatever its inputs `from_image` are."""
        if OPERATORS.has(node, Trait.PRODUCT) and len(from_image) > 1:
            raise UnsupportedError(PRODUCT_OF_TENSORS)
        ends = OPERATORS.has(node, Trait.ENDS) and not OPERATORS.has(node, Trait.MOVES)
        if ends and not self.before_weights.isdisjoint(node.outputs):
            raise UnsupportedError(BETWEEN)

    def _last_rows(self) -> set[int]:
        """Return the rows of the nodes after which only `ENDINGS` follow."""
        last, middle = set[int](), set[str]()
        for node in reversed(self.graph.nodes):
            if node.row not in self.needed:
                continue
            if not middle.isdisjoint(node.outputs):
                middle.update(node.inputs)
                continue
            last.add(node.row)
            if not OPERATORS.has(node, Trait.ENDS):
                middle.update(node.inputs)
        return last

    def _give_up(self, node: GraphNode) -> None:
        """Mark the outputs of a refused node as unknown, so that the pass can go on and find all refusals."""
        self.flat.account.setdefault(node.row, ("removed", ""))
        self.values.update(dict.fromkeys(filter(None, node.outputs), UNKNOWN))
