"""Builder of an ANN: it adds layers, and folds scalings and shifts between them into their weights, exactly.

All numbers are float64 until `finish`. A scaling or shift, `scale * x + shift` of each value, waits in `Data` until its
place is clear: the layer that computes x, if no other node reads x; the normalization of the input; the next layer,
past operations that commute with it; or, if none of these is exact, a layer of its own.
"""

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F

from converters.linear.ann import (
    Add,
    Ann,
    AvgPool,
    Clip,
    Conv,
    Dense,
    Flatten,
    LeakyRelu,
    MaxPool,
    Node,
    Operation,
    PRelu,
    Relu,
)
from converters.linear.image_normalization import AS_THEY_ARE, Normalization
from converters.onnx.scale_folding import (
    add_channel_of_ones,
    channel_wise,
    in_single_precision,
    normalization_values,
    scaled,
    tensor_of,
)
from converters.onnx.tensor_layout import Data, Floats, Maps, Refused, is_upright, maps_of, rows_of, turned
from converters.onnx.windows import Windows
from specs.errors import IntegrityError, UnsupportedError
from specs.fields import Shape
from specs.files.limits import ONNX_ELEMENTS, ONNX_TENSOR, ONNX_WINDOWS
from specs.shapes import Pads, fewest_sides

__all__ = ["BETWEEN", "INPUT", "LAYER", "PRODUCT_OF_TENSORS", "TENSOR_WORK", "AnnBuilder", "Budget"]

INPUT = "input"
MAX_DIAGONAL = 4096
"""Largest number of features for which a scaling may become a dense layer of its own."""

BETWEEN = "stands between layers, and is supported only as the last node: use ReLU between layers"
"""Reason to refuse a Softmax or similar node."""
PRODUCT_OF_TENSORS = "multiplies or divides two tensors that depend on the image: one of them must be constant"
"""Reason to refuse a MatMul, Mul or Div."""
NOT_FROM_ZERO = "an upper bound without a lower bound of 0: use Clip with a minimum of 0, or Relu before it"
"""Reason to refuse a Min or Clip."""
LAYER = "a layer of its own"
"""Reason in `OnnxImport.nodes` for a node that became a node of the ANN."""

MACS = 64
"""Number of multiplications that are one unit of work; see `Budget`."""
WEIGHT_WORK, TENSOR_WORK = 2, 2
"""Work of each weight of a layer, and of each number that depends on the image whenever it is made."""

