"""Images as sequences: a row or a pixel in each time step."""

from dataclasses import replace

import torch
from torch import Tensor

from bootstrap_core.data.events.binning import EventBins
from bootstrap_core.data.sound_files import picture_columns
from bootstrap_core.data.splits import Split
from specs.dataset_sources import Order
from specs.errors import DataError

WHOLE_BITS = 8


def sequences(split: Split, order: Order, bins: EventBins | None, name: str) -> Split:
    """Return images as time steps, uint8 `[N, T, 1, features, 1]`.

    Args:
        bins: time steps of the network, which must be those of the sequence, and bits of a pixel; None for all bits.
        name: name of the dataset, for errors.

    Raises `DataError` for a network of another number of steps.
    """
    pictures = _pictures(split.images[:], order)
    n_steps = pictures.shape[-1]
    if bins is not None and bins.time_steps not in {None, n_steps}:
        raise DataError(f"{name} has {n_steps} time steps, and the network takes {bins.time_steps}: set time_steps")
    return replace(split, images=picture_columns(pictures, WHOLE_BITS if bins is None else bins.bits))


def _pictures(images: Tensor, order: Order) -> Tensor:
    """Return images `[N, 1, H, W]` as pictures `[N, 1, features, T]`, whose columns are the time steps."""
    if order is Order.ROWS:
        return images.transpose(-1, -2)
    pixels = images.flatten(1)[:, None, None]  # [N, C, H, W] -> [N, 1, 1, C * H * W]
    if order is Order.PIXELS:
        return pixels
    return pixels[..., torch.randperm(pixels.shape[-1], generator=torch.Generator().manual_seed(0))]
