"""Classifying image files: of any size, brought to what the network was trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.analysis.spike_events import animate
from bootstrap_core.data.image_files import Size, image_shape, open_image, plain_image, read_pixels, upright_size
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from specs.block import has_neurons
from specs.errors import DataError, SnnZooError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FRAMINGS", "Framing", "Prediction", "animate_prediction", "predict_files"]

CONTENT = 0.2
"""Brighter than this part of the range between background and brightest pixel is content."""
BLANK = "blank"
BATCH = 250
"""Images that are classified at once."""
LEAST_CONTRAST = 0.1
"""Between lightest and darkest, with less of which an image shows nothing."""


@dataclass(frozen=True)
class Framing:
    """How a dataset's makers put what an image shows into its frame.

    Attributes:
        part: of the frame's height and width that the longer side fills.
        by_mass: whether the centre of mass is in the middle of the frame, or that of the box around it.
    """

    part: float
    by_mass: bool


FRAMINGS = {
    # Y. LeCun et al., the MNIST database: 20x20 in 28x28, by the centre of mass
    "mnist": Framing(20 / 28, by_mass=True),
    # H. Xiao et al., Fashion-MNIST, 2017, section 2: longest edge 28, box in the middle
    "fashion-mnist": Framing(1.0, by_mass=False),
}
FRAMINGS["mnist-sample"] = FRAMINGS["mnist"]


@dataclass(frozen=True)
class Prediction:
    """One image file, as the network saw it `[C, H, W]`, its class, and the softmax of its logits.

    `done` says what was done to the image.
    """

    path: Path
    image: Tensor
    label: int
    scores: list[float]
    done: str

    def likeliest(self, n: int) -> list[int]:
        """The `n` classes with the highest scores, the highest first."""
        return nlargest(n, range(len(self.scores)), key=self.scores.__getitem__)

    @property
    def is_blank(self) -> bool:
        """Whether the network saw nothing."""
        return BLANK in self.done or min(self.scores) == max(self.scores)


def predict_files(
    network: Network,
    paths: Sequence[Path],
    *,
    data: str | None = None,
    shape: Size | None = None,
    invert: bool | None = None,
    on_unreadable: Callable[[DataError], object] | None = None,
) -> list[Prediction]:
    """Classify image files, brought to the network's input.

    They are read as images of one's own are for training: turned as their camera says, made grey or of three colours,
    resized. For data of `FRAMINGS`, a file of another size is framed as that: what it shows is cut out, made as large,
    and centred.

    Args:
        network: classifies as SNN.
        paths: of files that Pillow reads.
        data: the dataset that the network was trained on.
        shape: `(C, H, W)` of its images; by default that of the input, or if they enter in a row, a square.
        invert: whether light becomes dark; by default for data of `FRAMINGS`, which is light on dark, if the image goes
            farther below its edge than above it, as ink on paper.
        on_unreadable: called with what is wrong with a file, which is left out; by default that is raised.

    Raises:
        DataError: a file cannot be read as an image.
        SnnZooError: Pillow is missing, or the network takes no grey or coloured images.
    """
    shape = shape or image_shape(network.spec.input.shape)
    if shape is None:
        raise SnnZooError(f"the input {list(network.spec.input.shape)} is no image, grey or of three colours")
    seen = []
    for path in paths:
        try:
            seen.append((path, *_read_image(path, shape, FRAMINGS.get(data or ""), invert)))
        except DataError as error:
            if on_unreadable is None:
                raise
            on_unreadable(error)
    if not seen:
        return []
    with torch.no_grad():
        images = torch.stack([image for _, image, _ in seen])
        scores = torch.cat([network(some, Mode.SNN).softmax(1) for some in images.split(BATCH)])
    return [
        Prediction(path, image, int(score.argmax()), score.tolist(), done)
        for (path, image, done), score in zip(seen, scores, strict=True)
    ]


def animate_prediction(network: Network, prediction: Prediction, path: Path) -> Path:
    """Write the spikes of the last spiking block as an animation, beside the image in grey."""
    with torch.no_grad():
        _, trace = network.run(prediction.image[None], Mode.SNN)
    spikes = [
        spikes
        for layer, spikes in zip(network.spec.layers, trace.spikes, strict=True)
        if spikes is not None and has_neurons(layer)
    ]
    if not spikes:
        raise SnnZooError(f"no neuron of {network.spec.name} spikes: there is nothing to animate")
    return animate(spikes[-1][:, 0], path, image=prediction.image.mean(0))


def _read_image(path: Path, shape: Size, framing: Framing | None, invert: bool | None) -> tuple[Tensor, str]:
    """Image `[C, H, W]` in 0..1, and what was done to it."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: name the images in it, as {path / '*.png'}")
    channels, height, width = shape
    if framing is not None and channels == 1:
        return _read_framed(path, framing, height, width, invert)
    with open_image(path) as file:
        high, wide = upright_size(file)
    done = [f"{wide}x{high}"]
    image = read_pixels(path, channels=channels, height=height, width=width).float() / 255
    if (high, wide) != (height, width):
        done.append(f"resized to {width}x{height}")
    if float(image.max() - image.min()) < LEAST_CONTRAST:
        done.append(BLANK)
    if invert:
        image = 1 - image
        done.append("inverted")
    return image, ", ".join(done)