Range = tuple[float, float]
EVERYTHING: Range = (-math.inf, math.inf)


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

        Raises:
            IntegrityError: the work exceeds the limit.
        """
        self.spent += work
        if self.spent > self.limit:
            raise IntegrityError(
                f"the import up to here takes {self.spent:,} numbers; at most {self.limit:,} are supported for a file "
                "of this size: export the model with a batch of 1, or for smaller images"
            )


@dataclass
class AnnBuilder:
    """ANN under construction, with a record of what each node of the graph became.

    Attributes:
        input_shape: shape of one image.
        budget: work that the import may take.
        dtype: type in which the graph computes.
        row: row of the graph's node that is being read.
        account: what a node became, and the reason, by row.
        nodes: nodes of the ANN by name.
        ranges: least and largest possible value of a node's output, by name.
        normalization: normalization of images, before the first node.
        flattened: name of the Flatten after a node, by the node's name.
        like_input: nodes of the ANN whose output has the layout of the input.
        counts: nodes so far, by kind, to name the next one.
        shared: nodes of the ANN that more than one node of the graph reads.
        windows: windows of convolutions and pools, by row, with explicit padding.
        constant_shapes: shapes that constants need to broadcast with their tensor, by row, if the file has others.
        quantised: rows of quantisations without rounding, with the upper bound that is kept, or None.
        grids: scale and zero point of the graph's quantised tensors, by name.
        last: rows after which all nodes keep the order of the classes.
    """

    input_shape: Shape
    budget: Budget
    dtype: npt.DTypeLike = np.float32
    row: int = 0
    account: dict[int, tuple[str, str]] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)
    normalization: Normalization = AS_THEY_ARE
    flattened: dict[str, str] = field(default_factory=dict)
    like_input: set[str] = field(default_factory=lambda: {INPUT})
    counts: Counter[str] = field(default_factory=Counter)
    shared: set[str] = field(default_factory=set)
    windows: dict[int, Windows] = field(default_factory=dict)
    constant_shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    quantised: dict[int, float | None] = field(default_factory=dict)
    grids: dict[str, tuple[float, int]] = field(default_factory=dict)
    last: set[int] = field(default_factory=set)

    # --- layers

    def dense(self, data: Data, weight: Floats) -> Data:
        """Add `x W`, with x one row `[features]` for each image, and W `[features, outputs]`."""
        features, outputs = weight.shape
        row = rows_of(data, features)
        if data.size * outputs > ONNX_ELEMENTS:
            raise UnsupportedError(f"{data.size * outputs:,} weights; at most {ONNX_ELEMENTS:,} are supported")
        self.budget.spend(WEIGHT_WORK * data.size * outputs)
        data = self._settled(data)
        spread = np.zeros((data.size, outputs))
        np.add.at(spread, row[row > 0] - 1, weight[row > 0])  # in the source's order; 0 for values not in the tensor
        bias = np.zeros(outputs) if data.shift is None else data.shift.ravel() @ spread
        if data.scale is not None:
            spread *= data.scale.reshape(-1, 1)
        flat = self._flat(data.source, data.shape)
        name = self._add(Dense(tensor_of(spread.T), tensor_of(bias)), (flat,), (outputs,))
        self._absorbed(data, name)
        return self._result(name, (outputs,), data.batch)

    def conv(self, data: Data, weight: Floats, windows: Windows, groups: int) -> Data:
        """Add a cross-correlation with weight `[channels, C / groups, kh, kw]`."""
        if is_upright(data):
            return turned(self.conv(turned(data), weight.swapaxes(2, 3), windows.turned, groups))
        maps, batch = self._maps(data), data.batch
        data = self._settled(data)
        pads = _sum(windows.pads, maps.pads)
        channels, per_group = weight.shape[:2]
        shape = self._map_shape(channels, data, windows, pads, per_output=per_group)
        if per_group * groups != len(maps.channels) or channels % groups:
            raise UnsupportedError(
                f"its weights {list(weight.shape)} in {groups} groups do not fit {len(maps.channels)} channels"
            )
        if not maps.in_order:
            if groups != 1:
                raise UnsupportedError("reordered channels before a convolution in groups are not supported")
            in_order = np.zeros_like(weight)
            in_order[:, maps.channels] = weight
            weight = in_order
        if any(pads) and channel_wise(data.shift) is not None:
            if data.source == INPUT:
                data = self.materialised(data)
            elif groups == 1:
                data, weight = self._shift_as_channel(data, weight)
                per_group = weight.shape[1]
        each = channel_wise(data.scale)
        if data.scale is not None and each is None:
            raise Refused(data.pending, "its factors differ over height and width: use one factor per channel")
        shifted = self._shift_map(data, weight, replace(windows, pads=pads), groups)
        if each is not None:
            weight = weight * each.reshape(groups, 1, per_group, 1, 1).repeat(channels // groups, 1).reshape(
                channels, per_group, 1, 1
            )
        if weight.size > ONNX_ELEMENTS:
            raise UnsupportedError(f"has {weight.size:,} weights; at most {ONNX_ELEMENTS:,} are supported")
        self.budget.spend(WEIGHT_WORK * weight.size)
        bias = channel_wise(shifted)
        operation = Conv(
            tensor_of(weight),
            tensor_of(np.zeros(channels) if bias is None else bias),
            windows.stride,
            fewest_sides(pads),
            windows.dilation,
            groups,
        )
        name = self._add(operation, (data.source,), shape)
        self._absorbed(data, name)
        made = self._result(name, shape, batch, rank=maps.rank)
        # windows at the edge see less of a shift before padding: it differs between places, and cannot be the bias
        return made if bias is not None or shifted is None else replace(made, shift=shifted, pending=data.pending)

    def average_pool(self, data: Data, windows: Windows) -> Data:
        """Add the mean over windows, in which padding counts as zeros."""
        if is_upright(data):
            return turned(self.average_pool(turned(data), windows.turned))
        maps = self._maps(data)
        pads = _sum(windows.pads, maps.pads)
        channels = data.shape[0]
        shape = self._map_shape(channels, data, windows, pads)
        if data.scale is not None and channel_wise(data.scale) is None:
            data = self.materialised(data)
        ones = np.full((channels, 1, *windows.kernel), 1 / math.prod(windows.kernel))
        shift = self._shift_map(data, ones, replace(windows, pads=pads), channels)
        padding = fewest_sides(pads)
        if windows.dilation == (1, 1):
            operation: Operation = AvgPool(windows.kernel, windows.stride, padding)
        else:
            zeros = tensor_of(np.zeros(channels))
            operation = Conv(tensor_of(ones), zeros, windows.stride, padding, windows.dilation, groups=channels)
        name = self._add(operation, (data.source,), shape, self._range(data.source, with_zero=any(pads)))
        return self._passed(data, name, shape, maps, shift)

    def max_pool(self, data: Data, windows: Windows) -> Data:
        """Add the maximum over windows, in which padding does not count."""
        if is_upright(data):
            return turned(self.max_pool(turned(data), windows.turned))
        maps = self._maps(data)
        factor = channel_wise(data.scale)
        per_channel = data.shift is None or channel_wise(data.shift) is not None
        if not per_channel or (data.scale is not None and (factor is None or bool((factor <= 0).any()))):
            data = self.materialised(data)
        if any(maps.pads) and (data.shift is not None or self._range(data.source)[0] < 0):
            raise UnsupportedError(
                "a maximum over zeros of a Pad and values that may be negative: use MaxPool's pads, or Relu before Pad"
            )
        if windows.dilation != (1, 1):
            raise UnsupportedError(f"dilations {list(windows.dilation)} of a maximum are not supported: use 1")
        pads = _sum(windows.pads, maps.pads)
        if any(pads[i] >= windows.kernel[i % 2] for i in range(4)):
            raise UnsupportedError(f"padding {list(pads)} must be smaller than the windows {list(windows.kernel)}")
        shape = self._map_shape(data.shape[0], data, windows, pads)
        operation = MaxPool(windows.kernel, windows.stride, fewest_sides(pads))
        name = self._add(operation, (data.source,), shape, self._range(data.source))
        shift = None if data.shift is None else np.broadcast_to(data.shift[:, :1, :1], shape)
        return self._passed(data, name, shape, maps, shift)

    def reduce_maps(self, data: Data, axes: tuple[int, ...], *, keep: bool, largest: bool) -> Data:
        """Add the mean of each map, or the maximum if `largest`.

        Args:
            data: the maps.
            axes: axes of the tensor to reduce; they must be height and width.
            keep: keep these axes, with size 1.
            largest: take the maximum.
        """
        rank = data.index.ndim
        axes = tuple(sorted({axis % rank for axis in axes if -rank <= axis < rank}))
        others = [axis for axis in range(rank) if axis not in axes]
        count = math.prod(data.index.shape[axis] for axis in axes)
        moved = data.index.transpose(*others, *axes).reshape(data.batch, -1, count)  # [N, C, H * W] for maps
        moved = np.sort(moved, axis=2)
        if len(data.shape) != 3 or count != data.shape[1] * data.shape[2]:
            raise UnsupportedError(
                f"reduces axes {list(axes)} of {list(data.index.shape)}; only height and width together are supported"
            )
        maps = replace(data, index=moved.reshape(data.batch, -1, *data.shape[1:]))
        windows = Windows((data.shape[1], data.shape[2]), (1, 1), (1, 1), (0, 0, 0, 0))
        made = self.max_pool(maps, windows) if largest else self.average_pool(maps, windows)
        shape = [1 if axis in axes else side for axis, side in enumerate(data.index.shape)]
        if not keep:
            shape = [data.index.shape[axis] for axis in others]
        return replace(made, index=made.index.reshape(shape))

    # --- activations

    def relu(self, data: Data) -> Data:
        """Add `max(x, 0)`, or with a cap before it `min(max(x, 0), cap)`."""
        if data.cap is not None:
            high, row = data.cap
            data = self.clip(replace(data, cap=None), high)
            self.account[row] = self.account.get(self.row, ("removed", "an upper bound"))
            return data
        data = self._positive(data)
        if self.is_never_negative(data):
            return self.unchanged(data, "its input is never negative")
        return self._activation(data, Relu(), (0.0, math.inf))

    def clip(self, data: Data, high: float) -> Data:
        """Add `min(max(x, 0), high)`."""
        if math.isinf(high):
            return self.relu(data)
        data = self._positive(data)
        if data.scale is not None and np.ptp(data.scale):
            data = self.materialised(data)
        factor = 1.0 if data.scale is None else float(data.scale.flat[0])
        low, top = self._range(data.source)
        if low >= 0 and top * factor <= high:
            return self.unchanged(data, f"its input is within 0 to {high:g}")
        before = self.nodes.get(data.source)
        if before is not None and isinstance(before.operation, Relu | Clip) and data.source not in self.shared:
            bound = min(high / factor, getattr(before.operation, "high", math.inf))
            self.nodes[data.source] = replace(before, operation=Clip(bound))
            self.ranges[data.source] = (0.0, bound)
            self.account[self.row] = (data.source, f"bounds the ReLU {data.source} at {high:g}")
            return data
        return self._activation(data, Clip(high / factor), (0.0, high / factor))

    def leaky_relu(self, data: Data, slope: Floats) -> Data:
        """Add `x` above 0 and `slope * x` below, with a slope for each value of the source."""
        data = self._positive(data)
        if self.is_never_negative(data):
            return self.unchanged(data, "its input is never negative")
        slopes = channel_wise(slope)
        if slopes is None:
            raise UnsupportedError("its slopes differ over height and width: use one slope per channel")
        if np.ptp(slopes) or slopes[0] < 0:
            return self._activation(data, PRelu(tensor_of(slopes)), EVERYTHING)
        if slopes[0] == 0:
            return self._activation(data, Relu(), (0.0, math.inf))
        if slopes[0] == 1:
            return self.unchanged(data, "its slope is 1 on both sides")
        return self._activation(data, LeakyRelu(float(slopes[0])), EVERYTHING)

    # --- sums, factors

    def add(self, first: Data, second: Data) -> Data:
        """Add the sum of two tensors of the same shape and layout."""
        self._check_may_follow(first)
        self._check_may_follow(second)
        self.budget.spend(TENSOR_WORK * first.index.size)
        if first.shape != second.shape or not np.array_equal(first.index, second.index):
            raise UnsupportedError(
                f"adds {first.source} {list(first.index.shape)} and {second.source} {list(second.index.shape)}, "
                "which must have the same shape and layout"
            )
        if first.scale is not None or second.scale is not None:
            first, second = self.materialised(first), self.materialised(second)
        low = sum(self._range(data.source)[0] for data in (first, second))
        high = sum(self._range(data.source)[1] for data in (first, second))
        name = self._add(Add(), (first.source, second.source), first.shape, (low, high))
        made = replace(self._result(name, first.shape, first.batch), index=first.index)
        shifts = [data.shift for data in (first, second) if data.shift is not None]
        if not shifts:
            return made
        return replace(made, shift=np.sum(shifts, axis=0), pending=(*first.pending, *second.pending))

    def affine(self, data: Data, scale: Floats | None, shift: Floats | None) -> Data:
        """Return `scale * x + shift`, folded at once if that is exact; both have the source's shape, or are None."""
        self._check_may_follow(data)
        whole, moved = data.scale, data.shift
        if scale is not None:
            whole = scale if whole is None else whole * scale
            moved = None if moved is None else moved * scale
        if shift is not None:
            moved = shift if moved is None else moved + shift
        whole = None if whole is None or bool((whole == 1).all()) else whole
        moved = None if moved is None or not moved.any() else moved
        return self._folded_back(replace(data, scale=whole, shift=moved, pending=(*data.pending, self.row)))

    def is_never_negative(self, data: Data) -> bool:
        """Return whether no value of the tensor can be below 0."""
        rises = data.scale is None or bool((data.scale >= 0).all())
        return rises and data.shift is None and self._range(data.source)[0] >= 0

    def unchanged(self, data: Data, reason: str) -> Data:
        """Return the tensor as it is, and record that the node is left out."""
        self.account[self.row] = ("removed", reason)
        return data

    def materialised(self, data: Data) -> Data:
        """Return the tensor with no scale or shift pending: add a layer for them if they cannot be folded back.

        Raises:
            Refused: they differ over height and width, or the layer would be too large.
        """
        data = self._settled(data)
        if data.scale is None and data.shift is None:
            return data
        channels = data.shape[0]
        scale = np.ones(channels) if data.scale is None else channel_wise(data.scale)
        shift = np.zeros(channels) if data.shift is None else channel_wise(data.shift)
        if scale is None or shift is None:
            what = "factors" if scale is None else "bias values"
            raise Refused(data.pending, f"its {what} differ over height and width: use one value per channel")
        if len(data.shape) == 3:
            operation: Operation = Conv(tensor_of(scale.reshape(-1, 1, 1, 1)), tensor_of(shift), groups=channels)
        elif channels <= MAX_DIAGONAL:
            self.budget.spend(WEIGHT_WORK * channels**2)
            operation = Dense(tensor_of(np.diag(scale)), tensor_of(shift))
        else:
            raise Refused(
                data.pending,
                f"scales or shifts {channels:,} features between layers; at most {MAX_DIAGONAL:,} are supported",
            )
        name = self._add(operation, (data.source,), data.shape)
        self._absorbed(data, name, "a factor and a shift for each channel")
        return replace(data, source=name, scale=None, shift=None, pending=())

    def finish(self, data: Data, name: str) -> Ann:
        """Return the ANN whose logits are the tensor, the output `name` of the graph.

        Raises:
            UnsupportedError: the tensor is not one row of logits for each image.
            ConversionError: a weight is too large for 32 bits.
        """
        data = self.materialised(replace(data, ending=None))
        if data.cap is not None:
            raise Refused((data.cap[1],), NOT_FROM_ZERO)
        row = None
        if data.index.size == data.batch * data.size:
            row = rows_of(replace(data, index=data.index.reshape(data.batch, -1)), data.size)
        if data.source == INPUT or math.prod(data.shape[1:]) != 1 or row is None:
            raise UnsupportedError(f"the output {name!r} {list(data.index.shape)} is not one row of logits per image")
        if not np.array_equal(row, np.arange(1, data.size + 1)):
            raise UnsupportedError(f"the output {name!r} has the logits of {data.source} in another order")
        last = self._flat(data.source, data.shape)
        used, kept = {last}, []
        for node in reversed(self.nodes.values()):
            if node.name in used:
                used.update(node.inputs)
                kept.append(replace(node, operation=in_single_precision(node)))
        return Ann(self.input_shape, tuple(reversed(kept)), self.normalization, INPUT)

    # --- parts

    def _add(self, operation: Operation, inputs: tuple[str, ...], shape: Shape, range_: Range = EVERYTHING) -> str:
        """Add a node to the ANN; return its name."""
        kind = type(operation).__name__.lower()
        self.counts[kind] += 1
        name = f"{kind}{self.counts[kind]}"
        self.nodes[name] = Node(name, operation, inputs, shape)
        self.ranges[name] = range_
        if not isinstance(operation, Flatten):
            self.account[self.row] = (name, LAYER)
        return name

    def _result(self, name: str, shape: Shape, batch: int, *, rank: int = 4) -> Data:
        """Return the output of a node as a tensor, `[N, C, L]` if `rank` is 3."""
        index = np.arange(1, batch * math.prod(shape) + 1).reshape(batch, *shape)
        if len(shape) == 3 and rank == 3:
            index = index[:, :, 0]  # [N, C, 1, L] -> [N, C, L]
        return Data(name, shape, index)

    def _flat(self, source: str, shape: Shape) -> str:
        """Return the name of the flattened source; a source is flattened only once."""
        if len(shape) == 1:
            return source
        if source not in self.flattened:
            self.flattened[source] = self._add(Flatten(), (source,), (math.prod(shape),), self._range(source))
        return self.flattened[source]

    def _maps(self, data: Data) -> Maps:
        """Describe a tensor as feature maps."""
        self._check_may_follow(data)
        return maps_of(data, movable=data.source in self.like_input)

    def _range(self, source: str, *, with_zero: bool = False) -> Range:
        """Return the range of a node's output; `with_zero` includes padding zeros."""
        low, high = self.ranges.get(source, EVERYTHING)
        return (min(low, 0.0), max(high, 0.0)) if with_zero else (low, high)

    def _map_shape(self, channels: int, data: Data, windows: Windows, pads: Pads, *, per_output: int = 1) -> Shape:
        """Return the output shape of windows on maps, once their sizes and work are within the limits.

        Args:
            channels: channels of the output.
            data: the maps.
            windows: the windows.
            pads: padding of the maps.
            per_output: channels of the maps that one channel of the output reads.
        """
        height, width = replace(windows, pads=pads).output(*data.shape[1:])
        if min(height, width) < 1:
            raise UnsupportedError(f"windows {list(windows.kernel)} do not fit into maps {list(data.shape[1:])}")
        top, left, bottom, right = pads
        padded = data.shape[0] * (data.shape[1] + top + bottom) * (data.shape[2] + left + right)
        if (size := data.batch * max(padded, channels * height * width)) > ONNX_TENSOR:
            raise UnsupportedError(f"makes {size:,} numbers; at most {ONNX_TENSOR:,} are supported")
        places = data.batch * height * width
        if (size := places * data.shape[0] * math.prod(windows.reach)) > ONNX_WINDOWS:
            raise UnsupportedError(f"its windows have {size:,} numbers; at most {ONNX_WINDOWS:,} are supported")
        self.budget.spend(size + places * channels * per_output * math.prod(windows.kernel) // MACS)
        return channels, height, width

    def _check_may_follow(self, data: Data) -> None:
        """Raise an error if no node may follow a tensor: after a Softmax, or an upper bound alone."""
        if data.ending is not None:
            raise Refused((data.ending,), BETWEEN)
        if data.cap is not None:
            raise Refused((data.cap[1],), NOT_FROM_ZERO)

    def _settled(self, data: Data) -> Data:
        """Return the tensor with its scale and shift folded back, as far as that is exact."""
        self._check_may_follow(data)
        return self._folded_back(data)

    def _positive(self, data: Data) -> Data:
        """Return the tensor with at most factors above 0 pending, with which activations commute."""
        data = self._settled(data)
        if data.shift is not None or (data.scale is not None and bool((data.scale <= 0).any())):
            return self.materialised(data)
        return data

    def _activation(self, data: Data, operation: Operation, range_: Range) -> Data:
        """Add an activation."""
        name = self._add(operation, (data.source,), data.shape, range_)
        if data.source in self.like_input:
            self.like_input.add(name)
        return replace(data, source=name)

    def _passed(self, data: Data, name: str, shape: Shape, maps: Maps, shift: Floats | None) -> Data:
        """Return the output of a pool, with the tensor's order of channels, its pending scale, and `shift`."""
        made = self._result(name, shape, data.batch, rank=maps.rank)
        scale = None if data.scale is None else np.broadcast_to(data.scale[:, :1, :1], shape)
        return replace(made, index=made.index[:, maps.channels], scale=scale, shift=shift, pending=data.pending)

    def _absorbed(self, data: Data, name: str, reason: str = "folded into its weights, exactly") -> None:
        """Record that the node `name` of the ANN does the work of the pending nodes."""
        for row in data.pending:
            if self.account.get(row) != (name, LAYER):
                self.account[row] = (name, reason)

    def _folded_back(self, data: Data) -> Data:
        """Fold scale and shift into the layer before, or into the normalization of the input, if that is exact."""
        if data.scale is None and data.shift is None:
            for row in data.pending:
                self.account.setdefault(row, ("removed", "changes nothing"))
            return replace(data, pending=())
        if data.source in self.shared:
            return data
        scale, shift = channel_wise(data.scale), channel_wise(data.shift)
        if (data.scale is not None and scale is None) or (data.shift is not None and shift is None):
            return data
        before = self.nodes.get(data.source)
        if before is not None and isinstance(before.operation, Dense | Conv):
            self.nodes[before.name] = replace(before, operation=scaled(before.operation, scale, shift))
            self.ranges[before.name] = EVERYTHING  # a convolution that is an average had a narrower one
        elif data.source == INPUT:
            factor, moved = (normalization_values(x, fill, data.shape) for x, fill in ((scale, 1.0), (shift, 0.0)))
            if factor is None or moved is None or not bool(((factor > 0) & np.isfinite(factor)).all()):
                return data
            scaling = Normalization.of((0.0 - moved / factor).tolist(), (1 / factor).tolist())
            self.normalization = scaling.after(self.normalization)
            self._absorbed(data, INPUT, "folded into the input's mean and std")
            return replace(data, scale=None, shift=None, pending=())
        else:
            return data
        self._absorbed(data, before.name)
        return replace(data, scale=None, shift=None, pending=())

    def _shift_map(self, data: Data, weight: Floats, windows: Windows, groups: int) -> Floats | None:
        """Return what the pending shift adds to the output of a convolution, `[channels, H, W]`; None without shift."""
        if data.shift is None:
            return None
        top, left, bottom, right = windows.pads
        shift, shape = data.shift, (len(weight), *windows.output(*data.shape[1:]))
        if not any(windows.pads) and channel_wise(shift) is not None:
            # all windows have the same sum, but rounding could make it differ: one window is computed
            shift = shift[:, : windows.reach[0], : windows.reach[1]]
        padded = F.pad(tensor_of(shift)[None], (left, right, top, bottom))
        seen = F.conv2d(padded, tensor_of(weight), None, windows.stride, 0, windows.dilation, groups)[0].numpy()
        return np.broadcast_to(seen, shape)

    def _shift_as_channel(self, data: Data, weight: Floats) -> tuple[Data, Floats]:
        """Replace a shift before padding by a channel of ones, if the ANN can have one; otherwise change nothing."""
        shift = channel_wise(data.shift)
        grown = add_channel_of_ones(self.nodes, data.source, self.shared)
        if shift is None or grown is None:
            return data, weight
        seen = np.einsum("ochw,c->ohw", weight, shift)[:, None]  # weights of the channel of ones
        self._absorbed(data, grown, "its factor is folded into the next weights, its shift is a channel of ones")
        shape = self.nodes[data.source].shape
        scale = None if data.scale is None else np.concatenate([data.scale, np.ones((1, *shape[1:]))])
        return replace(data, shape=shape, scale=scale, shift=None), np.concatenate([weight, seen], axis=1)


def _sum(first: Pads, second: Pads) -> Pads:
    """Return the sum of two paddings."""
    return first[0] + second[0], first[1] + second[1], first[2] + second[2], first[3] + second[3]
