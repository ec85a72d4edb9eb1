"""Shape arithmetic: kernels along one axis, and the images that fit an input."""

import math
from collections.abc import Iterator

from specs.fields import Shape

__all__ = ["ShapeError", "axis_connections", "axis_fanout", "axis_output", "fit_input"]


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
    ours, theirs = (tuple(side for side in each if side > 1) for each in (images, shape))
    return ours == theirs or (math.prod(ours) == math.prod(theirs) and min(len(ours), len(theirs)) < 2)


def axis_output(size: int, *, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Return the output size along one axis, `floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1`.

    >>> axis_output(28, kernel=3, stride=2, padding=1, dilation=1)
    14
    """
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def axis_fanout(size: int, *, kernel: int, stride: int, padding: int, dilation: int) -> list[int]:
    """Return for each input position along one axis the number of output positions that read it.

    >>> axis_fanout(4, kernel=3, stride=1, padding=0, dilation=1)
    [1, 2, 2, 1]
    """
    fanout = [0] * size
    for positions in _positions_read(size, kernel, stride, padding, dilation):
        for position in positions:
            fanout[position] += 1
    return fanout


def axis_connections(size: int, *, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Return the sum of `axis_fanout`, without building the list.

    >>> axis_connections(4, kernel=3, stride=1, padding=0, dilation=1)
    6
    """
    return sum(map(len, _positions_read(size, kernel, stride, padding, dilation)))


def _positions_read(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Iterator[range]:
    """Yield for each tap of the kernel the input positions that it reads, without those in the padding."""
    n_outputs = axis_output(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    for tap in range(kernel):
        first = tap * dilation - padding  # of output 0; below 0 in the padding
        start = first if first >= 0 else first % stride
        yield range(start, min(size, first + n_outputs * stride), stride)
