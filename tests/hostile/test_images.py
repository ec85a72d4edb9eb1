"""Data that lie: .npz of a user's arrays, folders of images, image files, idx files."""

import gzip
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from valid_files import idx, image, npz, zipped

X = np.zeros((20, 1, 28, 28), np.uint8)
Y = np.arange(20) % 3


class Run:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return print, ("boom",)


def member(array: np.ndarray, **header: object) -> bytes:
    """A .npy file, some of its header changed."""
    data = io.BytesIO()
    told = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **header}
    np.lib.format.write_array_header_1_0(data, told)
    return data.getvalue() + array.tobytes()


def archive(**arrays: bytes) -> bytes:
    return zipped({f"{name}.npy": content for name, content in arrays.items()})


def encrypted() -> bytes:
    """An archive whose entries say that they are."""
    data = bytearray(npz(x=X, y=Y))
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + place] |= 1
            at = data.find(signature, at + 4)
    return bytes(data)


def of_method(method: int) -> bytes:
    """An archive compressed in a way that there is not."""
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
    """300 MiB of zeros."""
    return zipped({"x.npy": member(np.zeros(300 << 20, np.uint8))}, zipfile.ZIP_DEFLATED)


def png(width: int, height: int, rows: bytes = b"", *, kind: int = 0, depth: int = 8) -> bytes:
    """A PNG of any size, of few rows or none."""
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
    """A PNG with a compressed text of 100 MiB."""
    whole, text = image(), b"zTXt" + b"note\0\0" + zlib.compress(bytes(100 << 20), 9)
    return whole[:33] + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + whole[33:]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(boom) print\nshowpage\n"


def folder(**files: bytes):
    """A folder of two classes, with further files in the first."""

    def make(path: Path) -> None:
        for name in ("cat", "dog"):
            (path / name).mkdir(parents=True)
            (path / name / "a.png").write_bytes(image())
        for name, content in files.items():
            (path / "cat" / f"{name}.png").write_bytes(content)

    return make


def linked_out(path: Path) -> None:
    folder()(path)
    (path.parent / "private.png").write_bytes(image())
    (path / "cat" / "link.png").symlink_to(path.parent / "private.png")


def piped(path: Path) -> None:
    folder()(path)
    os.mkfifo(path / "cat" / "pipe.png")


