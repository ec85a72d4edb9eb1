"""Tar archives: those of tarfile in all its formats, and damaged and malicious ones."""

import io
import tarfile
from pathlib import Path

import pytest
from valid_files import tar

from specs.errors import DataError, IntegrityError
from specs.files import given_archives as given_tar
from specs.files.given_archives import is_tar, tar_members

FILES = {"a/1.txt": b"one", "b/" + "long" * 24 + "/2.txt": b"2" * 600, "b/empty": b"", "c" * 200: b"end"}


def saved(folder: Path, data: bytes) -> Path:
    path = folder / "a.tar"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_of_every_format_are_read(format: int, tmp_path: Path) -> None:
    files = {name: data for name, data in FILES.items() if format != tarfile.USTAR_FORMAT or len(name) < 200}
    path = saved(
        tmp_path, tar(files, format=format, pax_headers={"comment": "x"} if format == tarfile.PAX_FORMAT else {})
    )
    assert is_tar(path.read_bytes()[:512])
    members = tar_members(path)
    path.unlink()
    assert {member.name: member.read() for member in members} == files


def with_entry(kind: bytes, name: str = "link", **fields: object) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.type = kind
        for field, value in fields.items():
            setattr(member, field, value)
        archive.addfile(member)
    return data.getvalue()


def changed(at: int, data: bytes, *, whole: bytes = b"") -> bytes:
    """Return an archive of which some bytes are replaced, with the right checksum."""
    found = bytearray(whole or tar(FILES))
    found[at : at + len(data)] = data
    found[148:156] = b" " * 8
    found[148:156] = b"%06o\0 " % sum(found[:512])
    return bytes(found)


def of_pax(text: bytes) -> bytes:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(text)
    return header.tobuf(tarfile.USTAR_FORMAT) + text.ljust(512, b"\0") + tar({"a": b"1"}, format=tarfile.USTAR_FORMAT)


def test_folders_are_passed_over(tmp_path: Path) -> None:
    assert tar_members(saved(tmp_path, with_entry(tarfile.DIRTYPE))) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tar({"a": b"1"})[:1000], "unexpected end"),
        (tar({"a": b"1" * 600})[:1000], "'a' is cut short"),
        (tar({"a": b"1"})[:1024], "cut short at byte 1,024"),
        (tar({"a": b"1"})[:1024] + b"x" * 512, "damaged or cut short at byte 1,024"),
        (tar({"a": b"1"}).replace(b"a\0", b"b\0", 1), "bad checksum"),
        (changed(124, b"77777777777\0"), "is cut short"),
        (changed(124, b"\x80" + b"\xff" * 11), "is cut short"),
        (changed(124, b"0000000009 \0"), "invalid header"),
        (changed(124, b"-0000000001\0"), "is cut short"),
        (changed(124, b"\xff" * 12), "is cut short"),
        (with_entry(tarfile.SYMTYPE, linkname="/etc/passwd"), "links and devices"),
        (with_entry(tarfile.LNKTYPE, linkname="a"), "links and devices"),
        (with_entry(tarfile.FIFOTYPE), "links and devices"),
        (with_entry(tarfile.CHRTYPE), "links and devices"),
        (with_entry(tarfile.GNUTYPE_SPARSE), "links and devices"),
        (tar({"n" * (1 << 17): b"1"}, format=tarfile.GNU_FORMAT), "a header of more than the limit of 65,536 bytes"),
        (of_pax(b"0 path=b\n"), "invalid header"),
        (of_pax(b"99999999999999999999 path=b\n"), "too large"),
        (of_pax(b"11 size=-1\n"), "is cut short"),
        (of_pax(b"20 size=99999999999\n"), "is cut short"),
        (of_pax(b"22 GNU.sparse.major=1\n"), "links and devices"),
    ],
)
def test_hostile_archives_are_refused_by_name(data: bytes, words: str, tmp_path: Path) -> None:
    path = saved(tmp_path, data)
    with pytest.raises(IntegrityError, match=words) as caught:
        tar_members(path)
    assert str(path) in str(caught.value)


def test_a_name_must_not_occur_twice(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="two files with the same name"):
        tar_members(saved(tmp_path, tar({"a": b"1"})[:1024] + tar({"a": b"2"})))


def test_the_number_of_entries_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_tar, "TAR_ENTRIES", 3)
    assert len(tar_members(saved(tmp_path, tar(dict.fromkeys("abc", b""))))) == 3
    with pytest.raises(IntegrityError, match="more than 3 entries"):
        tar_members(saved(tmp_path, tar(dict.fromkeys("abcd", b""))))


def test_an_archive_that_shrinks_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path, tar({"a": b"1" * 100_000}))
    (member,) = tar_members(path)
    with path.open("rb+") as file:
        file.truncate(50_000)
    with pytest.raises(DataError, match="a: cut short; the archive changed"):
        member.read()
