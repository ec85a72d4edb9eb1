"""Folding of consecutive linear layers into one: average pooling and scaling become part of the weights next to them.

Inputs are linear maps with no neurons between them; the result is one map that computes the same, in float64. On the
hardware all weights lie between two layers of neurons, so consecutive maps must become one, or the first one needs
neurons.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from specs.errors import UnsupportedError
from specs.fields import Padding, Shape
from specs.shapes import Pair, axes_of, fewest_sides, pads_of

MAX_WEIGHTS = 1 << 26
"""Largest number of weights of a folded layer; a small file may ask for a huge kernel."""
MAX_POOL_WEIGHTS = 1 << 22
"""Largest number of weights of a pool; a few bytes can ask for more, and scaling these to the grid takes 1 to 2 s."""
MAX_PRODUCTS = 1 << 30
"""Largest number of products of weights when two layers are folded."""


@dataclass(frozen=True)
class Dense:
    """Dense layer `z = weight x + bias`: weight `[outputs, inputs]`, bias `[outputs]`; float64 once folded."""

    weight: Tensor
    bias: Tensor
    groups: ClassVar[int] = 1


@dataclass(frozen=True)
class Conv:
    """2-D convolution, as in `torch.nn.Conv2d`; float64 once folded.

    Attributes:
        weight: `[channels, in channels / groups, height, width]`.
        bias: `[channels]`.
        stride, dilation: `(height, width)`.
        padding: `(height, width)`, or `(top, left, bottom, right)` where opposite sides differ.
        groups: number of groups.
        is_pool: True for a pool or a scaling: depthwise, with one weight for all places of a channel's kernel.
    """

    weight: Tensor
    bias: Tensor
    stride: Pair = (1, 1)
    padding: Padding = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    is_pool: bool = False

    @property
    def kernel(self) -> Pair:
        """Size of the kernel, `(height, width)`."""
        return int(self.weight.shape[2]), int(self.weight.shape[3])

    @property
    def geometry(self) -> dict[str, list[int]]:
        """Kernel, stride, padding and dilation, as in a spec."""
        return {key: list(getattr(self, key)) for key in ("kernel", "stride", "padding", "dilation")}

    @property
    def depthwise(self) -> bool:
        """True if each output channel reads only the input channel of the same index."""
        return self.groups == self.weight.shape[0] and self.weight.shape[1] == 1

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output shape for inputs of `[C, H, W]`; a side is 0 or less if the kernel does not fit."""
        sides = (axis.output(side) for axis, side in zip(axes_of(self), shape[1:], strict=True))
        return (int(self.weight.shape[0]), *sides)


