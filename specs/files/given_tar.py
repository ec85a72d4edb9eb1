"""Tar archives from strangers: files in them are read from their places, and nothing is unpacked to disk.

Python's tarfile keeps what a header asks for in memory and takes twice as long, so names and places are read by a
parser of our own.
"""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from specs.errors import DataError, IntegrityError
from specs.files.given_file import check_given_file
from specs.files.limits import TAR_ENTRIES, TAR_HEADER_BYTES

BLOCK = 512
"""Size in bytes of a header; files are padded to multiples of it."""
FILES, FOLDER = (b"0", b"\0", b"7"), b"5"
PAX, GNU_NAME = b"x", b"L"
IGNORED = (b"g", b"K")
"""Types of entries that are skipped: headers for all later files, and names of links."""


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


class TarMember(NamedTuple):
    """File in a tar archive.

    Attributes:
        name: name of the file.
        n_bytes: its size.
        start: place of its first byte in the archive.
        archive: the archive.
    """

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

    Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".

    Raises:
        SnnZooError: the archive cannot be read.
        IntegrityError: it is damaged or cut short, has too many entries or a name twice, or has links or devices.
    """
    size = check_given_file(path, error=DataError)
    members = list(_members(_Archive(path), size))
    if len({member.name for member in members}) < len(members):
        raise IntegrityError(f"{path}: the tar archive has two files with the same name")
    return members


def _members(archive: _Archive, size: int) -> Iterator[TarMember]:
    path, place, n_entries = archive.path, 0, 0
    extended: dict[str, str] = {}
    while (header := _block(archive, place)).strip(b"\0"):
        n_entries += 1
        if n_entries > TAR_ENTRIES:
            raise IntegrityError(f"{path}: tar archive of more than {TAR_ENTRIES:,} entries")
        _check_header(path, header, place)
        kind, name = header[156:157], extended.get("path", _name(header))
        n_bytes = int(extended["size"]) if "size" in extended else _number(path, header[124:136])
        start = place + BLOCK
        if start + n_bytes > size:
            raise IntegrityError(f"{path}: {name[:80]!r} in the tar archive is cut short")
        if kind in (PAX, GNU_NAME):
            if n_bytes > TAR_HEADER_BYTES:
                raise IntegrityError(f"{path}: a header of {n_bytes:,} bytes; the limit is {TAR_HEADER_BYTES:,}")
            content = archive.read(start, n_bytes)
            extended |= _records(path, content) if kind == PAX else {"path": _text(content)}
        elif kind in FILES and not any(key.startswith("GNU.sparse") for key in extended):
            yield TarMember(name, n_bytes, start, archive)
        elif kind not in (FOLDER, *IGNORED):
            raise IntegrityError(f"{path}: {name[:80]!r} is not a plain file: links and devices in a tar are refused")
        if kind not in (PAX, GNU_NAME, *IGNORED):
            extended = {}
        place = start + -(-n_bytes // BLOCK) * BLOCK


def _block(archive: _Archive, place: int) -> bytes:
    found = archive.read(place, BLOCK)
    if len(found) < BLOCK:
        raise IntegrityError(f"{archive.path} is a damaged tar archive, perhaps cut short: it has no end mark")
    return found


def _check_header(path: Path, header: bytes, place: int) -> None:
    """Raise `IntegrityError` unless the header has its checksum: the sum of its bytes, its own eight being spaces."""
    expected = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if not is_tar(header) or _number(path, header[148:156]) != expected:
        raise IntegrityError(f"{path} is a damaged tar archive: no valid header at byte {place:,}")


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    is_posix = header[257:263] == b"ustar\0"  # GNU's form has other fields there
    return f"{prefix}/{name}" if prefix and is_posix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _number(path: Path, field: bytes) -> int:
    """Return a number, in octal digits, or in binary if its first byte is 0x80."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0") or b"0"
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise IntegrityError(f"{path} is a damaged tar archive: {digits[:20]!r} is not an octal number")
    return int(digits, 8)


def _records(path: Path, content: bytes) -> dict[str, str]:
    """Return the records of a pax header, `LENGTH KEY=VALUE` and a line feed each."""
    found = {}
    while content:
        length, _, _ = content.partition(b" ")
        n_bytes = int(length) if length.isdigit() and len(length) < 10 else 0
        key, equals, value = content[len(length) + 1 : max(0, n_bytes - 1)].partition(b"=")
        if not equals or n_bytes > len(content):
            raise IntegrityError(f"{path} is a damaged tar archive: malformed pax header")
        if key == b"size" and not (value.isdigit() and len(value) < 20):
            raise IntegrityError(f"{path} is a damaged tar archive: {value[:20]!r} is not a size")
        found[_text(key)] = _text(value)
        content = content[n_bytes:]
    return found
