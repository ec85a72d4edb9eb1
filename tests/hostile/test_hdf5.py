"""netx and NIR files (HDF5) with links to other files, cycles, endless decompression, or contradictory contents."""

import json
import os
import re
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from valid_files import CHAIN, SPEC, foreign_netx, foreign_nir, model

from converters.formats.netx.netx_model import write_netx
from converters.formats.netx.netx_reader import SPEC_ATTRIBUTE
from converters.formats.nir.nir_writer import METADATA_KEY, write_nir

Change = Callable[[h5py.File], object]


def netx(change: Change, path: Path) -> None:
    """Write a netx file of another program, with a change."""
    made = path.with_name("made")
    made.mkdir()
    path.write_bytes(foreign_netx(made))
    with h5py.File(path, "a") as file:
        change(file)


def own_netx(change: Change, path: Path) -> None:
    write_netx(model(CHAIN).build(), path)
    with h5py.File(path, "a") as file:
        change(file)


def nir(change: Change, path: Path) -> None:
    path.write_bytes(foreign_nir())
    with h5py.File(path, "a") as file:
        change(file)


def own_nir(change: Change, path: Path) -> None:
    write_nir(model(SPEC), path)
    with h5py.File(path, "a") as file:
        change(file)


def put(name: str, value: object, **options: object) -> Change:
    """Replace a dataset or a link."""

    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        if options or isinstance(value, np.ndarray):
            file.create_dataset(name, **({"data": value} if isinstance(value, np.ndarray) else {}), **options)
        else:
            file[name] = value

    return change


def both(first: Change, second: Change) -> Change:
    """Make two changes, one after the other."""

    def change(file: h5py.File) -> None:
        first(file)
        second(file)

    return change


def outside(name: str) -> Change:
    """Replace a dataset by a link to the same dataset in another, existing file."""

    def change(file: h5py.File) -> None:
        folder = Path(file.filename).parent / "elsewhere"
        folder.mkdir()
        (folder / "other.net").write_bytes(foreign_netx(folder))
        del file[name]
        file[name] = h5py.ExternalLink(str(folder / "other.net"), name)

    return change


def raw_outside(file: h5py.File) -> None:
    del file["layer/1/weight"]
    file.create_dataset("layer/1/weight", (4, 6), "u1", external=[("/etc/passwd", 0, 24)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 6), "f8")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "w", (4, 6))
    del file["layer/1/weight"]
    file.create_virtual_dataset("layer/1/weight", layout)


def bomb(name: str, shape: tuple[int, ...], unpacked: int) -> Change:
    """Replace a dataset by one whose chunk inflates to `unpacked` bytes."""

    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        dataset = file.create_dataset(name, shape, "f8", chunks=shape, compression="gzip")
        dataset.id.write_direct_chunk((0,) * len(shape), zlib.compress(bytes(unpacked), 9))

    return change


def zeros_packed(name: str) -> Change:
    return put(name, None, shape=(3 << 24, 8), dtype="f8", chunks=(1 << 16, 8), compression="gzip")


def spec_attribute(**changes: object) -> Change:
    def change(file: h5py.File) -> None:
        file.attrs[SPEC_ATTRIBUTE] = json.dumps({**CHAIN, **changes})

    return change


def group_in_itself(file: h5py.File) -> None:
    file["node/nodes/loop"] = file["node/nodes"]


def deep(file: h5py.File) -> None:
    file.create_group("node/metadata/" + "/".join("a" * 40))


def many(file: h5py.File) -> None:
    for i in range(20_001):
        file.create_group(f"node/metadata/{i}")


def damaged_texts(file: h5py.File) -> None:
    """Set the length of a string to 4 GiB."""
    offset, path = file["node/nodes/fc/type"].id.get_offset(), Path(file.filename)
    file.close()
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff\xff\xff\xff")


def damaged_heap(file: h5py.File) -> None:
    """Let the heap of the only variable-length string point beyond the end of the file."""
    for i in range(3):
        put(f"layer/{i}/neuron/type", np.bytes_(b"LOIHI"))(file)
    file.attrs[SPEC_ATTRIBUTE] = "x" * 100
    path = Path(file.filename)
    file.close()
    content = bytearray(path.read_bytes())
    heap = content.find(b"GCOL")
    while heap >= 0:
        content[heap + 24 : heap + 32] = (1 << 62).to_bytes(8, "little")
        heap = content.find(b"GCOL", heap + 4)
    path.write_bytes(content)


