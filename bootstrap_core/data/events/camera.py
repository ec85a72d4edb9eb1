"""Simulated event camera that looks at still images while it moves in saccades, as that of N-MNIST did.

Each pixel follows the logarithm of the intensity with a low-pass filter. When that differs from its value at the
pixel's last event by more than a threshold, the pixel sends an event: ON for brighter, OFF for darker. The values of
`Camera` were fitted to N-MNIST's recordings of the first 64 training images of MNIST; there digits are dark on light.

Sources: Lichtsteiner et al. 2008, A 128x128 120 dB 15 us Latency Asynchronous Temporal Contrast Vision Sensor (pixel);
Orchard et al. 2015, Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades (movement).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.data.events.recordings import Events

CHUNK = 64
"""Number of images simulated at once; their states then fit into the cache."""
MARGIN = 8
"""Pixels around the sensor that the movement may bring into view."""
KERNEL = 3
"""Radius of the blur's kernel in pixels."""


@dataclass(frozen=True)
class Camera:
    """Simulated event camera; the defaults are those of N-MNIST.

    Attributes:
        size: rows and columns of the sensor.
        saccades: movements of the image, one after another: start and end in milliseconds, and distances to the right
            and down in pixels; the speed is a squared half sine.
        start: place of the image's centre at the start, in pixels right and down from that of the sensor.
        wander: standard deviation of `start` from one recording to the next, in pixels.
        blur: standard deviation of the optics' blur, in pixels.
        darkest: intensity of a white pixel of the image, which is shown inverted: black is 1 + `darkest`.
        lag_ms: time constant of the low-pass filter.
        threshold: change of the logarithm that makes an event.
        spread: standard deviation of the thresholds of the pixels, as a part of `threshold`.
        noise_hz: events per second of each pixel that have no cause.
        step_ms: time step; a pixel sends at most one event in each.
    """

    size: tuple[int, int] = (34, 34)
    saccades: tuple[tuple[float, float, float, float], ...] = (
        (4.1, 88.1, 2.6, 4.9),
        (103.5, 191.0, 3.4, -5.4),
        (208.3, 304.4, -6.0, 0.5),
    )
    start: tuple[float, float] = (-3.4, -1.1)
    wander: float = 0.2
    blur: float = 0.46
    darkest: float = 0.15
    lag_ms: float = 4.5
    threshold: float = 0.2
    spread: float = 0.05
    noise_hz: float = 0.33
    step_ms: float = 2.5
    end_ms: float = 316.0

    def place(self, ms: float) -> tuple[float, float]:
        """Return the place of the image's centre at a time, in pixels right and down from that of the sensor."""
        right, down = self.start
        for begin, end, x, y in self.saccades:
            done = min(max((ms - begin) / (end - begin), 0), 1)
            part = done - math.sin(2 * math.pi * done) / (2 * math.pi)
            right, down = right + part * x, down + part * y
        return right, down


def simulate(images: Tensor, camera: Camera = Camera(), *, seed: int = 0) -> Iterator[Events]:
    """Yield the recording of each image; the same seed and images give the same recordings.

    Args:
        images: grey images, uint8 `[N, 1, H, W]`; one of their pixels is as large as one of the sensor.

    >>> digit = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    >>> digit[:, :, 4:24, 12:16] = 255
    >>> (events,) = simulate(digit)
    >>> 1000 < len(events) < 5000, bool((events.t[1:] >= events.t[:-1]).all())
    (True, True)
    """
    generator = torch.Generator().manual_seed(seed)
    mean_noise = camera.noise_hz * camera.end_ms / 1000 * math.prod(camera.size)
    for part in images.split(CHUNK):
        signs = _signs(_scene(part, camera, generator), camera, generator).numpy()  # [N, steps, H, W]
        for own in signs:
            places = np.flatnonzero(own != 0)  # of bools in NumPy, which is several times faster than other ways
            steps, pixels = np.divmod(places, math.prod(camera.size))
            within = torch.rand(len(places), generator=generator).numpy()  # times within a step are drawn
            n_noise = int(torch.poisson(torch.tensor(mean_noise), generator))
            noise = torch.rand(3, n_noise, generator=generator).numpy()
            pixels = np.concatenate([pixels, (noise[0] * math.prod(camera.size)).astype(np.int64)])
            polarity = np.concatenate([own.reshape(-1)[places] > 0, noise[1] < 0.5])
            ms = np.concatenate([(steps + within) * camera.step_ms, noise[2] * camera.end_ms])
            order = ms.argsort(kind="stable")
            y, x = np.divmod(pixels[order], camera.size[1])
            yield Events(x, y, polarity[order].astype(np.int64), (ms[order] * 1000).astype(np.int64))


def _signs(scene: Tensor, camera: Camera, generator: torch.Generator) -> Tensor:
    """Return the events of scenes, int8 `[N, steps, H, W]`: 1 for ON, -1 for OFF, 0 for none in a step."""
    seen = _view(scene, camera.size, *camera.place(0.0)).clone()
    last = seen.clone()
    per_threshold = 1 / (camera.threshold * (1 + camera.spread * torch.randn(seen.shape, generator=generator)))
    passed = 1 - math.exp(-camera.step_ms / camera.lag_ms)
    n_steps = round(camera.end_ms / camera.step_ms)
    signs = torch.empty((len(scene), n_steps, *camera.size), dtype=torch.int8)
    for step in range(n_steps):
        seen.lerp_(_view(scene, camera.size, *camera.place((step + 1) * camera.step_ms)), passed)
        change = seen - last
        sign = (change * per_threshold).trunc_().sign_()
        signs[:, step] = sign
        last.addcmul_(change, sign.abs_())  # comparisons would take several times as long
    return signs


def _scene(images: Tensor, camera: Camera, generator: torch.Generator) -> Tensor:
    """Return logarithms of the intensity, `[N, H, W]` with a margin; each image is moved at random, see `wander`."""
    height, width = (size + 2 * MARGIN for size in camera.size)
    wander = camera.wander * torch.randn(len(images), 1, 1, 2, generator=generator)
    x = torch.arange(width) - (width - 1) / 2
    y = torch.arange(height) - (height - 1) / 2
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1) - wander  # [N, H, W, 2]
    scale = torch.tensor([2 / images.shape[3], 2 / images.shape[2]])
    shown = F.grid_sample(images.float() / 255, grid * scale, padding_mode="zeros", align_corners=False)
    kernel = torch.exp(-((torch.arange(-KERNEL, KERNEL + 1) / camera.blur) ** 2) / 2)
    kernel /= kernel.sum()
    shown = F.conv2d(shown, kernel.view(1, 1, 1, -1), padding=(0, KERNEL))
    shown = F.conv2d(shown, kernel.view(1, 1, -1, 1), padding=(KERNEL, 0))
    return (1 - shown[:, 0] + camera.darkest).log_()


def _view(scene: Tensor, size: tuple[int, int], x: float, y: float) -> Tensor:
    """Return what the sensor sees `[N, *size]` if the scene is `x` to the right and `y` down; bilinear."""
    (left, part_x), (top, part_y) = ((math.floor(MARGIN - shift), (MARGIN - shift) % 1) for shift in (x, y))
    height, width = size
    rows = torch.lerp(scene[:, top : top + height], scene[:, top + 1 : top + 1 + height], part_y)
    return torch.lerp(rows[:, :, left : left + width], rows[:, :, left + 1 : left + 1 + width], part_x)
