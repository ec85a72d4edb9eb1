"""Log-mel spectrograms, against their definition in NumPy."""

import numpy as np
import pytest
import torch
from sounds import tone

from bootstrap_core.data import sound_files as module
from bootstrap_core.data.sound_files import log_mel, resample
from specs.errors import DataError, SnnZooError
from specs.layers.input import LogMelSpec

SPEC = LogMelSpec(sample_rate=4000, window=64, hop=40, bands=6, frames=9, low_hz=100, high_hz=1900, range_db=40)
NOISE = np.random.default_rng(0).normal(0, 0.1, 300) * np.hanning(300)


def mel(hertz):
    return 2595 * np.log10(1 + hertz / 700)


def expected(samples: np.ndarray, spec: LogMelSpec) -> np.ndarray:
    """Return the picture by loops over columns, bands and Fourier bins."""
    n_columns = len(samples) // spec.hop + 1
    padded = np.pad(samples, spec.window)
    power = np.zeros((spec.bands, n_columns))
    ends = mel(np.array([spec.low_hz, spec.high_hz]))
    for column in range(n_columns):
        middle = spec.window + column * spec.hop
        part = padded[middle - spec.window // 2 : middle + spec.window // 2]
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(spec.window) / spec.window)
        spectrum = np.abs(np.fft.rfft(part * hann)) ** 2
        for band in range(spec.bands):
            corners = ends[0] + (ends[1] - ends[0]) * (band + np.arange(3)) / (spec.bands + 1)
            low, peak, high = 700 * (10 ** (corners / 2595) - 1)
            for k, value in enumerate(spectrum):
                hertz = k * spec.sample_rate / spec.window
                weight = min((hertz - low) / (peak - low), (high - hertz) / (high - peak))
                power[band, column] += max(weight, 0) * value
    decibels = 10 * np.log10(power / power.max() + 1e-300)
    pixels = 255 * np.clip(1 + decibels / spec.range_db, 0, 1)
    centre = (power.sum(0) * np.arange(n_columns)).sum() / power.sum()
    picture = np.zeros((spec.bands, spec.frames))
    for column in range(n_columns):
        place = column - round(centre - (spec.frames - 1) / 2)
        if 0 <= place < spec.frames:
            picture[spec.bands - 1 - np.arange(spec.bands), place] = pixels[:, column]
    return picture


@pytest.mark.parametrize("n", [300, 150, 700])
def test_a_picture_is_what_its_definition_says(n: int) -> None:
    samples = np.resize(NOISE, n)
    found = log_mel(torch.from_numpy(samples), SPEC)
    assert (found.dtype, found.shape) == (torch.uint8, (1, 6, 9))
    assert np.abs(found[0].numpy() - expected(samples, SPEC)).max() <= 0.5 + 1e-6
    assert 0 < int(found.min(1).values.max()) < 255 == int(found.max())


def test_loudness_and_silence_around_it_change_nothing() -> None:
    picture = log_mel(torch.from_numpy(NOISE), SPEC)
    assert torch.equal(log_mel(torch.from_numpy(NOISE / 1024), SPEC), picture)
    later = np.pad(NOISE, (7 * SPEC.hop, 1000 * SPEC.hop))
    assert torch.equal(log_mel(torch.from_numpy(later), SPEC), picture)


def test_a_tone_has_the_same_samples_at_a_lower_rate() -> None:
    slow, fast = (torch.from_numpy(tone(500, rate=rate)) for rate in (8000, 44_100))
    assert torch.allclose(resample(fast, 44_100, 8000), slow, atol=1e-6)
    above = torch.from_numpy(tone(6000, rate=44_100))
    assert float(resample(above, 44_100, 8000).abs().max()) < 1e-6
    assert resample(torch.ones(1), 1 << 31, 8000).tolist() == [1]
    with pytest.raises(DataError, match="4,000 samples per second are too few: the network needs 8,000"):
        resample(slow, 4000, 8000)


def test_what_exceeds_the_memory_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(module, "COMPLEX_BYTES", 1 << 50)
    with pytest.raises(SnnZooError, match="a spectrogram of 300 samples takes about"):
        log_mel(torch.from_numpy(NOISE), SPEC)