def shared_names(file: h5py.File) -> None:
    """Let all groups use the table of names of the root group."""
    path = Path(file.filename)
    file.close()
    content = bytearray(path.read_bytes())
    heap = content.find(b"HEAP")
    names = content[heap + 8 : heap + 32]
    while heap >= 0:
        content[heap + 8 : heap + 32] = names
        heap = content.find(b"HEAP", heap + 4)
    path.write_bytes(content)


def tiny_chunks(name: str) -> Change:
    """Replace a dataset by ten million chunks of one number, of which one is in the file."""

    def change(file: h5py.File) -> None:
        del file[name]
        dataset = file.create_dataset(name, (10_000_000,), "i1", chunks=(1,), compression="gzip")
        dataset.id.write_direct_chunk((0,), zlib.compress(b"1"))

    return change


def edited(change: Change, signature: bytes, edit: Callable[[bytearray, list[int]], None]) -> Change:
    """Change a file by h5py, then its bytes; `edit` gets the places of a signature, too."""

    def both(file: h5py.File) -> None:
        change(file)
        path = Path(file.filename)
        file.close()
        content = bytearray(path.read_bytes())
        edit(content, [place.start() for place in re.finditer(signature, content)])
        path.write_bytes(content)

    return both


def repeat_leaves(content: bytearray, trees: list[int]) -> None:
    """Let the last index of chunks have two levels more, of 60,000 references each to the same node."""
    leaf = trees[-1]
    for level in (1, 2):
        node = b"TREE\1" + bytes([level]) + struct.pack("<HQQ", 60_000, 0, 0)
        leaf, place = len(content), leaf
        content.extend(node + (bytes(24 + 8) + struct.pack("<Q", place)) * 60_000)
    reference = content.find(struct.pack("<Q", trees[-1]))
    content[reference : reference + 8] = struct.pack("<Q", leaf)


def long_names(content: bytearray, tables: list[int]) -> None:
    """Let the root group have 60,000 entries with the same name of a megabyte."""
    heap, names, entries = content.find(b"HEAP"), len(content), len(content) + (1 << 20)
    content[heap + 8 : heap + 16] = struct.pack("<Q", 1 << 20)
    content[heap + 24 : heap + 32] = struct.pack("<Q", names)
    content.extend(b"a" * ((1 << 20) - 1) + b"\0")
    content.extend(b"SNOD\1\0" + struct.pack("<H", 60_000) + bytes(40) * 60_000)
    reference = content.find(struct.pack("<Q", tables[0]))
    content[reference : reference + 8] = struct.pack("<Q", entries)


def many_values(content: bytearray, names: list[int]) -> None:
    """Let the attribute hold 2^31 texts."""
    space = re.compile(rb"\x01\x01[\x00\x01]\x00{5}\x01\x00{7}").search(content, names[0])
    assert space
    content[space.start() + 8 : space.end()] = struct.pack("<Q", 1 << 31)


def repeated_text(file: h5py.File) -> None:
    """Let all names of 40,000 edges be the same text of a megabyte."""
    put("node/edges", np.full((40_000, 2), "", object), dtype=h5py.string_dtype())(file)
    put("node/long", "x" * (1 << 20))(file)
    place, start, path = file["node/edges"].id.get_offset(), file["node/long"].id.get_offset(), Path(file.filename)
    file.close()
    content = bytearray(path.read_bytes())
    content[place : place + 16 * 80_000] = content[start : start + 16] * 80_000
    path.write_bytes(content)


def loop_of_headers(content: bytearray, places: list[int]) -> None:
    """Let the header of the root group go on at its own start, again and again."""
    root = int.from_bytes(content[64:72], "little")
    content[root : root + 40] = struct.pack("<BBHIIIHHIQQ", 1, 0, 65_535, 1, 24, 0, 16, 16, 0, root + 16, 24)


