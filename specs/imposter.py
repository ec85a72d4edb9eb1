"""Files that are often given in place of others: what they are, by how they begin."""

from pathlib import Path

from specs.errors import IntegrityError, SnnZooError

__all__ = ["refuse_imposter"]

_IMAGE = "an image", "zoo predict NAME IMAGE classifies it"
_PAGE = "a web page", "download the file itself"
IMPOSTERS = {
    b"\x89PNG\r\n": _IMAGE,
    b"\xff\xd8\xff": _IMAGE,
    b"GIF8": _IMAGE,
    b"RIFF": _IMAGE,
    b"II*\0": _IMAGE,
    b"MM\0*": _IMAGE,
    b"%PDF": ("a PDF document", ""),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file itself with git lfs pull"),
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
    b"<?xml": ("an XML document, often the error of a download", ""),
    b'{"error': ("the error message of a server", ""),
    b"\x1f\x8b": ("compressed by gzip", "unpack it first"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it first"),
    b"GGUF": ("a GGUF file", ""),
    b"\x93NUMPY": ("a NumPy array", "save it in an .npz, as x, and --data takes it as images"),
}
"""How they begin; what they are, and what to do."""


def refuse_imposter(
    head: bytes, path: Path, *, wanted: str = "model", error: type[SnnZooError] = IntegrityError
) -> None:
    """Raise `error` for a file that is empty, or begins like what is often given in place of what is `wanted`."""
    if not head:
        raise error(f"{path} is empty")
    start = head.lstrip().lower()
    for magic, (what, advice) in IMPOSTERS.items():
        if start.startswith(magic.lower()):
            raise error(f"{path} is {what}, not a {wanted}{advice and f': {advice}'}")
