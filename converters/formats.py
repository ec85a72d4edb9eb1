"""Formats by file suffix."""

from collections.abc import Callable
from pathlib import Path

from converters.model import Model
from converters.netx_hdf5 import write_netx
from converters.safetensors_file import read_safetensors, write_safetensors
from specs.errors import UnsupportedError

__all__ = ["check_writable_format", "read_model", "write_model"]


def _write_netx(model: Model, path: Path) -> Path:
    return write_netx(model.build(), path)


READERS: dict[str, Callable[[Path], Model]] = {".safetensors": read_safetensors}
WRITERS: dict[str, Callable[[Model, Path], Path]] = {
    ".safetensors": write_safetensors,
    ".net": _write_netx,
    ".hdf5": _write_netx,
}


def read_model(path: str | Path) -> Model:
    """Read a model from a file whose suffix names its format.

    Raises:
        UnsupportedError: no reader for that suffix.
        IntegrityError: the file is damaged.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise UnsupportedError(f"cannot read {path}: no reader for {path.suffix or 'a file with no suffix'} "
                               f"(known: {', '.join(READERS)})")  # fmt: skip
    return READERS[path.suffix](path)


def write_model(model: Model, path: str | Path) -> Path:
    """Write a model to a file whose suffix names its format; overwrites.

    Raises:
        UnsupportedError: no writer for that suffix, or a network that the format cannot express.
    """
    path = Path(path)
    check_writable_format(path)
    return WRITERS[path.suffix](model, path)


def check_writable_format(path: Path) -> None:
    """Raise `UnsupportedError` unless there is a writer for the suffix; for use before long work."""
    if path.suffix not in WRITERS:
        raise UnsupportedError(f"cannot write {path}: no writer for {path.suffix or 'a file with no suffix'} "
                               f"(known: {', '.join(WRITERS)})")  # fmt: skip
