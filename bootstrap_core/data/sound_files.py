"""WAV files as the log-mel pictures that networks of sounds take, whole or column by column."""

import struct
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.data.class_folders import ExampleFile, read_file
from bootstrap_core.data.log_mel import log_mel, resample
from bootstrap_core.progress import each_file
from specs.errors import DataError, SnnZooError
from specs.files.limits import SOUND_BYTES
from specs.layers.input import LogMelSpec

BITS, FULL_SCALE = 16, 1 << 15
"""Bits of a sample, and its value at full amplitude."""
PCM, FLOATS, EXTENSIBLE = 1, 3, 0xFFFE
"""Codes of formats: integers, floats, and a format whose code is in the extension of the header."""
HEADER = struct.Struct("<HHIIHH")
"""Format, channels, samples per second, bytes per second, bytes of all channels' samples, bits of a sample."""
EXTENSION = struct.Struct("<HHIH")
"""Size of the extension, bits that count, places of the channels, format."""
REMEDY = "convert it, as with: ffmpeg -i IN -ac 1 -c:a pcm_s16le OUT.wav"


def sound_inputs(files: Sequence[ExampleFile], spec: LogMelSpec, bits: int | None = None) -> Tensor:
    """Return pictures of WAV files, uint8 `[N, 1, bands, frames]`; with `bits`, the `picture_columns` of these."""
    pictures = torch.stack([sound_picture(file, spec) for file in each_file(files)])
    return pictures if bits is None else picture_columns(pictures, bits)


def sound_picture(file: ExampleFile, spec: LogMelSpec) -> Tensor:
    """Return the picture of a WAV file, uint8 `[1, bands, frames]`. Errors are those of `read_sound`.

    A recording at a higher rate than the spec's is resampled; for one at a lower rate `DataError` is raised.
    """
    samples, rate = read_sound(file)
    try:
        return log_mel(resample(samples, rate, spec.sample_rate), spec)
    except SnnZooError as error:
        raise type(error)(f"{file}: {error}") from None


def picture_columns(pictures: Tensor, bits: int) -> Tensor:
    """Return the columns of pictures as time steps, with fewer grey levels.

    Args:
        pictures: uint8 `[..., 1, bands, frames]`.
        bits: number of bits of a pixel, at most 8.

    Returns:
        Integers from 0 to `2**bits - 1`, uint8 `[..., frames, 1, bands, 1]`.

    >>> picture_columns(torch.tensor([[[0, 255], [255, 100]]], dtype=torch.uint8), bits=2).flatten(1).tolist()
    [[0, 3], [3, 1]]
    """
    levels = torch.round(pictures * ((2**bits - 1) / 255)).to(torch.uint8)
    return levels.movedim(-1, -3)[..., None]


def read_sound(file: ExampleFile) -> tuple[Tensor, int]:
    """Read a WAV file of 16 bits: return the samples, float64 `[n]` in -1..1, and the number of samples per second.

    Several channels are averaged. Raises `DataError` if the file cannot be read, is not a WAV file of 16 bits, or is
    empty, too long or cut short.

    Source: Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0, 1991, "Waveform Audio File
    Format"; Microsoft, WAVEFORMATEXTENSIBLE.
    """
    data = read_file(file, SOUND_BYTES)
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise DataError(f"{file} is not a WAV file: {REMEDY}" if data else f"{file} is empty")
    header = _chunk(file, data, b"fmt ", "header")
    if len(header) < HEADER.size:
        raise DataError(f"{file} is a damaged WAV file: its header has only {len(header)} bytes; {REMEDY}")
    form, channels, rate, _, _, bits = HEADER.unpack_from(header)
    if form == EXTENSIBLE and len(header) >= HEADER.size + EXTENSION.size:
        *_, form = EXTENSION.unpack_from(header, HEADER.size)
    if form != PCM or bits != BITS:
        kind = {PCM: "integers", FLOATS: "floats"}.get(form, f"of the format {form}")
        raise DataError(f"{file} has samples of {bits} bits, {kind}; {BITS} bits, integers, are needed: {REMEDY}")
    samples = _chunk(file, data, b"data", "sound")
    whole = len(samples) // (channels * BITS // 8) if channels else 0
    if whole == 0 or rate == 0:
        raise DataError(f"{file} has no sound: {whole} samples, {rate} per second")
    found = np.frombuffer(samples, "<i2", whole * channels).reshape(whole, channels)
    return torch.from_numpy(found.mean(1) / FULL_SCALE), rate


def _chunk(file: ExampleFile, data: bytes, name: bytes, what: str) -> bytes:
    """Return the content of the first chunk called `name` in a WAV file; raise `DataError` if it is not whole."""
    start = 12
    while start + 8 <= len(data):
        n_bytes, is_wanted = int.from_bytes(data[start + 4 : start + 8], "little"), data[start : start + 4] == name
        start += 8
        if is_wanted and start + n_bytes <= len(data):
            return data[start : start + n_bytes]
        if is_wanted:
            raise DataError(f"{file} is cut short: it has {len(data) - start:,} of {n_bytes:,} bytes of {what}")
        start += n_bytes + n_bytes % 2
    raise DataError(f"{file} is cut short: it ends before its {what}")
