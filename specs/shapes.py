"""Shape arithmetic: windows of convolutions and pools along an axis, and the images that fit an input."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, Self

from specs.fields import Padding, Shape

Pair = tuple[int, int]
"""Sizes `(height, width)`."""
Pads = tuple[int, int, int, int]
"""Padding of each side, `(top, left, bottom, right)`."""


class ShapeError(ValueError):
    """Error for a block whose input shape does not fit. `field` names the wrong field of the block, or is empty."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def fit_input(images: Shape, shape: Shape) -> bool:
    """Return whether images of shape `images` fit an input of shape `shape`.

    They fit if the shapes are the same without sides of 1, or if one of the two is flat and both have as many numbers.

    >>> fit_input((3, 32, 32), (3072,)), fit_input((28, 28), (1, 28, 28)), fit_input((3, 20, 24), (3, 24, 20))
    (True, True, False)
    """
    if images == shape:
        return True
    ours, theirs = (tuple(side for side in each if side > 1) for each in (images, shape))
    return ours == theirs or (math.prod(ours) == math.prod(theirs) and min(len(ours), len(theirs)) < 2)


def pads_of(padding: Padding) -> Pads:
    """Return the padding of each side.

    >>> pads_of((1, 2)), pads_of((0, 0, 1, 1))
    ((1, 2, 1, 2), (0, 0, 1, 1))
    """
    top, left, bottom, right = (*padding, *padding)[:4]
    return top, left, bottom, right


def fewest_sides(padding: Padding) -> Padding:
    """Return a padding as `(height, width)` if opposite sides are equal, otherwise as four sides.

    >>> fewest_sides((1, 2, 1, 2)), fewest_sides((0, 0, 1, 1))
    ((1, 2), (0, 0, 1, 1))
    """
    return padding[:2] if padding[:2] == padding[2:] else padding


class Axis(NamedTuple):
    """Windows along one axis: `start` and `end` are the padding of its two ends, the rest as in `torch.nn.Conv2d`."""

    kernel: int
    stride: int = 1
    start: int = 0
    end: int = 0
    dilation: int = 1

    @property
    def reach(self) -> int:
        """Extent of a window, with the gaps of its dilation."""
        return self.dilation * (self.kernel - 1) + 1

    def output(self, size: int) -> int:
        """Return the number of windows, `floor((size + start + end - reach) / stride) + 1`; 0 or less if none fits.

        >>> Axis(kernel=3, stride=2, end=1).output(28)
        14
        """
        return (size + self.start + self.end - self.reach) // self.stride + 1

    def fanout(self, size: int) -> list[int]:
        """Return for each input position the number of output positions that read it.

        >>> Axis(kernel=3).fanout(4)
        [1, 2, 2, 1]
        """
        fanout = [0] * size
        for positions in self._positions_read(size):
            for position in positions:
                fanout[position] += 1
        return fanout

    def connections(self, size: int) -> int:
        """Return the sum of `fanout`, without building the list.

        >>> Axis(kernel=3).connections(4)
        6
        """
        return sum(map(len, self._positions_read(size)))

    def _positions_read(self, size: int) -> Iterator[range]:
        """Yield for each tap of the kernel the input positions that it reads, without those in the padding."""
        n_outputs = self.output(size)
        for tap in range(self.kernel):
            first = tap * self.dilation - self.start  # of output 0; below 0 in the padding
            start = first if first >= 0 else first % self.stride
            yield range(start, min(size, first + n_outputs * self.stride), self.stride)


class Geometry(Protocol):
    """Windows of a convolution: a `Window`, or a block, skip or layer that has its fields."""

    @property
    def kernel(self) -> Pair: ...

    @property
    def stride(self) -> Pair: ...

    @property
    def padding(self) -> Padding: ...

    @property
    def dilation(self) -> Pair: ...

    @property
    def groups(self) -> int: ...


def axes_of(geometry: Geometry) -> tuple[Axis, Axis]:
    """Return the windows along height and width."""
    pads = pads_of(geometry.padding)
    down, across = (
        Axis(geometry.kernel[i], geometry.stride[i], pads[i], pads[i + 2], geometry.dilation[i]) for i in range(2)
    )
    return down, across


@dataclass(frozen=True)
class Window:
    """Windows of a convolution or pool, as in `torch.nn.Conv2d`; pairs are `(height, width)`.

    Attributes:
        kernel: size of a window, in inputs.
        stride: distance of windows.
        padding: zeros around the maps, `(height, width)` or `(top, left, bottom, right)`.
        dilation: distance of the inputs of a window.
        groups: number of groups of channels; 1 for pools.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, geometry: Geometry) -> "Window":
        """Return the windows of a block, of a skip or of folded layers."""
        return Window(geometry.kernel, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)

    def turned(self) -> Self:
        """Return the windows for maps with height and width exchanged."""
        top, left, bottom, right = pads_of(self.padding)
        return replace(
            self,
            kernel=self.kernel[::-1],
            stride=self.stride[::-1],
            padding=fewest_sides((left, top, right, bottom)),
            dilation=self.dilation[::-1],
        )

    def padded(self, pads: Pads) -> Self:
        """Return the windows for maps that have `pads` more zeros around them.

        >>> Window((3, 3), padding=(1, 1)).padded((0, 0, 1, 0)).padding
        (1, 1, 2, 1)
        """
        return replace(self, padding=fewest_sides(tuple(map(sum, zip(pads_of(self.padding), pads, strict=True)))))
