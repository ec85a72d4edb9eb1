"""Files that a user gives: there, of a kind that ends, and of a size that can be read."""

import codecs
import os
import stat
from itertools import islice
from pathlib import Path

from specs.errors import SnnZooError
from specs.suggestion import suggest

__all__ = ["check_given_file", "is_text", "suggest_file"]

HEAD_BYTES = 512
MOST_NAMES = 1000
"""In a folder, of which the nearest to a name that is not there is looked for."""


def check_given_file(
    path: str | Path, *, limit: int | None = None, error: type[SnnZooError] = SnnZooError, what: str = ""
) -> int:
    """The bytes of a regular file, or of one that a link leads to; a pipe or device, which may never end, is none.

    Args:
        path: of the file.
        limit: the most bytes that are read.
        error: raised for a file that cannot be read.
        what: stands before the path in a message.

    Raises:
        SnnZooError: it is not there, or may not be read; no regular file; larger than the limit.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - a name with a null byte is a ValueError here, False in pathlib
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


def suggest_file(path: Path) -> str:
    """A hint with the file beside a missing one that has the nearest name, out of place."""
    try:
        names = [file.name for file in islice(path.parent.iterdir(), MOST_NAMES) if file.name[0] != "."]
    except OSError:
        return ""
    return suggest(path.name, names)


def is_text(path: Path) -> bool:
    """Whether a file begins like text in UTF-8. Raises `SnnZooError` if it cannot be read."""
    check_given_file(path)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
