"""Digests by which published files are known."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import BinaryIO

from specs.errors import DataError, IntegrityError
from specs.files.given_file import check_given_file
from specs.files.limits import DATASET_ARCHIVE_BYTES

MD5 = "md5:"
"""Beginning of a digest that is an MD5; others are a sha256."""


def has_digest(content: bytes, expected: str) -> bool:
    """Return whether the content of a file has this digest.

    >>> has_digest(b"", "md5:d41d8cd98f00b204e9800998ecf8427e"), has_digest(b"", "00")
    (True, False)
    """
    return _digest(BytesIO(content), expected) == expected


def check_digest(file: BufferedIOBase, expected: str, what: str) -> None:
    """Raise `IntegrityError`, which begins with `what`, unless a file has the digest `expected`."""
    found = _digest(file, expected)
    if found != expected:
        kind = "MD5" if expected.startswith(MD5) else "sha256"
        raise IntegrityError(
            f"{what}: {kind} is {found.removeprefix(MD5)}, expected {expected.removeprefix(MD5)}: the file is damaged, "
            "another version, or of another dataset; replace or remove it"
        )


@contextmanager
def open_verified(path: Path, digest: str, *, what: str = "") -> Iterator[BinaryIO]:
    """Open a file after a comparison with its digest; `what` names it in errors, by default its path.

    Raises `IntegrityError` for another digest, `DataError` for a file that cannot be read.
    """
    what = what or str(path)
    check_given_file(path, limit=DATASET_ARCHIVE_BYTES, error=DataError)
    try:
        with path.open("rb") as file:
            check_digest(file, digest, what)
            file.seek(0)
            yield file
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _digest(file: BufferedIOBase, like: str) -> str:
    """Return the digest of a file, of the same kind as the digest `like`."""
    if like.startswith(MD5):
        return MD5 + hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return hashlib.file_digest(file, "sha256").hexdigest()
