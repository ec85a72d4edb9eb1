"""Small WAV files for tests."""

import io
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt


def tone(hertz: float, *, seconds: float = 0.4, rate: int = 8000, amplitude: float = 0.5) -> npt.NDArray[np.float64]:
    """Return a tone, in -1..1, `[n]`."""
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def wav(samples: npt.NDArray[np.float64], *, rate: int = 8000, width: int = 2) -> bytes:
    """Return a WAV file of samples `[n]` or `[n, channels]` in -1..1, with `width` bytes for each."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes((samples * 32767).round().astype("<i2").tobytes() if width == 2 else bytes(len(samples)))
    return file.getvalue()


def save_wav(path: Path, samples: npt.NDArray[np.float64], **options: int) -> Path:
    """Write a WAV file and the folders above it; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav(samples, **options))
    return path
