"""Zip archives from strangers: limits on the number of entries and the unpacked size, and no name twice."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from specs.errors import IntegrityError, SnnZooError
from specs.files.given_file import check_given_file
from specs.files.limits import ZIP_ENTRIES, unpacked_bytes

END, END_BYTES = b"PK\5\6", 22
END_64, END_64_BYTES = b"PK\6\6", 56
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
COMMENT_BYTES = 1 << 16
LEAST_ENTRY_BYTES = 46
"""Smallest size of an entry in the archive's directory, without its name."""


@contextmanager
def open_zip(path: Path | str, data: bytes | None = None) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive. Errors of the archive, also inside the `with` block, become `IntegrityError`.

    Args:
        data: the file's bytes, if they have been read; `path` is then only a name for messages.

    Raises:
        SnnZooError: the file cannot be read.
        IntegrityError: the archive is damaged or encrypted, has too many entries or a name twice, or is a zip bomb.
    """
    size = check_given_file(path) if data is None else len(data)
    try:
        with io.BytesIO(data) if data is not None else Path(path).open("rb") as file:
            _refuse_long_directory(path, file)
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                names = {entry.filename for entry in entries}
                if len(names) < len(entries):
                    raise IntegrityError(f"{path}: the zip archive has two entries with the same name")
                if any(entry.flag_bits & 1 for entry in entries):
                    raise IntegrityError(f"{path}: the zip archive is encrypted, which is not supported")
                if methods := {entry.compress_type for entry in entries} - METHODS:
                    raise IntegrityError(
                        f"{path}: compression method {min(methods)} of the zip archive is not supported"
                    )
                if (n_bytes := sum(entry.file_size for entry in entries)) > unpacked_bytes(size):
                    raise IntegrityError(
                        f"{path}: {size:,} bytes that unpack to {n_bytes:,}; the limit is {unpacked_bytes(size):,}"
                    )
                yield archive
    except SnnZooError:
        raise
    except Exception as error:  # zipfile raises about ten types of errors for damaged files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise IntegrityError(f"{path} is a damaged zip archive, perhaps cut short: {reason}") from None


def _refuse_long_directory(path: Path | str, file: IO[bytes]) -> None:
    """Raise `IntegrityError` for too many entries; zipfile would make an object for each before they can be counted.

    Source: APPNOTE.TXT, 4.3.14 and 4.3.16.
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(max(0, end - COMMENT_BYTES - END_BYTES - END_64_BYTES - 20))
    tail = file.read()
    place, place_64 = tail.rfind(END), tail.rfind(END_64)
    n_bytes = int.from_bytes(tail[place + 12 : place + 16], "little") if place >= 0 else 0
    if place_64 >= 0:
        n_bytes = max(n_bytes % 0xFFFFFFFF, int.from_bytes(tail[place_64 + 40 : place_64 + 48], "little"))
    if min(n_bytes, end) > ZIP_ENTRIES * 2 * LEAST_ENTRY_BYTES:
        raise IntegrityError(f"{path}: zip archive of more than {ZIP_ENTRIES:,} entries ({n_bytes:,} bytes of names)")
