"""Files that appear whole or not at all."""

import os
import secrets
from pathlib import Path

from specs.errors import SnnZooError

__all__ = ["write_whole"]


def write_whole(path: str | Path, data: bytes) -> Path:
    """Write a file through a temporary one beside it, fsync, rename; makes missing folders. Returns the path.

    Raises:
        SnnZooError: it cannot be written; nothing is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise SnnZooError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
    return path
