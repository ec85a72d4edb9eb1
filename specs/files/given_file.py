"""Files that a user names: their kind, size and digest are checked before they are read."""

import codecs
import hashlib
import os
import stat
from itertools import islice
from pathlib import Path
from typing import Any

from specs.errors import IntegrityError, SnnZooError
from specs.words import suggest

_IMAGE = "an image", "classify it with zoo predict NAME IMAGE"
_PAGE = "a web page", "download the file itself"
IMPOSTERS = {
    b"\x89PNG\r\n": _IMAGE,
    b"\xff\xd8\xff": _IMAGE,
    b"GIF8": _IMAGE,
    b"RIFF": _IMAGE,
    b"II*\0": _IMAGE,
    b"MM\0*": _IMAGE,
    b"%PDF": ("a PDF document", ""),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the file itself with git lfs pull"),
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
    b"<?xml": ("an XML document, often an error page", ""),
    b'{"error': ("the error message of a server", ""),
    b"\x1f\x8b": ("a gzip file", "unpack it first"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it first"),
    b"GGUF": ("a GGUF file", ""),
    b"\x93NUMPY": ("a NumPy array", "save images as x in an .npz file for --data"),
}
"""First bytes of such files, each with the kind of file and what to do, which may be empty."""
HEAD_BYTES = 512
MOST_NAMES = 1000


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits. Raises `SnnZooError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SnnZooError(f"cannot read {path}: {error.strerror or error}") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict; refuse a key given twice, since JSON readers differ on its value. Use it as `object_pairs_hook`.

    Raises `ValueError` if a key is given twice.

    >>> import json
    >>> json.loads('{"a": 1, "a": 2}', object_pairs_hook=unique_keys)
    Traceback (most recent call last):
    ValueError: 'a' is given twice
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r:.80} is given twice")
    return found


def refuse_imposter(
    head: bytes, path: Path, *, wanted: str = "model", error: type[SnnZooError] = IntegrityError
) -> None:
    """Raise `error` for an empty file, or one that begins like one of `IMPOSTERS`."""
    if not head:
        raise error(f"{path} is empty")
    start = head.lstrip().lower()
    for magic, (what, advice) in IMPOSTERS.items():
        if start.startswith(magic.lower()):
            raise error(f"{path} is {what}, not a {wanted}{advice and f': {advice}'}")


def check_given_file(
    path: str | Path, *, limit: int | None = None, error: type[SnnZooError] = SnnZooError, what: str = ""
) -> int:
    """Return the size of a file in bytes; refuse pipes and devices, which may never end. Links are followed.

    Raises `SnnZooError` if the file is missing, unreadable, larger than `limit`, or not a regular file.
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
