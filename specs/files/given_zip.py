"""Zip archives of strangers: few entries, each once, none that unpacks to more than its archive can honestly hold."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from specs.errors import IntegrityError, SnnZooError
from specs.files.given_file import check_given_file
from specs.files.limits import ZIP_ENTRIES, unpacked_bytes

__all__ = ["open_zip"]

END, END_BYTES = b"PK\5\6", 22
END_64, END_64_BYTES = b"PK\6\6", 56
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
COMMENT_BYTES = 1 << 16
LEAST_ENTRY_BYTES = 46
"""Of an entry in the directory, without its name."""


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive, open; errors of the archive, in the block too, become ours.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: it is damaged, encrypted, or has too many entries, one twice, or a bomb.
    """
    size = check_given_file(path)
    try:
        _refuse_long_directory(path)
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
            if len(names) < len(entries):
                raise IntegrityError(f"{path}: a zip archive with one name twice")
            if any(entry.flag_bits & 1 for entry in entries):
                raise IntegrityError(f"{path}: an encrypted zip archive")
            if methods := {entry.compress_type for entry in entries} - METHODS:
                raise IntegrityError(
                    f"{path}: a zip archive whose compression method is not supported ({min(methods)})"
                )
            if (n_bytes := sum(entry.file_size for entry in entries)) > unpacked_bytes(size):
                raise IntegrityError(
                    f"{path}: {size:,} bytes that unpack to {n_bytes:,}; at most {unpacked_bytes(size):,} are read"
                )
            yield archive
    except SnnZooError:
        raise
    except Exception as error:  # zipfile raises ten kinds on what a file holds
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise IntegrityError(f"{path} is a damaged zip archive, perhaps cut short: {told}") from None


def _refuse_long_directory(path: Path) -> None:
    """Python makes an object for each entry before anyone can count them. Source: APPNOTE.TXT, 4.3.14 and 4.3.16."""
    with path.open("rb") as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(max(0, end - COMMENT_BYTES - END_BYTES - END_64_BYTES - 20))
        tail = file.read()
    place, place_64 = tail.rfind(END), tail.rfind(END_64)
    n_bytes = int.from_bytes(tail[place + 12 : place + 16], "little") if place >= 0 else 0
    if place_64 >= 0:
        n_bytes = max(n_bytes % 0xFFFFFFFF, int.from_bytes(tail[place_64 + 40 : place_64 + 48], "little"))
    if min(n_bytes, end) > ZIP_ENTRIES * 2 * LEAST_ENTRY_BYTES:
        raise IntegrityError(f"{path}: a zip archive of more than {ZIP_ENTRIES:,} entries ({n_bytes:,} bytes of names)")
