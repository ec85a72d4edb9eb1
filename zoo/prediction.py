"""Classification of files: images of any size, framed like those of the training, sounds, or recordings of events."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from heapq import nlargest
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.analysis.spike_events import animate
from bootstrap_core.data.class_folders import EVENT_SUFFIXES, IMAGE_SUFFIXES, SOUND_SUFFIX, Content, content_of
from bootstrap_core.data.events.binning import EventBins, bin_events
from bootstrap_core.data.events.recordings import read_events
from bootstrap_core.data.image_files import Size, image_shape, open_image, plain_image, read_pixels, upright_size
from bootstrap_core.data.sound_files import picture_columns, read_sound, sound_picture
from bootstrap_core.data.splits import time_first
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from specs.errors import DataError, SnnZooError
from specs.layers.block import has_neurons
from specs.layers.input import LogMelSpec

if TYPE_CHECKING:
    from PIL.Image import Image

Read = TypeVar("Read")

CONTENT = 0.2
"""Brightness above which a pixel is content, from 0 for the background to 1 for the brightest pixel."""
BATCH = 250
"""Number of images classified at once."""
LEAST_CONTRAST = 0.1
"""Smallest difference between the lightest and the darkest pixel, in 0..1, of an image that is not blank."""


@dataclass(frozen=True)
class Framing:
    """Placement of the content in the images of a dataset.

    Attributes:
        part: share of the image's height and width into which the content is fitted.
        by_mass: True if the centre of mass is in the middle of the image; else the centre of the bounding box is.
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
class Seen:
    """Content of a file, as a network takes it.

    Attributes:
        image: an image or the picture of a sound, `[C, H, W]` in 0..1; the number of events in each step,
            `[T, C, H, W]`; or the columns of the picture of a sound, `[T, 1, bands, 1]`.
        changes: size or length of the file, and changes made to its content, for people.
        is_empty: True if the file has nothing to see or hear: too little contrast, no sound, no events.
        is_short: True if a sound is shorter than one Fourier window.
    """

    image: Tensor
    changes: Sequence[str]
    is_empty: bool
    is_short: bool = False

    @property
    def done(self) -> str:
        """All changes."""
        return ", ".join([*self.changes, *(["blank"] if self.is_empty else [])])


@dataclass(frozen=True)
class Prediction(Seen):
    """Classification of one image file, sound, or recording of events.

    Attributes:
        scores: probability of each class, the softmax of the logits times the `logit_scale` of the spec.
    """

    _: KW_ONLY
    path: Path
    scores: list[float]

    @property
    def label(self) -> int:
        """Index of the class with the highest score."""
        return self.scores.index(max(self.scores))

    def likeliest(self, n: int) -> list[int]:
        """Return the `n` classes with the highest scores, the highest first."""
        return nlargest(n, range(len(self.scores)), key=self.scores.__getitem__)

    @property
    def is_blank(self) -> bool:
        """True if the file is empty, or all classes have the same score."""
        return self.is_empty or min(self.scores) == max(self.scores)

    @property
    def doubt(self) -> str | None:
        """Reason why the class means nothing, to follow the name of the file in a sentence; None without a reason."""
        return "is blank for the network" if self.is_blank else "is too short" if self.is_short else None


def predict_files(
    network: Network | IntegerNetwork,
    paths: Sequence[Path],
    *,
    data: str | None = None,
    shape: Size | None = None,
    invert: bool | None = None,
    time_steps: int | None = None,
    on_unreadable: Callable[[DataError], object] | None = None,
    on_skipped: Callable[[str], object] = lambda note: None,
) -> list[Prediction]:
    """Classify files of images, of sounds or of events, whichever the network takes.

    Images are read like a user's own training images: turned upright, converted to grey or three colours, and resized.
    If the network was trained on a dataset of `FRAMINGS`, images of another size are framed like it instead: their
    content is cut out, scaled, and centred.

    Args:
        network: run as SNN; an `IntegerNetwork` keeps to the chip's limits.
        paths: image files that Pillow can read, WAV files, or recordings that `read_events` reads. A folder stands for
            those in it.
        data: name of the dataset that the network was trained on.
        shape: `(C, H, W)` of its images or frames; by default the shape of the network's input, or if that is flat, a
            square for images.
        invert: whether to swap light and dark. By default only images for datasets of `FRAMINGS`, which are light on
            dark, are inverted: those that go farther below the brightness of their edge than above, like ink on paper.
        time_steps: T, by default the spec's; of recordings of events as many steps are read.
        on_unreadable: called with the error of a file that cannot be read, which is left out; by default it is raised.
        on_skipped: called with a note if a folder also has other files, which are left out.

    Raises:
        DataError: a file cannot be read, or a folder has none.
        SnnZooError: Pillow is missing, or the network's input is not a grey or coloured image.
    """
    log_mel, bins = network.spec.input.log_mel, EventBins.of(network.spec, shape)
    shape = shape or image_shape(network.spec.input.shape)
    read: Callable[[Path], Seen]
    if log_mel is not None:
        bits = None if bins is None else bins.bits
        read, suffixes, taken = partial(_read_sound, log_mel=log_mel, bits=bits), {SOUND_SUFFIX}, Content.SOUNDS
    elif bins is not None:
        bins = replace(bins, time_steps=time_steps or bins.time_steps)
        read, suffixes, taken = partial(_read_events, bins=bins), EVENT_SUFFIXES, Content.EVENTS
    elif shape is not None:
        framing = FRAMINGS.get(data or "")
        read = partial(_read_image, shape=shape, framing=framing, invert=invert)
        suffixes, taken = IMAGE_SUFFIXES, Content.IMAGES
    else:
        raise SnnZooError(f"the network's input {list(network.spec.input.shape)} is not a grey or three-colour image")

    def read_checked(path: Path) -> Seen:
        if content_of(path.name) not in {None, taken}:
            raise DataError(f"{path}: {network.spec.name} takes {taken}, not {content_of(path.name)}")
        return read(path)

    seen = read_files(paths, suffixes, read_checked, on_unreadable=on_unreadable, on_skipped=on_skipped)
    if not seen:
        return []
    with torch.no_grad():
        images = torch.stack([one.image for _, one in seen])
        batches = map(time_first, images.split(BATCH))
        scores = torch.cat([network.probabilities(some, time_steps=time_steps) for some in batches])
    return [
        Prediction(**vars(one), path=path, scores=score.tolist())
        for (path, one), score in zip(seen, scores, strict=True)
    ]


