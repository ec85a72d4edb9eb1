"""Files that are often given by mistake, recognised by their first bytes."""

from pathlib import Path

from specs.errors import IntegrityError, SnnZooError

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
