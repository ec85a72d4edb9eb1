"""Linear layers in a row folded into one: pooling without neurons, and scaling, into the synapse beside it."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from specs.errors import UnsupportedError
from specs.fields import Shape
from specs.shapes import axis_output

__all__ = [
    "Conv",
    "Dense",
    "Pair",
    "fold_conv",
    "follow",
    "pool",
    "scale_inputs",
    "scale_outputs",
    "spread",
    "unrolled",
]

Pair = tuple[int, int]
"""`(height, width)`."""

MAX_WEIGHTS = 1 << 26
"""Of a folded layer: a small file may ask for a huge kernel."""
MAX_POOL_WEIGHTS = 1 << 22
"""Of a pool, that a few bytes ask for: fitting them to the grid takes a second or two."""
MAX_PRODUCTS = 1 << 30
"""Of weights with weights, that a folded layer is made by."""


@dataclass(frozen=True)
class Dense:
    """`z = weight x + bias`: weight `[outputs, inputs]`, bias `[outputs]`; float64 once folded."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Conv:
    """2-D cross-correlation: weight `[channels, in channels / groups, height, width]`, bias `[channels]`; float64 once
    folded.

    `is_pool` marks a pool or a scaling: each channel by itself, one weight for all places of its kernel.
    """

    weight: Tensor
    bias: Tensor
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    is_pool: bool = False

    @property
    def kernel(self) -> Pair:
        """Its size, `(height, width)`."""
        return int(self.weight.shape[2]), int(self.weight.shape[3])

    @property
    def depthwise(self) -> bool:
        """Whether each output channel reads the one input channel of its number."""
        return self.groups == self.weight.shape[0] and self.weight.shape[1] == 1

    def output_shape(self, shape: Shape) -> Shape:
        """For inputs of `[C, H, W]`; a side is 0 or less where the kernel does not fit."""
        sides = [
            axis_output(
                shape[1 + i],
                kernel=self.kernel[i],
                stride=self.stride[i],
                padding=self.padding[i],
                dilation=self.dilation[i],
            )
            for i in range(2)
        ]
        return (int(self.weight.shape[0]), *sides)