def _read_framed(path: Path, framing: Framing, height: int, width: int, invert: bool | None) -> tuple[Tensor, str]:
    """Grey image `[1, H, W]` in 0..1, and what was done to it."""
    with open_image(path) as image:
        grey = _as_grey(plain_image(path, image))
    done = [f"{grey.shape[1]}x{grey.shape[0]}"]
    if float(grey.max() - grey.min()) < LEAST_CONTRAST:
        done.append(BLANK)
    if invert or (invert is None and _is_dark_on_light(grey)):
        grey = 1 - grey
        done.append("inverted")
    if grey.shape != (height, width):
        grey = _frame(grey, framing, height, width)
        done.append(f"cut out and centred in {width}x{height}, as in its data")
        if BLANK not in done and float(grey.max() - grey.min()) < LEAST_CONTRAST:
            done.append(BLANK)
    return grey[None], ", ".join(done)


def _as_grey(image: "Image") -> Tensor:
    """`[H, W]` in 0..1."""
    if image.mode.startswith("I"):
        return torch.from_numpy(np.asarray(image).astype(np.float32) / 65535).clamp(0, 1)
    return torch.from_numpy(np.asarray(image.convert("L")).astype(np.float32) / 255)


def _edge(grey: Tensor) -> Tensor:
    return torch.cat([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _is_dark_on_light(grey: Tensor) -> bool:
    background = _edge(grey).median()
    return bool(background - grey.min() > grey.max() - background)


def _frame(grey: Tensor, framing: Framing, height: int, width: int) -> Tensor:
    """What stands out of the background, on black, as large and as central as `framing` says."""
    background = _edge(grey).median()
    spread = (grey.max() - background).clamp_min(1 / 255)
    light = ((grey - background) / spread).clamp(0, 1)
    rows, columns = ((light > CONTENT).any(axis).nonzero().flatten() for axis in (1, 0))
    if len(rows) == 0:
        return torch.zeros(height, width)
    light = light[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = framing.part * min(height / light.shape[0], width / light.shape[1])
    light = _resize(light, *(max(1, round(side * scale)) for side in light.shape))
    # from the corner to the middle, in pixels: of the content, and of the frame
    content = [(side - 1) / 2 for side in light.shape]
    middle = [(side - 1) / 2 for side in (height, width)]
    if framing.by_mass:
        mass = (light.sum(1), light.sum(0))
        content = [float(part @ torch.arange(float(len(part))) / part.sum()) for part in mass]
        middle = [height / 2, width / 2]  # 14, 14: so do the images of MNIST lie, to half a pixel
    top, left = (
        min(max(round(wanted - found), 0), side - size)  # nothing leaves the frame
        for wanted, found, side, size in zip(middle, content, (height, width), light.shape, strict=True)
    )
    frame = torch.zeros(height, width)
    frame[top : top + light.shape[0], left : left + light.shape[1]] = light
    return frame


def _resize(grey: Tensor, height: int, width: int) -> Tensor:
    """Bilinear; averaging where it shrinks."""
    sized = F.interpolate(grey[None, None], (height, width), mode="bilinear", align_corners=False, antialias=True)
    return sized[0, 0].clamp(0, 1)
