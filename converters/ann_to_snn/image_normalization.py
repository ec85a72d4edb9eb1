"""What was done to images before an ANN saw them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specs.errors import DataError
from specs.fields import Shape

__all__ = ["AS_THEY_ARE", "Normalization", "usual_normalizations"]

Numbers = tuple[float, ...]
"""One number, or one for each channel."""


@dataclass(frozen=True)
class Normalization:
    """`(x - mean) / std` of images: alike for all of their numbers, or of each channel.

    Images `[N, C, H, W]` have C channels; of images in a row, `[N, features]`, a channel is `features / C` numbers.

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
        """Of a number each, or one for each channel."""
        return cls(*(tuple(np.atleast_1d(np.asarray(x, np.float64)).tolist()) for x in (mean, std)))

    def __call__(self, images: Tensor) -> Tensor:
        """Images `[N, ...]`, normalised."""
        if len(self.mean) == len(self.std) == 1:
            return (images - self.mean[0]) / self.std[0]
        mean, std = (x.to(images.dtype).reshape(-1, *[1] * (images.dim() - 2)) for x in self.each(images.shape[1]))
        return (images - mean) / std

    def each(self, channels: int) -> tuple[Tensor, Tensor]:
        """Means and deviations, float64 `[channels]`."""
        mean, std = (torch.tensor(x, dtype=torch.float64) for x in (self.mean, self.std))
        return mean.repeat_interleave(channels // len(mean)), std.repeat_interleave(channels // len(std))

    def after(self, first: "Normalization") -> "Normalization":
        """Both, `first` first."""
        mean = np.asarray(first.mean) + np.asarray(first.std) * np.asarray(self.mean)
        return Normalization.of(mean.tolist(), (np.asarray(first.std) * np.asarray(self.std)).tolist())

    def fits(self, shape: Shape) -> bool:
        """Whether images of `shape`, `[C, H, W]` or `[features]`, have so many channels."""
        return not any(self._unfit(shape))

    def _unfit(self, shape: Shape) -> Iterator[str]:
        for name, numbers in (("means", self.mean), ("deviations", self.std)):
            n = len(numbers)
            if n > 1 and (shape[0] != n if len(shape) > 1 else prod(shape) % n):
                yield f"{n} {name}"

    def check(self, shape: Shape) -> None:
        """Raise `DataError` where images of `shape`, in 0..1, cannot have these."""
        for unfit in self._unfit(shape):
            raise DataError(f"{unfit}, for images {list(shape)}: give one, or one for each channel")
        if max(self.mean) > 1:
            known = ",".join(f"{x / 255:.4g}" for x in self.mean)
            raise DataError(f"a mean of {max(self.mean):g}, of images in 0..1: if they were in 0..255, it is {known}")

    def __str__(self) -> str:
        if self == AS_THEY_ARE:
            return "in 0..1, as they are"
        mean, std = (",".join(f"{x:.4g}" for x in numbers) for numbers in (self.mean, self.std))
        return f"in 0..1, less {mean}, divided by {std}"

    @property
    def option(self) -> str:
        """How `convert` is told of it."""
        if self == RAW:
            return "--raw"
        mean, std = (",".join(f"{x:.4g}" for x in numbers) for numbers in (self.mean, self.std))
        return f"--mean {mean} --std {std}"

    def as_json(self) -> dict[str, Any]:
        """`mean` and `std`: numbers, or lists of one for each channel."""
        return {"mean": _short(self.mean), "std": _short(self.std)}


AS_THEY_ARE = Normalization()
"""Of images in 0..1."""
OF_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What torchvision's models of coloured images were trained on."""
RAW = Normalization(std=(1 / 255,))


def usual_normalizations(images: Tensor) -> list[Normalization]:
    """What ANNs for images `[N, C, H, W]`, uint8, were mostly trained on.

    As they are; in -1..1; in 0..255; less their mean, divided by their deviation, of each channel; as ImageNet's, if
    they have three.
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
