"""Zip and tar archives from strangers: limits on entries and sizes, and no name twice; nothing is unpacked to disk."""

import io
import tarfile
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from specs.errors import DataError, IntegrityError, SnnZooError
from specs.files.given_file import check_given_file
from specs.files.limits import TAR_ENTRIES, TAR_HEADER_BYTES, ZIP_ENTRIES, unpacked_bytes

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


class _Archive:
    """Open archive. It stays open while one of its members is in use, so replacing it by another file does no harm."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.open("rb")
        weakref.finalize(self, self.file.close)

    def read(self, place: int, n_bytes: int) -> bytes:
        """Return bytes from `place` on, fewer at the end of the file."""
        try:
            self.file.seek(place)
            return self.file.read(n_bytes)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror or error}") from None


class _Headers:
    """File of an archive as tarfile reads it, which keeps in memory what a header asks for: `left` limits it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left = file, 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, n_bytes: int) -> bytes:
        self.left -= n_bytes
        if n_bytes < 0 or self.left < 0:
            raise IntegrityError(f"a header of more than the limit of {TAR_HEADER_BYTES:,} bytes")
        return self.file.read(n_bytes)


class TarMember(NamedTuple):
    """File in a tar archive: its name and size, and the place of its first byte in the archive."""

    name: str
    n_bytes: int
    start: int
    archive: _Archive

    def read(self) -> bytes:
        """Return the file's bytes. Raises `DataError` if they cannot be read."""
        found = self.archive.read(self.start, self.n_bytes)
        if len(found) < self.n_bytes:
            raise DataError(f"{self}: cut short; the archive changed after it was opened")
        return found

    def __str__(self) -> str:
        return f"{self.archive.path}: {self.name}"


def is_tar(head: bytes) -> bool:
    """Return whether a file that begins with these 512 bytes is a tar archive, of ustar's, pax's or GNU's form."""
    return head[257:262] == b"ustar"


def tar_members(path: Path) -> list[TarMember]:
    """Return the files in a tar archive, in its order; their contents are not read.

    Raises:
        SnnZooError: the archive cannot be read.
        IntegrityError: it is damaged or cut short, has too many entries or a name twice, or has links or devices.
    """
    size = check_given_file(path, error=DataError)
    try:
        members = list(_members(_Archive(path), size))
        if len({member.name for member in members}) < len(members):
            raise IntegrityError("two files with the same name")
    except Exception as error:  # tarfile raises errors of many types for damaged headers
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise IntegrityError(f"{path} is a tar archive that cannot be read: {reason}") from None
    return members


def _members(archive: _Archive, size: int) -> Iterator[TarMember]:
    headers, n_entries = _Headers(archive.file), 0
    headers.left = 2 * tarfile.BLOCKSIZE + TAR_HEADER_BYTES
    entries = tarfile.TarFile(fileobj=headers, encoding="utf-8", errors="replace")  # type: ignore[arg-type]
    while entry := entries.next():
        entries.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them
        headers.left = 4 * tarfile.BLOCKSIZE + TAR_HEADER_BYTES
        n_entries += 1
        if n_entries > TAR_ENTRIES:
            raise IntegrityError(f"more than {TAR_ENTRIES:,} entries")
        if not 0 <= entry.size <= size - entry.offset_data:
            raise IntegrityError(f"{entry.name[:80]!r} is cut short")
        is_sparse = entry.issparse() or any(key.startswith("GNU.sparse") for key in entry.pax_headers)
        if entry.isreg() and not is_sparse:
            yield TarMember(entry.name, entry.size, entry.offset_data, archive)
        elif not entry.isdir():
            raise IntegrityError(f"{entry.name[:80]!r} is not a plain file: links and devices in a tar are refused")
    if archive.read(entries.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise IntegrityError(f"damaged or cut short at byte {entries.offset:,}: neither a header nor the end mark")
