"""The ANN while it is read: operators append nodes, as they stand in the file. Folding follows in `linear.passes`."""

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import torch

from converters.linear.ann import Add, Ann, Flatten, Node, Operation, ScaleShift, Unread
from converters.linear.image_normalization import Normalization
from converters.linear.linear_fold import Conv, Dense
from converters.linear.passes import MOST_REGIONS
from converters.onnx.reading.onnx_graph import GraphInput, GraphNode
from converters.onnx.tensor_layout import Data, Floats, Index, Maps, Picked, interleaved_by, maps_of, one_of, picked_of
from specs.errors import IntegrityError, UnsupportedError
from specs.fields import Shape
from specs.files.limits import ONNX_ELEMENTS, ONNX_TENSOR, ONNX_WINDOWS
from specs.shapes import Window, axes_of, fewest_sides, pads_of

INPUT = "input"
LAYER = "a layer of its own"
"""Reason in `OnnxImport.nodes` for a node that became a node of the ANN."""

MACS = 64
"""Number of multiplications that are one unit of work; see `Budget`."""
WEIGHT_WORK, TENSOR_WORK = 2, 2
"""Work of each weight of a layer, and of each number that depends on the image whenever it is made."""
LARGEST_UNROLLED = 1 << 24
"""Largest number of weights of a dense layer that moves values, or stands for a convolution of values in any order."""
KEPT_WORK = 4
"""Work of each number that is kept until all nodes are read."""


@dataclass
class Budget:
    """Work that the import of a file may take, in elements that are read or made: see `onnx_work`.

    Attributes:
        limit: largest work, for all outputs and layouts that are tried.
        spent: work so far.
    """

    limit: int
    spent: int = 0

    def spend(self, work: int) -> None:
        """Add to the work.

        Raises `IntegrityError` if the work exceeds the limit.
        """
        self.spent += work
        if self.spent > self.limit:
            raise IntegrityError(
                f"the import up to here takes {self.spent:,} numbers; at most {self.limit:,} are supported for a file "
                "of this size: export the model with a batch of 1, or for smaller images"
            )


def _rises(rows: Index) -> list[int]:
    """Return where runs of rows begin, whose values rise by the same from row to row, and the number of rows."""
    starts, before = [0], None
    for i, step in enumerate(np.diff(rows, axis=0), 1):
        goes_on = bool((step >= 0).all() and step.any()) and (before is None or np.array_equal(step, before))
        before = step if goes_on else None
        starts += [] if goes_on else [i]
    return [*starts, len(rows)]


