"""Random augmentation, drawn for each image: affine transforms, shifts, mirroring, bending and erasing.

Recordings of events, `[N, T, C, H, W]`, are shifted and mirrored too; events are left out and moved in time. Sounds are
pictures in columns, `[N, T, 1, bands, 1]`, and change as these pictures.

The conventions are those of `torchvision.transforms.RandomAffine`: about the image centre, a point at offset p moves to

    scale * R(angle) @ K(shear) @ p + translation,    R = [[cos, -sin], [sin, cos]],    K = [[1, -tan(shear)], [0, 1]]

with x to the right and y down, so that a positive angle turns clockwise. Affine transforms resample images, so the
code works with the inverse: the place in the input from which each output pixel comes.

If several processes share a batch (`share`), each draws random numbers for all rows and resamples its own rows, so that
the images are the same as with a single process.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.distributed import Share
from specs.errors import DataError
from specs.training import AugmentSpec

EVENT_AXES = 5
ELASTIC_POINTS = 5
"""Number of points along each axis at which `bend` draws a displacement; between them it is interpolated."""


def are_pictures(shape: Sequence[int]) -> bool:
    """Return whether images of this shape have rows and columns; otherwise they are features, which are not augmented.

    >>> are_pictures((10, 1, 28, 28)), are_pictures((10, 1, 1, 784))
    (True, False)
    """
    return 1 not in shape[-2:]


def are_columns(shape: Sequence[int]) -> bool:
    """Return whether inputs of this shape are pictures in columns, `[N, T, C, H, 1]`; see `picture_columns`.

    >>> are_columns((10, 48, 1, 40, 1)), are_columns((10, 30, 1, 1, 700)), are_columns((10, 1, 40, 1))
    (True, False, False)
    """
    return len(shape) == EVENT_AXES and shape[-1] == 1 < shape[-2]


def augment(images: Tensor, spec: AugmentSpec, generator: torch.Generator, share: Share | None = None) -> Tensor:
    """Return images after all augmentations of `spec` in turn; features stay as they are (`are_pictures`).

    Recordings get those that apply to events, pictures in columns those that apply to images.

    Args:
        images: float images `[N, C, H, W]`; or recordings `[N, T, C, H, W]`, uint8 or floats, which keep their type.

    Raises:
        DataError: images have another rank or an integer dtype.

    >>> spec = AugmentSpec(flip=True, elastic=0.05, erase=0.25)
    >>> augment(torch.rand(8, 1, 28, 28), spec, torch.Generator().manual_seed(0)).shape
    torch.Size([8, 1, 28, 28])
    """
    if are_columns(images.shape):
        picture = images[..., 0].permute(0, 2, 3, 1)  # [N, T, C, H] -> [N, C, H, T]
        changed = augment(picture.float(), spec, generator, share).round().to(images.dtype)
        return changed.permute(0, 3, 1, 2)[..., None]
    if images.dim() == EVENT_AXES:
        return _augment_events(images, spec, generator, share)
    if images.ndim != 4 or not images.is_floating_point():
        raise DataError(
            f"augmentation takes float images [N, C, H, W], not {images.dtype} {list(images.shape)}; "
            "convert with images.float() / 255"
        )
    if not are_pictures(images.shape):
        return images
    if not spec.degrees == spec.translate == spec.shear == 0 or spec.scale != (1, 1):
        own = share or _whole(images)
        inverse = draw_affine(spec, own.n_rows, images.shape[-2:], generator)[own.rows]
        images = warp_affine(images, inverse.to(images))
    if spec.shift:
        images = shift(images, spec.shift, generator, share)
    if spec.flip:
        images = flip(images, generator, share)
    if spec.elastic:
        images = bend(images, spec.elastic, generator, share)
    if spec.erase:
        images = erase(images, spec.erase, generator, share)
    return images


def _augment_events(frames: Tensor, spec: AugmentSpec, generator: torch.Generator, share: Share | None) -> Tensor:
    still = frames.flatten(1, 2)  # [N, T, C, H, W] -> [N, T * C, H, W]
    if are_pictures(frames.shape) and spec.shift:
        still = shift(still, spec.shift, generator, share)
    if are_pictures(frames.shape) and spec.flip:
        still = flip(still, generator, share)
    frames = still.view_as(frames)
    return scatter_events(frames, spec.drop, spec.jitter, generator, share) if spec.drop or spec.jitter else frames


def draw_affine(spec: AugmentSpec, n_images: int, size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw the inverse matrices [N, 2, 3] of affine transforms for images of `size`, height and width.

    Ranges are those of `torchvision.transforms.RandomAffine`. One difference: shifts are not whole pixels.
    """
    uniform = torch.rand(5, n_images, generator=generator, device=generator.device)
    angle, shift_x, shift_y, shear = 2 * uniform[:4] - 1  # each in [-1, 1)
    (height, width), (low, high) = size, spec.scale
    return inverse_affine(
        angle=angle * spec.degrees,
        translation=torch.stack([shift_x * width, shift_y * height], dim=-1) * spec.translate,
        scale=low + (high - low) * uniform[4],
        shear=shear * spec.shear,
    )


