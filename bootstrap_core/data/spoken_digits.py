"""Recordings of the Free Spoken Digit Dataset, `{digit}_{speaker}_{index}.wav`, as pictures or their columns.

The split is the dataset's own: of each speaker and digit the recordings 0 to 4 are for testing. The speakers are the
same in both parts, so the accuracy says nothing about a new speaker.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath

import torch

from bootstrap_core.data.class_folders import SOUND_SUFFIX, ExampleFile, read_file
from bootstrap_core.data.sound_files import sound_inputs
from bootstrap_core.data.splits import Split
from bootstrap_core.data.stored_images import MadeRows, StoredImages
from specs.errors import IntegrityError
from specs.files.given_tar import tar_members
from specs.files.limits import SOUND_BYTES
from specs.layers.input import LogMelSpec

NAME = re.compile(r"([0-9])_[a-z]+_([0-9]+)\.wav")
TEST_INDICES = 5


def read_recordings(places: Mapping[Path, str], log_mel: LogMelSpec, bits: int | None = None) -> tuple[Split, Split]:
    """Return the training and the test recordings of a folder or a tar, as pictures, each made when it is first used.

    Args:
        places: digest of the recordings by the path of the folder or tar, one of them; see `DatasetFiles.sha256`.
        bits: number of bits of a pixel, for pictures in columns, see `picture_columns`; None for whole pictures.

    Raises:
        IntegrityError: these are not the recordings of the dataset, or the tar is damaged.
        DataError: they cannot be read; of a single file, when it is used.
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
