"""Refit of a layer's weights, by ridge regression, to what the layers before it really send; and rounding of weights.

Inputs are the linear maps that a layer adds up, their inputs averaged over time, and the ANN's weighted input. The
result is the maps, changed so that their sum comes closer to the ANN's weighted input. Rates differ from the ANN's
activations in a systematic way, and the weights that read them can make up for part of it. The penalty is chosen on
images that were not fitted to, so that too few images do no harm.

Weights are rounded one after the other, and those that follow make up for the error of each, as far as what they read
is alike (`rounded`). Source: GPTQ (Frantar et al. 2023). With weights of ten steps, as deep networks of messages have,
this leaves a fraction of the error of plain rounding.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.functional.convolution import conv2d, padded
from bootstrap_core.functional.quantize import quantize_weight
from converters.ann_to_snn.judge import is_lower
from converters.linear.linear_fold import Conv, Dense

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties to try on a change of the weights, relative to the mean square of what they read."""
MOST_ROWS = 8192
"""Largest number of rows of a regression; a row is one place of one image."""
MOST_TOGETHER, DAMPING = 1024, 0.01
"""Largest number of weights that make up for each other's rounding, and what is added to the squares of what they read,
relative to their mean."""


class Reading(NamedTuple):
    """Linear map, its inputs `[N, ...]`, and whether it must stay as it is."""

    linear: Dense | Conv
    inputs: Tensor
    is_fixed: bool = False


class _Rows(NamedTuple):
    """Inputs of the weights, `[groups, rows, weights]`, and errors to correct, `[groups, rows, outputs]`."""

    read: Tensor
    missing: Tensor


@torch.no_grad()
def refit(
    readings: Sequence[Reading], wanted: Tensor, *, rectified: bool, generator: torch.Generator
) -> list[Dense | Conv]:
    """Return the maps, changed so that their sum on these inputs comes closer to `wanted`.

    Only maps of the first one's kind, with as many groups, change; of the biases only that of the first. The penalty is
    chosen on the half of the images that was not fitted to; if no change helps there clearly, all maps stay.

    Args:
        readings: maps whose sum is the weighted input.
        wanted: `[N, channels, ...]`, weighted input to come close to.
        rectified: True if an activation follows, for which all values below 0 are equally good.
        generator: random generator, which draws places of feature maps.
    """
    first, n = readings[0].linear, len(wanted)
    maps = [each.linear for each in readings]
    if n < 2:
        return maps
    changed = _alike(readings)
    found = weighted_input(readings)
    missing = wanted - found
    if rectified:
        missing = torch.where(wanted > 0, missing, -found.clamp_min(0))
    joint = [readings[i] for i in changed]
    half = n // 2
    rows = [_rows(joint, missing, first.groups, part, generator) for part in (slice(half), slice(half, n))]
    judged, ridge = rows[1], _Ridge(rows[0])
    errors = dict[float, Tensor]()
    for strength in STRENGTHS:
        weight, bias = ridge.change(strength)
        errors[strength] = (judged.missing - judged.read @ weight - bias).square().mean((0, 2))  # of each row
    best = min(STRENGTHS, key=lambda strength: float(errors[strength].mean()))
    if not is_lower(errors[best], judged.missing.square().mean((0, 2))):
        return maps
    weight, bias = _Ridge(_Rows(*(torch.cat(parts, 1) for parts in zip(*rows, strict=True)))).change(best)
    _add(maps, changed, weight.transpose(1, 2))
    maps[0] = replace(maps[0], bias=maps[0].bias + bias.flatten())
    return maps


@torch.no_grad()
def rounded(readings: Sequence[Reading], *, generator: torch.Generator) -> list[Dense | Conv]:
    """Return the maps with weights on the hardware's grid, whose sum on these inputs is close to what it was.

    The bias of the first makes up for the mean error. Maps of another kind than the first are rounded plainly.
    """
    maps = [each.linear for each in readings]
    changed, groups = _alike(readings), maps[0].groups
    joint = [readings[i] for i in changed]
    sums = weighted_input(readings)
    read = _rows(joint, sums, groups, slice(len(sums)), generator).read  # [groups, rows, weights]
    exact = torch.cat([each.linear.weight.flatten(1) for each in joint], 1)
    exact = exact.reshape(groups, -1, exact.shape[1])  # [groups, outputs, weights]
    parts = zip(exact.split(MOST_TOGETHER, 2), read.split(MOST_TOGETHER, 2), strict=True)
    change = torch.cat([_rounded_part(*part) for part in parts], 2) - exact
    _add(maps, changed, change)
    maps = [replace(each, weight=quantize_weight(each.weight)) for each in maps]
    bias = (change @ read.mean(1)[:, :, None]).flatten()
    return [replace(maps[0], bias=maps[0].bias - bias), *maps[1:]]


