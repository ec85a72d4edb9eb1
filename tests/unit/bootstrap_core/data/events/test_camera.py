"""The simulated event camera."""

import numpy as np
import pytest
import torch

from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.events.camera import Camera, Saccade, simulate
from bootstrap_core.data.events.recordings import Events

QUIET = {"noise_hz": 0.0, "wander": 0.0, "spread": 0.0}


def bar() -> torch.Tensor:
    """Return an image with a vertical bar in its middle."""
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[:, :, 6:22, 12:16] = 255
    return image


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def one(images: torch.Tensor, camera: Camera, seed: int = 0) -> Events:
    (events,) = simulate(images, camera, seed=seed)
    return events


def test_a_still_camera_sees_nothing_but_noise() -> None:
    assert len(one(bar(), Camera(saccades=(), **QUIET))) == 0
    noise = one(bar(), Camera(saccades=(), **QUIET | {"noise_hz": 10.0}))
    assert len(noise) == pytest.approx(10 * 0.316 * 34 * 34, rel=0.05)
    assert [mean(noise.x), mean(noise.y), mean(noise.p), mean(noise.t)] == pytest.approx(
        [16.5, 16.5, 0.5, 158_000], rel=0.05
    )


@pytest.mark.parametrize(("x", "y"), [(4, 0), (-4, 0), (0, 4), (0, -4)])
def test_a_dark_bar_that_moves_darkens_what_is_before_it(x: int, y: int) -> None:
    camera = Camera(saccades=(Saccade(20, 120, x, y),), start=(0.0, 0.0), **QUIET)
    events = one(bar(), camera)
    off, on = (events.p == 0), (events.p == 1)
    ahead = (mean(events.x[off]) - mean(events.x[on]), mean(events.y[off]) - mean(events.y[on]))
    assert ahead[0] * x + ahead[1] * y > 8
    assert abs(ahead[0] * y + ahead[1] * x) < 0.5
    assert events.t.min() > 20_000
    assert events.t.max() < 120_000 + 5 * camera.lag_ms * 1000
    assert set(np.unique(events.p)) == {0, 1}


def test_the_seed_decides_and_recordings_differ() -> None:
    images = bar().expand(70, -1, -1, -1)
    every = list(simulate(images))
    assert len(every) == 70
    for events, again in zip(every, simulate(images), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(events, again, strict=True))
    assert len({len(events) for events in every}) > 10
    assert len(one(bar(), Camera(), seed=1)) != len(every[0])


def test_statistics_are_those_of_n_mnist() -> None:
    """Figures of N-MNIST's recordings of the first 1,000 training images, each beside the largest deviation."""
    every = list(simulate(load_dataset("mnist-sample").train.images[:200]))
    t, p = (np.concatenate([getattr(events, name) for events in every]) for name in "tp")
    assert np.mean([len(events) for events in every]) == pytest.approx(4133, rel=0.1)
    assert np.std([len(events) for events in every]) == pytest.approx(1154, rel=0.15)
    assert p.mean() == pytest.approx(0.498, abs=0.01)
    shares = np.histogram(t, [0, 105_000, 210_000, 400_000])[0] / len(t)
    assert shares == pytest.approx([0.364, 0.329, 0.307], abs=0.03)
    places = np.unique(np.concatenate([events.y * 34 + events.x + 1156 * i for i, events in enumerate(every)]))
    assert len(places) / len(every) == pytest.approx(448, rel=0.1)
