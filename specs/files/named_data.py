"""Notes, in the user's cache, of which data the user named for the models that this user's commands wrote.

A model file says which data it was made with, but a stranger may have written it, and so may any file beside it. The
cache belongs to the user, and neither models nor downloads choose what is written there. A note holds for one place and
one digest, so a model that was pulled, copied, moved or changed has none.
"""

import hashlib
import json
import os
import shlex
from contextlib import suppress
from pathlib import Path

from specs.dataset_sources import dataset_names
from specs.errors import DataError, SnnZooError
from specs.files.download import cache_folder
from specs.files.given_file import real_path, sha256_of
from specs.files.whole_file import write_whole


def note_named_data(file: Path, data: str) -> None:
    """Note that the user named the path `data` for the model in `file`; without a cache to write to, do nothing.

    Named datasets need no note: they are opened for every model.
    """
    if data not in dataset_names():
        with suppress(SnnZooError):
            write_whole(_place(file), _note(file, data))


def is_named_data(file: Path, data: str) -> bool:
    """Return whether the user named the path `data` for the model that is in `file`."""
    try:
        return _place(file).read_bytes() == _note(file, data)
    except (OSError, SnnZooError):
        return False


def check_named_data(data: str, file: Path, name: str) -> None:
    """Raise `DataError` if the data that a model names are missing, or may not be opened.

    A model may come from a stranger, so it must not choose which files are opened outside its folder. Data that the
    user named when the model was made on this machine are opened.
    """
    if data in dataset_names():
        return
    if not os.path.exists(data):  # noqa: PTH110 - False for a bad name
        raise DataError(f"{name} was made with {data!r}, which is missing: name the data with --data")
    is_inside = Path(os.path.realpath(data)).is_relative_to(os.path.realpath(file.parent))
    if not (is_inside or is_named_data(file, data)):
        raise DataError(
            f"{name} was made with {data!r}, which is not in its folder and is only opened if you name it: "
            f"--data {shlex.quote(data)}"
        )


def _place(file: Path) -> Path:
    return cache_folder() / "named-data" / f"{hashlib.sha256(bytes(real_path(file))).hexdigest()}.json"


def _note(file: Path, data: str) -> bytes:
    return json.dumps({"file": str(real_path(file)), "sha256": sha256_of(file), "data": data}).encode()
