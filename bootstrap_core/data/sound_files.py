"""Recordings in WAV files, as the log-mel pictures that networks of sounds take."""

import io
import wave
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.data.class_folders import ImageFile
from bootstrap_core.data.log_mel import log_mel, resample
from specs.block import LogMelSpec
from specs.errors import DataError, SnnZooError
from specs.files.given_file import check_given_file
from specs.files.limits import SOUND_BYTES

__all__ = ["read_sound", "sound_picture"]

SAMPLE_BYTES, FULL_SCALE = 2, 1 << 15
"""Size of a sample, and its value for the full amplitude."""
REMEDY = "convert it, as with: ffmpeg -i IN -ac 1 -c:a pcm_s16le OUT.wav"


def sound_picture(file: ImageFile, spec: LogMelSpec) -> Tensor:
    """Return the picture of a WAV file, uint8 `[1, bands, frames]`. Errors are those of `read_sound`.

    A recording at a higher rate than the spec's is resampled; for one at a lower rate `DataError` is raised.
    """
    samples, rate = read_sound(file)
    try:
        return log_mel(resample(samples, rate, spec.sample_rate), spec)
    except SnnZooError as error:
        raise type(error)(f"{file}: {error}") from None


def read_sound(file: ImageFile) -> tuple[Tensor, int]:
    """Read a WAV file of 16 bits: return the samples, float64 `[n]` in -1..1, and the number of samples per second.

    Several channels are averaged. Raises `DataError` if the file cannot be read, is not a WAV file of 16 bits, or is
    empty, too long or cut short.
    """
    n_bytes = check_given_file(file, error=DataError) if isinstance(file, Path) else file.n_bytes
    if n_bytes > SOUND_BYTES:
        raise DataError(f"{file} has {n_bytes:,} bytes, more than the limit of {SOUND_BYTES:,}")
    data = file.read_bytes() if isinstance(file, Path) else file.read()
    try:
        with wave.open(io.BytesIO(data)) as sound:
            rate, channels, width = sound.getframerate(), sound.getnchannels(), sound.getsampwidth()
            samples, wanted = sound.readframes(sound.getnframes()), sound.getnframes() * channels * width
    except Exception as error:  # wave raises errors of several types on malformed files
        reason = " ".join(str(error).split())[:200] or "it is cut short"
        raise DataError(f"cannot read {file} as a WAV file: {reason}; {REMEDY}") from None
    if width != SAMPLE_BYTES:
        raise DataError(f"{file} has samples of {8 * width} bits, 16 are needed: {REMEDY}")
    if len(samples) < wanted:
        raise DataError(f"{file} is cut short: it has {len(samples):,} of {wanted:,} bytes of sound")
    whole = len(samples) // (channels * SAMPLE_BYTES)
    if whole == 0 or rate == 0:
        raise DataError(f"{file} has no sound: {whole} samples, {rate} per second")
    found = np.frombuffer(samples, "<i2", whole * channels).reshape(whole, channels)
    return torch.from_numpy(found.mean(1) / FULL_SCALE), rate
