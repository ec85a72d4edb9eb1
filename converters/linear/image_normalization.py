"""Normalization of an ANN's images, `(x - mean) / std`, and the normalizations in common use.

Most files leave it out, since training applies it to the data. A conversion needs it: mean and std are given by the
user, and the common ones are tried to detect a wrong choice.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specs.errors import DataError
from specs.fields import Shape

Numbers = tuple[float, ...]
"""One number for all channels, or one for each channel."""


@dataclass(frozen=True)
class Normalization:
    """Normalization of images, `(x - mean) / std`, with one mean and std for all channels or for each.

    Images `[N, C, H, W]` have C channels. In flat images `[N, features]`, each channel is `features / C` numbers.

    >>> colours = Normalization.of([0.5, 0.25], 0.5)
    >>> colours(torch.tensor([[0.5, 1.0, 0.5, 0.25]]))
    tensor([[0.0000, 1.0000, 0.5000, 0.0000]])
    >>> colours.after(Normalization.of(0.0, 1 / 255)).as_json()["mean"]
    [0.00196078431372549, 0.000980392156862745]
    """

    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)

    @classmethod
    def of(cls, mean: float | Sequence[float], std: float | Sequence[float]) -> "Normalization":
        """Return the normalization by one number for all channels, or one for each channel."""
        return cls(*(tuple(np.atleast_1d(np.asarray(x, np.float64)).tolist()) for x in (mean, std)))

    def __call__(self, images: Tensor) -> Tensor:
        if len(self.mean) == len(self.std) == 1:
            return (images - self.mean[0]) / self.std[0]
        mean, std = (x.to(images.dtype).reshape(-1, *[1] * (images.dim() - 2)) for x in self.each(images.shape[1]))
        return (images - mean) / std

    def each(self, channels: int) -> tuple[Tensor, Tensor]:
        """Return mean and std of each channel, or of each number of flat images, float64 `[channels]`."""
        mean, std = (torch.tensor(x, dtype=torch.float64) for x in (self.mean, self.std))
        return mean.repeat_interleave(channels // len(mean)), std.repeat_interleave(channels // len(std))

    def after(self, first: "Normalization") -> "Normalization":
        """Return the normalization that is `first`, then this one."""
        mean = np.asarray(first.mean) + np.asarray(first.std) * np.asarray(self.mean)
        return Normalization.of(mean.tolist(), (np.asarray(first.std) * np.asarray(self.std)).tolist())

    def fits(self, shape: Shape) -> bool:
        """Return whether the means and stds fit the channels of images of `shape`, `(C, H, W)` or `(features,)`."""
        return not any(self._unfit(shape))

    def _unfit(self, shape: Shape) -> Iterator[str]:
        """Yield "3 means" or the like if their number does not fit the channels."""
        for name, numbers in (("means", self.mean), ("standard deviations", self.std)):
            n = len(numbers)
            if n > 1 and (shape[0] != n if len(shape) > 1 else prod(shape) % n):
                yield f"{n} {name}"

    def check(self, shape: Shape) -> None:
        """Raise `DataError` if this cannot be the normalization of images of `shape` in 0..1."""
        for unfit in self._unfit(shape):
            raise DataError(f"got {unfit} for images of {list(shape)}: give one, or one for each channel")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if not all(map(math.isfinite, numbers)):
                raise DataError(f"{name}: must be finite, got {_short(numbers)}")
            if max(numbers) > 1:
                known = ",".join(f"{x / 255:.4g}" for x in numbers)
                raise DataError(
                    f"{name}: must be at most 1, as images are in 0..1, got {max(numbers):g}; "
                    f"if it is a {name} of images in 0..255, give {known}"
                )
        if min(self.std) <= 0:
            raise DataError(f"std: must be above 0, got {_short(self.std)}")

    def __str__(self) -> str:
        if self == AS_THEY_ARE:
            return "pixels from 0 to 1"
        if self == RAW:
            return "pixels from 0 to 255"
        mean, std = self._texts()
        return f"pixels from 0 to 1, minus {mean}, divided by {std}"

    @property
    def option(self) -> str:
        """Options of `convert` for this normalization."""
        if self == RAW:
            return "--raw"
        mean, std = self._texts()
        return f"--mean {mean} --std {std}"

    def _texts(self) -> tuple[str, str]:
        """Return mean and std as text, with a comma between channels."""
        mean, std = (",".join(f"{x:.4g}" for x in numbers) for numbers in (self.mean, self.std))
        return mean, std

    def as_json(self) -> dict[str, Any]:
        """Return `mean` and `std` as JSON values: a number each, or a list with one for each channel."""
        return {"mean": _short(self.mean), "std": _short(self.std)}


AS_THEY_ARE = Normalization()
"""Normalization of ANNs that take images in 0..1."""
OF_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Normalization of ImageNet, with which torchvision's models were trained."""
RAW = Normalization(std=(1 / 255,))
"""Normalization of ANNs that take images in 0..255."""


def usual_normalizations(images: Tensor) -> list[Normalization]:
    """Return the normalizations that are common for ANNs trained on these images, `[N, C, H, W]`, uint8.

    These are: 0..1; -1..1; 0..255; the mean and std of each channel of the images; for three channels, ImageNet's.
    """
    found = [AS_THEY_ARE, Normalization((0.5,), (0.5,)), RAW]
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(1):
        part = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = float(part @ levels)
        means.append(round(mean, 4))
        stds.append(round(float(part @ (levels - mean) ** 2) ** 0.5, 4))
    if min(stds) > 0:
        found.append(Normalization.of(means, stds))
    return [*found, OF_IMAGENET] if images.shape[1] == len(OF_IMAGENET.mean) else found


def _short(numbers: Numbers) -> float | list[float]:
    return list(numbers) if len(numbers) > 1 else numbers[0]
