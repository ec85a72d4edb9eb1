"""Record of the files of a user's data, by which a resumed run notices that they have changed."""

import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from bootstrap_core.data.class_folders import ExampleFile, class_folders
from specs.dataset_sources import check_data_file, dataset_names
from specs.words import counted

END_BYTES = 1 << 15
"""Number of bytes at the start and at the end of a file that its digest covers."""
N_NAMED = 3


def data_files(data: str) -> dict[str, str]:
    """Return the size and a digest of each file of a user's data, by its name within them; of an `.npz`, of the file.

    Named datasets, whose files are verified whenever they are read, and missing data give an empty dict.

    The digest covers the first and the last 32 KiB, so that no file costs more than 64 KiB of reading. That is the
    whole of most image files; and an `.npz` ends with checksums of its arrays. Not noticed is a change in the middle of
    a larger image or sound that keeps its size.
    """
    path = Path(data)
    if data in dataset_names() or not os.path.exists(data):  # noqa: PTH110 - False for an invalid name
        return {}
    if path.is_dir() or check_data_file(path):
        return {_name(file, path): _known_by(file) for part in class_folders(path) for file in part.files}
    return {path.name: _known_by(path)}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return in which files two records differ, for people; empty if in none.

    >>> changes({"cat/1.png": "9 a", "cat/2.png": "9 b"}, {"cat/1.png": "9 c", "cat/2.png": "9 b", "cat/3.png": "9 d"})
    'cat/1.png has changed, cat/3.png is new'
    """
    found = [
        f"{name} {'is new' if name not in before else 'is missing' if name not in now else 'has changed'}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    rest = len(found) - N_NAMED
    return ", ".join([*found[:N_NAMED], *([f"and {counted(rest, 'other file')}"] if rest > 0 else [])])


def _name(file: ExampleFile, path: Path) -> str:
    return file.relative_to(path).as_posix() if isinstance(file, Path) else file.name


def _known_by(file: ExampleFile) -> str:
    if not isinstance(file, Path):
        return _of_ends(file.archive.file, file.start, file.n_bytes)
    with file.open("rb") as opened:
        return _of_ends(opened, 0, os.fstat(opened.fileno()).st_size)


def _of_ends(file: BinaryIO, start: int, n_bytes: int) -> str:
    file.seek(start)
    ends = file.read(min(n_bytes, END_BYTES))
    if (rest := max(END_BYTES, n_bytes - END_BYTES)) < n_bytes:
        file.seek(start + rest)
        ends += file.read(n_bytes - rest)
    return f"{n_bytes} {blake2b(ends, digest_size=8).hexdigest()}"
