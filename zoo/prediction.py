"""Classifying image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bootstrap_core.events import animate
from bootstrap_core.image_files import read_pixels
from bootstrap_core.mode import Mode
from bootstrap_core.network import Network
from specs.errors import SnnZooError
from specs.fields import Shape

__all__ = ["Prediction", "animate_prediction", "predict_files"]


@dataclass(frozen=True)
class Prediction:
    """One image file, as the network saw it `[C, H, W]`, its class, and the softmax of its logits."""

    path: Path
    image: Tensor
    label: int
    scores: list[float]


def predict_files(network: Network, paths: Sequence[Path], *, invert: bool = False) -> list[Prediction]:
    """Classify image files, made grey and resized to the network's input.

    Args:
        network: classifies as SNN.
        paths: of files that Pillow reads.
        invert: for dark strokes on light paper; networks of MNIST expect light on dark.

    Raises:
        DataError: a file cannot be read as an image.
        SnnZooError: Pillow is missing, or the network takes no images.
    """
    images = torch.stack([_read_image(path, network.spec.input.shape) for path in paths])
    images = 1 - images if invert else images
    with torch.no_grad():
        scores = network(images, Mode.SNN).softmax(1)
    return [
        Prediction(path, image, int(score.argmax()), score.tolist())
        for path, image, score in zip(paths, images, scores, strict=True)
    ]


def animate_prediction(network: Network, prediction: Prediction, path: Path) -> Path:
    """Write the spikes of the last spiking block as an animation, beside the image."""
    with torch.no_grad():
        _, trace = network.run(prediction.image[None], Mode.SNN)
    spikes = trace.spikes[-2]
    assert spikes is not None
    return animate(spikes[:, 0], path, image=prediction.image[0])


def _read_image(path: Path, shape: Shape) -> Tensor:
    """Grey image `[1, H, W]` in 0..1, resized to the input; a flat input is taken as a square."""
    side = round(shape[0] ** 0.5)
    height, width = shape[1:] if len(shape) == 3 else (side, side)
    if height * width != torch.Size(shape).numel():
        raise SnnZooError(f"the input {list(shape)} is no grey image")
    return read_pixels(path, channels=1, height=height, width=width).float() / 255