def scale_inputs(linear: Dense | Conv, factors: Tensor) -> Dense | Conv:
    """With what reads each input times the factor of its channel, `[channels]`; a dense layer reads them in a row."""
    outputs, inputs = linear.weight.shape[:2]
    if isinstance(linear, Dense):
        return replace(linear, weight=linear.weight * factors.repeat_interleave(inputs // len(factors)))
    of_group = factors.reshape(linear.groups, 1, inputs).expand(-1, outputs // linear.groups, -1)
    return replace(linear, weight=linear.weight * of_group.reshape(outputs, inputs, 1, 1))


def scale_outputs(linear: Dense | Conv, factors: Tensor) -> Dense | Conv:
    """With each output channel's weights and bias times its factor, `[channels]`."""
    each = factors.reshape(-1, *[1] * (linear.weight.dim() - 1))
    return replace(linear, weight=linear.weight * each, bias=linear.bias * factors)


def pool(weight: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Conv:
    """The convolution that a sum over windows is, times `weight` `[channels]`."""
    channels = len(weight)
    if channels * math.prod(kernel) > MAX_POOL_WEIGHTS:
        raise UnsupportedError(f"a window of {kernel[0]}x{kernel[1]} over {channels} channels is too large")
    spread_out = weight.double().reshape(-1, 1, 1, 1).expand(channels, 1, *kernel)
    return Conv(spread_out, torch.zeros(channels).double(), stride, padding, groups=channels, is_pool=True)


def fold_conv(first: Conv, second: Conv, shape: Shape) -> Conv:
    """One convolution that is `second` after `first`, on inputs of `shape` `[C, H, W]`; one of them is depthwise.

    Output i of `second` reads `first` at `i s2 - p2 + a d2`, which reads the input at `s1` times that, `- p1 + b d1`:
    the stride is `s1 s2`, the padding `p2 s1 + p1`, and the weights of a and b meet at the place `a d2 s1 + b d1`.

    Raises:
        UnsupportedError: neither is depthwise, or `second` pads with zeros what `first` would not give as zero.

    >>> mean = pool(torch.full((1,), 0.25), (2, 2), (2, 2), (0, 0))
    >>> both = fold_conv(mean, Conv(torch.ones(1, 1, 2, 2).double(), torch.zeros(1).double()), (1, 6, 6))
    >>> both.kernel, both.stride, both.weight.unique().tolist()
    ((4, 4), (2, 2), [0.25])
    """
    if not (first.depthwise or second.depthwise):
        raise UnsupportedError("two convolutions with no neurons between them")
    _check_padding(first, second, shape)
    axes = [_joint_axis(first, second, i) for i in range(2)]
    weight, groups = _joint_weight(first, second, axes)
    (s1, s2), (p1, p2) = (first.stride, second.stride), (first.padding, second.padding)
    return Conv(
        weight,
        second.bias + _weighted(first.bias, second),
        stride=(s1[0] * s2[0], s1[1] * s2[1]),
        padding=(p2[0] * s1[0] + p1[0], p2[1] * s1[1] + p1[1]),
        dilation=(axes[0].dilation, axes[1].dilation),
        groups=groups,
        is_pool=first.is_pool and second.is_pool,
    )


def spread(first: Conv, second: Dense, shape: Shape) -> Dense:
    """One dense layer that is `second` after the flattened `first`, on flattened inputs of `shape` `[C, H, W]`.

    Raises:
        UnsupportedError: the layer is too large.
    """
    channels, height, width = first.output_shape(shape)
    n_outputs = len(second.weight)
    if n_outputs * math.prod(shape) > MAX_WEIGHTS:
        raise UnsupportedError(f"its weights spread over the pooled inputs {list(shape)} are too many")
    maps = second.weight.reshape(n_outputs, channels, height, width)
    return Dense(unrolled(maps, first, shape), second.bias + maps.sum((2, 3)) @ first.bias)


def unrolled(maps: Tensor, conv: Conv, shape: Shape) -> Tensor:
    """`[M, C * H * W]`: how `maps` `[M, channels, h, w]`, weights of the outputs of `conv`, weigh its flattened input.

    `shape`: `[C, H, W]`.
    """
    left = [
        shape[1 + i]
        + 2 * conv.padding[i]
        - conv.dilation[i] * (conv.kernel[i] - 1)
        - 1
        - (maps.shape[2 + i] - 1) * conv.stride[i]
        for i in range(2)
    ]
    whole = F.conv_transpose2d(
        maps,
        conv.weight,
        stride=conv.stride,
        padding=conv.padding,
        output_padding=left,
        groups=conv.groups,
        dilation=conv.dilation,
    )
    return whole.flatten(1)


def follow(first: Dense | Tensor | None, second: Dense | Tensor) -> Dense | Tensor:
    """What `second` after `first` is: dense layers, or scalings of each number, `[n]`.

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
            raise UnsupportedError("two dense layers with no neurons between them")


def _check_padding(first: Conv, second: Conv, shape: Shape) -> None:
    """Refuse it unless what `second` pads is zero when `first` is computed there."""
    after = first.output_shape(shape)
    if any(second.padding) and bool(first.bias.any()):
        raise UnsupportedError("a bias, then padding with no neurons between them")
    for i in range(2):
        if not second.padding[i]:
            continue
        reach = (first.kernel[i] - 1) * first.dilation[i]
        before = reach - first.stride[i] - first.padding[i] < 0
        beyond = after[1 + i] * first.stride[i] - first.padding[i] >= shape[1 + i]
        if not (before and beyond):
            raise UnsupportedError(
                f"windows of {first.kernel[i]} over {shape[1 + i]}, stride {first.stride[i]}, then padding by "
                f"{second.padding[i]} with no neurons between: one convolution would read inputs at the edge that "
                "the windows leave out (give the pool neurons, or a size that its stride divides)"
            )


@dataclass(frozen=True)
class _Axis:
    """One axis of a joint kernel: weight b of the first and a of the second meet at `a step_second + b step_first`."""

    kernel: int
    dilation: int
    step_first: int
    step_second: int


def _joint_axis(first: Conv, second: Conv, axis: int) -> _Axis:
    """A kernel of one place leaves the other's dilation be; else the joint kernel is filled up with zeros."""
    step = second.dilation[axis] * first.stride[axis]
    if first.kernel[axis] == 1:
        return _Axis(second.kernel[axis], step, 1, 1)
    if second.kernel[axis] == 1:
        return _Axis(first.kernel[axis], first.dilation[axis], 1, 1)
    reach = (second.kernel[axis] - 1) * step + (first.kernel[axis] - 1) * first.dilation[axis]
    return _Axis(reach + 1, 1, first.dilation[axis], step)


def _joint_weight(first: Conv, second: Conv, axes: list[_Axis]) -> tuple[Tensor, int]:
    """Weights `[channels, in channels / groups, height, width]` of both in one, and its groups."""
    if first.depthwise:
        groups, (channels, inputs) = second.groups, second.weight.shape[:2]
        group_of = torch.arange(channels) // (channels // groups)
        reads = group_of[:, None] * inputs + torch.arange(inputs)  # [channels, inputs]
        inner, outer = first.weight[reads, 0], second.weight
    else:
        groups, (channels, inputs) = first.groups, first.weight.shape[:2]
        inner, outer = first.weight, second.weight.expand(-1, inputs, -1, -1)
    products = channels * inputs * math.prod((*first.kernel, *second.kernel))
    if channels * inputs * axes[0].kernel * axes[1].kernel > MAX_WEIGHTS or products > MAX_PRODUCTS:
        raise UnsupportedError(f"the folded kernel of {axes[0].kernel}x{axes[1].kernel} is too large")
    weight = torch.zeros(channels, inputs, axes[0].kernel, axes[1].kernel, dtype=torch.float64)
    rows, columns = (torch.arange(first.kernel[i]) * axes[i].step_first for i in range(2))
    for a in range(second.kernel[0]):
        for b in range(second.kernel[1]):
            y, x = rows + a * axes[0].step_second, columns + b * axes[1].step_second
            weight[:, :, y[:, None], x] += outer[:, :, a, b, None, None] * inner
    return weight, groups


def _weighted(bias: Tensor, conv: Conv) -> Tensor:
    """What a constant `bias` of each input channel adds to each output."""
    per_group = bias.reshape(conv.groups, -1)  # [C] -> [groups, C / groups]
    weight = conv.weight.sum((2, 3)).reshape(conv.groups, -1, per_group.shape[1])
    return torch.einsum("goi,gi->go", weight, per_group).flatten()
