"""Spikes as lists of events, and as animations.

A spike tensor has a number for every neuron at every step; events list only the spikes, payloads included.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from specs.errors import SnnZooError
from specs.files.whole_file import write_whole


@dataclass(frozen=True, eq=False)
class Events:
    """The E spikes of one sample, sorted by time and then by place.

    Attributes:
        t: time step of each event, int64 `[E]`.
        place: neuron of each event, int64 `[E, 1]` with column (c), or `[E, 3]` with columns (c, y, x).
        payload: value of each spike, `[E]`, in the type of the tensor: 1 or True unless spikes are graded.
    """

    t: torch.Tensor
    place: torch.Tensor
    payload: torch.Tensor

    def __len__(self) -> int:
        return self.t.numel()

    @property
    def c(self) -> torch.Tensor:
        """Channel of each event, `[E]`; in a dense layer, the neuron."""
        return self.place[:, 0]

    @property
    def y(self) -> torch.Tensor:
        """Row of each event, `[E]`; zero in a dense layer."""
        return self.place[:, 1] if self.place.shape[1] == 3 else torch.zeros_like(self.c)

    @property
    def x(self) -> torch.Tensor:
        """Column of each event, `[E]`; zero in a dense layer."""
        return self.place[:, 2] if self.place.shape[1] == 3 else torch.zeros_like(self.c)


def to_events(spikes: torch.Tensor) -> Events:
    """Return the events of a spike tensor: one for each nonzero entry.

    Args:
        spikes: `[T, C]` or `[T, C, H, W]`, one sample.

    Example:
        >>> events = to_events(torch.tensor([[0, 0, 0], [0, 5, 0]]))
        >>> events.t.tolist(), events.c.tolist(), events.payload.tolist()
        ([1], [1], [5])
    """
    _check_shape(spikes.shape)
    spikes = spikes.detach()
    where = spikes.nonzero()  # [E, 2] or [E, 4], in row-major order, so by rising time
    return Events(t=where[:, 0], place=where[:, 1:], payload=spikes[tuple(where.T)])


# Palette of an animation, at most 256 colours in a GIF: background, silent neuron, time line, and three ramps.
_PAGE, _SILENT, _ELAPSED = 0, 1, 2
_LEVELS = 64
_POSITIVE, _NEGATIVE, _IMAGE = 3, 3 + _LEVELS, 3 + 2 * _LEVELS  # first index of each ramp
FRAME_MS = 200
_CANVAS = 256  # pixels, the size that small layers are enlarged to, as far as whole factors allow
_MARGIN = 12  # pixels


def animate(
    spikes: torch.Tensor,
    path: str | Path,
    *,
    image: torch.Tensor | None = None,
) -> Path:
    """Write the spikes of one sample as an animated GIF: a frame for each time step, a square for each neuron.

    A spike lights its square: amber, or blue for a negative payload; the larger the payload, the brighter. The bar
    below shows the time that has passed. With the same version of Pillow, the same input produces the same bytes.

    Args:
        spikes: `[T, C]`, a dense layer, laid out nearly as a square; or `[T, C, H, W]`, whose C maps lie side by side.
        image: input image in 0..1, shown on the left: grey, `[H, W]` or `[1, H, W]`, or RGB, `[3, H, W]`, for which
            the GIF has room for 125 colours. Events `[T, C, H, W]` are shown as they arrive, see `signed_events`.

    Raises `SnnZooError` if a shape or option does not fit, a payload is not finite, or Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise SnnZooError("an animation needs Pillow: pip install pillow") from error
    if Path(path).suffix.lower() != ".gif":
        raise SnnZooError(f"cannot animate to {path}: animations are GIF, so the name must end in .gif")

    cells = _lay_out(_colours(spikes))  # [T, rows, columns] of palette indices
    layer, palette = _enlarge(cells), _palette()
    if image is not None:
        if image.dim() == 4:
            left = _enlarge(_lay_out(_colours(signed_events(image[: len(layer)]))))
        else:
            picture, colours = _picture(image, layer.shape[1])
            palette[3 * _IMAGE : 3 * _IMAGE + len(colours)] = colours
            left = np.broadcast_to(picture, (len(layer), *picture.shape))
        layer = _side_by_side(left, layer)
    frames = _add_time_line(layer)

    pictures = []
    for frame in frames:
        picture_of_step = Image.frombytes("P", (frame.shape[1], frame.shape[0]), frame.tobytes())
        picture_of_step.putpalette(palette)
        pictures.append(picture_of_step)
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=FRAME_MS, loop=0, optimize=False
    )
    return write_whole(path, buffer.getvalue())


