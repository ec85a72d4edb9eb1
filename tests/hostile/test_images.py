"""Hostile data: .npz files of arrays, folders of images, image files, IDX files."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sounds import tone, wav
from valid_files import idx, image, npz, tar, words, zipped

X = np.zeros((20, 1, 28, 28), np.uint8)
Y = np.arange(20) % 3
WAV = wav(tone(700))


class Run:
    """Calls a function when it is unpickled."""

    def __reduce__(self):
        return print, ("boom",)


def member(array: np.ndarray, **header: object) -> bytes:
    """Return a .npy file with changes in its header."""
    data = io.BytesIO()
    told = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **header}
    np.lib.format.write_array_header_1_0(data, told)
    return data.getvalue() + array.tobytes()


def archive(**arrays: bytes) -> bytes:
    return zipped({f"{name}.npy": content for name, content in arrays.items()})


def encrypted() -> bytes:
    """Return a zip archive whose entries are marked as encrypted."""
    data = bytearray(npz(x=X, y=Y))
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + place] |= 1
            at = data.find(signature, at + 4)
    return bytes(data)


def of_method(method: int) -> bytes:
    """Return a zip archive that names a compression method, which may not exist."""
    data = bytearray(npz(x=X, y=Y))
    for signature, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = data.find(signature)
        while at >= 0:
            data[at + place : at + place + 2] = struct.pack("<H", method)
            at = data.find(signature, at + 4)
    return bytes(data)


def objects() -> bytes:
    return npz(x=np.array([Run()], dtype=object))


def bomb() -> bytes:
    """Return a zip archive of 300 MiB of zeros."""
    return zipped({"x.npy": member(np.zeros(300 << 20, np.uint8))}, zipfile.ZIP_DEFLATED)


def packed(**arrays: np.ndarray | tuple) -> Callable[[Path], object]:
    """Return a function that writes a compressed .npz; a shape, or dtype and shape, stands for an array of zeros."""

    def make(path: Path) -> None:
        members = {}
        for name, value in arrays.items():
            if isinstance(value, tuple):
                descr, shape = value if isinstance(value[0], str) else ("|u1", value)
                n_bytes = np.dtype(descr).itemsize * int(np.prod(shape))
                members[f"{name}.npy"] = member(np.zeros(0, np.uint8), descr=descr, shape=shape) + bytes(n_bytes)
            else:
                members[f"{name}.npy"] = member(value)
        path.write_bytes(zipped(members, zipfile.ZIP_DEFLATED))

    return make


def png(width: int, height: int, rows: bytes = b"", *, kind: int = 0, depth: int = 8) -> bytes:
    """Return a PNG of the given size, with any number of rows."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


def text_bomb() -> bytes:
    """Return a PNG with a compressed text chunk of 100 MiB."""
    whole, text = image(), b"zTXt" + b"note\0\0" + zlib.compress(bytes(100 << 20), 9)
    return whole[:33] + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + whole[33:]


SIDE = 3000
LARGE = png(SIDE, SIDE, bytes(SIDE * (SIDE + 1)))
"""An image of a size at which about 40 images exceed the memory limit for images."""
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(boom) print\nshowpage\n"


def folder(**files: bytes):
    """Return a function that makes a folder of two classes, with further files in the first."""

    def make(path: Path) -> None:
        for name in ("cat", "dog"):
            (path / name).mkdir(parents=True)
            (path / name / "a.png").write_bytes(image())
        for name, content in files.items():
            (path / "cat" / f"{name}.png").write_bytes(content)

    return make


def looped(path: Path) -> None:
    folder()(path)
    (path / "cat" / "loop.png").symlink_to("loop.png")


def linked_out(path: Path) -> None:
    folder()(path)
    (path.parent / "private.png").write_bytes(image())
    (path / "cat" / "link.png").symlink_to(path.parent / "private.png")


def piped(path: Path) -> None:
    folder()(path)
    os.mkfifo(path / "cat" / "pipe.png")


def program(path: Path) -> None:
    path.write_bytes(EPS)


