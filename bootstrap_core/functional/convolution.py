"""Convolutions with any padding: torch's operators only take the same padding on opposite sides."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from specs.fields import Padding
from specs.shapes import Geometry, pads_of


def padded(x: Tensor, padding: Padding, value: float = 0.0) -> Tensor:
    """Return maps `[..., H, W]` with `value` around them."""
    top, left, bottom, right = pads_of(padding)
    return F.pad(x, (left, right, top, bottom), value=value) if any(padding) else x


def bordered(images: Tensor, padding: Padding, border: Sequence[float]) -> Tensor:
    """Return images `[N, C, H, W]` with `border` around them, one value or one for each channel."""
    if not any(padding):
        return images
    top, left, bottom, right = pads_of(padding)
    n, channels, height, width = images.shape
    values = torch.as_tensor(border, dtype=images.dtype, device=images.device).reshape(-1, 1, 1)
    found = values.expand(n, channels, top + height + bottom, left + width + right).clone()
    found[..., top : top + height, left : left + width] = images
    return found


def evenly_padded(x: Tensor, padding: Padding) -> tuple[Tensor, tuple[int, int]]:
    """Return maps and the padding `(height, width)` that is left to torch's operator; uneven padding is added here."""
    if len(padding) == 2:
        return x, (padding[0], padding[1])
    return padded(x, padding), (0, 0)


def conv2d(x: Tensor, weight: Tensor, geometry: Geometry, bias: Tensor | None = None) -> Tensor:
    """Return the cross-correlation of `[N, C, H, W]` with a weight `[O, C / groups, kernel height, kernel width]`."""
    x, padding = evenly_padded(x, geometry.padding)
    return F.conv2d(x, weight, bias, geometry.stride, padding, geometry.dilation, geometry.groups)