def read_files(
    paths: Sequence[Path],
    suffixes: set[str],
    read: Callable[[Path], Read],
    *,
    on_unreadable: Callable[[DataError], object] | None = None,
    on_skipped: Callable[[str], object] = lambda note: None,
) -> list[tuple[Path, Read]]:
    """Return each file and what `read` makes of it; a folder stands for those of its files that have one of `suffixes`.

    `on_unreadable` and `on_skipped` are those of `predict_files`. Raises `DataError` as it does.
    """
    found = []
    for path in chain.from_iterable(_files_in(path, suffixes, on_skipped) for path in paths):
        try:
            if path.is_dir():
                raise DataError(f"{path} is a folder without {', '.join(sorted(suffixes))} files")
            found.append((path, read(path)))
        except DataError as error:
            if on_unreadable is None:
                raise
            on_unreadable(error)
    return found


def animate_prediction(
    network: Network | IntegerNetwork, prediction: Prediction, path: Path, *, time_steps: int | None = None
) -> Path:
    """Write the spikes of the last spiking block as an animation, beside the image or the events; return the path.

    Raises `SnnZooError` if the network has no spiking block.
    """
    with torch.no_grad():
        _, trace = network.run(time_first(prediction.image[None]), Mode.SNN, time_steps=time_steps)
    spikes = [
        spikes
        for layer, spikes in zip(network.spec.layers, trace.spikes, strict=True)
        if spikes is not None and has_neurons(layer)
    ]
    if not spikes:
        raise SnnZooError(f"{network.spec.name} has no spiking block to animate")
    return animate(spikes[-1][:, 0], path, image=prediction.image)


def _files_in(path: Path, suffixes: set[str], on_skipped: Callable[[str], object]) -> list[Path]:
    """Return the files with these suffixes in a folder, sorted; `path` itself if it is a file, or has none of them."""
    files = [file for file in path.iterdir() if file.name[0] != "."] if path.is_dir() else []
    found = sorted(file for file in files if file.suffix.lower() in suffixes)
    if found and len(found) < len(files):
        on_skipped(f"{path}: {len(files) - len(found):,} without {', '.join(sorted(suffixes))} skipped")
    return found or [path]


def _read_sound(path: Path, log_mel: LogMelSpec, bits: int | None) -> Seen:
    """Read the picture of a recording, `[1, bands, frames]` in 0..1.

    With `bits`, read the columns of the picture instead, `[frames, 1, bands, 1]`; see `picture_columns`.
    """
    samples, rate = read_sound(path)
    done = [f"{len(samples) / rate:.2f} s"]
    if rate != log_mel.sample_rate:
        done.append(f"resampled from {rate:,} to {log_mel.sample_rate:,} samples per second")
    window = log_mel.window / log_mel.sample_rate
    is_short = len(samples) / rate < window
    if is_short:
        done.append(f"too short: less than one Fourier window of {window:.3g} s")
    shown = log_mel.frames * log_mel.hop / log_mel.sample_rate
    if len(samples) / rate > shown:
        done.append(f"cut to {shown:.2f} s around its centre of power")
    picture = sound_picture(path, log_mel)
    image = picture.float() / 255 if bits is None else picture_columns(picture, bits).float()
    return Seen(image, done, is_empty=int(picture.max()) < 255 * LEAST_CONTRAST, is_short=is_short)


