"""Checks of files that a user names: they exist, are regular files, and are not too large."""

import codecs
import os
import stat
from itertools import islice
from pathlib import Path

from specs.errors import SnnZooError
from specs.words import suggest

HEAD_BYTES = 512
MOST_NAMES = 1000


def check_given_file(
    path: str | Path, *, limit: int | None = None, error: type[SnnZooError] = SnnZooError, what: str = ""
) -> int:
    """Return the size of a file in bytes; refuse pipes and devices, which may never end. Links are followed.

    Raises:
        SnnZooError: the file is missing, unreadable, larger than `limit`, or not a regular file.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - a null byte in the name raises ValueError here; pathlib hides it
        if not os.access(path, os.R_OK):
            raise PermissionError(13, "Permission denied")
    except (OSError, ValueError) as problem:
        hint = suggest_file(Path(path)) if isinstance(problem, FileNotFoundError) else ""
        raise error(f"cannot read {what}{path}: {getattr(problem, 'strerror', None) or problem}{hint}") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "Is a directory" if stat.S_ISDIR(found.st_mode) else "a pipe or a device, not a file"
        raise error(f"cannot read {what}{path}: {kind}")
    if limit is not None and found.st_size > limit:
        raise error(f"cannot read {what}{path}: {found.st_size:,} bytes; the limit is {limit:,}")
    return found.st_size


def real_path(path: Path) -> Path:
    """Return a path without links; a loop of links stays, for which `Path.resolve` raises errors of several types."""
    return Path(os.path.realpath(path))


def suggest_file(path: Path) -> str:
    """Return a hint with the most similar name in the folder of a missing file; empty if there is none."""
    try:
        names = [file.name for file in islice(path.parent.iterdir(), MOST_NAMES) if file.name[0] != "."]
    except OSError:
        return ""
    return suggest(path.name, names)


def is_text(path: Path) -> bool:
    """Return whether a file begins like UTF-8 text. Raises `SnnZooError` if it cannot be read."""
    check_given_file(path)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