def large_folder(path: Path, *, first: bytes = LARGE, further: Callable[[Path], object] = lambda path: None) -> None:
    """Make a folder that exceeds the memory limit in the size of its first image, which sets the size of all images."""
    folder()(path)
    (path / "cat" / "a.png").write_bytes(first)
    for i in range(40):
        (path / "dog" / f"{i}.png").write_bytes(image())
    further(path / "dog" / "z.png")


def sparse_gzip(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b")
    os.truncate(path, 100 << 30)


def linked_tar() -> bytes:
    """Return a tar archive of two classes, one of whose images is a link to a file of the system."""
    link = tarfile.TarInfo("dog/a.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    return link.tobuf() + tar({"cat/a.png": image()})


def sounds(second: bytes) -> dict[str, bytes]:
    """Return recordings of two classes."""
    return {"cat/a.wav": WAV, "dog/a.wav": second}


def recorded(name: str, content: bytes | int) -> Callable[[Path], object]:
    """Return a function that makes class folders of recordings of events, one with this content, or of zeros."""

    def make(path: Path) -> None:
        for folder in ("cat", "dog"):
            (path / folder).mkdir(parents=True)
            (path / folder / "a.bin").write_bytes(bytes([1, 2, 128, 0, 9]))
        (path / "dog" / name).write_bytes(b"" if isinstance(content, int) else content)
        if isinstance(content, int):
            os.truncate(path / "dog" / name, content)

    return make


def events(**changed: object) -> bytes:
    """Return an .npz of three events, with other arrays."""
    return npz(**{"x": np.arange(3), "y": np.arange(3), "p": np.arange(3) % 2, "t": np.arange(3), **changed})


def large_tar(path: Path, *, name: str = "cat/a.png") -> None:
    """Write a tar archive with a file of 300 MiB, which takes no place on disk."""
    member = tarfile.TarInfo(name)
    member.size = 300 << 20
    with path.open("wb") as file:
        file.write(member.tobuf())
        file.truncate(member.size + 2048)


TABLE = {
    "npz": {
        "events of 300 MiB": (recorded("b.bin", 300 << 20), "314,572,800 bytes, more than the limit of 67,108,864"),
        "half an event": (recorded("b.bs2", b"12345678"), "8 bytes are not a whole number of events"),
        "events as objects": (recorded("b.npz", npz(t=np.array([Run()], dtype=object))), "not a plain array"),
        "events as a pickle": (recorded("b.npy", member(np.zeros(9), descr="|O")), "not a plain array"),
        "a bomb of events": (recorded("b.npz", bomb()), "bytes that unpack to"),
        "events of 2^40": (
            recorded("b.npz", archive(t=member(np.zeros(4, int), shape=(1 << 40,)))),
            "not a plain array: shape .* but",
        ),
        "events of an unknown type": (
            recorded("b.npy", member(np.zeros(3, "<i8")).replace(b"<i8", b"<,8")),
            "not a plain array: invalid syntax",
        ),
        "events of an open text": (
            recorded("b.npy", member(np.zeros(3, "<i8")).replace(b"'descr'", b"'''escr'")),
            "not a plain array: .*EOF",
        ),
        "events of many fields": (recorded("b.npy", npz(x=X)), "not a plain array"),
        "events in a far column": (recorded("b.npz", events(x=np.full(3, 1 << 40))), "outside the sensor of 34 rows"),
        "events in a column of 2^63": (recorded("b.npz", events(x=np.full(3, 1 << 63, "u8"))), "x must be at most"),
        "events at the end of time": (recorded("b.npz", events(t=np.full(3, 1 << 53))), "after the last of 30 bins"),
        "events at no time": (recorded("b.npz", events(t=np.full(3, np.nan))), "t must be whole numbers"),
        "recordings and images": (recorded("b.png", image()), "all files must be of one kind"),
        "objects": (objects(), "x holds object, not numbers"),
        "a bomb": (bomb(), "bytes that unpack to"),
        "a shape of 2^40": (archive(x=member(X, shape=(1 << 40,))), r"x is not a plain array: shape \[1099511627776\]"),
        "a shape that wraps": (archive(x=member(X, shape=(1 << 62, 1 << 62))), "x is not a plain array: shape .*, but"),
        "a shape below zero": (archive(x=member(X, shape=(-20, 784))), r"shape \[-20, 784\] and .*, but"),
        "a shape of no numbers": (archive(x=member(X, shape=("a",))), r"shape is not valid: \('a',\)"),
        "a dtype that is a program": (
            archive(x=member(X, descr="__import__('os')")),
            r"descr is not a valid dtype descriptor: .__import__\('os'\)",
        ),
        "a header without end": (
            archive(x=b"\x93NUMPY\1\0\xff\xff" + b"(" * 65535),
            "EOF: reading array header, expected 65535 bytes got 65526",
        ),
        "records": (npz(x=np.zeros(4, [("a", "f4"), ("b", "O")])[["a"]]), "x is not a plain array"),
        "texts": (npz(x=np.array(["boom"])), "x holds str128, not numbers"),
        "times": (npz(x=np.array(["2026-01-01"], "M8[D]")), r"x holds datetime64\[D\], not numbers"),
        "complex numbers": (npz(x=np.zeros((4, 4), complex)), "x holds complex128, not numbers"),
        "NaN": (npz(x=np.full((4, 784), np.nan), y=Y[:4]), "from 0 to 1, got numbers that are not finite"),
        "infinity": (npz(x=np.full((4, 784), np.inf), y=Y[:4]), "from 0 to 1, got numbers that are not finite"),
        "one number": (npz(x=np.array(0.5)), r"images of shape \[\]"),
        "no images": (npz(x=np.zeros((0, 784), np.uint8), y=Y[:0]), r"array of images is empty: \[0, 784\]"),
        "images of no size": (npz(x=np.zeros((20, 1, 0, 28), np.uint8), y=Y), r"images is empty: \[20, 1, 0, 28\]"),
        "labels of 2^62": (npz(x=X, y=np.full(20, 1 << 62)), r"label 4\.61169e\+18: labels must be class numbers"),
        "labels of NaN": (npz(x=X, y=np.full(20, np.nan)), "label nan: labels must be class numbers"),
        "labels of many rows": (packed(x=X, y=(250_000_000,)), "20 images and 250,000,000 labels"),
        "one-hot labels of many columns": (packed(x=X, y=(20, 12_500_000)), "labels of 12,500,000 classes"),
        "images and labels of many rows": (
            packed(x=(100_000_000, 1), y=(100_000_000,)),
            "100,000,000 images, more than the limit",
        ),
        "one-hot labels of nothing": (packed(x=(1 << 24, 1), y=(1 << 24, 14)), "must be one-hot"),
        "a name without end": (
            packed(x=X, y=Y, classes=("<U60000000", (1,))),
            "classes must have one axis and at most",
        ),
        "names of programs": (npz(x=X, y=Y, classes=np.array([Run()], dtype=object)), "holds object, not text"),
        "labels that are one number": (npz(x=X, y=np.array(3)), "20 images and 0 labels"),
        "labels of no classes": (npz(x=X, y=np.zeros((20, 0))), "20 images and 0 labels"),
        "encrypted": (encrypted(), "encrypted"),
        "a compression that there is not": (of_method(97), "compression method 97 of the zip archive is not supported"),
        "cut short": (npz(x=X, y=Y)[:-30], "a damaged zip archive, perhaps cut short: File is not a zip file"),
        "no zip": (b"hello", "is not a dataset: expected an .npz"),
        "an array alone": (member(X), "is a NumPy array, not a dataset"),
        "a pipe": (os.mkfifo, "a pipe or a device"),
        "a folder with a link out of it": (linked_out, "a link out of"),
        "a loop of links": (looped, "Too many levels of symbolic links"),
        "a folder with a pipe": (piped, "/cat/pipe.png: a pipe or a device"),
        "a folder with an image of 10^9 pixels": (folder(z=png(40_000, 25_000)), "1000000000 pixels"),
        "a large folder that starts with a broken image": (
            partial(large_folder, first=png(SIDE, SIDE)),
            "/cat/a.png as an image: .* truncated",
        ),
        "a large folder with a pipe": (partial(large_folder, further=os.mkfifo), "/dog/z.png: a pipe or a device"),
        "a large folder with a program": (
            partial(large_folder, further=program),
            "/dog/z.png as an image; supported formats: PNG",
        ),
        "a folder with a program": (folder(z=EPS), "/cat/z.png as an image; supported formats: PNG"),
        "an empty folder": (lambda path: path.mkdir(), "must contain class folders"),
        "a tar with an image of 10^9 pixels": (
            tar({"cat/a.png": image(), "dog/a.png": png(40_000, 25_000)}),
            ": dog/a.png as an image: .*1000000000 pixels",
        ),
        "a tar with a program": (tar({"cat/a.png": image(), "dog/a.png": EPS}), ": dog/a.png as an image; supported"),
        "a tar with a link out of it": (linked_tar(), "'dog/a.png' is not a plain file: links and devices"),
        "a tar with 300 MiB of nothing": (large_tar, "cat/a.png has 314,572,800 bytes, more than the limit"),
        "a tar cut short": (tar({"cat/a.png": image(), "dog/a.png": image()})[:1600], "is cut short"),
        "a recording cut short": (tar(sounds(WAV[:30])), ": dog/a.wav is cut short: it has 10 of 16 bytes of header"),
        "a recording of no channels": (
            tar(sounds(WAV[:22] + b"\0\0" + WAV[24:])),
            "dog/a.wav has no sound: 0 samples",
        ),
        "a recording of no time": (
            tar(sounds(WAV[:24] + bytes(4) + WAV[28:])),
            "dog/a.wav has no sound: .* 0 per second",
        ),
        "a recording of 300 MiB": (partial(large_tar, name="cat/a.wav"), "cat/a.wav has 314,572,800 bytes, more than"),
        "a recording and an image": (tar(sounds(WAV) | {"cat/b.png": image()}), "all files must be of one kind"),
        "a tar without images": (tar({"cat/a.txt": b"", "../../a.png": image()}), "must contain class folders"),
    },
    "image": {
        "10^9 pixels": (png(40_000, 25_000), "1000000000 pixels"),
        "10^8 pixels": (png(10_000, 10_000), "100,000,000 pixels, more than the limit of 67,108,864"),
        "2^62 pixels": (png((1 << 31) - 1, (1 << 31) - 1), r"4611686014132420609 pixels\) exceeds limit"),
        "no pixels": (png(0, 0), "as an image; supported formats: PNG"),
        "rows that are missing": (png(8000, 8000), "as an image: .* truncated"),
        "a depth that there is not": (png(9, 9, depth=3), "as an image; supported formats: PNG"),
        "a text of 100 MiB": (text_bomb(), "as an image: Decompressed data too large"),
        "a program, EPS": (EPS, "as an image; supported formats: PNG"),
        "cut short": (image("JPEG")[:-200], "as an image: .*[Tt]runcated"),
        "a header alone": (image()[:20], "as an image: .*[Tt]runcated"),
        "text": (b"hello", "as an image; supported formats: PNG"),
        "nothing": (b"", "as an image; supported formats: PNG"),
        "a PPM of 10^9 pixels": (b"P6 40000 25000 255\n", r"1000000000 pixels\) exceeds limit"),
        "a PPM of words": (b"P3 3 3 255\n" + b"x " * 27, "as an image: invalid literal for int"),
        "a pipe": (os.mkfifo, "a pipe or a device"),
        "a device without end": (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    },
    "bs1": {
        "an event cut short": (words((255, 255, 1, 9), (1, 0, 0, 3))[:-1], "9 bytes are not a whole number of events"),
        "nothing": (b"", "has no events"),
    },
    "bs2": {
        "marks of the clock alone": (words(*[(0, 240, 0, 0)] * 9), "has no events"),
        "a late start": (
            words((1, 1, 1, (1 << 23) - 1)),
            "the first event comes at 8,388,607 us, after the last of 30",
        ),
    },
    "sound": {
        "samples of no bits": (WAV[:34] + bytes(2) + WAV[36:], "has samples of 0 bits"),
        "cut short": (WAV[:-1], "is cut short: it has 6,399 of 6,400 bytes of sound"),
    },
    "frames": {
        "recordings of 2^40 steps": (archive(x=member(X, shape=(2, 1 << 40, 6))), "not a plain array: shape"),
        "NaN": (npz(x=np.full((9, 4, 6), np.nan), y=np.zeros((9, 3))), "values that are not whole numbers"),
        "targets of NaN": (npz(x=np.ones((9, 4, 6)), y=np.full((9, 3), np.nan)), "y must be finite numbers"),
    },
    "idx": {
        "2^96 bytes": (b"\0\0\x08\3" + b"\xff" * 12, "takes 79228"),
        "a shape that is too short": (idx((3, 4, 5))[:-1], "takes 76 bytes, the file has 75"),
        "bytes at the end": (idx() + b"x", "takes 64 bytes, the file has 65"),
        "250 dimensions": (b"\0\0\x08\xfa" + bytes(1000), r"250 dimensions \(1 to 3 expected\)"),
        "no dimensions": (b"\0\0\x08\0", r": 0 dimensions \(1 to 3 expected\)"),
        "an empty side": (b"\0\0\x08\1\0\0\0\0", r"shape \[0\] is empty"),
        "floats": (b"\0\0\x0d\1\0\0\0\1" + bytes(4), "unsigned bytes or int32: starts with 00 00 0d 01"),
        "a bomb": (gzip.compress(bytes(100 << 20), 9, mtime=0), "decompresses to more than"),
        "two files in one": (gzip.compress(idx()) * 2, "takes 64 bytes, the file has 128"),
        "cut short": (gzip.compress(idx())[:-9], "damaged gzip file"),
        "damaged": (gzip.compress(idx())[:-6] + bytes(6), "damaged gzip"),
        "100 GiB of nothing": (sparse_gzip, "107,374,182,400 bytes, more than the limit"),
        "nothing": (b"", "unsigned bytes or int32: starts with nothing"),
        "a pipe": (os.mkfifo, "a pipe or a device"),
        "a device without end": (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    },
}


CASES = {f"{target}, {name}": (target, *case) for target, table in TABLE.items() for name, case in table.items()}


@pytest.mark.parametrize("name", [name for name, (target, *_) in CASES.items() if target != "idx"])
def test_it_is_refused(check_case, name) -> None:
    """The command has a network of images, so it refuses sounds and events before it reads them."""
    target, content, reason = CASES[name]
    check_case((target, content, f"{reason}|the network takes images"))


@pytest.mark.parametrize("check_case", ["reader"], indirect=True)
@pytest.mark.parametrize("name", [name for name, (target, *_) in CASES.items() if target == "idx"])
def test_an_idx_file_is_refused(check_case, name) -> None:
    """Only the reader is tested: commands refuse IDX files of unknown digests before reading them."""
    check_case(CASES[name])


def test_an_idx_file_of_another_digest_is_refused_by_a_command(attempt, tmp_path) -> None:
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte").write_bytes(idx())
    command = "eval mnist-dense --data mnist --data-dir FOLDER --offline"
    outcome = attempt("idx", idx(), command=command)
    assert outcome.kind == "refused"
    assert "sha256" in outcome.text


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("npz", npz(x=X, y=Y)),
        ("npz", npz(x=X, y=np.eye(3, dtype=bool)[Y])),
        ("npz", packed(x=(1 << 24, 1), y=(1 << 24,))),
        ("npz", folder()),
        ("npz", large_folder),
        ("npz", tar({f"{name}/a.png": image() for name in ("cat", "dog")})),
        ("image", image()),
        ("image", image("GIF", "L")),
        ("idx", idx()),
    ],
    ids=["npz", "one-hot by truth values", "the most images", "folder", "large folder", "tar", "png", "gif", "idx"],
)
def test_the_file_itself_is_read(attempt, target, content) -> None:
    assert attempt(target, content).kind == "read"


def test_a_link_within_the_folder_is_followed(attempt) -> None:
    def make(path: Path) -> None:
        folder()(path)
        (path / "cat" / "b.png").symlink_to(path / "dog" / "a.png")

    assert attempt("npz", make).kind == "read"