def scale_inputs(linear: Dense | Conv, factors: Tensor) -> Dense | Conv:
    """Multiply the weights of each input channel by its factor, `[channels]`; dense layers read channels flattened."""
    outputs, inputs = linear.weight.shape[:2]
    if isinstance(linear, Dense):
        return replace(linear, weight=linear.weight * factors.repeat_interleave(inputs // len(factors)))
    of_group = factors.reshape(linear.groups, 1, inputs).expand(-1, outputs // linear.groups, -1)
    return replace(linear, weight=linear.weight * of_group.reshape(outputs, inputs, 1, 1))


def scale_outputs(linear: Dense | Conv, factors: Tensor) -> Dense | Conv:
    """Multiply the weights and the bias of each output channel by its factor, `[channels]`."""
    each = factors.reshape(-1, *[1] * (linear.weight.dim() - 1))
    return replace(linear, weight=linear.weight * each, bias=linear.bias * factors)


def pool(weight: Tensor, kernel: Pair, stride: Pair, padding: Padding) -> Conv:
    """Return the convolution that sums over windows, times a factor for each channel: `weight` `[channels]`.

    Raises:
        UnsupportedError: the windows have more than `MAX_POOL_WEIGHTS` weights.
    """
    channels = len(weight)
    if (n := channels * math.prod(kernel)) > MAX_POOL_WEIGHTS:
        raise UnsupportedError(
            f"a window of {kernel[0]}x{kernel[1]} over {channels} channels is too large: {n:,} weights, at most "
            f"{MAX_POOL_WEIGHTS:,} are supported"
        )
    spread_out = weight.double().reshape(-1, 1, 1, 1).expand(channels, 1, *kernel)
    return Conv(spread_out, torch.zeros(channels).double(), stride, padding, groups=channels, is_pool=True)


def fold_conv(first: Conv, second: Conv, shape: Shape) -> Conv:
    """Return one convolution that equals `second` after `first`, on inputs of `shape` `[C, H, W]`.

    With stride s, padding p and dilation d of each, output i of `second` reads output
    `j = i s2 - p2 + a d2` of `first`, which reads the input at `j s1 - p1 + b d1`. So the joint stride is `s1 s2`, the
    joint padding of each side `p2 s1 + p1`, and weights a and b meet at place `a d2 s1 + b d1` of the joint kernel.

    Raises:
        UnsupportedError: `second` pads with zeros where `first`, continued beyond its edge, is not zero; or the joint
            kernel is too large.

    >>> mean = pool(torch.full((1,), 0.25), (2, 2), (2, 2), (0, 0))
    >>> both = fold_conv(mean, Conv(torch.ones(1, 1, 2, 2).double(), torch.zeros(1).double()), (1, 6, 6))
    >>> both.kernel, both.stride, both.weight.unique().tolist()
    ((4, 4), (2, 2), [0.25])
    """
    _check_padding(first, second, shape)
    axes = [_joint_axis(first, second, i) for i in range(2)]
    weight, groups = _joint_weight(first, second, axes)
    s1, s2 = first.stride, second.stride
    sides = zip(pads_of(first.padding), pads_of(second.padding), (*s1, *s1), strict=True)
    return Conv(
        weight,
        second.bias + bias_after(first.bias, second),
        stride=(s1[0] * s2[0], s1[1] * s2[1]),
        padding=fewest_sides(tuple(p2 * step + p1 for p1, p2, step in sides)),
        dilation=(axes[0].dilation, axes[1].dilation),
        groups=groups,
        is_pool=first.is_pool and second.is_pool,
    )


def bias_after(bias: Tensor, linear: Dense | Conv) -> Tensor:
    """Return what a map without padding makes of a bias of its input, `[inputs]`, for each of its output channels."""
    if isinstance(linear, Dense):
        return linear.weight @ bias
    per_group = bias.reshape(linear.groups, -1)  # [C] -> [groups, C / groups]
    weight = linear.weight.sum((2, 3)).reshape(linear.groups, -1, per_group.shape[1])
    return torch.einsum("goi,gi->go", weight, per_group).flatten()


def is_thin(linear: Dense | Conv) -> bool:
    """Return whether each output of a convolution reads at most one channel."""
    if isinstance(linear, Dense):
        return False
    return linear.weight.shape[1] == 1 or int((linear.weight != 0).any(3).any(2).sum(1).max()) <= 1


def selection(conv: Conv) -> Tensor | None:
    """Return the input channel that each output channel copies, -1 for zeros; None if the convolution does more.

    Its stride is not considered. A channel that is copied twice counts as more.
    """
    weight = conv.weight
    if conv.kernel != (1, 1) or any(conv.padding) or conv.groups > 1 or bool(conv.bias.any()):
        return None
    reads = weight[:, :, 0, 0]
    if not bool(((reads == 0) | (reads == 1)).all()) or max(reads.sum(0).max(), reads.sum(1).max()) > 1:
        return None
    return torch.where(reads.any(1), reads.argmax(1), -1)


def ungrouped(conv: Conv) -> Conv:
    """Return the same convolution in one group, in which weights between groups are 0."""
    if conv.groups == 1:
        return conv
    outputs, inputs = conv.weight.shape[:2]
    wide = conv.weight.new_zeros(outputs, conv.groups, inputs, *conv.kernel)
    wide[torch.arange(outputs), torch.arange(outputs) // (outputs // conv.groups)] = conv.weight
    return replace(conv, weight=wide.flatten(1, 2), groups=1, is_pool=False)


def part_reading(conv: Conv, channels: Tensor) -> tuple[Conv, Tensor]:
    """Return the part of a convolution that reads some channels, without bias, and the output channels that it adds to.

    Args:
        conv: the convolution.
        channels: `[n]`, the input channel that each channel of the part reads; -1 for none.
    """
    outputs, groups = torch.arange(len(conv.weight)), conv.groups
    conv = replace(conv, bias=torch.zeros_like(conv.bias))
    if torch.equal(channels, torch.arange(conv.weight.shape[1] * groups)):
        return conv, outputs
    kept = (channels >= 0).to(conv.weight.dtype)
    if conv.depthwise:
        weight = conv.weight[channels.clamp_min(0)] * kept.reshape(-1, 1, 1, 1)
        return replace(conv, weight=weight, bias=weight.new_zeros(len(weight)), groups=len(weight)), channels
    weight = ungrouped(conv).weight[:, channels.clamp_min(0)] * kept.reshape(-1, 1, 1)
    if groups > 1:
        reached = weight.flatten(1).any(1)
        weight, outputs = weight[reached], outputs[reached]
    return replace(conv, weight=weight, bias=weight.new_zeros(len(weight)), groups=1, is_pool=False), outputs


def n_weights_folded(first: Conv, second: Conv) -> int:
    """Return the number of weights of `fold_conv` for two convolutions of which none is depthwise."""
    kernel = (_joint_axis(first, second, i).kernel for i in range(2))
    inputs = first.weight.shape[1] * first.groups // math.gcd(first.groups, second.groups)
    return len(second.weight) * inputs * math.prod(kernel)


def fold_dense(first: Conv, second: Dense, shape: Shape) -> Dense:
    """Return one dense layer that equals `second` after the flattened `first`, on flattened inputs of `[C, H, W]`.

    Raises:
        UnsupportedError: the layer is too large.
    """
    channels, height, width = first.output_shape(shape)
    n_outputs = len(second.weight)
    if n_outputs * math.prod(shape) > MAX_WEIGHTS:
        raise UnsupportedError(
            f"a dense layer folded with the pool before it has {n_outputs * math.prod(shape):,} weights, for inputs of "
            f"{list(shape)}; at most {MAX_WEIGHTS:,} are supported"
        )
    maps = second.weight.reshape(n_outputs, channels, height, width)
    return Dense(unrolled(maps, first, shape), second.bias + maps.sum((2, 3)) @ first.bias)


def unrolled(maps: Tensor, conv: Conv, shape: Shape) -> Tensor:
    """Return the weights for the flattened input of `conv`, given weights for its output: `[M, C * H * W]`.

    Args:
        maps: `[M, channels, h, w]`, weights for the output of `conv`.
        conv: the convolution.
        shape: `[C, H, W]` of its input.
    """
    axes = axes_of(conv)
    unread = [
        axis.start + side + axis.end - axis.reach - (n - 1) * axis.stride
        for axis, side, n in zip(axes, shape[1:], maps.shape[2:], strict=True)
    ]
    whole = F.conv_transpose2d(
        maps, conv.weight, stride=conv.stride, output_padding=unread, groups=conv.groups, dilation=conv.dilation
    )
    top, left = (axis.start for axis in axes)
    return whole[:, :, top : top + shape[1], left : left + shape[2]].flatten(1)


def follow(first: Dense | Tensor | None, second: Dense | Tensor) -> Dense | Tensor:
    """Return one map that equals `second` after `first`; each is a dense layer, or a factor for each number, `[n]`.

    Raises:
        UnsupportedError: both are dense.
    """
    match first, second:
        case None, _:
            return second
        case Tensor(), Tensor():
            return first * second
        case Tensor(), Dense():
            return replace(second, weight=second.weight * first)
        case Dense(), Tensor():
            return Dense(first.weight * second[:, None], first.bias * second)
        case _:
            raise UnsupportedError("two dense layers with no neurons between them are not supported")


def _check_padding(first: Conv, second: Conv, shape: Shape) -> None:
    """Raise `UnsupportedError` unless `first`, continued beyond its edge, is zero wherever `second` pads."""
    after = first.output_shape(shape)
    if any(second.padding) and bool(first.bias.any()):
        raise UnsupportedError("cannot fold a layer with bias into one with padding after it: give the first neurons")
    for windows, padded, side, n in zip(axes_of(first), axes_of(second), shape[1:], after[1:], strict=True):
        before = windows.reach - 1 - windows.stride - windows.start < 0
        beyond = n * windows.stride - windows.start >= side
        if (padded.start and not before) or (padded.end and not beyond):
            raise UnsupportedError(
                f"cannot fold windows of {windows.kernel} over {side} inputs, stride {windows.stride}, into a layer "
                f"with padding by {max(padded.start, padded.end)}: one convolution would read inputs at the edge that "
                "the windows leave out; give the pool neurons, or an input size that its stride divides"
            )


@dataclass(frozen=True)
class _Axis:
    """One axis of a joint kernel; weights a of the second and b of the first meet at `a step_second + b step_first`."""

    kernel: int
    dilation: int
    step_first: int
    step_second: int


def _joint_axis(first: Conv, second: Conv, axis: int) -> _Axis:
    """Return an axis of the joint kernel. If a kernel has size 1 it is the other's; otherwise zeros fill its gaps."""
    step = second.dilation[axis] * first.stride[axis]
    if first.kernel[axis] == 1:
        return _Axis(second.kernel[axis], step, 1, 1)
    if second.kernel[axis] == 1:
        return _Axis(first.kernel[axis], first.dilation[axis], 1, 1)
    reach = (second.kernel[axis] - 1) * step + (first.kernel[axis] - 1) * first.dilation[axis]
    return _Axis(reach + 1, 1, first.dilation[axis], step)


def _joint_weight(first: Conv, second: Conv, axes: list[_Axis]) -> tuple[Tensor, int]:
    """Return the joint weight, `[channels, in channels / groups, height, width]`, and its groups."""
    if first.depthwise:
        groups, (channels, inputs) = second.groups, second.weight.shape[:2]
        group_of = torch.arange(channels) // (channels // groups)
        reads = group_of[:, None] * inputs + torch.arange(inputs)  # [channels, inputs]
        inner, outer = first.weight[reads, 0], second.weight
    elif not second.depthwise:
        return _joint_weight_by_group(first, second, axes)
    else:
        groups, (channels, inputs) = first.groups, first.weight.shape[:2]
        inner, outer = first.weight, second.weight.expand(-1, inputs, -1, -1)
    return _met(first, second, axes, (channels, inputs), lambda a, b: outer[:, :, a, b, None, None] * inner), groups


def _joint_weight_by_group(first: Conv, second: Conv, axes: list[_Axis]) -> tuple[Tensor, int]:
    """Return the joint weight of two convolutions, and its groups, the most that no weight connects."""
    groups = math.gcd(first.groups, second.groups)
    inner, outer = (
        torch.stack(
            [
                ungrouped(replace(conv, weight=weight, groups=conv.groups // groups)).weight
                for weight in conv.weight.chunk(groups)
            ]
        )
        for conv in (first, second)
    )

    def product(a: int, b: int) -> Tensor:
        return torch.einsum("gom,gmihw->goihw", outer[..., a, b], inner).flatten(0, 1)

    return _met(first, second, axes, (len(second.weight), inner.shape[2]), product, inner.shape[1]), groups


def _met(
    first: Conv,
    second: Conv,
    axes: list[_Axis],
    channels: tuple[int, int],
    product: Callable[[int, int], Tensor],
    terms: int = 1,
) -> Tensor:
    """Return the joint weight `[*channels, height, width]`, to which each place of `second` adds a product."""
    n_weights = math.prod(channels) * axes[0].kernel * axes[1].kernel
    products = math.prod((*channels, *first.kernel, *second.kernel)) * terms
    if n_weights > MAX_WEIGHTS or products > MAX_PRODUCTS:
        raise UnsupportedError(
            f"the folded kernel of {axes[0].kernel}x{axes[1].kernel} is too large: {n_weights:,} weights and "
            f"{products:,} products, at most {MAX_WEIGHTS:,} and {MAX_PRODUCTS:,} are supported"
        )
    weight = torch.zeros(*channels, axes[0].kernel, axes[1].kernel, dtype=torch.float64)
    rows, columns = (torch.arange(first.kernel[i]) * axes[i].step_first for i in range(2))
    for a in range(second.kernel[0]):
        for b in range(second.kernel[1]):
            y, x = rows + a * axes[0].step_second, columns + b * axes[1].step_second
            weight[:, :, y[:, None], x] += product(a, b)
    return weight
