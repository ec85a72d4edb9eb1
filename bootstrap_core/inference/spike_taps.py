"""Which weights a spike brings to which outputs of a convolution, for kernels that follow spikes. Needs numba."""

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bootstrap_core.kernels.row_sums import in_blocks
from specs.block import ConvSpec
from specs.fields import Shape

__all__ = ["taps_of"]

FEW_WEIGHTS = 2048
"""Of a convolution, up to which several neighbouring columns of outputs are summed at once."""
MOST_TOGETHER = 4
"""Columns: of more, following spikes adds too many zeros."""


def taps_of(
    weight: Tensor, spec: ConvSpec, before: Shape, after: Shape
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """What `add_conv` takes for a convolution of int8 weight `[channels, C / groups, kh, kw]`."""
    (height, width), (down, across), (above, left), (dilation, spread) = (
        spec.kernel, spec.stride, spec.padding, spec.dilation
    )  # fmt: skip
    whole, together = _ungrouped(weight, spec.groups), 1
    if whole[0].numel() * len(whole) <= FEW_WEIGHTS and spread == 1:
        together = max(n for n in range(1, MOST_TOGETHER + 1) if after[2] % n == 0)
        whole, width = _side_by_side(whole, together, across), width + (together - 1) * across
    rows = _read(height, down, above, dilation, before[1], after[1])
    columns = _read(width, across * together, left, spread, before[2], after[2] // together)
    order = sorted(range(before[2]), key=lambda x: (x % spread, x))
    places = {x: place for place, x in enumerate(order)}
    windows = np.zeros((len(columns), 3), np.int64)
    for x, read in enumerate(columns):
        inside = [(tap, places[at]) for tap, at in enumerate(read) if at >= 0]
        if inside:
            (tap, first), (_, last) = inside[0], inside[-1]
            windows[x] = first, last + 1, tap - first
    by_tap = in_blocks(whole.permute(3, 2, 1, 0).flatten(0, 2))
    return by_tap, rows, np.array(order, np.int64), windows, len(whole)


def _side_by_side(weight: Tensor, n: int, stride: int) -> Tensor:
    """The weight `[n * channels, C, kh, kw + (n - 1) * stride]` that gives n neighbouring columns of outputs as one."""
    wide = weight.new_zeros(n, *weight.shape[:3], weight.shape[3] + (n - 1) * stride)
    for column, part in enumerate(wide):
        part[..., column * stride : column * stride + weight.shape[3]] = weight
    return wide.flatten(0, 1)


def _read(
    kernel: int, stride: int, padding: int, dilation: int, n_inputs: int, n_outputs: int
) -> npt.NDArray[np.int64]:
    """The input that each tap of each output reads, `[outputs, taps]`; -1 for none."""
    read = np.arange(n_outputs)[:, None] * stride - padding + np.arange(kernel) * dilation
    return np.where((read >= 0) & (read < n_inputs), read, -1)


def _ungrouped(weight: Tensor, groups: int) -> Tensor:
    """The weight `[channels, C, kh, kw]` of one group that does what `groups` do: zeros between them."""
    if groups == 1:
        return weight
    channels, inputs = weight.shape[:2]
    whole = weight.new_zeros(channels, groups * inputs, *weight.shape[2:])
    for group in range(groups):
        members = slice(group * channels // groups, (group + 1) * channels // groups)
        whole[members, group * inputs : (group + 1) * inputs] = weight[members]
    return whole
