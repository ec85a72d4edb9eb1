"""Sounds as pictures: WAV files, log-mel spectra whole or column by column, the Free Spoken Digit Dataset."""

import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.data.class_folders import SOUND_SUFFIX, ExampleFile, read_file
from bootstrap_core.data.splits import Split
from bootstrap_core.data.stored_images import MadeRows, StoredImages
from bootstrap_core.progress import each_file
from specs.errors import DataError, IntegrityError, SnnZooError
from specs.files.given_archives import tar_members
from specs.files.limits import SOUND_BYTES, refuse_beyond_memory
from specs.layers.input import LogMelSpec

COMPLEX_BYTES = 16
BITS, FULL_SCALE = 16, 1 << 15
"""Bits of a sample, and its value at full amplitude."""
PCM, FLOATS, EXTENSIBLE = 1, 3, 0xFFFE
"""Codes of formats: integers, floats, and a format whose code is in the extension of the header."""
HEADER = struct.Struct("<HHIIHH")
"""Format, channels, samples per second, bytes per second, bytes of all channels' samples, bits of a sample."""
EXTENSION = struct.Struct("<HHIH")
"""Size of the extension, bits that count, places of the channels, format."""
REMEDY = "convert it, as with: ffmpeg -i IN -ac 1 -c:a pcm_s16le OUT.wav"
NAME = re.compile(r"([0-9])_[a-z]+_([0-9]+)\.wav")
TEST_INDICES = 5


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


def read_recordings(places: Mapping[Path, str], log_mel: LogMelSpec, bits: int | None = None) -> tuple[Split, Split]:
    """Return the training and the test recordings of a folder or a tar, as pictures, each made when it is first used.

    Args:
        places: digest of the recordings by the path of the folder or tar, one of them; see `DatasetFiles.sha256`.
        bits: number of bits of a pixel, for pictures in columns, see `picture_columns`; None for whole pictures.
    """
    ((place, sha256),) = places.items()
    members: list[ExampleFile] = [*place.glob(f"*{SOUND_SUFFIX}")] if place.is_dir() else [*tar_members(place)]
    files = {name: file for file in members if (name := PurePosixPath(file.name).name).endswith(SOUND_SUFFIX)}
    digests = {name: hashlib.sha256(read_file(files[name], SOUND_BYTES)).hexdigest() for name in sorted(files)}
    listing = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    if hashlib.sha256(listing.encode()).hexdigest() != sha256:
        raise IntegrityError(
            f"{place}: its {len(files):,} WAV files are not those of the dataset (zoo/README.md names the version): "
            "replace or remove it"
        )
    found = [match for name in sorted(files) if (match := NAME.fullmatch(name))]
    one, bands, frames = log_mel.picture
    shape = log_mel.picture if bits is None else (frames, one, bands, 1)
    make = cache(lambda row: sound_inputs([files[found[row][0]]], log_mel, bits)[0].numpy())
    pictures = MadeRows(f"pictures of sounds in {place}", (len(found), *shape), make)
    labels, indices = (torch.tensor([int(match[i]) for match in found]) for i in (1, 2))
    every = Split(StoredImages.of(pictures, torch.from_numpy), labels)
    train, test = (every.take(part.nonzero().flatten()) for part in (indices >= TEST_INDICES, indices < TEST_INDICES))
    return train, test
