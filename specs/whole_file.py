"""Files that appear whole or not at all."""

import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from specs.errors import SnnZooError

__all__ = ["remove_leftovers", "whole_file", "write_whole"]

N_RANDOM = 8
"""Bytes that make a temporary file's name its own."""


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to write: a temporary one beside it, fsync, rename at the end; makes missing folders.

    Raises:
        SnnZooError: it cannot be written. Nothing is left behind then, nor after any other exception.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(N_RANDOM)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise SnnZooError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def write_whole(path: str | Path, data: bytes) -> Path:
    """Write a file that appears whole or not at all. Returns the path.

    Raises:
        SnnZooError: it cannot be written; nothing is left behind.
    """
    with whole_file(path) as file:
        file.write(data)
    return Path(path)


def remove_leftovers(path: str | Path) -> None:
    """Remove what processes that were killed while they wrote `path` left beside it. None may be writing it now."""
    path = Path(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 2 * N_RANDOM}"):
        leftover.unlink(missing_ok=True)