def signed_events(events: torch.Tensor) -> torch.Tensor:
    """Return events of a camera for a drawing, int16 `[T, 1, H, W]`: ON above 0, OFF below, the more frequent one.

    Args:
        events: numbers of events, `[T, 2, H, W]` with OFF first; with another number of channels, their sum is drawn.
            Columns of a picture, `[T, C, H, 1]`, appear from left to right and stay: the drawing is `[T, 1, H, T]`.

    >>> signed_events(torch.tensor([[[[0, 2, 1]], [[3, 1, 1]]]])).tolist()
    [[[[3, -2, 1]]]]
    """
    counts = events.to(torch.int16)
    if counts.shape[-1] == 1 < counts.shape[-2]:
        arrived = torch.ones(len(counts), len(counts), dtype=torch.int16).tril()  # [step, column]
        counts = counts[..., 0].permute(1, 2, 0) * arrived[:, None, None]  # [C, H, column] -> [step, C, H, column]
    if counts.shape[1] != 2:
        return counts.sum(1, keepdim=True, dtype=torch.int16)
    off, on = counts.split(1, dim=1)
    return torch.where(on >= off, on, -off)


def film(spikes: torch.Tensor) -> torch.Tensor:
    """Return the spikes of one sample as RGB frames, one for each time step, drawn as in `animate`.

    Args:
        spikes: `[T, C]` or `[T, C, H, W]`.

    Returns:
        RGB, uint8 `[T, height, width, 3]`.
    """
    frames = _add_time_line(_enlarge(_lay_out(_colours(spikes))))
    colours = np.array(_palette(), np.uint8).reshape(-1, 3)
    return torch.from_numpy(colours[frames])


_Pixels = npt.NDArray[np.uint8]


def _check_shape(shape: Sequence[int]) -> None:
    if len(shape) not in (2, 4):
        raise SnnZooError(f"spikes {list(shape)} must be one sample, [T, C] or [T, C, H, W]")


def _colours(spikes: torch.Tensor) -> _Pixels:
    """Return the palette index of each neuron at each step, in the shape of the spikes."""
    _check_shape(spikes.shape)
    if 0 in spikes.shape:
        raise SnnZooError(f"spikes {list(spikes.shape)} are empty: nothing to animate")
    payload = spikes.detach().cpu().double().numpy()
    if not np.isfinite(payload).all():
        raise SnnZooError("spikes hold a payload that is not finite")
    largest = np.abs(payload).max() or 1.0
    level = np.ceil(np.abs(payload) / largest * (_LEVELS - 1))
    ramp = np.where(payload > 0, _POSITIVE, _NEGATIVE)
    return np.where(payload == 0, _SILENT, ramp + level).astype(np.uint8)