WIDE = {"kind": "dense", "features": 1 << 15}
LARGE = {"input": {"shape": [1 << 15]}, "blocks": [WIDE, {"kind": "affine", "features": 2}]}
WEIGHT, SHAPE, NEURON = "layer/1/weight", "layer/1/shape", "layer/1/neuron"
SIDES = "the shape has 100,000 sides; at most 8 are read"
FC = "node/nodes/fc/weight"
NETX: dict[str, tuple[Change, str]] = {
    "a link into another file": (outside("layer/1"), "links are not followed"),
    "a weight in another file": (outside(WEIGHT), "links are not followed"),
    "values in /etc/passwd": (raw_outside, "outside the file"),
    "a virtual dataset": (virtual, "outside the file"),
    "a soft link to itself": (put("layer/1", h5py.SoftLink("/layer/1")), "/layer/1: is a link"),
    "a soft link to the root": (put("layer", h5py.SoftLink("/")), "/layer: is a link"),
    "soft links in a circle": (put("layer/2", h5py.SoftLink("/layer/1")), "links are not followed"),
    "2^40 numbers": (put(WEIGHT, None, shape=(1 << 20, 1 << 20), dtype="f8"), "bytes; at most"),
    "3 GiB of zeros in little": (zeros_packed(WEIGHT), "bytes; at most"),
    "a chunk that inflates": (bomb(WEIGHT, (1 << 10, 64), 64 << 20), "a chunk unpacks to more than its 524,288 bytes"),
    "a short chunk that inflates": (bomb(WEIGHT, (4, 6), 64 << 20), "a chunk of 192 bytes is packed into 65,238"),
    "a chunk of 2 GiB": (
        put(WEIGHT, None, shape=(4, 6), dtype="f8", chunks=(1 << 14, 1 << 13), maxshape=(None, None)),
        "1,073,741,824 bytes; at most",
    ),
    "ten million chunks": (tiny_chunks(WEIGHT), f"/{WEIGHT}: 1 of 10,000,000 chunks are in the file"),
    "an index of chunks that repeats": (
        edited(put(WEIGHT, np.ones((4, 6)), chunks=(4, 6)), b"TREE", repeat_leaves),
        f"/{WEIGHT}: names, texts, headers and indices take more than 8,388,608 bytes",
    ),
    "a header without end": (
        edited(lambda file: None, b"TREE", loop_of_headers),
        "or one header more than 65,536",
    ),
    "60,000 names of a megabyte": (edited(lambda file: None, b"SNOD", long_names), "damaged or unsupported HDF5"),
    "an attribute of 2^31 texts": (
        edited(lambda file: file.attrs.create(SPEC_ATTRIBUTE, ["a"]), SPEC_ATTRIBUTE.encode(), many_values),
        "an attribute of 2,147,483,648 values or of sequences; at most 100,000 are read",
    ),
    "an odd filter": (put(WEIGHT, np.ones((4, 6)), compression="lzf"), "filter 32000"),
    "texts for weights": (put(WEIGHT, np.array([[b"a"] * 6] * 4)), "not numbers"),
    "texts without end for weights": (put(WEIGHT, None, shape=(4, 6), dtype=h5py.string_dtype()), "not numbers"),
    "references for weights": (put(WEIGHT, None, shape=(4, 6), dtype=h5py.ref_dtype), "not numbers"),
    "ragged weights": (put(WEIGHT, None, shape=(4,), dtype=h5py.vlen_dtype(np.float64)), "not numbers"),
    "bytes of no type for weights": (
        put(WEIGHT, np.full((4, 6), np.void(b"abc"))),
        "not numbers|damaged or unsupported",
    ),
    "records for weights": (put(WEIGHT, np.zeros((4, 6), [("a", "f4"), ("b", "i8")])), "not numbers"),
    "complex weights": (put(WEIGHT, np.ones((4, 6), complex)), "not numbers"),
    "weights that are empty": (put(WEIGHT, h5py.Empty("f8")), f"/{WEIGHT}: the dataset is empty"),
    "NaN among weights": (put(WEIGHT, np.full((4, 6), np.nan)), "not finite"),
    "weights of 1e300": (put(WEIGHT, np.full((4, 6), 1e300)), r"24 of 24 weight mantissas off .*, such as 1e\+300"),
    "a gap in the numbers of layers": (lambda file: file.move("layer/1", "layer/7"), "numbered from 0"),
    "layers named by words": (lambda file: file.move("layer/1", "layer/one"), "numbered from 0"),
    "no layers": (put("layer", np.zeros(3)), "it has no group 'layer'"),
    "a shape that contradicts the weight": (put(SHAPE, np.array([5])), r"weights of shape \[4, 6\] for 5 outputs"),
    "a shape of 2^62": (
        put(SHAPE, np.array([1 << 62])),
        rf"/{SHAPE}: holds \[4611686018427387904\]\.\.\., beyond 2\^53",
    ),
    "a shape below zero": (put(SHAPE, np.array([-4])), r"of at least 1, got \[-4\]"),
    "a shape of 100,000 sides of 1": (put(SHAPE, np.ones(100_000, int)), SIDES),
    "a shape of 100,000 long sides": (put(SHAPE, np.full(100_000, 1 << 52)), SIDES),
    "a shape of 100,000 sides of 0": (put(SHAPE, np.zeros(100_000, int)), SIDES),
    "a type that is a number": (put("layer/1/type", np.array(3)), "the layer has no type"),
    "a type of a megabyte": (put("layer/1/type", np.array(b"x" * (1 << 20))), f"a layer of type '{'x' * 40}'"),
    "a threshold of 2^62": (
        put(f"{NEURON}/vThMant", np.array(1 << 62)),
        rf"/{NEURON}/vThMant: holds \[4611686018427387904\]\.\.\., beyond 2\^53",
    ),
    "no thresholds": (put(f"{NEURON}/vThMant", np.zeros(0)), f"/{NEURON}: CUBA neurons need vThMant"),
    "sigma-delta neurons without thresholds": (
        both(put(f"{NEURON}/type", np.bytes_(b"SDNN")), put(f"{NEURON}/vThMant", np.zeros(0))),
        f"/{NEURON}: sigma-delta neurons need vThMant",
    ),
    "an activation of a megabyte": (
        both(put(f"{NEURON}/type", np.bytes_(b"SDNN")), put(f"{NEURON}/activation", np.bytes_(b"x" * (1 << 20)))),
        f"the activation {'x' * 40} of sigma-delta neurons",
    ),
    "a decay that is none": (
        put(f"{NEURON}/iDecay", np.array(1e9)),
        f"/{NEURON}: expected one decay, .* from 0 to 4096",
    ),
    "no decays": (
        put(f"{NEURON}/iDecay", np.zeros(0)),
        f"/{NEURON}: expected one decay, or one for each of 4 channels",
    ),
    # found by fuzzing
    "an attribute's damaged text": (damaged_heap, f"attribute {SPEC_ATTRIBUTE}: damaged"),
    "groups that share their names": (shared_names, "layers must be numbered from 0"),
    "a name that is no text": (
        lambda file: file.create_group(b"layer/\xff\xfe"),
        "/layer: damaged .*UnicodeDecodeError",
    ),
    "2^40 time steps": (put("simulation/tSample", np.array(1 << 40)), "time_steps"),
    "weights that do not follow": (
        put("layer/2/weight", np.full((3, 9), 2.0)),
        r"synapse\.weight has shape \[3, 9\], expected \[3, 4\]",
    ),
}
OWN_NETX: dict[str, tuple[Change, str]] = {
    "a spec of 4 GiB": (spec_attribute(**LARGE), "the spec of tiny has 1,073,840,130 parameters; the file holds 90"),
    "a spec of brackets": (
        lambda file: file.attrs.create(SPEC_ATTRIBUTE, "[" * 40_000),
        f"attribute {SPEC_ATTRIBUTE}: .* while decoding a JSON array",
    ),
    "a spec that is another's": (
        spec_attribute(time_steps=4, blocks=CHAIN["blocks"][2:]),
        "the layers do not match the spec in the attribute",
    ),
}
NIR: dict[str, tuple[Change, str]] = {
    "a group in itself": (group_in_itself, "has another name"),
    "a soft link to itself": (put("node/nodes/fc", h5py.SoftLink("/node/nodes/fc")), "/fc: is a link"),
    "a link into another file": (
        put("node/nodes/fc", h5py.ExternalLink("/etc/other.h5", "/")),
        "links are not followed",
    ),
    "40 groups deep": (deep, "groups deep"),
    "ten million chunks": (tiny_chunks(FC), f"/{FC}: 1 of 10,000,000 chunks are in the file"),
    "20,001 groups": (many, "more than 20000 objects"),
    "2^40 numbers": (put(FC, None, shape=(1 << 40,), dtype="f8"), "bytes; at most"),
    "3 GiB of zeros in little": (zeros_packed(FC), "bytes; at most"),
    "a chunk that inflates": (bomb(FC, (1 << 10, 64), 64 << 20), "a chunk unpacks"),
    "100,001 texts": (put("node/edges", None, shape=(1 << 20, 2), dtype=h5py.string_dtype()), "texts; at most"),
    "a text of a megabyte, 80,000 times": (repeated_text, "/edges: names, texts, headers and indices take more than"),
    "edges of numbers": (put("node/edges", np.zeros((4, 2))), "edges are not pairs of names"),
    "edges to nowhere": (
        put("node/edges", np.array([["input", "ghost"]], dtype=object), dtype=h5py.string_dtype()),
        "an edge refers to the missing node 'ghost'",
    ),
    "edges in a circle": (
        put("node/edges", np.array([["fc", "lif"], ["lif", "fc"]], dtype=object), dtype=h5py.string_dtype()),
        "no path from Input to Output through lif, out, output",  # a loop of neurons that nothing reaches
    ),
    "a node that is a number": (put("node/nodes/fc", np.array(3)), "is not a group"),
    "a type that is a number": (put("node/nodes/fc/type", np.array(3)), "node 'fc' has no type"),
    "NaN": (put(FC, np.full((8, 8), np.nan)), "not finite"),
    "weights of three axes": (
        put(FC, np.ones((8, 8, 8))),
        r"weights of shape \[8, 8, 8\]; expected \[outputs, inputs\]",
    ),
    "weights without numbers": (put(FC, np.ones((0, 8))), r"weights of shape \[0, 8\]; expected \[outputs, inputs\]"),
    "a threshold without numbers": (
        put("node/nodes/lif/v_threshold", np.zeros(0)),
        r"v_threshold of shape \[0\] does not fit a signal of shape \[8\]",
    ),
    "groups that share their names": (shared_names, "a name that is not printable text"),
    "a name that is no text": (lambda file: file.create_group(b"node/\xff"), "/node: damaged .*UnicodeDecodeError"),
    "a shape of 2^62": (
        put("node/nodes/input/shape", np.array([1 << 62])),
        r"shape holds \[4\.61168602e\+18\], beyond 2\^31",
    ),
}
OWN_NIR: dict[str, tuple[Change, str]] = {
    "metadata of brackets": (
        put(f"node/metadata/{METADATA_KEY}", "[" * 60_000),
        "damaged metadata .* while decoding a JSON array",
    ),
    "metadata of another kind": (
        put(f"node/metadata/{METADATA_KEY}", '{"format": 9, "digests": {}, "card": {}, "spec": {}}'),
        "format 9",
    ),
}


