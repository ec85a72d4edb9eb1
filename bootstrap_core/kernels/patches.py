"""What the outputs of a convolution see of its input: a row for each, so that the convolution is a matrix product.

Channels come last: images are `[M, H, W, C]`, and a row has the taps of the kernel in order, the channels of each
together.
A geometry is the kernel, stride, padding and dilation of the rows, then of the columns.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from specs.shapes import axis_output

__all__ = [
    "EACH_ALONE",
    "as_matrix",
    "as_weight",
    "channels_last",
    "channels_second",
    "images_at_once",
    "layout",
    "out_size",
    "patches",
    "runs_by_place",
    "runs_of",
    "seers_of",
    "sources_of",
]

AXIS = ("kernel", "stride", "padding", "dilation")
EACH_ALONE = (1, 1, 0, 1) * 2
"""The geometry of a kernel of 1."""
CACHE = 1 << 21
"""Bytes of patches for each thread that are added up while they lie in the cache."""


def _axes(geometry: list[int] | tuple[int, ...]) -> list[dict[str, int]]:
    return [dict(zip(AXIS, part, strict=True)) for part in (geometry[:4], geometry[4:])]


def layout(geometry: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Stride, padding and dilation of rows and columns, as torch takes them."""
    stride, padding, dilation = (geometry[i::4] for i in (1, 2, 3))
    return stride, padding, dilation


def out_size(size: tuple[int, ...], geometry: list[int] | tuple[int, ...]) -> tuple[int, ...]:
    """Height and width of the output, for those of the input."""
    return tuple(axis_output(extent, **axis) for extent, axis in zip(size, _axes(geometry), strict=True))


def patches(x: Tensor, geometry: list[int] | tuple[int, ...]) -> Tensor:
    """`[M, H, W, C]` to `[M * P, K * C]`, for `P` places of the output and `K` taps; padded with zeros."""
    rows, columns = _axes(geometry)
    if rows["padding"] or columns["padding"]:
        x = F.pad(x, (0, 0, columns["padding"], columns["padding"], rows["padding"], rows["padding"]))
    x = x.contiguous()
    images, height, width, channels = x.shape
    unpadded = [*geometry]
    unpadded[2] = unpadded[6] = 0
    shape = images, *out_size((height, width), unpadded), rows["kernel"], columns["kernel"], channels
    image, row, column, channel = x.stride()
    strides = [image]
    for step in ("stride", "dilation"):
        strides += [row * rows[step], column * columns[step]]
    seen = x.as_strided(shape, (*strides, channel))
    return seen.reshape(images * shape[1] * shape[2], -1)


def as_matrix(weight: Tensor) -> Tensor:
    """`[O, C, KH, KW]` to `[O, K * C]`, in the order of `patches`."""
    return weight.detach().permute(0, 2, 3, 1).flatten(1)


def as_weight(matrix: Tensor, like: Tensor) -> Tensor:
    """`as_matrix` turned round, in the shape of `like`."""
    return matrix.reshape(like.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2).contiguous()


def channels_last(x: Tensor) -> Tensor:
    """`[T, N, C, H, W]` to `[T * N, H, W, C]`; no copy of what lies so."""
    return x.detach().permute(0, 1, 3, 4, 2).flatten(0, 1)


def channels_second(x: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """`[T * N, H, W, C]`, in any shape, as a view of the shape `[T, N, C, H, W]`."""
    steps, n, channels, height, width = shape
    return x.view(steps, n, height, width, channels).permute(0, 1, 4, 2, 3)


def images_at_once(one: int) -> int:
    """Of how many images the patches, so many bytes of one, stay in the cache until they are added up."""
    return max(1, CACHE * torch.get_num_threads() // max(1, one))


@lru_cache(maxsize=64)
def sources_of(size: tuple[int, int, int], geometry: tuple[int, ...]) -> Any:
    """`[P, K * C]`: which number of an image `[H, W, C]` each number of its patches is; below 0 for padding."""
    numbered = torch.arange(2, 2 + int(np.prod(size))).reshape(1, *size)
    return patches(numbered, geometry).numpy() - 2  # -2 is padding: not even next to 0


@lru_cache(maxsize=64)
def seers_of(size: tuple[int, int, int], geometry: tuple[int, ...]) -> tuple[Any, Any]:
    """Places of the output and taps that see each number of an image `[H, W, C]`, `[..., 2]`; and where its own end."""
    source = sources_of(size, geometry)
    seen = np.argsort(source, axis=None, kind="stable")
    seen = seen[np.count_nonzero(source < 0) :]
    seers = np.stack(np.divmod(seen, source.shape[1]), 1)
    return seers, np.searchsorted(source.ravel()[seen], np.arange(np.prod(size)), "right")


@lru_cache(maxsize=64)
def runs_of(size: tuple[int, int, int], geometry: tuple[int, ...]) -> Any:
    """Runs of numbers `[R, 3]`: beginning in the patches of an image `[H, W, C]`, beginning in the image, length."""
    source = sources_of(size, geometry).ravel()
    return _runs(source, np.diff(source, prepend=-9) == 1)


@lru_cache(maxsize=64)
def runs_by_place(size: tuple[int, int, int], geometry: tuple[int, ...]) -> Any:
    """`runs_of` each place, which begin in its own patch; and where in them those of each place begin, `[P + 1]`."""
    height, width, channels = size
    source = sources_of((height, width, 1), geometry)  # a place of the map stands for its channels
    places, taps = source.shape
    runs = _runs(source.ravel(), (np.diff(source, axis=1, prepend=-9) == 1).ravel())
    of_place = np.searchsorted(runs[:, 0], np.arange(places + 1) * taps)
    runs[:, 0] %= taps
    return runs * channels, of_place


def _runs(source: Any, follows: Any) -> Any:
    """As `runs_of`, of sources of which each either `follows` the one before or begins a run."""
    starts = np.flatnonzero(~follows)
    runs = np.stack([starts, source[starts], np.diff(starts, append=len(source))], 1)
    return runs[runs[:, 1] >= 0]
