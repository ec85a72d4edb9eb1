"""Log-mel spectrograms: a recording as a picture, in torch alone."""

from functools import lru_cache

import torch
from torch import Tensor

from specs.errors import DataError
from specs.files.memory import refuse_beyond_memory
from specs.layers.input import LogMelSpec

COMPLEX_BYTES = 16


def log_mel(samples: Tensor, spec: LogMelSpec) -> Tensor:
    """Return the log-mel spectrogram of a recording as a picture, uint8 `[1, bands, frames]`.

    Args:
        samples: recording, floats `[n]`, n > 0, with `spec.sample_rate` samples per second.
        spec: parameters; its description says what the picture shows. A silent recording is black.

    >>> tone = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000)  # 1 kHz for a second
    >>> picture = log_mel(tone, LogMelSpec())
    >>> picture.shape, int(picture[0, :, 20].argmax())
    (torch.Size([1, 40, 48]), 22)
    """
    refuse_beyond_memory(
        2 * COMPLEX_BYTES * (len(samples) // spec.hop + 1) * spec.window, f"a spectrogram of {len(samples):,} samples"
    )
    window = torch.hann_window(spec.window, dtype=torch.float64)
    spectrum = torch.stft(
        samples.double(), spec.window, spec.hop, window=window, pad_mode="constant", return_complex=True
    )  # [window / 2 + 1, columns]
    power = mel_filters(spec) @ spectrum.abs().square()  # [bands, columns]
    picture = torch.zeros(spec.bands, spec.frames, dtype=torch.uint8)
    if power.max() == 0:
        return picture[None]
    decibels = 10 * torch.log10(power / power.max())  # -inf where there is no power at all
    pixels = (255 * (1 + decibels / spec.range_db).clamp(0, 1)).round().to(torch.uint8)
    columns = torch.arange(power.shape[1], dtype=torch.float64)
    centre = float((power.sum(0) * columns).sum() / power.sum())
    start = round(centre - (spec.frames - 1) / 2)  # column of the recording that is column 0 of the picture
    first, stop = max(start, 0), min(start + spec.frames, len(columns))
    picture[:, first - start : stop - start] = pixels[:, first:stop]
    return picture.flip(0)[None]  # [bands, frames], lowest band first -> [1, bands, frames], highest band first


@lru_cache
def mel_filters(spec: LogMelSpec) -> Tensor:
    """Return the weights of the Fourier bins in each band, float64 `[bands, window / 2 + 1]`, the lowest band first.

    Bands are triangles of height 1 over the frequency. Their corners are equally far apart on the mel scale,
    `mel = 2595 log10(1 + hz / 700)`; each band begins at the peak of the one before.

    Source: D. O'Shaughnessy, Speech Communication, 1987; S. Young et al., The HTK Book, 2006, section 5.4.
    """
    ends = 2595 * torch.log10(1 + torch.tensor([spec.low_hz, spec.high_hz], dtype=torch.float64) / 700)
    mels = torch.linspace(float(ends[0]), float(ends[1]), spec.bands + 2, dtype=torch.float64)
    corners = 700 * (10 ** (mels / 2595) - 1)
    low, peak, high = (corners[i : i + spec.bands, None] for i in range(3))  # each [bands, 1], in hertz
    bins = torch.arange(spec.window // 2 + 1) * (spec.sample_rate / spec.window)
    return torch.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)).clamp_min(0)


def resample(samples: Tensor, rate: int, to: int) -> Tensor:
    """Resample a recording `[n]` from `rate` to `to` samples per second: its Fourier series is cut off at `to / 2`.

    Raises `DataError` if `rate` is below `to`.

    >>> resample(torch.ones(441), 44100, 8000).shape
    torch.Size([80])
    """
    if rate < to:
        raise DataError(f"{rate:,} samples per second are too few: the network needs {to:,}")
    if rate == to:
        return samples
    n = max(1, len(samples) * to // rate)
    found: Tensor = torch.fft.irfft(torch.fft.rfft(samples.double())[: n // 2 + 1], n) * (n / len(samples))
    return found