@dataclass
class FlatGraph:
    """ANN as read so far, with a record of what each node of the file became.

    Attributes:
        dtype: type in which the file computes.
        settled: True if the layout of the input is not changed any more.
        nodes: nodes of the ANN by name.
        rows: row of the file's node that a node of the ANN comes from, by name.
        account: what a node of the file became, and the reason, by row.
        movable: nodes whose output has the layout of the input.
        quantised: rows of quantisations without rounding, with the upper bound that is kept, or None.
        weights: float weights of integer products, for activations without rounding, by row.
        last: rows after which all nodes keep the order of the classes.
    """

    input_shape: Shape
    budget: Budget
    dtype: npt.DTypeLike = np.float32
    settled: bool = True
    nodes: dict[str, Node] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    account: dict[int, tuple[str, str]] = field(default_factory=dict)
    movable: set[str] = field(default_factory=lambda: {INPUT})
    quantised: dict[int, float | None] = field(default_factory=dict)
    weights: dict[int, Floats] = field(default_factory=dict)
    last: set[int] = field(default_factory=set)

    def add(
        self, node: GraphNode, operation: Operation, *read: Data, shape: Shape | None = None, rank: int = 4
    ) -> Data:
        """Append a node; return its output.

        Args:
            node: node of the file that it comes from.
            read: inputs, of which the operation takes the sources.
            shape: shape of the output; by default, the output has shape and layout of the first input.
            rank: number of axes of a tensor of maps: 3 for `[N, C, L]`.
        """
        first, name, n = read[0], node.name, 2
        while name in self.nodes or name == INPUT:
            name, n = f"{node.name} ({n})", n + 1
        self.nodes[name] = Node(name, operation, tuple(data.source for data in read), shape or first.shape)
        self.rows[name] = node.row
        if not isinstance(operation, ScaleShift) or node.row not in self.account:
            self.account[node.row] = name, LAYER
        if shape is None:
            if first.source in self.movable and len(read) == 1:
                self.movable.add(name)
            return Data(name, first.shape, first.index)
        index = np.arange(1, first.batch * math.prod(shape) + 1).reshape(first.batch, *shape)
        if len(shape) == 3 and rank == 3:
            index = index[:, :, 0]  # [N, C, 1, L] -> [N, C, L]
        return Data(name, shape, index)

    def unchanged(self, node: GraphNode, data: Data, reason: str) -> Data:
        """Return the tensor as it is, and record that the node is left out."""
        self.account[node.row] = ("removed", reason)
        return data

    def flat(self, data: Data) -> Data:
        """Return the source of a tensor as one row for each image; a source is flattened only once."""
        if len(data.shape) == 1:
            return data
        name, size = f"{data.source}, flattened", data.size
        self.nodes.setdefault(name, Node(name, Flatten(), (data.source,), (size,)))
        return Data(name, (size,), data.index)

    def maps(self, node: GraphNode, data: Data) -> tuple[Data, Maps]:
        """Describe a tensor as feature maps; a tensor of only some of the source's values is picked first."""
        try:
            return data, maps_of(data, movable=data.source in self.movable)
        except UnsupportedError:
            if (picked := picked_of(data)) is None:
                raise
        made = self._picked(node, data, replace(picked, pads=(0, 0, 0, 0)))
        top, left, bottom, right = picked.pads
        sides = ((top, bottom), (left, right))[4 - data.index.ndim :]
        made = made.laid_out(np.pad(made.index, ((0, 0), (0, 0), *sides)))
        return made, maps_of(made, movable=False)

    def plain(self, node: GraphNode, data: Data) -> Data:
        """Return the tensor as all values of a source: maps, channels first or last, or features, with any zeros.

        Raises `UnsupportedError` if the tensor is neither picked from the source's maps nor few features.
        """
        if np.array_equal(np.sort(data.index, axis=None), np.arange(1, data.batch * data.size + 1)):
            return data
        for order in ([0, 1, 2, 3], [0, 3, 1, 2]) if data.index.ndim == 4 else ([0, 1, 2],):
            moved = data.laid_out(data.index.transpose(order)) if data.index.ndim > 2 else data
            if (steps := interleaved_by(moved)) is not None:
                made = self.picked(node, moved.apart(steps)).together(steps)
                return made.laid_out(made.index.transpose(np.argsort(order)))
        if (blocks := self.in_blocks(node, data)) is not None:
            return blocks
        return self.unrolled(node, data, one_of(data).reshape(-1, 1), np.ones((1, 1))).shaped(data.index.shape)

    def in_blocks(self, node: GraphNode, data: Data) -> Data | None:
        """Return maps as a sum of rectangles that are picked from the source's, as of a mirrored Pad; None if too many.

        Each rectangle has zeros around it.
        """
        if data.index.ndim != 4 or len(data.shape) != 3:
            return None
        down, across = (_rises(np.moveaxis(data.index, axis, 0)) for axis in (2, 3))
        if (len(down) - 1) * (len(across) - 1) > MOST_REGIONS:
            return None
        found, parts = list[Picked](), list[Data]()
        for (top, bottom), (left, right) in product(pairwise(down), pairwise(across)):
            place = np.s_[:, :, top:bottom, left:right]
            if not data.index[place].any():
                continue
            index = np.zeros_like(data.index)
            index[place] = data.index[place]
            parts.append(data.laid_out(index))
            if (picked := picked_of(parts[-1])) is None:
                return None
            found.append(picked)
        total, *others = (self._picked(node, part, picked) for part, picked in zip(parts, found, strict=True))
        for other in others:
            total = self.add(node, Add(), total, other)
        return total

    def unrolled(self, node: GraphNode, data: Data, seen: Index, weight: Floats) -> Data:
        """Append a dense layer in the place of weights that values in any order share.

        Args:
            node: node of the file that it comes from.
            seen: `[places, terms]`, values that each place reads, as in `Data.index`, of the first image.
            weight: `[outputs, terms]`; the layer has all places of the first output first.
        """
        if (size := len(weight) * len(seen) * data.size) > LARGEST_UNROLLED:
            raise UnsupportedError(
                f"reads the values of {data.source}, {list(data.shape)}, in another layout, {list(data.index.shape)}: "
                f"as a dense layer it has {size:,} weights, at most {LARGEST_UNROLLED:,} are supported"
            )
        return self.dense(node, data, seen, weight)

    def dense(self, node: GraphNode, data: Data, seen: Index, weight: Floats) -> Data:
        """Append the dense layer that `unrolled` describes, of any size that a file may have."""
        if (size := len(weight) * len(seen) * data.size) > ONNX_ELEMENTS:
            raise UnsupportedError(f"{size:,} weights; at most {ONNX_ELEMENTS:,} are supported")
        self.budget.spend(WEIGHT_WORK * size)
        spread = np.zeros((1 + data.size, len(seen), len(weight)))  # the first row is of padding zeros
        for place, values in enumerate(seen):
            np.add.at(spread[:, place], values, weight.T)
        flat = torch.from_numpy(spread[1:].transpose(2, 1, 0).reshape(-1, data.size))
        return self.add(node, Dense(flat, torch.zeros(len(flat)).double()), self.flat(data), shape=(len(flat),))

    def compact(self, node: GraphNode, data: Data) -> Data:
        """Return the tensor, with a source that has no other values if that is possible."""
        if len(np.unique(data.index[data.index > 0])) == data.batch * data.size:
            return data
        try:
            return self.plain(node, data)
        except UnsupportedError:
            return data

    def alike(self, node: GraphNode, first: Data, second: Data) -> tuple[Data, Data]:
        """Return two tensors of all values of their sources, in the same layout: maps of one, or features."""
        for one, other in ((first, second), (second, first)):
            order = np.argsort(one.index, axis=None)
            placed = other.laid_out(other.index.ravel()[order].reshape(one.batch, *one.shape))
            if (picked := picked_of(placed)) is not None:
                made = self._picked(node, placed, picked).laid_out(one.index)
                return (one, made) if one is first else (made, one)
        first, places = self.flat(first), one_of(second)[np.argsort(one_of(first))]
        return first, self.unrolled(node, second, places[:, None], np.ones((1, 1))).laid_out(first.index)

    def picked(self, node: GraphNode, data: Data) -> Data:
        """Return maps whose channels are not in order as a source in which they are."""
        picked = picked_of(data)
        assert picked is not None
        return self._picked(node, data, picked)

    def _picked(self, node: GraphNode, data: Data, picked: Picked, *, rank: int = 0) -> Data:
        """Append the convolution that picks values from maps."""
        if math.prod(picked.size) * len(picked.channels) * data.batch > ONNX_TENSOR:
            raise UnsupportedError(f"makes too large maps; at most {ONNX_TENSOR:,} numbers are supported")
        weight = torch.from_numpy(picked.weight(data.shape))
        self.budget.spend(WEIGHT_WORK * weight.numel())
        conv = Conv(weight, torch.zeros(len(weight)).double(), picked.stride)
        top, left, bottom, right = picked.pads
        shape = len(picked.channels), picked.size[0], picked.size[1]
        made = self.add(node, conv, data, shape=shape, rank=rank or data.index.ndim)
        if any(picked.pads):
            padded = shape[0], top + shape[1] + bottom, left + shape[2] + right
            pad = Conv(torch.eye(shape[0]).double()[:, :, None, None], conv.bias, padding=fewest_sides(picked.pads))
            made = self.add(node, pad, made, shape=padded, rank=rank or data.index.ndim)
        return made

    def map_shape(self, shape: Shape, batch: int, window: Window, channels: int, *, per_output: int = 1) -> Shape:
        """Return the output shape of windows on maps, once their sizes and work are within the limits.

        Args:
            window: the windows, with all padding.
            per_output: channels of the maps that one channel of the output reads.
        """
        axes = axes_of(window)
        height, width = (axis.output(side) for axis, side in zip(axes, shape[1:], strict=True))
        if min(height, width) < 1:
            raise UnsupportedError(f"windows {list(window.kernel)} do not fit into maps {list(shape[1:])}")
        top, left, bottom, right = pads_of(window.padding)
        padded = shape[0] * (shape[1] + top + bottom) * (shape[2] + left + right)
        if (size := batch * max(padded, channels * height * width)) > ONNX_TENSOR:
            raise UnsupportedError(f"makes {size:,} numbers; at most {ONNX_TENSOR:,} are supported")
        places = batch * height * width
        if (size := places * shape[0] * math.prod(axis.reach for axis in axes)) > ONNX_WINDOWS:
            raise UnsupportedError(f"its windows have {size:,} numbers; at most {ONNX_WINDOWS:,} are supported")
        self.budget.spend(size + places * channels * per_output * math.prod(window.kernel) // MACS)
        return channels, height, width

    def ann(self, entering: GraphInput, output: Data | None) -> Ann:
        """Return the graph up to an output, or with None all that was read of an incomplete one.

        `entering` is the input of the file.
        """
        nodes = list(self.nodes.values())
        if output is not None:
            nodes = nodes[: next(i for i, node in enumerate(nodes) if node.name == output.source) + 1]
        else:
            read = {name for node in nodes for name in node.inputs}
            leaves = tuple(name for name in self.nodes if name not in read)
            nodes.append(Node("", Unread(), leaves, (0,)))
        pixels = Normalization.of(0.0 - entering.black / entering.gain, 1 / entering.gain)
        return Ann(self.input_shape, tuple(nodes), pixels, INPUT)
