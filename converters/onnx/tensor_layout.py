"""Tensors of the file that depend on the image: which value of a node's output is at which place."""

import math
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from converters.onnx.reading.onnx_file import Array
from specs.errors import UnsupportedError
from specs.fields import Shape
from specs.files.limits import ONNX_TENSOR
from specs.shapes import Pads, Pair

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
MOST_PHASES = 8
"""Largest number of source's maps of which the rows, or the columns, of a tensor's map come in turn."""


@dataclass(frozen=True)
class Data:
    """Tensor of the file: values of a node's output in a new order.

    Attributes:
        source: name of the node of the ANN.
        shape: shape of its output for one image.
        index: array of the tensor's shape, with the batch: `i + 1` at the place of value i of the source's output
            `[N, *shape]` in C order, 0 at the place of a padding zero. Operators that move values act on this.
        grid: scale and zero point of a quantised tensor, whose rounding is left out.
        ending: row of a Softmax or similar node, which may only come last.
        sign: 1 if the tensor tells where these values are above 0, -1 where they are below; 0 if it is the values.
    """

    source: str
    shape: Shape
    index: Index = field(repr=False)
    grid: tuple[float, int] | None = None
    ending: int | None = None
    sign: int = 0

    @property
    def size(self) -> int:
        """Number of values of the source for one image."""
        return math.prod(self.shape)

    @property
    def is_upright(self) -> bool:
        """True if the tensor is maps of height 1 turned to `[N, C, L, 1]`, as tf2onnx writes pools over one axis."""
        shape = self.index.shape
        return len(shape) == 4 and len(self.shape) == 3 and self.shape[1] == 1 == shape[3] < shape[2]

    def laid_out(self, index: Index) -> "Data":
        """Return the tensor with its values at other places."""
        return replace(self, index=np.ascontiguousarray(index))

    def shaped(self, shape: tuple[int, ...]) -> "Data":
        return self.laid_out(self.index.reshape(shape))

    def turned(self) -> "Data":
        """Return maps with height and width exchanged."""
        return self.laid_out(self.index.swapaxes(2, 3))

    def apart(self, steps: Pair) -> "Data":
        """Return maps with every n-th row and column as a channel of its own, `[N, C * n * m, H / n, W / m]`."""
        if steps == (1, 1):
            return self
        (n, channels, height, width), (down, across) = self.index.shape, steps
        parts = self.index.reshape(n, channels, height // down, down, width // across, across)
        return self.laid_out(parts.transpose(0, 1, 3, 5, 2, 4).reshape(n, -1, height // down, width // across))

    def together(self, steps: Pair) -> "Data":
        """Invert `apart`."""
        if steps == (1, 1):
            return self
        (n, _, height, width), (down, across) = self.index.shape, steps
        parts = self.index.reshape(n, -1, down, across, height, width)
        return self.laid_out(parts.transpose(0, 1, 4, 2, 5, 3).reshape(n, -1, height * down, width * across))

    @property
    def batch(self) -> int:
        """Number of images in the tensor, from the largest index in it."""
        return max(1, -(-int(self.index.max(initial=0)) // self.size))


def spread_over(data: Data, values: Array, *, fill: float, moves: bool = False) -> tuple[Data, Floats]:
    """Broadcast a tensor and a constant; return the tensor, and the constant for each value of the source.

    Args:
        values: the constant, of any shape that broadcasts with the tensor's.
        fill: constant for values of the source that are not in the tensor.
        moves: True if the constant is added, so that it would change the zeros of padding.

    Raises `UnsupportedError` if the shapes do not fit, the result is too large, or the constant differs between
    copies of one value or between images, or would change the zeros of padding.
    """
    try:
        shape = np.broadcast_shapes(data.index.shape, values.shape)
    except ValueError:
        raise UnsupportedError(
            f"its constant {list(values.shape)} does not broadcast with the tensor {list(data.index.shape)}"
        ) from None
    if math.prod(shape) > ONNX_TENSOR:
        raise UnsupportedError(f"makes {math.prod(shape):,} numbers; at most {ONNX_TENSOR:,} are supported")
    index = np.broadcast_to(data.index, shape)
    wide = np.broadcast_to(values.astype(np.float64), shape)
    each = np.full(data.batch * data.size + 1, fill)
    each[index.ravel()] = wide.ravel()
    kept = index > 0
    if not np.array_equal(each[index][kept], wide[kept]):
        raise UnsupportedError("applies different constants to copies of one value, which is not supported")
    if moves and bool(wide[~kept].any()):
        raise UnsupportedError("its constant changes the zeros of the Pad before it: apply it before the padding")
    each = each[1:].reshape(data.batch, *data.shape)
    if not all(np.array_equal(each[0], other) for other in each[1:]):
        raise UnsupportedError("its constant differs between the images of a batch: use the same for all")
    return replace(data, index=index.copy()), each[0]


def rows_of(data: Data, features: int) -> Index:
    """Return the indices in the row of the first image, `[features]`; the rows of other images are alike.

    Raises `UnsupportedError` if the tensor is not one row of `features` values for each image.
    """
    shape = list(data.index.shape)
    if data.index.size != data.batch * features or (data.index.ndim > 1 and data.index.shape[-1] != features):
        raise UnsupportedError(f"a dense layer on {shape}, expected one row of {features} values per image: flatten it")
    return one_of(data)


def one_of(data: Data) -> Index:
    """Return the indices of the first image, flattened; those of other images are alike.

    Raises `UnsupportedError` if the tensor mixes the images of a batch.
    """
    shape = list(data.index.shape)
    if data.index.size % data.batch:
        raise UnsupportedError(f"{shape} is not the same number of values for each of {data.batch} images")
    rows = data.index.reshape(data.batch, -1)
    _check_batch(data, rows, shape)
    return np.asarray(rows[0], dtype=np.int64)


@dataclass(frozen=True)
class Maps:
    """Feature maps in a tensor, in terms of the source's maps.

    Attributes:
        channels: `[C]`, the source's channel at each place.
        pads: zeros around the maps, `(top, left, bottom, right)`.
        rank: number of axes of the tensor: 4, or 3 for `[N, C, L]`.
    """

    channels: Index
    pads: Pads
    rank: int

    @property
    def in_order(self) -> bool:
        """True if the channels are in the order of the source."""
        return bool((self.channels == np.arange(len(self.channels))).all())


class Relayout(Exception):  # noqa: N818 - a signal to start the import again, not an error
    """Signal that the first layer reads the input in another layout than assumed: `index`, for one image.

    None stands for values that are not those of whole maps in the assumed layout, but may be so in the next.
    """

    def __init__(self, index: Index | None) -> None:
        super().__init__("another layout of the input")
        self.index = index


def maps_of(data: Data, *, movable: bool) -> Maps:
    """Describe a tensor in terms of the source's maps.

    Args:
        data: tensor `[N, C, H, W]`, or `[N, C, L]`, which is taken as maps of height 1.
        movable: True if the source has the layout that is assumed for the input, and so may get another one.

    Raises:
        UnsupportedError: the tensor is not the source's maps, with channels in any order and zeros around.
        Relayout: the tensor would be the source's maps if the input had another layout.
    """
    index = data.index
    if index.ndim not in (3, 4):
        raise UnsupportedError(f"expected maps [N, C, H, W] or [N, C, L], got a tensor of shape {list(index.shape)}")
    if index.ndim == 3:
        index = index[:, :, None, :]  # [N, C, L] -> [N, C, 1, L]
    if index.shape[0] != data.batch:
        raise UnsupportedError(f"the first axis of its input is {index.shape[0]}, expected the batch, {data.batch}")
    _check_batch(data, index.reshape(data.batch, -1), list(data.index.shape))
    one = index[0]
    if not one.any():
        raise UnsupportedError("its input contains only zeros")
    inner, pads = _inside(one)
    maps = np.arange(1, data.size + 1).reshape(data.shape)
    if inner.shape == data.shape and len(data.shape) == 3:
        channels = (inner[:, 0, 0] - 1) // (data.shape[1] * data.shape[2])
        if (inner > 0).all() and len(set(channels)) == len(channels) and np.array_equal(maps[channels], inner):
            return Maps(channels, pads, data.index.ndim)
    if movable and sorted(inner.ravel()) == list(range(1, data.size + 1)):
        raise Relayout(inner)
    raise UnsupportedError(
        f"reads the values of {data.source}, {list(data.shape)}, in another layout, {list(data.index.shape)}, which "
        "its weights cannot absorb: remove the Transpose, Reshape or the like before it"
    )


@dataclass(frozen=True)
class Picked:
    """Feature maps in a tensor, each of which has every n-th value of a map of the source, from some place on.

    Attributes:
        channels: `[C]`, the source's channel at each place; -1 for a channel of zeros.
        starts: `[C, 2]`, row and column of the first value.
        stride: distance of the values, `(height, width)`.
        size: number of values, `(height, width)`.
        pads: zeros around the maps, `(top, left, bottom, right)`.
    """

    channels: Index
    starts: Index
    stride: Pair
    size: Pair
    pads: Pads

    def weight(self, shape: Shape) -> Floats:
        """Return the weights of a convolution that picks these values from maps of `shape`."""
        reach = [
            max(int(self.starts[:, i].max()) + 1, shape[1 + i] - self.size[i] * self.stride[i] + 1) for i in range(2)
        ]
        weight = np.zeros((len(self.channels), shape[0], *reach))
        kept = self.channels >= 0
        weight[np.flatnonzero(kept), self.channels[kept], self.starts[kept, 0], self.starts[kept, 1]] = 1
        return weight


def picked_of(data: Data) -> Picked | None:
    """Describe a tensor `[N, C, H, W]` or `[N, C, L]` as values picked from the source's maps; None if it is not."""
    index = data.index[:, :, None, :] if data.index.ndim == 3 else data.index
    if index.ndim != 4 or len(data.shape) != 3 or index.shape[0] != data.batch or not index[0].any():
        return None
    _check_batch(data, index.reshape(data.batch, -1), list(data.index.shape))
    inner, pads = _inside(index[0])
    kept: npt.NDArray[np.bool_] = inner.max((1, 2)) > 0
    rows, columns = inner.shape[1:]
    of_channel, at = np.divmod(inner - 1, data.shape[1] * data.shape[2])
    y, x = np.divmod(at, data.shape[2])
    first = int(np.flatnonzero(kept)[0])
    stride = (
        int(y[first, 1, 0] - y[first, 0, 0]) if rows > 1 else 1,
        int(x[first, 0, 1] - x[first, 0, 0]) if columns > 1 else 1,
    )
    found = Picked(
        np.where(kept, of_channel[:, 0, 0], -1), np.where(kept[:, None], np.stack([y[:, 0, 0], x[:, 0, 0]], 1), 0),
        stride, (rows, columns), pads,
    )  # fmt: skip
    last = found.starts.max(0) + np.array(stride) * (np.array(found.size) - 1)
    if min(stride) < 1 or bool((last >= data.shape[1:]).any()):
        return None
    there = (
        (found.starts[:, :1, None] + stride[0] * np.arange(rows)[:, None]) * data.shape[2]
        + (found.starts[:, 1:, None] + stride[1] * np.arange(columns))
        + found.channels[:, None, None] * data.shape[1] * data.shape[2] + 1
    )  # fmt: skip
    return found if np.array_equal(inner, np.where(kept[:, None, None], there, 0)) else None


def interleaved_by(data: Data) -> Pair | None:
    """Return the least steps, by which `Data.apart` makes maps that are picked from the source's; None if none do."""
    sides = data.index.shape[2:] if data.index.ndim == 4 else (1, 1)
    steps = product(*({1, *(n for n in range(2, MOST_PHASES + 1) if side % n == 0 and side > n)} for side in sides))
    for down, across in sorted(steps, key=math.prod):
        if picked_of(data.apart((down, across))) is not None:
            return down, across
    return None


def _inside(one: Index) -> tuple[Index, Pads]:
    """Return maps `[C, H, W]` without the zeros around them, and the number of these on each side."""
    inside = np.nonzero((one > 0).any(axis=0))
    (top, bottom), (left, right) = ((int(axis.min()), int(axis.max()) + 1) for axis in inside)
    return one[:, top:bottom, left:right], (top, left, one.shape[1] - bottom, one.shape[2] - right)


def _check_batch(data: Data, rows: Index, shape: list[int]) -> None:
    """Raise an error unless each image's row has only values of that image, in the same order."""
    for image, row in enumerate(rows):
        if not np.array_equal(np.where(rows[0] > 0, rows[0] + image * data.size, 0), row):
            raise UnsupportedError(f"mixes the images of a batch in {shape}: keep the batch as first axis")
