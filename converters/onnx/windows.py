"""Windows of convolutions and pools: their places along each axis, from the attributes of an ONNX node."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.onnx.tensor_layout import Floats
from specs.errors import IntegrityError, UnsupportedError
from specs.shapes import Pair, Window, axes_of, fewest_sides, pads_of

MAX_SIDE = 1 << 14
"""Largest side of a kernel, stride, dilation or padding; guards against small files that ask for huge maps."""


def windows_of(attributes: Mapping[str, Any], kernel: tuple[int, ...], sides: tuple[int, ...]) -> Window:
    """Return the windows that the attributes of a node describe.

    With `SAME_UPPER` and `SAME_LOWER` a side has `ceil(side / stride)` windows; an odd row of padding goes to the end
    or to the start. With `ceil_mode`, a last window that starts inside counts too, and the padding that it needs is
    added at the end (source: Operators.md of onnx, MaxPool).

    Args:
        attributes: attributes of the node.
        kernel: sides of the kernel.
        sides: sides of the maps, one or two.

    Raises:
        IntegrityError: an attribute has the wrong number of values, or a value out of range.
        UnsupportedError: an `auto_pad` that onnx does not define, or negative padding.
    """
    n = len(sides)
    stride, dilation = (_sides(attributes, name, n, 1) for name in ("strides", "dilations"))
    pads = list(_sides(attributes, "pads", 2 * n, 0))
    if len(kernel) != n:
        raise IntegrityError(f"its kernel {list(kernel)} and the maps {list(sides)} must have the same number of axes")
    for name, values, least in (("kernel", kernel, 1), ("strides", stride, 1), ("dilations", dilation, 1)):
        if any(not least <= value <= MAX_SIDE for value in values):
            raise IntegrityError(f"its {name} {list(values)} must be within {least} to {MAX_SIDE}")
    if any(value > MAX_SIDE for value in pads):
        raise IntegrityError(f"its pads {pads} must be within 0 to {MAX_SIDE}")
    if min(pads) < 0:
        raise UnsupportedError(f"negative padding {pads}, which crops, is not supported: use pads of at least 0")
    auto = attributes.get("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise UnsupportedError(f"auto_pad={auto!r} is not supported: use explicit pads")
    for axis, side in enumerate(sides):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        if auto != "NOTSET":
            total = max(0, (-(-side // stride[axis]) - 1) * stride[axis] + reach - side) if auto != "VALID" else 0
            start = total // 2 if auto == "SAME_UPPER" else total - total // 2
            pads[axis], pads[axis + n] = start, total - start
        if attributes.get("ceil_mode", 0):
            room = side + pads[axis] + pads[axis + n] - reach
            count = -(-room // stride[axis]) + 1
            count -= (count - 1) * stride[axis] >= side + pads[axis]
            pads[axis + n] += max(0, (count - 1) * stride[axis] - room)
    if n == 1:  # maps of height 1
        padding = fewest_sides((0, pads[0], 0, pads[1]))
        return Window((1, kernel[0]), (1, stride[0]), padding, (1, dilation[0]))
    return Window(_pair(kernel), _pair(stride), fewest_sides((pads[0], pads[1], pads[2], pads[3])), _pair(dilation))


def part_counted(attributes: Mapping[str, Any], kernel: tuple[int, ...], sides: tuple[int, ...]) -> Floats:
    """Return the part of each window over which AveragePool takes the mean, `[H, W]` or `[L]`.

    Padding counts with `count_include_pad`, and what `ceil_mode` adds at the end never does.
    """
    window = windows_of(attributes, kernel, sides)
    counts = bool(attributes.get("count_include_pad", 0))
    pads = pads_of(windows_of({**attributes, "ceil_mode": 0}, kernel, sides).padding) if counts else (0, 0, 0, 0)
    counted = np.ones([side + pads[i] + pads[i + 2] for i, side in enumerate((1, *sides)[-2:])])
    beyond = [whole - own for whole, own in zip(pads_of(window.padding), pads, strict=True)]
    counted = np.pad(counted, ((beyond[0], beyond[2]), (beyond[1], beyond[3])))
    seen = np.lib.stride_tricks.sliding_window_view(counted, [axis.reach for axis in axes_of(window)])
    down, across = window.stride
    part = seen[::down, ::across, :: window.dilation[0], :: window.dilation[1]].mean((2, 3))
    return np.asarray(part if len(sides) == 2 else part[0], np.float64)


def in_windows(maps: npt.NDArray[Any], window: Window, padding: float = 0) -> npt.NDArray[Any]:
    """Return the values in each window, `[N, C, H, W, kernel]`, of maps `[N, C, H, W]` and their padding."""
    top, left, bottom, right = pads_of(window.padding)
    maps = np.pad(maps, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=padding)
    seen = np.lib.stride_tricks.sliding_window_view(maps, [axis.reach for axis in axes_of(window)], (2, 3))
    seen = seen[:, :, *(slice(None, None, step) for step in (*window.stride, *window.dilation))]
    return seen.reshape(*seen.shape[:4], -1)


def _pair(sides: tuple[int, ...]) -> Pair:
    return sides[0], sides[1]


def _sides(attributes: Mapping[str, Any], name: str, n: int, default: int) -> tuple[int, ...]:
    """Return an attribute of `n` integers, all `default` if it is missing."""
    values = tuple(int(value) for value in attributes.get(name) or (default,) * n)
    if len(values) != n:
        raise IntegrityError(f"expected {n} numbers as its {name}, got {list(values)}")
    return values
