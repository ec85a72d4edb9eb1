"""Files that a user gives: there, of a kind that ends, and of a size that can be read."""

import os
import stat
from pathlib import Path

from specs.errors import SnnZooError

__all__ = ["check_given_file"]


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
        raise error(f"cannot read {what}{path}: {getattr(problem, 'strerror', None) or problem}") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "Is a directory" if stat.S_ISDIR(found.st_mode) else "a pipe or a device, not a file"
        raise error(f"cannot read {what}{path}: {kind}")
    if limit is not None and found.st_size > limit:
        raise error(f"cannot read {what}{path}: {found.st_size:,} bytes; the limit is {limit:,}")
    return found.st_size
