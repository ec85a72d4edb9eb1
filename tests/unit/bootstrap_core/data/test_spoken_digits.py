"""The Free Spoken Digit Dataset, from a tar and from folders, made small."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from known_datasets import find_dataset, load_dataset
from sounds import save_wav, tone
from valid_files import tar

from bootstrap_core.data import sound_files
from bootstrap_core.data.events.binning import EventBins
from bootstrap_core.data.sound_files import picture_columns, sound_picture
from specs.dataset_sources import DatasetSource, sources
from specs.errors import IntegrityError
from specs.layers.input import LogMelSpec

INDICES = (0, 4, 5, 12)
SPEC = LogMelSpec(bands=8, frames=10)
NAME = "spoken-digits"


@pytest.fixture
def recordings(tmp_path) -> Path:
    """A folder with recordings of two digits by one speaker, and a file that is none."""
    for digit in (3, 7):
        for index in INDICES:
            save_wav(tmp_path / "recordings" / f"{digit}_jackson_{index}.wav", tone(300 * digit + 10 * index))
    (tmp_path / "recordings" / "README").write_text("hello")
    return tmp_path / "recordings"


@pytest.fixture
def registry(recordings) -> Mapping[str, DatasetSource]:
    """The dataset with the digest of these recordings."""
    files = sorted(recordings.glob("*.wav"), key=lambda path: path.name)
    listing = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    sha256 = hashlib.sha256(listing.encode()).hexdigest()
    forms = tuple(replace(form, sha256=dict.fromkeys(form.sha256, sha256)) for form in sources()[NAME].forms)
    return {NAME: replace(sources()[NAME], forms=forms)}


def archived(folder: Path) -> Path:
    path = folder.parent / "archive" / "fsdd.tar"
    path.parent.mkdir()
    path.write_bytes(tar({f"fsdd/recordings/{file.name}": file.read_bytes() for file in folder.iterdir()}))
    return path


def test_the_split_is_that_of_the_dataset_in_a_tar_and_in_a_folder(recordings, registry) -> None:
    for place in (recordings.parent, archived(recordings).parent):
        dataset = load_dataset(NAME, data_dir=place, registry=registry, log_mel=SPEC)
        assert dataset.train.labels.tolist() == [3, 3, 7, 7]
        assert dataset.test.labels.tolist() == [3, 3, 7, 7]
        train = [sound_picture(recordings / f"{d}_jackson_{i}.wav", SPEC) for d in (3, 7) for i in (12, 5)]
        assert torch.equal(dataset.train.images[:], torch.stack(train))
        assert dataset.classes == tuple("0123456789")
        assert (dataset.log_mel, dataset.in_cards, dataset.title) == (SPEC, False, "Free Spoken Digit Dataset")
        assert "CC BY-SA 4.0" in str(dataset.credit)
    assert load_dataset(NAME, data_dir=recordings.parent, registry=registry).log_mel == LogMelSpec()


def test_recordings_in_time_steps_are_the_columns_of_their_pictures(recordings, registry) -> None:
    options = {"data_dir": recordings.parent, "registry": registry, "log_mel": SPEC}
    pictures, steps = load_dataset(NAME, **options), load_dataset(NAME, **options, events=EventBins((8,), bits=4))
    assert torch.equal(steps.test.images[:], picture_columns(pictures.test.images[:], bits=4))
    assert (steps.log_mel, steps.test.has_events, pictures.test.has_events) == (SPEC, True, False)


def test_a_picture_is_made_once_and_when_it_is_first_used(recordings, registry, monkeypatch) -> None:
    read = list[str]()
    monkeypatch.setattr(
        sound_files, "sound_picture", lambda file, spec: read.append(file.name) or sound_picture(file, spec)
    )
    dataset = load_dataset(NAME, data_dir=recordings.parent, registry=registry, log_mel=SPEC)
    read.clear()
    assert torch.equal(dataset.test.images[[1, 0, 1]], dataset.test.images[:2][[1, 0, 1]])
    assert dataset.test.images[:0].shape == (0, 1, 8, 10)
    assert read == ["3_jackson_4.wav"]  # the first picture of all was made for its size


def test_other_recordings_are_refused(recordings, registry) -> None:
    path = archived(recordings)
    with pytest.raises(IntegrityError, match=r"fsdd\.tar: its 8 WAV files are not those of the dataset"):
        load_dataset(NAME, data_dir=path.parent)
    save_wav(recordings / "3_jackson_5.wav", tone(1000))
    with pytest.raises(IntegrityError, match="recordings: its 8 WAV files are not those"):
        load_dataset(NAME, data_dir=recordings.parent, registry=registry)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(IntegrityError, match="is cut short"):
        load_dataset(NAME, data_dir=path.parent, registry=registry)


def test_it_is_found_where_people_have_it(recordings, tmp_path, monkeypatch) -> None:
    clone = tmp_path / "data" / "free-spoken-digit-dataset"
    clone.mkdir(parents=True)
    assert find_dataset(NAME, data_dir=clone.parent) is None
    recordings.rename(clone / "recordings")
    monkeypatch.setenv("ZOO_DATA_DIR", str(clone.parent))
    assert find_dataset(NAME) == clone
    monkeypatch.setenv("ZOO_DATA_DIR", str(clone))
    assert find_dataset(NAME) == clone