def sparse_gzip(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b")
    os.truncate(path, 100 << 30)


MADE_SMALL = "a.png as an image: .* truncated"
"""Of images that a network takes small, none are left in their files: the first that is read is broken."""

TABLE = {
    "npz": {
        "objects": (objects(), "x holds object, not numbers"),
        "a bomb": (bomb(), "bytes that unpack to"),
        "a shape of 2^40": (archive(x=member(X, shape=(1 << 40,))), "do not fill"),
        "a shape that wraps": (archive(x=member(X, shape=(1 << 62, 1 << 62))), "do not fill"),
        "a shape below zero": (archive(x=member(X, shape=(-20, 784))), "hostile"),
        "a shape of no numbers": (archive(x=member(X, shape=("a",))), "hostile"),
        "a dtype that is a program": (archive(x=member(X, descr="__import__('os')")), "no .npz of plain arrays"),
        "a header without end": (archive(x=b"\x93NUMPY\1\0\xff\xff" + b"(" * 65535), "hostile"),
        "records": (npz(x=np.zeros(4, [("a", "f4"), ("b", "O")])[["a"]]), "not numbers"),
        "texts": (npz(x=np.array(["boom"])), "not numbers"),
        "times": (npz(x=np.array(["2026-01-01"], "M8[D]")), "not numbers"),
        "complex numbers": (npz(x=np.zeros((4, 4), complex)), "not numbers"),
        "NaN": (npz(x=np.full((4, 784), np.nan), y=Y[:4]), "floats in 0..1"),
        "infinity": (npz(x=np.full((4, 784), np.inf), y=Y[:4]), "floats in 0..1"),
        "one number": (npz(x=np.array(0.5)), "hostile"),
        "no images": (npz(x=np.zeros((0, 784), np.uint8), y=Y[:0]), "hostile"),
        "images of no size": (npz(x=np.zeros((20, 1, 0, 28), np.uint8), y=Y), "hostile"),
        "labels of 2^62": (npz(x=X, y=np.full(20, 1 << 62)), "class numbers from 0 to 65535"),
        "labels of NaN": (npz(x=X, y=np.full(20, np.nan)), "class numbers"),
        "labels that are one number": (npz(x=X, y=np.array(3)), "0 labels"),
        "labels of no classes": (npz(x=X, y=np.zeros((20, 0))), "hostile"),
        "encrypted": (encrypted(), "encrypted"),
        "a compression that there is not": (of_method(97), "hostile"),
        "cut short": (npz(x=X, y=Y)[:-30], "no .npz of plain arrays"),
        "no zip": (b"hello", "is no .npz, nor other data"),
        "an array alone": (member(X), "is a NumPy array, not a dataset"),
        "a pipe": (os.mkfifo, "a pipe or a device"),
        "a folder with a link out of it": (linked_out, "a link out of"),
        "a folder with a pipe": (piped, "a pipe or a device"),
        "a folder with an image of 10^9 pixels": (folder(z=png(40_000, 25_000)), "1000000000 pixels"),
        "a folder that starts with 10^7 pixels": (lambda path: large_folder(path), "a.png as an image"),
        "a large folder with a pipe": (lambda path: large_folder(path, os.mkfifo), f"a pipe or a device|{MADE_SMALL}"),
        "a large folder with a program": (lambda path: large_folder(path, text), f"z.png as an image|{MADE_SMALL}"),
        "a folder with a program": (folder(z=EPS), "as an image"),
        "an empty folder": (lambda path: path.mkdir(), "no folder of class folders"),
    },
    "image": {
        "10^9 pixels": (png(40_000, 25_000), "1000000000 pixels"),
        "10^8 pixels": (png(10_000, 10_000), "100,000,000 pixels; at most 67,108,864"),
        "2^62 pixels": (png((1 << 31) - 1, (1 << 31) - 1), "as an image|pixels"),
        "no pixels": (png(0, 0), "hostile"),
        "rows that are missing": (png(8000, 8000), "as an image"),
        "a depth that there is not": (png(9, 9, depth=3), "as an image"),
        "a text of 100 MiB": (text_bomb(), "as an image"),
        "a program, EPS": (EPS, "known are PNG"),
        "cut short": (image("JPEG")[:-200], "as an image"),
        "a header alone": (image()[:20], "as an image"),
        "text": (b"hello", "as an image"),
        "nothing": (b"", "as an image"),
        "a PPM of 10^9 pixels": (b"P6 40000 25000 255\n", "pixels"),
        "a PPM of words": (b"P3 3 3 255\n" + b"x " * 27, "as an image"),
        "a pipe": (os.mkfifo, "a pipe or a device"),
        "a device without end": (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    },
    "idx": {
        "2^96 bytes": (b"\0\0\x08\3" + b"\xff" * 12, "takes 79228"),
        "a shape that is too short": (idx((3, 4, 5))[:-1], "the file has"),
        "bytes at the end": (idx() + b"x", "the file has"),
        "250 dimensions": (b"\0\0\x08\xfa" + bytes(1000), "250 dimensions"),
        "no dimensions": (b"\0\0\x08\0", "0 dimensions"),
        "an empty side": (b"\0\0\x08\1\0\0\0\0", "shape"),
        "floats": (b"\0\0\x0d\1\0\0\0\1" + bytes(4), "not an idx file"),
        "a bomb": (gzip.compress(bytes(100 << 20), 9, mtime=0), "decompresses to more than"),
        "two files in one": (gzip.compress(idx()) * 2, "follow the end"),
        "cut short": (gzip.compress(idx())[:-9], "truncated"),
        "damaged": (gzip.compress(idx())[:-6] + bytes(6), "damaged gzip"),
        "100 GiB of nothing": (sparse_gzip, "more than the limit"),
        "nothing": (b"", "not an idx file"),
        "a pipe": (os.mkfifo, "a pipe or a device"),
        "a device without end": (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    },
}


def text(path: Path) -> None:
    path.write_bytes(EPS)


def large_folder(path: Path, further: Callable[[Path], object] = lambda path: None) -> None:
    """The first image says the size of all; they are more than are held in memory."""
    folder()(path)
    further(path / "dog" / "z.png")
    (path / "cat" / "a.png").write_bytes(png(8000, 8000))
    for i in range(40):
        (path / "dog" / f"{i}.png").write_bytes(image())


CASES = {f"{target}, {name}": (target, *case) for target, table in TABLE.items() for name, case in table.items()}


@pytest.mark.parametrize("name", [name for name, (target, *_) in CASES.items() if target != "idx"])
def test_it_is_refused(check_case, name) -> None:
    check_case(CASES[name])


@pytest.mark.parametrize("check_case", ["reader"], indirect=True)
@pytest.mark.parametrize("name", [name for name, (target, *_) in CASES.items() if target == "idx"])
def test_an_idx_file_is_refused(check_case, name) -> None:
    """By the reader only: commands read no idx file whose digest is not known."""
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
        ("npz", folder()),
        ("image", image()),
        ("image", image("GIF", "L")),
        ("idx", idx()),
    ],
    ids=["npz", "one-hot by truth values", "folder", "png", "gif", "idx"],
)
def test_the_file_itself_is_read(attempt, target, content) -> None:
    assert attempt(target, content).kind == "read"


def test_a_link_within_the_folder_is_followed(attempt) -> None:
    def make(path: Path) -> None:
        folder()(path)
        (path / "cat" / "b.png").symlink_to(path / "dog" / "a.png")

    assert attempt("npz", make).kind == "read"
