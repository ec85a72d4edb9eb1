"""Sha256 of files."""

import hashlib
from pathlib import Path

from specs.errors import SnnZooError


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits. Raises `SnnZooError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SnnZooError(f"cannot read {path}: {error.strerror or error}") from None