def _lay_out(colours: _Pixels) -> _Pixels:
    """Arrange [T, C] or [T, C, H, W] as [T, rows, columns]; places without a neuron show the background."""
    time_steps, channels = colours.shape[:2]
    if colours.ndim == 4:
        colours = np.pad(colours, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=_PAGE)  # a gap between maps
    else:
        colours = colours[:, :, None, None]
    side = math.isqrt(channels - 1) + 1
    columns = next((n for n in range(side, 2 * side + 1) if channels % n == 0), side)  # no empty places, if possible
    rows = -(-channels // columns)
    empty = np.full((time_steps, rows * columns - channels, *colours.shape[2:]), _PAGE, np.uint8)
    tiles = np.concatenate((colours, empty), axis=1)
    tiles = tiles.reshape(time_steps, rows, columns, *tiles.shape[2:])  # [T, rows, columns, h, w]
    _, _, _, tile_height, tile_width = tiles.shape
    # [T, rows, h, columns, w] -> [T, rows * h, columns * w]
    return tiles.transpose(0, 1, 3, 2, 4).reshape(time_steps, rows * tile_height, columns * tile_width)


def _enlarge(cells: _Pixels) -> _Pixels:
    """Enlarge each cell to a square of pixels, with a thin line between squares if they are large enough."""
    scale = max(1, _CANVAS // max(cells.shape[1:]))
    pixels = cells.repeat(scale, axis=1).repeat(scale, axis=2)
    if scale >= 4:
        pixels[:, scale - 1 :: scale] = _PAGE
        pixels[:, :, scale - 1 :: scale] = _PAGE
    return pixels


def _picture(image: torch.Tensor, height: int) -> tuple[_Pixels, list[int]]:
    """Return an image in 0..1 as palette indices, enlarged to about the height of the layer, and its own colours."""
    from PIL import Image

    pixels = image.detach().cpu().double().numpy()
    if pixels.ndim == 3 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[0] == 3)) or not pixels.size:
        raise SnnZooError(f"image {list(image.shape)} must be [H, W], [1, H, W] or [3, H, W]")
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise SnnZooError(f"image values from {pixels.min():g} to {pixels.max():g} must lie in 0..1")
    colours: list[int] = []  # grey has a ramp in the palette
    if pixels.ndim == 2:
        indices: _Pixels = np.rint(pixels * (_LEVELS - 1)).astype(np.uint8)
    else:
        rgb = np.ascontiguousarray(np.rint(pixels * 255).astype(np.uint8).transpose(1, 2, 0))  # [H, W, 3]
        reduced = Image.fromarray(rgb).quantize(256 - _IMAGE)
        indices, colours = np.asarray(reduced), reduced.getpalette() or []
    scale = max(1, height // max(indices.shape))
    return (_IMAGE + indices).repeat(scale, axis=0).repeat(scale, axis=1), colours


def _side_by_side(left: _Pixels, right: _Pixels) -> _Pixels:
    """Join two films [T, h, w] side by side, each in the middle of the common height."""
    height = max(left.shape[1], right.shape[1])
    padded = []
    for film in (left, right):
        above = (height - film.shape[1]) // 2
        below = height - film.shape[1] - above
        padded.append(np.pad(film, ((0, 0), (above, below), (0, 0)), constant_values=_PAGE))
    gap = np.full((len(left), height, _MARGIN), _PAGE, np.uint8)
    return np.concatenate((padded[0], gap, padded[1]), axis=2)


def _add_time_line(film: _Pixels) -> _Pixels:
    """Add a margin, and a time bar of T parts below; the parts up to the present step are light.

    The bar has several rows if one is too short. It also makes each frame differ from the one before: Pillow would
    merge equal frames.
    """
    time_steps, _, width = film.shape
    per_row = min(time_steps, max(1, width // 2))
    part = width // per_row
    rows = -(-time_steps // per_row)
    bar = np.full((time_steps, 6 * rows, width), _PAGE, np.uint8)
    for step in range(time_steps):
        top, left = 6 * (step // per_row), part * (step % per_row)
        gap = 1 if part > 2 else 0
        bar[:, top : top + 4, left : left + part - gap] = _SILENT
        bar[step:, top : top + 4, left : left + part - gap] = _ELAPSED
    gap_above = np.full((time_steps, _MARGIN, width), _PAGE, np.uint8)
    whole = np.concatenate((film, gap_above, bar), axis=1)
    return np.pad(whole, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)), constant_values=_PAGE)


def _palette() -> list[int]:
    """Return 256 colours as 768 numbers."""
    page, silent, elapsed = (18, 20, 26), (38, 42, 52), (205, 210, 220)
    ramps = (((110, 74, 20), (255, 206, 84)), ((24, 66, 120), (96, 190, 255)), ((0, 0, 0), (255, 255, 255)))
    colours = [page, silent, elapsed]
    for dark, bright in ramps:
        for level in range(_LEVELS):
            share = level / (_LEVELS - 1)
            red, green, blue = (round(d + share * (b - d)) for d, b in zip(dark, bright, strict=True))
            colours.append((red, green, blue))
    colours += [page] * (256 - len(colours))
    return [value for colour in colours for value in colour]