def inverse_affine(*, angle: Tensor, translation: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Return inverse affine transforms: matrices [N, 2, 3] from an output pixel's (x, y, 1) to its place in the input.

    Coordinates are pixels from the image centre. `angle` and `shear` [N] are in degrees, `scale` [N] is a factor,
    `translation` [N, 2] is (x, y) in pixels. With the module's formula, p = K^-1 @ R^-1 @ (q - translation) / scale.

    Source: torchvision, `transforms.functional._get_inverse_affine_matrix`, with shear along x only.
    """
    cos, sin = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
    tan = torch.tan(torch.deg2rad(shear))
    linear = torch.stack([cos - tan * sin, sin + tan * cos, -sin, cos], dim=-1) / scale[:, None]
    linear = linear.view(-1, 2, 2)  # [N, 4] -> [N, 2, 2]
    return torch.cat([linear, -linear @ translation[:, :, None]], dim=-1)


def warp_affine(images: Tensor, inverse: Tensor) -> Tensor:
    """Resample float images [N, C, H, W] by the matrices [N, 2, 3] of `inverse_affine`; bilinear, zero outside."""
    height, width = images.shape[-2:]
    x, y = _pixel_offsets(images)
    # grid_sample counts from -1 to 1 over the whole image, edge to edge
    inverse = inverse * inverse.new_tensor([[2 / width], [2 / height]])
    from_x, from_y, offset = inverse[..., None, None].unbind(dim=2)  # each [N, 2, 1, 1]
    # The sum of a part for columns and one for rows: many times faster than the matrix products of F.affine_grid
    return _resample(images, from_x * x + (from_y * y[:, None] + offset))  # [N, 2, 1, W] + [N, 2, H, 1]


def shift(images: Tensor, most: int, generator: torch.Generator, share: Share | None = None) -> Tensor:
    """Shift each image [N, C, H, W] by up to `most` whole pixels along each axis; zero outside."""
    share = share or _whole(images)
    height, width = images.shape[-2:]
    drawn = torch.randint(2 * most + 1, (2, share.n_rows), generator=generator, device=generator.device)
    top, left = drawn[:, share.rows].to(images.device)
    windows = F.pad(images, (most,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]  # [N, C, top, left, H, W]


def flip(images: Tensor, generator: torch.Generator, share: Share | None = None) -> Tensor:
    """Mirror each image [N, C, H, W] left to right with probability 1/2."""
    share = share or _whole(images)
    drawn = torch.rand(share.n_rows, generator=generator, device=generator.device)[share.rows]
    return torch.where(drawn.to(images.device)[:, None, None, None] < 0.5, images.flip(-1), images)


def scatter_events(
    frames: Tensor, most_dropped: float, jitter: int, generator: torch.Generator, share: Share | None = None
) -> Tensor:
    """Leave out events of recordings, and move the others in time; each event is drawn for itself.

    Counts stay at most as large as the largest of `frames`.

    Args:
        frames: numbers of events `[N, T, C, H, W]`, of any type.
        most_dropped: largest part of the events that is left out; the part is uniform between 0 and this.
        jitter: maximum shift in time steps, either way; events that leave the recording are lost.
    """
    share = share or _whole(frames)
    dropped = most_dropped * torch.rand(share.n_rows, generator=generator, device=generator.device)[share.rows]
    seeds = torch.randint(1 << 62, (share.n_rows,), generator=generator, device=generator.device)[share.rows]
    n_steps, size = frames.shape[1], math.prod(frames.shape[2:])
    places = frames.flatten().nonzero().flatten()
    events = places.repeat_interleave(frames.flatten()[places].long())
    row, place = events // (n_steps * size), events % size
    # each recording has a generator of its own, so that it does not matter which process has the others
    uniform = torch.cat([
        torch.rand(2, n, generator=torch.Generator().manual_seed(seed))
        for n, seed in zip(row.bincount(minlength=len(frames)).tolist(), seeds.tolist(), strict=True)
    ], dim=1).to(frames.device)  # fmt: skip
    step = events // size % n_steps + (uniform[0] * (2 * jitter + 1)).long() - jitter
    kept = (uniform[1] >= dropped.to(frames.device)[row]) & (step >= 0) & (step < n_steps)
    moved = ((row * n_steps + step) * size + place)[kept]
    found = torch.zeros(frames.numel(), dtype=torch.int16, device=frames.device)
    found.index_add_(0, moved, torch.ones_like(moved, dtype=torch.int16))
    return found.clamp(max=int(frames.max())).to(frames.dtype).view_as(frames)


def bend(images: Tensor, amount: float, generator: torch.Generator, share: Share | None = None) -> Tensor:
    """Displace the pixels of float images [N, C, H, W] smoothly; bilinear, zero outside.

    Args:
        amount: standard deviation of the displacement, as a fraction of the height and the width.
    """
    share = share or _whole(images)
    size = (share.n_rows, 2, ELASTIC_POINTS, ELASTIC_POINTS)
    drawn = torch.randn(size, generator=generator, device=generator.device)[share.rows]
    rows, columns = (_bicubic(side, images) for side in images.shape[-2:])
    field = rows @ (drawn.to(images) * (2 * amount)) @ columns.t()  # [N, 2, H, W]
    x, y = _pixel_offsets(images)
    still = torch.stack(torch.broadcast_tensors(x * (2 / len(x)), (y * (2 / len(y)))[:, None]))  # [2, H, W]
    return _resample(images, field + still)


def erase(images: Tensor, side: float, generator: torch.Generator, share: Share | None = None) -> Tensor:
    """Black out a square at a random place of each float image [N, C, H, W]; `side` is a fraction of the width."""
    share = share or _whole(images)
    height, width = images.shape[-2:]
    drawn = torch.rand(2, share.n_rows, 1, 1, 1, generator=generator, device=generator.device)
    centre = drawn[:, share.rows].to(images)
    x, y = _pixel_offsets(images)
    left, top = (centre - 0.5) * images.new_tensor([width, height]).view(2, 1, 1, 1, 1)
    half = side * width / 2
    hit = ((x - left).abs() < half) & ((y[:, None] - top).abs() < half)  # [N, 1, H, W]
    return images.masked_fill(hit, 0)


def _bicubic(size: int, like: Tensor) -> Tensor:
    """Return bicubic weights `[size, ELASTIC_POINTS]` of the points for each pixel; the outermost of both coincide."""
    points = torch.eye(ELASTIC_POINTS, dtype=like.dtype, device=like.device)[None, :, :, None]  # [1, point, place, 1]
    return F.interpolate(points, (size, 1), mode="bicubic", align_corners=True)[0, :, :, 0].t()


def _whole(images: Tensor) -> Share:
    return Share(slice(0, len(images)), len(images))


def _pixel_offsets(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the offsets of columns `[W]` and rows `[H]` from the image centre, in pixels."""
    height, width = images.shape[-2:]
    x = torch.arange(width, dtype=images.dtype, device=images.device) - (width - 1) / 2
    y = torch.arange(height, dtype=images.dtype, device=images.device) - (height - 1) / 2
    return x, y


def _resample(images: Tensor, grid: Tensor) -> Tensor:
    """Sample images at the places of `grid` [N, 2, H, W], -1 to 1 over the image; bilinear, zero outside."""
    grid = grid.permute(0, 2, 3, 1)  # [N, 2, H, W] -> [N, H, W, 2]
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
