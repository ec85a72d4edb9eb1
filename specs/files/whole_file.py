"""Files that appear whole or not at all.

Processes get killed. Temporary files lie beside the target, locked by their writer; those of dead writers are resumed
or removed.
"""

import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from specs.errors import ConversionError, SnnZooError

N_RANDOM = 8


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    Data go into a temporary file beside it, which is synced to disk and renamed at the end. Missing folders are made,
    and temporary files that killed processes left behind are removed.

    Raises `SnnZooError` if the file cannot be written. After any exception the temporary file is removed.
    """
    path = Path(path)
    try:
        refuse_file_as_folder(path.parent)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        with _temporary(path) as temporary:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:
        raise SnnZooError(f"cannot write {path}: {error.strerror or error}") from error


def refuse_file_as_folder(folder: str | Path) -> None:
    """Raise `SnnZooError` if a folder, or one of its parents, is a file."""
    for place in (Path(folder), *Path(folder).parents):
        if place.exists() and not place.is_dir():
            raise SnnZooError(f"cannot write into {folder}: {place} is a file, not a folder; choose another place")


def refuse_overwriting(*paths: Path, overwrite: bool) -> None:
    """Raise `ConversionError` if one of the files exists and `overwrite` is false."""
    if not overwrite and (exists := [str(path) for path in paths if path.exists()]):
        raise ConversionError(f"{' and '.join(exists)} exists: choose another path, or pass overwrite=True")


def write_whole(path: str | Path, data: bytes) -> Path:
    """Write a file that appears whole or not at all; return its path."""
    with whole_file(path) as file:
        file.write(data)
    return Path(path)


def copy_whole(source: Path, target: Path) -> Path:
    """Copy a file so that the copy appears whole or not at all; return the copy."""
    with source.open("rb") as opened, whole_file(target) as file:
        shutil.copyfileobj(opened, file)
    return target


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together: none gets its name before all are complete on disk.

    The last file gets its name first. A process that is killed between two names leaves new files beside old ones.
    """
    with ExitStack() as staged:
        for path, data in files.items():
            file = staged.enter_context(whole_file(path))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def remove_leftovers(path: str | Path) -> None:
    """Remove temporary files that killed processes left beside `path`; files that are being written are kept.

    On systems without file locks all files are kept.
    """
    path = Path(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 2 * N_RANDOM}"):
        with suppress(OSError), ExitStack() as held:
            if _lock(_open(leftover, os.O_RDONLY, held), wait=False):
                leftover.unlink()


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Make an empty file beside `path`, locked while it is written: the kernel releases locks of dead processes."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(N_RANDOM)}")
        with ExitStack() as held:
            if not _lock(_open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, held), wait=True):
                held.close()  # Windows cannot rename an open file
            if not temporary.exists():  # another process removed it as a leftover before it was locked
                continue
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)
            return


def _open(path: Path, flags: int, held: ExitStack) -> int:
    descriptor = os.open(path, flags, 0o666)
    held.callback(os.close, descriptor)
    return descriptor


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock a file until its descriptor is closed or its process ends; return False if it cannot be locked."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True
