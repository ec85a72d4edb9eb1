"""Files that appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from specs.errors import SnnZooError

__all__ = ["whole_file", "write_whole"]


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to write: a temporary one beside it, fsync, rename at the end; makes missing folders.

    Raises:
        SnnZooError: it cannot be written. Nothing is left behind then, nor after any other exception.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
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
