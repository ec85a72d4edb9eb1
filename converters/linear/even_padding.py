"""Convolutions with the same padding on opposite sides, for formats that hold no other."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from specs.errors import UnsupportedError
from specs.fields import Padding
from specs.layers.block import AvgPoolSpec, ConvSpec, LayerSpec
from specs.shapes import Pair, pads_of

MAX_WEIGHTS = 1 << 26
"""Largest number of weights of an enlarged kernel; writing out a large dilation could ask for terabytes."""

Array = npt.NDArray[Any]


def evened(weight: Array, dilation: Pair, padding: Padding) -> tuple[Array, Pair, Pair]:
    """Return weight, dilation and padding of the same convolution, with equal padding on opposite sides.

    The smaller padding of two sides is raised to the larger one, and the kernel gets zeros on the same side. If the
    difference is not a multiple of the dilation, the gaps in the kernel are written out as zeros first.

    Raises `UnsupportedError` if the kernel becomes too large.

    >>> weight, dilation, padding = evened(np.ones((1, 1, 2, 1)), (1, 1), (0, 0, 1, 0))
    >>> weight.ravel().tolist(), dilation, padding  # the zero meets the added row of padding
    ([0.0, 1.0, 1.0], (1, 1), (1, 0))
    """
    top, left, bottom, right = pads_of(padding)
    steps, sides = list(dilation), list(weight.shape)
    place: list[slice] = [slice(None)] * weight.ndim
    for i, (start, end) in enumerate(((top, bottom), (left, right))):
        steps[i], first, size = _enlarged(sides[2 + i], dilation[i], start, end)
        place[2 + i] = slice(first, first + (sides[2 + i] - 1) * dilation[i] // steps[i] + 1, dilation[i] // steps[i])
        sides[2 + i] = size
    if math.prod(sides) > MAX_WEIGHTS:
        raise UnsupportedError(
            f"padding {list(padding)} differs between opposite sides, and with zeros in its place the kernel has "
            f"{math.prod(sides):,} weights; at most {MAX_WEIGHTS:,} are supported"
        )
    wide = np.zeros(sides, weight.dtype)
    wide[tuple(place)] = weight
    return wide, (steps[0], steps[1]), (max(top, bottom), max(left, right))


def unevened(weight: Array, spec: ConvSpec) -> Array | None:
    """Invert `evened` for a convolution of this spec; None if the weight is not such an enlarged one."""
    pads, place = pads_of(spec.padding), [slice(None), slice(None)]
    for i, kernel in enumerate(spec.kernel):
        step, first, size = _enlarged(kernel, spec.dilation[i], pads[i], pads[i + 2])
        if weight.ndim != 4 or weight.shape[2 + i] != size:
            return None
        apart = spec.dilation[i] // step
        place.append(slice(first, first + (kernel - 1) * apart + 1, apart))
    found = weight[tuple(place)]
    return found if np.array_equal(evened(found, spec.dilation, spec.padding)[0], weight) else None


def notes_on_kernel(layer: LayerSpec) -> Iterator[str]:
    """Yield a note if `evened` enlarges the kernel of a block."""
    if isinstance(layer, ConvSpec | AvgPoolSpec) and len(layer.padding) == 4:
        dilation, pads = getattr(layer, "dilation", (1, 1)), layer.padding
        sides = [_enlarged(layer.kernel[i], dilation[i], pads[i], pads[i + 2])[2] for i in range(2)]
        yield (
            f"the file has a kernel {sides} with zeros, because the padding {list(pads)} differs between opposite "
            "sides; the spikes are the same"
        )


def _enlarged(kernel: int, dilation: int, start: int, end: int) -> tuple[int, int, int]:
    """Return dilation, place of the first weight, and size of an enlarged kernel along one axis."""
    extra = abs(end - start)
    step = 1 if extra % dilation else dilation
    size = (kernel - 1) * (dilation // step) + 1 + extra // step
    return step, max(end - start, 0) // step, size