def own_group(path: Path, name: bytes) -> None:
    with h5py.File(path, "w") as file:
        file.create_group(name)


CASES = {
    f"{target}, {name}": (target, partial(make, change), message)
    for target, make, table in (
        ("netx", netx, NETX),
        ("netx", own_netx, OWN_NETX),
        ("nir", nir, NIR),
        ("nir", own_nir, OWN_NIR),
    )
    for name, (change, message) in table.items()
} | {
    "netx, HDF5 of neither": ("netx", lambda path: h5py.File(path, "w").close(), "neither netx nor NIR"),
    "netx, HDF5 of neither, in no text": (
        "netx",
        lambda path: own_group(path, b"\xff\xfe"),
        "damaged or unsupported HDF5: UnicodeDecodeError",
    ),
    "netx, a signature alone": ("netx", b"\x89HDF\r\n\x1a\n" + bytes(100), "damaged or unsupported HDF5"),
    "netx, a pipe": ("netx", os.mkfifo, "a pipe or a device"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(check_case, name) -> None:
    check_case(CASES[name])


def test_the_length_of_a_text_is_that_in_the_heap(attempt) -> None:
    assert attempt("nir", partial(nir, damaged_texts)).kind == "read"


@pytest.mark.parametrize("make", [netx, own_netx, nir, own_nir])
def test_the_file_itself_is_read(attempt, make) -> None:
    assert attempt("netx" if "netx" in make.__name__ else "nir", partial(make, lambda file: None)).kind == "read"
