"""Passes that turn an ANN as read from a file into one of layers only, in the order in which they run.

Each pass takes a graph and returns one that computes the same. What was folded away is noted in `Ann.folded`, and what
cannot be folded exactly in `Ann.refused`. All numbers are float64 until the last pass.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.functional.convolution import conv2d
from converters.linear.ann import (
    Add,
    Ann,
    AvgPool,
    Bound,
    Clip,
    Concat,
    Flatten,
    LeakyRelu,
    MaxPool,
    Node,
    Operation,
    PRelu,
    Relu,
    ScaleShift,
    Unread,
    ZeroPad,
)
from converters.linear.image_normalization import Normalization
from converters.linear.linear_fold import Conv, Dense, scale_inputs, scale_outputs
from specs.errors import ConversionError
from specs.fields import Shape
from specs.shapes import axes_of, fewest_sides, pads_of

MAX_DIAGONAL = 4096
"""Largest number of features for which a scaling may become a dense layer of its own."""
MAX_DIAGONALS = 1 << 26
"""Largest number of weights of all such layers of a network."""

MOST_REGIONS = 25
"""Largest number of rectangles of maps that get a scaling of their own."""

FOLDED = "folded into its weights, exactly"
PART = " (part)"
"""End of the name of a further node that a node becomes."""
MAY_BE_NEGATIVE = (
    "a maximum over zeros of a Pad and values that may be negative: use MaxPool's pads, or Relu before Pad"
)

_Range = tuple[float, float]
EVERYTHING: _Range = (-math.inf, math.inf)


def folded(ann: Ann) -> Ann:
    """Return the graph with all passes applied.

    Raises `ConversionError` if a weight is not finite in 32 bits.
    """
    for run in PASSES:
        ann = run(ann)
    return ann


def without_unneeded(ann: Ann) -> Ann:
    """Remove the nodes that the last one does not depend on."""
    used, kept = {ann.nodes[-1].name}, []
    for node in reversed(ann.nodes):
        if node.name in used:
            used.update(node.inputs)
            kept.append(node)
    return replace(ann, nodes=tuple(reversed(kept)))


def rectified(ann: Ann) -> Ann:
    """Turn bounds into `Relu` and `Clip`, and padding before a maximum into its own; remove what changes nothing.

    Bounds that do not start at 0 become a rectifier between two shifts: `x` above `low` is `low + relu(x - low)`.
    """
    found = _Rewriting(ann)
    ranges: dict[str, _Range] = {}
    caps: dict[str, tuple[str, float]] = {}  # upper bounds that wait for a lower one: what they read, and the bound
    for node in ann.nodes:
        node = found.renamed(node)
        inputs = node.inputs
        operation = Bound(low=0.0) if isinstance(node.operation, Relu) else node.operation
        if isinstance(operation, ZeroPad):  # only a maximum follows one
            ranges[node.name] = ranges.get(inputs[0], EVERYTHING)
            found.keep(node)
            continue
        if isinstance(operation, MaxPool) and isinstance(pad := found.operation(inputs[0]), ZeroPad):
            if ranges[inputs[0]][0] < 0:
                found.refused[node.name] = MAY_BE_NEGATIVE
            inputs = found.nodes[inputs[0]].inputs
            node = replace(node, operation=operation.padded(pads_of(pad.padding)), inputs=inputs)
        elif isinstance(operation, LeakyRelu | PRelu) and ranges.get(inputs[0], EVERYTHING)[0] >= 0:
            found.remove(node, inputs[0], "its input is never negative")
            continue
        elif isinstance(operation, Bound):
            source, high = caps.get(inputs[0], (inputs[0], math.inf))
            high = min(high, operation.high)
            low, top = ranges.get(source, EVERYTHING)
            if operation.low == -math.inf and math.isinf(high):
                found.remove(node, source, "its bounds change nothing")
                continue
            if operation.low == -math.inf and low < 0:
                caps[node.name] = source, high
                found.keep(node)
                continue
            if high <= operation.low:
                found.refused[node.name] = f"bounds {operation.low:g} to {high:g} leave one value: remove it"
            elif low >= 0 and operation.low <= 0 and top <= high:
                within = "never negative" if math.isinf(high) else f"within 0 to {high:g}"
                found.remove(node, source, f"its input is {within}")
                continue
            if inputs[0] in caps:
                found.folded[inputs[0]] = node.name, "an upper bound"
            from_zero = operation.low == 0 or low >= 0 >= operation.low
            bounded: Operation = Relu() if math.isinf(high) else Clip(high)
            node = replace(node, operation=bounded if from_zero else Bound(operation.low, high), inputs=(source,))
        ranges[node.name] = _range(node.operation, [ranges.get(name, EVERYTHING) for name in node.inputs])
        found.keep(node)
    return _with_shifted_bounds(found.done(ann.nodes[-1].name))


def _with_shifted_bounds(ann: Ann) -> Ann:
    """Turn bounds that do not start at 0 into shifts around a rectifier."""
    nodes = list[Node]()
    for node in ann.nodes:
        if not isinstance(node.operation, Bound) or node.name in ann.refused:
            nodes.append(node)
            continue
        low, high = node.operation.low, node.operation.high
        base, sign = (low, 1.0) if math.isfinite(low) else (high, -1.0)
        one = torch.ones([1] * len(node.shape), dtype=torch.float64)
        names = [node.name + PART * n for n in (2, 1, 0)]
        bounded = Clip(high - low) if math.isfinite(high - low) else Relu()
        made = ScaleShift(sign * one, -sign * base * one), bounded, ScaleShift(sign * one, base * one)
        reads = (node.inputs[0], *names)
        nodes += [Node(name, each, (read,), node.shape) for name, each, read in zip(names, made, reads, strict=False)]
    return replace(ann, nodes=tuple(nodes))


def with_joined_slopes(ann: Ann) -> Ann:
    """Join `relu(x) - slope * relu(-x)` into a leaky ReLU, as Keras writes PReLU."""
    found = _Rewriting(ann)
    for node in ann.nodes:
        found.keep(node)
        if isinstance(node.operation, Add):
            for rising, other in (node.inputs, node.inputs[::-1]):
                slope = _slope_below(found, rising, other)
                if slope is not None:
                    source = found.nodes[rising].inputs
                    operation = PRelu(slope.expand(node.shape[0]).clone())
                    found.keep(replace(node, operation=operation, inputs=source))
                    break
    return found.done(ann.nodes[-1].name)


def _slope_below(found: "_Rewriting", rising: str, other: str) -> Tensor | None:
    """Return the slope if `rising` is `relu(x)` and `other` is `-slope * relu(-x)`; None otherwise."""
    match found.operation(rising), found.operation(other):
        case Relu(), ScaleShift(scale, shift) if (
            not bool(shift.any()) and (by_channel := _by_channel(scale)) is not None
        ):
            falling = found.nodes[other].inputs[0]
            if isinstance(found.operation(falling), Relu):
                turned = found.nodes[falling].inputs[0]
                match found.operation(turned):
                    case ScaleShift(minus, none) if bool((minus == -1).all()) and not bool(none.any()):
                        if found.nodes[turned].inputs == found.nodes[rising].inputs:
                            return -by_channel
    return None


def with_scales_folded(ann: Ann) -> Ann:
    """Fold each scaling and shift into layers, exactly.

    A scaling goes back into the layer that computes its input, if nothing else reads that; otherwise on, past what
    commutes with it, into the next layers; or, if neither is exact, it becomes a layer of its own. A shift before
    padding goes on, as a shift that differs between places, if a dense layer takes it in. What differs between places
    and has to be a layer becomes one for each region.
    """
    for shifts_pass_padding, by_region in ((True, False), (False, False), (False, True)):
        made = _ScaleFolding(ann, shifts_pass_padding=shifts_pass_padding, by_region=by_region).run()
        if made.refused == ann.refused:
            break
    return made


def with_joined_clips(ann: Ann) -> Ann:
    """Join a `Clip` and the ReLU before it, if nothing else reads that."""
    found = _Rewriting(ann)
    for node in map(found.renamed, ann.nodes):
        before = found.nodes.get(node.inputs[0]) if node.inputs else None
        match node.operation, before:
            case Clip(high), Node(name, Relu() | Clip()) if ann.readers[name] == 1:
                bound = min(high, getattr(before.operation, "high", math.inf))
                found.keep(replace(before, operation=Clip(bound)))
                found.remove(node, name, "an upper bound of this ReLU", became=name)
            case _:
                found.keep(node)
    return found.done(ann.nodes[-1].name)


def in_single_precision(ann: Ann) -> Ann:
    """Round all weights to 32 bits.

    Raises `ConversionError` if a weight is not finite in 32 bits.
    """
    return replace(ann, nodes=tuple(replace(node, operation=_single(node)) for node in ann.nodes))


PASSES = without_unneeded, rectified, with_joined_slopes, with_scales_folded, with_joined_clips, in_single_precision


class _Rewriting:
    """Graph that a pass makes of another, node by node."""

    def __init__(self, ann: Ann) -> None:
        self.ann = ann
        self.nodes: dict[str, Node] = {}
        self.folded, self.refused = dict(ann.folded), dict(ann.refused)
        self.aliases: dict[str, str] = {}

    def renamed(self, node: Node) -> Node:
        """Return a node that reads, in the place of removed nodes, what these read."""
        return replace(node, inputs=tuple(self.aliases.get(name, name) for name in node.inputs))

    def operation(self, name: str) -> Operation | None:
        return self.nodes[name].operation if name in self.nodes else None

    def keep(self, node: Node) -> None:
        self.nodes[node.name] = node

    def remove(self, node: Node, source: str, reason: str, *, became: str = "removed") -> None:
        """Leave a node out: all that read it read `source`."""
        self.aliases[node.name] = source
        self.folded[node.name] = became, reason

    def done(self, last: str) -> Ann:
        """Return the graph that ends with the node `last`, or with what stands for it."""
        last, kept = self.aliases.get(last, last), []
        for node in self.nodes.values():
            kept.append(node)
            if node.name == last:
                break
        return without_unneeded(replace(self.ann, nodes=tuple(kept), folded=self.folded, refused=self.refused))


@dataclass(frozen=True)
class _Value:
    """Output of a node of the graph as read: `scale * x + shift` of a node of the graph that is made.

    `names` are the nodes that scale and shift come from, and that no layer has absorbed yet.
    """

    source: str
    scale: Tensor
    shift: Tensor
    names: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        return not self.scales and not self.shifts

    @property
    def scales(self) -> bool:
        return bool((self.scale != 1).any())

    @property
    def shifts(self) -> bool:
        return bool((self.shift != 0).any())

    def then(self, node: str, scale: Tensor, shift: Tensor) -> "_Value":
        """Return the value scaled and shifted by a further node."""
        scaled, shifted = narrowed(self.scale * scale), narrowed(self.shift * scale + shift)
        return _Value(self.source, scaled, shifted, (*self.names, node))


def narrowed(values: Tensor) -> Tensor:
    """Return values `[C, H, W]` as `[C, 1, 1]` if they are the same in all places; `[features]` stay."""
    first = values[:, :1, :1] if values.dim() == 3 else values
    return first.clone() if bool((values == first).all()) else values


def _by_channel(values: Tensor) -> Tensor | None:
    """Return values as `[C]`; None if they differ between places."""
    return values.flatten() if values.dim() == 1 or values.shape[1:] == (1, 1) else None


class _ScaleFolding:
    """Pass `with_scales_folded`: a walk in which scalings and shifts wait in `_Value` until their place is clear."""

    def __init__(self, ann: Ann, *, shifts_pass_padding: bool, by_region: bool) -> None:
        self.ann, self.shifts_pass_padding, self.by_region = ann, shifts_pass_padding, by_region
        self.made = _Rewriting(ann)
        self.normalization = ann.normalization
        self.shared: set[str] = set()
        self.diagonals = 0
        self.values = {ann.input_name: self._plain(ann.input_name, ann.shape)}

    def run(self) -> Ann:
        unread = Counter(self.ann.readers)
        for node in self.ann.nodes:
            read = [self._read(name) for name in node.inputs]
            unread.subtract(node.inputs)
            for name in node.inputs:
                if not unread[name]:
                    self.values.pop(name, None)  # large maps
            if isinstance(node.operation, Bound | ZeroPad | Unread):  # of a graph that is refused
                self.made.keep(replace(node, inputs=tuple(value.source for value in read)))
                self.values[node.name] = self._plain(node.name, node.shape)
            else:
                self.values[node.name] = self._value(node, *read)
        last = self.values[self.ann.nodes[-1].name]
        if not isinstance(self.ann.nodes[-1].operation, Unread):
            last = self._alone(last)
        return replace(self.made.done(last.source), normalization=self.normalization)

    def _read(self, name: str) -> _Value:
        value = self.values[name]
        if self.ann.readers[name] > 1:
            self.shared.add(value.source)
        return value

    def _value(self, node: Node, value: _Value, *others: _Value) -> _Value:
        match node.operation:
            case ScaleShift(scale, shift):
                return self._back(value.then(node.name, scale, shift))
            case Dense() as dense:
                value = self._back(value)
                bias = dense.bias + dense.weight @ value.shift
                return self._layer(node, Dense(dense.weight * value.scale, bias), value)
            case Conv() as conv:
                return self._convolved(node, conv, self._back(value))
            case AvgPool() as average:
                return self._averaged(node, average, value)
            case MaxPool():
                factors, shifts = _by_channel(value.scale), _by_channel(value.shift)
                if shifts is None or factors is None or bool((factors <= 0).any()):
                    value = self._alone(value)
                return self._kept(node, value)
            case Clip(high):
                value = self._positive(value)
                if bool((value.scale != value.scale.flatten()[0]).any()):
                    value = self._alone(value)
                return self._kept(replace(node, operation=Clip(high / float(value.scale.flatten()[0]))), value)
            case Relu() | LeakyRelu() | PRelu():
                return self._kept(node, self._positive(value))
            case Flatten():
                value = self._back(value)
                shape = self._shape(value.source)
                scale, shift = (x.expand(shape).flatten() for x in (value.scale, value.shift))
                return self._kept(node, _Value(value.source, scale, shift, value.names))
            case Concat():
                return self._concatenated(node, [value, *others])
            case _:
                return self._sum(node, value, others[0])

    def _convolved(self, node: Node, conv: Conv, value: _Value) -> _Value:
        if any(conv.padding) and value.shifts and _by_channel(value.shift) is not None:
            if value.source == self.ann.input_name:
                value = self._alone(value)
            else:
                value, conv = self._with_channel_of_ones(value, conv)
                value = self._alone(value) if value.shifts and not self.shifts_pass_padding else value
        if _by_channel(value.scale) is None and self.by_region:
            value = self._alone(value)
        factors = _by_channel(value.scale)
        if factors is None:
            self._refuse(value, "its factors differ over height and width: use one factor per channel")
            return self._layer(node, conv, self._plain(value.source, self._shape(value.source)))
        seen = _seen(value.shift, conv, self._shape(value.source)) if value.shifts else torch.zeros_like(conv.bias)
        bias = _by_channel(seen)
        weighed = scale_inputs(conv, factors)
        if bias is not None:
            return self._layer(node, replace(weighed, bias=weighed.bias + bias), value)
        # windows at the edge see less of a shift before padding: it differs between places, and cannot be the bias
        made = self._layer(node, weighed, value)
        return replace(made, shift=seen, names=value.names)

    def _averaged(self, node: Node, average: AvgPool, value: _Value) -> _Value:
        if _by_channel(value.scale) is None:
            value = self._alone(value)
        shift = value.shift
        if value.shifts:
            channels = node.shape[0]
            ones = torch.full((channels, 1, *average.kernel), 1 / math.prod(average.kernel), dtype=torch.float64)
            mean = Conv(ones, ones.new_zeros(channels), average.stride, average.padding, groups=channels)
            shift = _seen(shift, mean, self._shape(value.source))
        return self._kept(node, replace(value, shift=shift))

    def _concatenated(self, node: Node, values: Sequence[_Value]) -> _Value:
        self.made.keep(replace(node, inputs=tuple(value.source for value in values)))
        shapes = [self._shape(value.source) for value in values]

        def joined(each: list[Tensor]) -> Tensor:
            return narrowed(torch.cat([x.expand(shape) for x, shape in zip(each, shapes, strict=True)]))

        scale, shift = joined([value.scale for value in values]), joined([value.shift for value in values])
        return _Value(node.name, scale, shift, tuple(name for value in values for name in value.names))

    def _sum(self, node: Node, first: _Value, second: _Value) -> _Value:
        if first.scales or second.scales:
            first, second = self._alone(first), self._alone(second)
        self.made.keep(replace(node, inputs=(first.source, second.source)))
        shift = narrowed(first.shift + second.shift)
        return replace(
            self._plain(node.name, node.shape), shift=shift, names=(*first.names, *second.names) if shift.any() else ()
        )

    def _positive(self, value: _Value) -> _Value:
        """Return the value with at most factors above 0 pending, with which activations commute."""
        value = self._back(value)
        return self._alone(value) if value.shifts or bool((value.scale <= 0).any()) else value

    def _alone(self, value: _Value) -> _Value:
        """Return the value with nothing pending: add a layer for it if it cannot be folded back."""
        value = self._back(value)
        if value.is_plain:
            return value
        plain = self._plain(value.source, shape := self._shape(value.source))
        scale, shift = _by_channel(value.scale), _by_channel(value.shift)
        if (scale is None or shift is None) and self.by_region and (made := self._with_regions(value, shape)):
            return made
        if scale is None or shift is None:
            what = "factors" if scale is None else "bias values"
            self._refuse(value, f"its {what} differ over height and width: use one value per channel")
            return plain
        channels = len(scale)
        if len(shape) == 3:
            operation: Operation = Conv(scale.reshape(-1, 1, 1, 1), shift, groups=channels)
        else:
            self.diagonals += channels**2
            if channels > MAX_DIAGONAL or self.diagonals > MAX_DIAGONALS:
                self._refuse(
                    value,
                    f"scales or shifts {channels:,} features between layers; at most {MAX_DIAGONAL:,}, and "
                    f"{MAX_DIAGONALS:,} weights for all such nodes, are supported",
                )
                return plain
            operation = Dense(scale.diag(), shift)
        name = self._added(value, operation, (value.source,), shape)
        self._absorbed(value, name, "a factor and a shift for each channel")
        return self._plain(name, shape)

    def _added(self, value: _Value, operation: Operation, inputs: Sequence[str], shape: Shape) -> str:
        """Append a node for what is pending; return its name."""
        name, n = value.names[-1], 2
        while name in self.made.nodes:
            name, n = f"{value.names[-1]} ({n})", n + 1
        self.made.keep(Node(name, operation, tuple(inputs), shape))
        return name

    def _with_regions(self, value: _Value, shape: Shape) -> _Value | None:
        """Return maps scaled and shifted by a layer for each rectangle with one value per channel; None if too many.

        The scaled rectangles, with zeros around them, are added up.
        """
        if len(shape) < 3:
            return None
        both, (channels, *sides) = torch.stack([value.scale.expand(shape), value.shift.expand(shape)]), shape
        starts = list[list[int]]()
        for axis, side in enumerate(sides, 2):
            first, second = both.narrow(axis, 0, side - 1), both.narrow(axis, 1, side - 1)
            changes = (first != second).transpose(axis, 3).flatten(0, 2).any(0)
            starts.append([0, *(changes.nonzero().flatten() + 1).tolist(), side])
        if math.prod(len(each) - 1 for each in starts) > MOST_REGIONS:
            return None
        zeros, names, total = both.new_zeros(channels), list[str](), ""
        for (top, bottom), (left, right) in product(*(pairwise(each) for each in starts)):
            weight = both.new_zeros(channels, 1, shape[1] - bottom + top + 1, shape[2] - right + left + 1)
            weight[:, 0, top, left] = both[0, :, top, left]
            part = Conv(weight, both[1, :, top, left].clone(), groups=channels)
            around = fewest_sides((top, left, shape[1] - bottom, shape[2] - right))
            pad = Conv(both.new_ones(channels, 1, 1, 1), zeros, padding=around, groups=channels)
            names.append(self._added(value, part, (value.source,), (channels, bottom - top, right - left)))
            name = self._added(value, pad, names[-1:], shape)
            total = self._added(value, Add(), (total, name), shape) if total else name
        self._absorbed(value, names[0], "a factor and a shift for each channel and region")
        return self._plain(total, shape)

    def _back(self, value: _Value) -> _Value:
        """Fold scale and shift into the layer before, or into the normalization of the input, if that is exact."""
        if value.is_plain:
            for name in value.names:
                self.made.folded.setdefault(name, ("removed", "changes nothing"))
            return replace(value, names=())
        scale, shift = _by_channel(value.scale), _by_channel(value.shift)
        if value.source in self.shared or scale is None or shift is None:
            return value
        before = self.made.nodes.get(value.source)
        if before is not None and isinstance(before.operation, Dense | Conv):
            scaled = scale_outputs(before.operation, scale)
            if value.shifts:
                scaled = replace(scaled, bias=scaled.bias + shift)
            self.made.keep(replace(before, operation=scaled))
            self._absorbed(value, before.name)
        elif value.source == self.ann.input_name:
            factor, moved = (_few(x, self.ann.shape) for x in (scale, shift))
            if factor is None or moved is None or not bool(((factor > 0) & factor.isfinite()).all()):
                return value
            scaling = Normalization.of((0.0 - moved / factor).tolist(), (1 / factor).tolist())
            self.normalization = scaling.after(self.normalization)
            self._absorbed(value, value.source, "folded into the input's mean and std")
        else:
            return value
        return self._plain(value.source, self._shape(value.source))

    def _with_channel_of_ones(self, value: _Value, conv: Conv) -> tuple[_Value, Conv]:
        """Replace a shift before padding by a channel of ones, if the graph can have one; otherwise change nothing.

        A shift before padding cannot become the bias of the next convolution, whose windows see zeros in the padding.
        A channel that is 1 in the maps and 0 in the padding carries it: its weight in the next convolution is, at each
        place of the kernel, the sum of the other weights times the shift. The last convolution before gets the channel,
        with weights 0 and bias 1; activations and pools in between must leave a 1 unchanged.
        """
        path, name, nodes = [], value.source, self.made.nodes
        if conv.groups > 1:
            return value, conv
        while name in nodes and name not in self.shared:
            path.append(name)
            match nodes[name].operation:
                case Conv(groups=1) as first:
                    row = first.weight.new_zeros(1, *first.weight.shape[1:])
                    bias = torch.cat([first.bias, first.bias.new_ones(1)])
                    operation = replace(first, weight=torch.cat([first.weight, row]), bias=bias)
                    nodes[name] = replace(nodes[name], operation=operation)
                    break
                case Relu() | LeakyRelu() | MaxPool() | AvgPool(padding=(0, 0)):
                    name = nodes[name].inputs[0]
                case Clip(high) if high >= 1:
                    name = nodes[name].inputs[0]
                case _:
                    return value, conv
        else:
            return value, conv
        for node in [nodes[step] for step in path]:
            nodes[node.name] = replace(node, shape=(node.shape[0] + 1, *node.shape[1:]))
        seen = torch.einsum("ochw,c->ohw", conv.weight, value.shift.flatten())[:, None]
        factors = torch.cat([value.scale, torch.ones_like(value.scale[:1])])
        whole = replace(value, scale=factors, shift=torch.zeros_like(factors))
        return whole, replace(conv, weight=torch.cat([conv.weight, seen], 1))

    def _layer(self, node: Node, operation: Operation, value: _Value) -> _Value:
        """Keep a node with weights that have absorbed what was pending."""
        self.made.keep(replace(node, operation=operation, inputs=(value.source,)))
        self._absorbed(value, node.name)
        return self._plain(node.name, node.shape)

    def _kept(self, node: Node, value: _Value) -> _Value:
        """Keep a node; what was pending before it is pending after it."""
        self.made.keep(replace(node, inputs=(value.source,)))
        return replace(value, source=node.name)

    def _absorbed(self, value: _Value, name: str, reason: str = FOLDED) -> None:
        self.made.folded.update(dict.fromkeys(value.names, (name, reason)))

    def _refuse(self, value: _Value, reason: str) -> None:
        for name in value.names:
            self.made.refused.setdefault(name, reason)

    def _shape(self, source: str) -> Shape:
        return self.ann.shape if source == self.ann.input_name else self.made.nodes[source].shape

    def _plain(self, source: str, shape: Shape) -> _Value:
        sides = (shape[0], 1, 1)[: len(shape)]
        return _Value(source, torch.ones(sides, dtype=torch.float64), torch.zeros(sides, dtype=torch.float64))


def _seen(shift: Tensor, conv: Conv, shape: Shape) -> Tensor:
    """Return what a shift of the input, of `shape`, adds to the output of a convolution, `[channels, H, W]`."""
    if not any(conv.padding) and _by_channel(shift) is not None:
        # all windows have the same sum, but rounding could make it differ: one window is computed
        shape = (shape[0], *(axis.reach for axis in axes_of(conv)))
    return narrowed(conv2d(shift.expand(shape)[None], conv.weight, conv)[0])


def _few(values: Tensor, shape: Shape) -> Tensor | None:
    """Return values `[C]` as a normalization takes them: `[1]` if all are equal, `[C]` for maps, otherwise None."""
    if bool((values == values[0]).all()):
        return values[:1]
    return values if len(shape) == 3 else None


def _range(operation: Operation, inputs: list[_Range]) -> _Range:
    """Return the least and largest possible value of an output, given those of the inputs."""
    low, high = inputs[0] if inputs else EVERYTHING
    match operation:
        case Relu():
            return 0.0, math.inf
        case Clip(bound):
            return 0.0, bound
        case MaxPool() | Flatten():
            return low, high
        case AvgPool(padding=padding):
            return (min(low, 0.0), max(high, 0.0)) if any(padding) else (low, high)
        case Add():
            return sum(each[0] for each in inputs), sum(each[1] for each in inputs)
        case Concat():
            return min(each[0] for each in inputs), max(each[1] for each in inputs)
        case Conv(weight, bias) if low >= 0 and bool((weight >= 0).all()) and not bool(bias.any()):
            return 0.0, high * float(weight.flatten(1).sum(1).max()) if math.isfinite(high) else math.inf
        case ScaleShift(scale, shift) if low >= 0 and bool((scale >= 0).all()) and not bool(shift.any()):
            return 0.0, math.inf if math.isinf(high) else high * float(scale.max())
        case _:
            return EVERYTHING


def _single(node: Node) -> Operation:
    """Return the operation of a node with its weights in 32 bits."""
    tensors = {name: value.float() for name, value in vars(node.operation).items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ConversionError(f"{node.name}: its {name} is not finite in 32 bits")
    values: dict[str, Any] = tensors
    return replace(node.operation, **values)
