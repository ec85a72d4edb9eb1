"""Tar archives from strangers: files in them are read from their places, and nothing is unpacked to disk."""

import tarfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from specs.errors import DataError, IntegrityError
from specs.files.given_file import check_given_file
from specs.files.limits import TAR_ENTRIES, TAR_HEADER_BYTES


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
