"""WAV files: samples, refusals, and pictures."""

import numpy as np
import pytest
import torch
from sounds import save_wav, tone, wav
from valid_files import tar

from bootstrap_core.data import sound_files
from bootstrap_core.data.sound_files import read_sound, sound_picture
from specs.errors import DataError
from specs.files.given_archives import tar_members
from specs.layers.input import LogMelSpec


def test_samples_are_those_of_the_file(tmp_path) -> None:
    samples = tone(700)
    found, rate = read_sound(save_wav(tmp_path / "a.wav", samples, rate=11_025))
    assert rate == 11_025
    assert np.abs(found.numpy() - samples * 32767 / 32768).max() <= 0.5 / 32768 + 1e-12


def test_channels_are_averaged(tmp_path) -> None:
    path = save_wav(tmp_path / "a.wav", np.stack([np.full(9, 0.5), np.full(9, -0.25)], 1))
    assert read_sound(path)[0].numpy() == pytest.approx(np.full(9, 0.125), abs=1e-4)


def test_a_file_in_a_tar_gives_the_same_picture(tmp_path) -> None:
    path = save_wav(tmp_path / "a.wav", tone(700))
    (tmp_path / "a.tar").write_bytes(tar({"x/a.wav": path.read_bytes()}))
    (member,) = tar_members(tmp_path / "a.tar")
    assert torch.equal(sound_picture(member, LogMelSpec()), sound_picture(path, LogMelSpec()))


def with_header(place: int, value: int, size: int = 2) -> bytes:
    data = bytearray(wav(tone(700)))
    data[place : place + size] = value.to_bytes(size, "little")
    return bytes(data)


def test_an_extended_header_and_other_chunks_are_read(tmp_path) -> None:
    plain, code = wav(tone(700)), (1).to_bytes(2, "little")
    extension = (22).to_bytes(2, "little") + bytes(6) + code + bytes.fromhex("000000001000800000aa00389b71")
    header = (0xFFFE).to_bytes(2, "little") + plain[22:36] + extension
    other = b"LIST" + (3).to_bytes(4, "little") + bytes(4)  # an odd chunk is followed by a byte
    (tmp_path / "a.wav").write_bytes(plain)
    (tmp_path / "b.wav").write_bytes(plain[:16] + len(header).to_bytes(4, "little") + header + other + plain[36:])
    samples, rate = read_sound(tmp_path / "b.wav")
    assert rate == 8000
    assert torch.equal(samples, read_sound(tmp_path / "a.wav")[0])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"RIFF....hello", "is not a WAV file: convert it, as with: ffmpeg"),
        (wav(tone(700))[:18], "is cut short: it ends before its header"),
        (wav(tone(700))[:30], "is cut short: it has 10 of 16 bytes of header"),
        (wav(tone(700))[:36], "is cut short: it ends before its sound"),
        (wav(tone(700))[:2044], "is cut short: it has 2,000 of 6,400 bytes of sound"),
        (wav(np.zeros(0)), "has no sound: 0 samples"),
        (wav(tone(700), width=1), "samples of 8 bits, integers; 16 bits, integers, are needed: convert it"),
        (wav(tone(700), width=3), "samples of 24 bits, integers; "),
        (with_header(20, 3), "samples of 16 bits, floats; "),
        (with_header(20, 7), "samples of 16 bits, of the format 7; "),
        (with_header(20, 0xFFFE), "samples of 16 bits, of the format 65534; "),
        (with_header(16, 8), "is a damaged WAV file: its header has only 8 bytes"),
        (with_header(22, 0), "has no sound: 0 samples"),
        (with_header(24, 0), "has no sound: 3200 samples, 0 per second"),
        (with_header(24, 4000), "4,000 samples per second are too few"),
    ],
)
def test_other_files_are_refused(content: bytes, reason: str, tmp_path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as told:
        sound_picture(path, LogMelSpec())
    assert str(path) in str(told.value)


def test_a_longer_file_than_the_limit_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sound_files, "SOUND_BYTES", 1000)
    with pytest.raises(DataError, match="6,444 bytes, more than the limit of 1,000"):
        read_sound(save_wav(tmp_path / "a.wav", tone(700)))