def _read_events(path: Path, bins: EventBins) -> Seen:
    """Read the frames of a recording, `[T, C, H, W]`."""
    events = read_events(path)
    frames, n_after = bin_events(events, bins, str(path))
    done = [f"{len(events):,} events in {events.t[-1] / 1000:,.1f} ms"]
    if n_after:
        end = len(frames) * bins.bin_us / 1000
        done.append(f"{n_after:,} after {end:,.0f} ms, the last time step, left out")
    used = int(events.t[-1]) // bins.bin_us + 1
    if used < len(frames):
        done.append(f"no events in the last {len(frames) - used} of {len(frames)} time steps")
    return Seen(frames.float(), done, is_empty=not frames.any())


def _read_image(path: Path, shape: Size, framing: Framing | None, invert: bool | None) -> Seen:
    """Read an image, `[C, H, W]` in 0..1."""
    channels, height, width = shape
    if framing is not None and channels == 1:
        return _read_framed(path, framing, height, width, invert)
    with open_image(path) as file:
        high, wide = upright_size(file)
    done = [f"{wide}x{high}"]
    image = read_pixels(path, channels=channels, height=height, width=width).float() / 255
    if (high, wide) != (height, width):
        done.append(f"resized to {width}x{height}")
    if channels > 1 and (image == image[:1]).all():
        done.append("grey, where the network takes colours")
    if invert:
        image = 1 - image
        done.append("inverted")
    return Seen(image, done, is_empty=_contrast(image) < LEAST_CONTRAST)


def _read_framed(path: Path, framing: Framing, height: int, width: int, invert: bool | None) -> Seen:
    """Read a grey image, `[1, H, W]` in 0..1, framed."""
    with open_image(path) as image:
        grey = _as_grey(plain_image(path, image))
    done = [f"{grey.shape[1]}x{grey.shape[0]}"]
    contrast = _contrast(grey)
    if invert or (invert is None and _is_dark_on_light(grey)):
        grey = 1 - grey
        done.append("inverted")
    if grey.shape != (height, width):
        grey = _frame(grey, framing, height, width)
        done.append(f"cut out and centred in {width}x{height}, as in the training data")
        contrast = min(contrast, _contrast(grey))
    return Seen(grey[None], done, is_empty=contrast < LEAST_CONTRAST)


def _contrast(image: Tensor) -> float:
    return float(image.max() - image.min())


def _as_grey(image: "Image") -> Tensor:
    """Return an image as grey, `[H, W]` in 0..1."""
    if image.mode.startswith("I"):
        return torch.from_numpy(np.asarray(image).astype(np.float32) / 65535).clamp(0, 1)
    return torch.from_numpy(np.asarray(image.convert("L")).astype(np.float32) / 255)


def _background(grey: Tensor) -> Tensor:
    """Return the median brightness of the edge of a grey image `[H, W]`."""
    return torch.cat([grey[0], grey[-1], grey[:, 0], grey[:, -1]]).median()


def _is_dark_on_light(grey: Tensor) -> bool:
    background = _background(grey)
    return bool(background - grey.min() > grey.max() - background)


def _frame(grey: Tensor, framing: Framing, height: int, width: int) -> Tensor:
    """Cut out the content of a grey image `[H, W]`; scale and centre it on black, as `framing` says."""
    background = _background(grey)
    spread = (grey.max() - background).clamp_min(1 / 255)
    light = ((grey - background) / spread).clamp(0, 1)
    rows, columns = ((light > CONTENT).any(axis).nonzero().flatten() for axis in (1, 0))
    if len(rows) == 0:
        return torch.zeros(height, width)
    light = light[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = framing.part * min(height / light.shape[0], width / light.shape[1])
    light = _resize(light, *(max(1, round(side * scale)) for side in light.shape))
    # centres of content and frame, in pixels from the top left corner of each
    content = [(side - 1) / 2 for side in light.shape]
    middle = [(side - 1) / 2 for side in (height, width)]
    if framing.by_mass:
        mass = (light.sum(1), light.sum(0))
        content = [float(part @ torch.arange(float(len(part))) / part.sum()) for part in mass]
        middle = [height / 2, width / 2]  # the centre of mass of MNIST's images is at (14, 14), within half a pixel
    top, left = (
        min(max(round(wanted - found), 0), side - size)  # the content stays inside the frame
        for wanted, found, side, size in zip(middle, content, (height, width), light.shape, strict=True)
    )
    frame = torch.zeros(height, width)
    frame[top : top + light.shape[0], left : left + light.shape[1]] = light
    return frame


def _resize(grey: Tensor, height: int, width: int) -> Tensor:
    """Resize a grey image bilinearly, with averaging if it shrinks."""
    sized = F.interpolate(grey[None, None], (height, width), mode="bilinear", align_corners=False, antialias=True)
    return sized[0, 0].clamp(0, 1)
