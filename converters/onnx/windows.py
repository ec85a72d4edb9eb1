"""Windows of convolutions and pools: their places along each axis, from the attributes of an ONNX node."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from converters.onnx.reading.onnx_file import Array
from converters.onnx.tensor_layout import Floats, Index
from specs.errors import IntegrityError, UnsupportedError
from specs.shapes import Axis, Geometry, Pair, Window, axes_of, fewest_sides, pads_of

MAX_SIDE = 1 << 14
"""Largest side of a kernel, stride, dilation or padding; guards against small files that ask for huge maps."""


def windows_of(attributes: Mapping[str, Any], kernel: tuple[int, ...], sides: tuple[int, ...]) -> Window:
    """Return the windows that the attributes of a node describe.

    With `SAME_UPPER` and `SAME_LOWER` a side has `ceil(side / stride)` windows; an odd row of padding goes to the end
    or to the start. With `ceil_mode`, a last window that starts inside counts too, and the padding that it needs is
    added at the end (source: Operators.md of onnx, MaxPool).

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


def transposed_windows_of(
    attributes: Mapping[str, Any], kernel: tuple[int, ...], sides: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return stride, dilation and padding of a ConvTranspose, as its convolution reads values that are apart.

    The paddings are those at the starts and those at the ends of the axes; below 0, they crop (source: Operators.md of
    onnx).

    Raises `IntegrityError` if an attribute has the wrong number of values, or a value out of range.
    """
    n, auto = len(sides), attributes.get("auto_pad", "NOTSET")
    stride, dilation = (_sides(attributes, name, n, 1) for name in ("strides", "dilations"))
    pads = _sides(attributes, "pads", 2 * n, 0)
    extra, wanted = (_sides(attributes, name, n, 0) for name in ("output_padding", "output_shape"))
    if any(not 0 < value <= MAX_SIDE for value in (*kernel, *stride, *dilation)) or any(
        not 0 <= value <= MAX_SIDE for value in (*pads, *extra, *wanted)
    ):
        raise IntegrityError(f"its kernel, strides, dilations, pads or sizes are not within 1 or 0 to {MAX_SIDE}")
    starts, ends = list[int](), list[int]()
    for axis, side in enumerate(sides):
        reach = dilation[axis] * (kernel[axis] - 1)
        start, end = (pads[axis], pads[axis + n]) if auto == "NOTSET" else (0, 0)
        size = wanted[axis] or (side * stride[axis] if auto.startswith("SAME") else 0)
        if size:
            total = stride[axis] * (side - 1) + extra[axis] + reach + 1 - size
            start = total // 2 if auto == "SAME_UPPER" else total - total // 2
            end = total - start
        starts.append(reach - start)
        ends.append(reach - end + extra[axis])
    return stride, dilation, (tuple(starts), tuple(ends))


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
    part = each_window(counted, window).mean((2, 3))
    return np.asarray(part if len(sides) == 2 else part[0], np.float64)


def in_phases(
    weight: Floats, window: Window, steps: Pair, sides: tuple[int, ...], most: int
) -> tuple[Floats, Window, Pair] | None:
    """Return the convolution that reads and writes maps whose every n-th row and column is a channel of its own.

    Output `m i + a` of a convolution of stride t, padding p and dilation d reads input `t (m i + a) - p + d k`, which
    is row `t m / n i + q` of channel b, where `t a - p + d k = n q + b`; m is the least for which n divides t m.

    Args:
        weight: `[outputs, inputs, height, width]`.
        steps: n for rows and for columns.

    Returns:
        Weight, windows, and m for rows and for columns; None if the number of outputs is not a multiple of m, or there
        would be too many weights.
    """
    read, axes, groups = list[tuple[Index, Index]](), list[Axis](), list[int]()
    for axis, n, side in zip(axes_of(window), steps, sides, strict=True):
        m = n // math.gcd(n, axis.stride)
        q, b = np.divmod(
            axis.stride * np.arange(m)[:, None] - axis.start + axis.dilation * np.arange(axis.kernel), n
        )  # [a, k]
        stride, last, count = axis.stride * m // n, int(q.max()), axis.output(side) // m
        end = max(0, (count - 1) * stride + last + 1 - side // n)
        axes.append(Axis(int(np.ptp(q)) + 1, stride, -int(q.min()), end))
        if axes[-1].output(side // n) * m != axis.output(side) or axes[-1].start < 0:
            return None
        groups.append(m)
        read.append((b, q - q.min()))
    (down, rows), (across, columns) = read
    outputs, inputs = weight.shape[:2]
    kernel, stride_of_both, starts, ends, _ = ((first, second) for first, second in zip(*axes, strict=True))
    shape = outputs * math.prod(groups), inputs * math.prod(steps), *kernel
    if math.prod(shape) > most:
        return None
    apart = np.zeros((outputs, *groups, inputs, *steps, *kernel))
    for a, y, c, x in np.ndindex(*down.shape, *across.shape):
        apart[:, a, c, :, down[a, y], across[c, x], rows[a, y], columns[c, x]] += weight[:, :, y, x]
    made = Window(kernel, stride_of_both, fewest_sides((*starts, *ends)))
    return apart.reshape(shape), made, _pair(tuple(groups))


def each_window(maps: Array, window: Geometry) -> Array:
    """Return what the windows read of padded maps `[..., H, W]`: `[..., places down, places across, height, width]`."""
    seen = np.lib.stride_tricks.sliding_window_view(maps, [axis.reach for axis in axes_of(window)], (-2, -1))
    (down, across), (first, second) = window.stride, window.dilation
    return seen[..., ::down, ::across, ::first, ::second]


def _pair(sides: tuple[int, ...]) -> Pair:
    return sides[0], sides[1]


def _sides(attributes: Mapping[str, Any], name: str, n: int, default: int) -> tuple[int, ...]:
    """Return an attribute of `n` integers, all `default` if it is missing."""
    values = tuple(int(value) for value in attributes.get(name) or (default,) * n)
    if len(values) != n:
        raise IntegrityError(f"expected {n} numbers as its {name}, got {list(values)}")
    return values
