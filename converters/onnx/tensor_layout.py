"""A tensor of the graph that depends on the image: which numbers of a node's output stand where in it."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from converters.onnx.reading.onnx_file import Array
from specs.errors import UnsupportedError
from specs.fields import Shape
from specs.files.limits import ONNX_ELEMENTS

__all__ = [
    "Data",
    "Floats",
    "Index",
    "Maps",
    "Refused",
    "Relayout",
    "is_upright",
    "maps_of",
    "rows_of",
    "spread_over",
    "turned",
]

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Refused(UnsupportedError):  # noqa: N818 - says what was done, as the tree of errors has it
    """What other nodes than the one at hand are to blame for: `rows`, those of the graph."""

    def __init__(self, rows: tuple[int, ...], reason: str) -> None:
        super().__init__(reason)
        self.rows = rows


@dataclass(frozen=True)
class Data:
    """A tensor, `scale * x + shift` of the numbers x of a node of the ANN, laid out anew.

    Attributes:
        source: the node of the ANN.
        shape: of its output for one image.
        index: in the tensor's own shape, batch and all: i + 1 where number i of the batch of outputs stands, in C
            order, and 0 where a zero does. Whatever moves elements about acts on this.
        scale, shift: of the source's shape, or None: what the nodes `pending` have done to the numbers.
        cap: an upper bound that still waits for the lower bound 0, with its row.
        ending: the row of a Softmax or its like, which may only come last.
    """

    source: str
    shape: Shape
    index: Index = field(repr=False)
    scale: Floats | None = None
    shift: Floats | None = None
    pending: tuple[int, ...] = ()
    cap: tuple[float, int] | None = None
    ending: int | None = None

    @property
    def size(self) -> int:
        """Numbers of the source for one image."""
        return math.prod(self.shape)

    @property
    def batch(self) -> int:
        """Images in the tensor, going by the largest number in it."""
        return max(1, -(-int(self.index.max(initial=0)) // self.size))


def spread_over(data: Data, values: Array, *, fill: float, moves: bool = False) -> tuple[Data, Floats]:
    """The tensor in the shape that it and `values` broadcast to, and the value that each number of the source meets.

    Args:
        fill: for numbers that do not stand in the tensor.
        moves: whether a value other than 0 changes a zero.

    Raises:
        UnsupportedError: the shapes do not fit, or one number of the source meets different values.
    """
    try:
        shape = np.broadcast_shapes(data.index.shape, values.shape)
    except ValueError:
        raise UnsupportedError(
            f"its constant {list(values.shape)} does not fit the tensor {list(data.index.shape)}"
        ) from None
    if math.prod(shape) > ONNX_ELEMENTS:
        raise UnsupportedError(f"makes {math.prod(shape):,} numbers")
    index = np.broadcast_to(data.index, shape)
    wide = np.broadcast_to(values.astype(np.float64), shape)
    each = np.full(data.batch * data.size + 1, fill)
    each[index.ravel()] = wide.ravel()
    kept = index > 0
    if not np.array_equal(each[index][kept], wide[kept]):
        raise UnsupportedError("one number meets different constants")
    if moves and bool(wide[~kept].any()):
        raise UnsupportedError("a constant that changes the zeros of padding")
    each = each[1:].reshape(data.batch, *data.shape)
    if not all(np.array_equal(each[0], other) for other in each[1:]):
        raise UnsupportedError("constants that differ between the images of a batch")
    return replace(data, index=index.copy()), each[0]


def rows_of(data: Data, features: int) -> Index:
    """`[features]`: what stands in the row of the first image, all rows being alike.

    Raises:
        UnsupportedError: the tensor has not one row of `features` numbers for each image.
    """
    shape = list(data.index.shape)
    if data.index.size != data.batch * features or (data.index.ndim > 1 and data.index.shape[-1] != features):
        raise UnsupportedError(f"a dense layer over one axis of {shape}, of which the others are not all 1")
    rows = data.index.reshape(data.batch, features)
    _check_batch(data, rows, shape)
    return np.asarray(rows[0], dtype=np.int64)


@dataclass(frozen=True)
class Maps:
    """Feature maps in a tensor: `channels[i]` is the source's channel in place i, `pads` (top, left, bottom, right) of
    zeros around."""

    channels: Index
    pads: tuple[int, int, int, int]
    flat_axes: int

    @property
    def in_order(self) -> bool:
        """Whether channels stand as in the source."""
        return bool((self.channels == np.arange(len(self.channels))).all())


class Relayout(Exception):  # noqa: N818 - no error: the import starts again
    """The first layer reads the input in another layout than was assumed: `index`, that of one image."""

    def __init__(self, index: Index) -> None:
        super().__init__("another layout of the input")
        self.index = index


def maps_of(data: Data, *, movable: bool) -> Maps:
    """The tensor `[N, C, H, W]`, or `[N, C, L]` as maps of height 1, in terms of the source's maps.

    Args:
        movable: whether the source's numbers stand as the input is taken to be laid out.

    Raises:
        UnsupportedError: it is not the source's maps, with channels in any order and zeros around.
        Relayout: it would be, were the input laid out so.
    """
    index = data.index
    if index.ndim not in (3, 4):
        raise UnsupportedError(f"a layer over maps reads [N, C, H, W] or [N, C, L], not {list(index.shape)}")
    if index.ndim == 3:
        index = index[:, :, None, :]  # [N, C, L] -> [N, C, 1, L]
    if index.shape[0] != data.batch:
        raise UnsupportedError(f"its first axis, {index.shape[0]}, is not the batch")
    _check_batch(data, index.reshape(data.batch, -1), list(data.index.shape))
    one = index[0]
    inside = np.nonzero((one > 0).any(axis=0))
    if not len(inside[0]):
        raise UnsupportedError("reads nothing but zeros")
    (top, bottom), (left, right) = ((int(axis.min()), int(axis.max()) + 1) for axis in inside)
    inner = one[:, top:bottom, left:right]
    pads = (top, left, one.shape[1] - bottom, one.shape[2] - right)
    maps = np.arange(1, data.size + 1).reshape(data.shape)
    if inner.shape == data.shape and len(data.shape) == 3:
        channels = (inner[:, 0, 0] - 1) // (data.shape[1] * data.shape[2])
        if (inner > 0).all() and len(set(channels)) == len(channels) and np.array_equal(maps[channels], inner):
            return Maps(channels, pads, data.index.ndim)
    if movable and sorted(inner.ravel()) == list(range(1, data.size + 1)):
        raise Relayout(inner)
    raise UnsupportedError(
        f"reads {list(data.index.shape)} laid out otherwise than {data.source}, {list(data.shape)}, gives it: "
        "no weights can absorb that"
    )


def is_upright(data: Data) -> bool:
    """Whether maps of height 1 stand upright in the tensor, `[N, C, L, 1]`, as tf2onnx writes pools of one axis."""
    shape = data.index.shape
    return len(shape) == 4 and len(data.shape) == 3 and data.shape[1] == 1 == shape[3] < shape[2]


def turned(data: Data) -> Data:
    """Maps with height and width exchanged."""
    return replace(data, index=data.index.swapaxes(2, 3))


def _check_batch(data: Data, rows: Index, shape: list[int]) -> None:
    for image, row in enumerate(rows):
        if not np.array_equal(np.where(rows[0] > 0, rows[0] + image * data.size, 0), row):
            raise UnsupportedError(f"mixes the images of a batch: {shape}")