def _rounded_part(weight: Tensor, read: Tensor) -> Tensor:
    """Return weights `[groups, outputs, weights]` on their grid, given what they read, `[groups, rows, weights]`."""
    read = read - read.mean(1, keepdim=True)
    squares = read.transpose(1, 2) @ read / read.shape[1]
    size = squares.diagonal(dim1=1, dim2=2)
    size.add_(DAMPING * size.mean(1, keepdim=True).clamp_min(1e-12))
    # row j: by how much the weights after j must change for an error of weight j, up to a factor
    along = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(squares)), upper=True)
    weight = weight.clone()
    for j in range(weight.shape[2]):
        on_grid = quantize_weight(weight[:, :, j])
        error = (weight[:, :, j] - on_grid) / along[:, j, j, None]
        weight[:, :, j] = on_grid
        weight[:, :, j + 1 :] -= error[:, :, None] * along[:, None, j, j + 1 :]
    return weight


def weighted_input(readings: Sequence[Reading]) -> Tensor:
    """Return the sum of the maps of their inputs, `[N, channels, ...]`, float64."""

    def each(linear: Dense | Conv, x: Tensor) -> Tensor:
        if isinstance(linear, Dense):
            return F.linear(x.flatten(1).double(), linear.weight, linear.bias)
        return conv2d(x.double(), linear.weight, linear, linear.bias)

    own, *others = (each(linear, inputs) for linear, inputs, _ in readings)
    return sum(others, own)


def _alike(readings: Sequence[Reading]) -> list[int]:
    """Return the places of the maps that may change: those of the first one's kind, with as many groups."""
    first = readings[0].linear
    return [
        i
        for i, (linear, _, is_fixed) in enumerate(readings)
        if not is_fixed and type(linear) is type(first) and linear.groups == first.groups
    ]


def _add(maps: list[Dense | Conv], changed: Sequence[int], change: Tensor) -> None:
    """Add a change, `[groups, outputs, weights]`, to the weights of some maps, which are one after the other in it."""
    sizes = [maps[i].weight[0].numel() for i in changed]
    for i, part in zip(changed, change.split(sizes, 2), strict=True):
        maps[i] = replace(maps[i], weight=maps[i].weight + part.reshape(maps[i].weight.shape))


def _rows(readings: Sequence[Reading], missing: Tensor, groups: int, part: slice, generator: torch.Generator) -> _Rows:
    """Return the rows of some images; of large feature maps, some places are drawn."""
    missing = missing[part].flatten(2) if missing.dim() > 2 else missing[part, :, None]  # [N, C, P]
    n, channels, places = missing.shape
    drawn = torch.rand(n, places, generator=generator).argsort(1)[:, : -(-MOST_ROWS // (2 * n))]
    read = torch.cat([_read(each.linear, each.inputs[part], groups, drawn) for each in readings], 2)
    lacks = missing.gather(2, drawn[:, None].expand(n, channels, -1)).reshape(n, groups, channels // groups, -1)
    # [N, groups, numbers, places] -> [groups, N * places, numbers]
    return _Rows(*(x.permute(1, 0, 3, 2).flatten(1, 2).double() for x in (read, lacks)))


def _read(linear: Dense | Conv, x: Tensor, groups: int, drawn: Tensor) -> Tensor:
    """Return the inputs of the weights at the drawn places, `[N, groups, weights, places]`."""
    if isinstance(linear, Dense):
        return x.flatten(1)[:, None, :, None]
    columns = [
        F.unfold(image[None].float(), linear.kernel, linear.dilation, 0, linear.stride)[0, :, places]
        for image, places in zip(padded(x, linear.padding), drawn, strict=True)
    ]
    return torch.stack(columns).reshape(len(x), groups, -1, drawn.shape[1])


class _Ridge:
    """Ridge regression of the errors on the inputs, for penalties of any strength."""

    def __init__(self, rows: _Rows) -> None:
        self.means = [x.mean(1, keepdim=True) for x in rows]
        read, self.missing = (x - mean for x, mean in zip(rows, self.means, strict=True))
        self.across, self.few = read.transpose(1, 2), read.shape[1] < read.shape[2]
        self.squares = read @ self.across if self.few else self.across @ read
        self.size = self.squares.diagonal(dim1=1, dim2=2).mean(1, keepdim=True).clamp_min(1e-12)

    def change(self, strength: float) -> tuple[Tensor, Tensor]:
        """Return the change of weights, `[groups, weights, outputs]`, and of the bias, `[groups, 1, outputs]`."""
        squares = self.squares.clone()
        squares.diagonal(dim1=1, dim2=2).add_(strength * self.size)
        # (X'X + s)^-1 X'y; with fewer rows than weights X' (XX' + s)^-1 y, which is equal, takes less time
        if self.few:
            weight = self.across @ torch.linalg.solve(squares, self.missing)
        else:
            weight = torch.linalg.solve(squares, self.across @ self.missing)
        return weight, self.means[1] - self.means[0] @ weight
