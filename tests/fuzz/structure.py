"""Change the structure of valid files at random: keys, shapes, types, links. hypothesis draws the changes."""

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import h5py
import numpy as np
import onnx
import torch
import valid_files
import yaml
from hypothesis import strategies as st
from onnx import ModelProto

from converters.formats.safetensors_file import METADATA_KEY

Draw = Callable[[st.SearchStrategy[Any]], Any]

NUMBERS = [
    0,
    1,
    -1,
    2,
    7,
    64,
    255,
    4096,
    1 << 16,
    1 << 24,
    1 << 31,
    1 << 40,
    1 << 62,
    1 << 70,
    0.5,
    -0.0,
    1e300,
    1e-300,
]
TEXTS = [
    "",
    "a",
    "dense",
    "affine",
    "conv",
    "blocks.1.synapse.weight",
    "../../x",
    "\0",
    "\x1b[2J",
    "é" * 40,
    "x" * 5000,
    "1e9",
]
ODD = [
    *NUMBERS,
    *TEXTS,
    None,
    True,
    False,
    [],
    {},
    [[]],
    [1, 2],
    [1 << 40, 1 << 40],
    {"kind": "dense"},
    {"a": {"a": {}}},
]
SHAPES = [(), (0,), (1,), (3,), (4, 6), (0, 4), (2, 1, 3, 3), (1, 1, 1, 1, 1), (1,) * 9]
ARRAYS = ("x", "y", "X", "x_train", "x_test", "y_train", "z")
DTYPES = ["f8", "f4", "f2", "i8", "i1", "u1", "u8", "?", ">f4", "c8", "S3"]


def changed(draw: Draw, document: Any, *, most: int = 3) -> Any:
    """Replace, delete, duplicate or swap some values of a JSON-like document."""
    document = deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        here, depth = document, draw(st.integers(0, 6))
        for _ in range(depth):
            inside = [
                v for v in (here.values() if isinstance(here, dict) else here) if isinstance(v, dict | list) and v
            ]
            if not inside:
                break
            here = inside[draw(st.integers(0, len(inside) - 1))]
        if not here:
            continue
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key, other = (keys[draw(st.integers(0, len(keys) - 1))] for _ in range(2))
        match draw(st.integers(0, 4)):
            case 0:
                del here[key]
            case 1:
                here[key], here[other] = here[other], here[key]
            case 2 if isinstance(here, dict):
                here[draw(st.sampled_from(TEXTS))] = here[key]
            case 2:
                here.append(here[key])
            case 3 if isinstance(here[key], int | float) and not isinstance(here[key], bool):
                here[key] = here[key] + draw(st.sampled_from([-1, 1, 8, 0.5, 1 << 32]))
            case _:
                here[key] = deepcopy(draw(st.sampled_from(ODD)))
    return document


def odd_array(draw: Draw, like: np.ndarray | None = None) -> np.ndarray:
    """Draw an array of any shape and dtype, or `like` with some unusual numbers."""
    if like is not None and like.size and like.dtype.kind in "iuf" and draw(st.booleans()):
        array = np.array(like, dtype="f8" if like.dtype.kind == "f" else like.dtype)
        place = draw(st.integers(0, array.size - 1))
        value = draw(
            st.sampled_from([0, 1, -1, 100, 127] if array.dtype.kind != "f" else [np.nan, np.inf, 1e300, -1, 0])
        )
        with np.errstate(all="ignore"):
            array.flat[place] = np.array(value).astype(array.dtype)
        return array
    return np.full(draw(st.sampled_from(SHAPES)), draw(st.sampled_from([0, 1, 2, 64]))).astype(
        draw(st.sampled_from(DTYPES))
    )


def safetensors(draw: Draw, content: bytes) -> bytes:
    """Change the header of a safetensors file, or the spec in it."""
    header, tensors = valid_files.safetensors_parts(content)
    metadata = header.get("__metadata__", {}).get(METADATA_KEY)
    if metadata and draw(st.booleans()):
        header["__metadata__"][METADATA_KEY] = json.dumps(changed(draw, json.loads(metadata)))
        return valid_files.safetensors_of(header, tensors)
    return valid_files.safetensors_of(changed(draw, header), tensors)


def state_dict(draw: Draw, content: bytes) -> bytes:
    """Change names and tensors of a checkpoint, or the header of a safetensors file."""
    if content[8:9] == b"{":
        return safetensors(draw, content)
    state: Any = torch.load(io.BytesIO(content), weights_only=True)
    for _ in range(draw(st.integers(1, 3))):
        names = list(state)
        name = names[draw(st.integers(0, len(names) - 1))]
        match draw(st.integers(0, 4)):
            case 0 if len(names) > 1:
                del state[name]
            case 1:
                state[draw(st.sampled_from(TEXTS))] = state[name]
            case 2:
                state[name] = draw(st.sampled_from(ODD))
            case _:
                value = state[name].numpy() if isinstance(state[name], torch.Tensor) else None
                array = odd_array(draw, value)
                state[name] = (
                    torch.from_numpy(array.copy()) if array.dtype.kind in "iuf?" and array.dtype.isnative else 0
                )
    if draw(st.booleans()):
        state = {draw(st.sampled_from(["model", "state_dict", "a"])): state, "epoch": draw(st.sampled_from(ODD))}
    return valid_files.saved(state, _use_new_zipfile_serialization=draw(st.booleans()))


def hdf5(draw: Draw, content: bytes) -> bytes:
    """Change datasets, links, types and attributes of an HDF5 file, and numbers in its headers and indices."""
    data = io.BytesIO(content)
    with h5py.File(data, "a") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(draw(st.integers(1, 3))):
            name = names[draw(st.integers(0, len(names) - 1))]
            if name not in file:
                continue
            value = file[name][()] if isinstance(file[name], h5py.Dataset) else None
            target = names[draw(st.integers(0, len(names) - 1))]
            choice = draw(st.integers(0, 7))
            if choice == 7:
                for key in file.attrs:
                    file.attrs[key] = json.dumps(changed(draw, json.loads(file.attrs[key])))
                continue
            if choice == 1 and target in file:
                file.move(name, f"{name}{draw(st.sampled_from(['0', '1', 'x']))}")
                continue
            del file[name]
            match choice:
                case 2:
                    file[name] = h5py.SoftLink(f"/{target}")
                case 3 if target in file:
                    file[name] = file[target]
                case 4:
                    file[name] = draw(st.sampled_from([text for text in TEXTS if "\0" not in text]))
                case 5 | 6:
                    array = odd_array(draw, value if isinstance(value, np.ndarray) and value.dtype != object else None)
                    packed = {"compression": "gzip"} if array.ndim and array.size and draw(st.booleans()) else {}
                    file.create_dataset(name, data=array, **packed)
    return changed_structure(draw, data.getvalue())


def changed_structure(draw: Draw, content: bytes) -> bytes:
    """Change numbers in the structure of an HDF5 file: object headers, trees, heaps and tables of names."""
    changed_bytes = bytearray(content)
    starts = [place.start() for place in re.finditer(rb"TREE|SNOD|HEAP|GCOL|\x01\0[\x01-\x20]\0\x01\0\0\0", content)]
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(starts)) + draw(st.integers(0, 300))
        size = draw(st.sampled_from([1, 2, 4, 8]))
        others = [
            0,
            1,
            8,
            255,
            1 << 16,
            1 << 31,
            (1 << 64) - 1,
            draw(st.sampled_from(starts)),
            draw(st.integers(0, 255)),
        ]
        number = draw(st.sampled_from(others)) % (1 << 8 * size)
        changed_bytes[place : place + size] = number.to_bytes(size, "little")
    return bytes(changed_bytes)


def onnx_model(draw: Draw, content: bytes) -> bytes:
    """Change operators, attributes, shapes, names and versions of an ONNX model."""
    model = ModelProto.FromString(content)
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    for _ in range(draw(st.integers(1, 3))):
        node = graph.node[draw(st.integers(0, len(graph.node) - 1))]
        tensor = graph.initializer[draw(st.integers(0, len(graph.initializer) - 1))]
        match draw(st.integers(0, 8)):
            case 0:
                node.op_type = draw(
                    st.sampled_from(["Gemm", "Conv", "MaxPool", "Concat", "Tile", "If", "Softmax", "Pad", "Resize"])
                )
            case 1 if node.input:
                node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from([*names, ""]))
            case 2:
                node.attribute.append(
                    onnx.helper.make_attribute(
                        draw(
                            st.sampled_from(["pads", "strides", "kernel_shape", "group", "alpha", "axis", "dilations"])
                        ),
                        draw(st.sampled_from([[0], [1 << 40] * 4, [-1, 1], 3, -3, 1 << 62, 0.5, "much", [2, 2]])),
                    )
                )
            case 3:
                tensor.dims[:] = draw(st.sampled_from([[], [0], [1], [4, 3], [1 << 40], [-1], [3, 4], [1, 1, 3, 3]]))
            case 4:
                tensor.data_type = draw(st.integers(0, 25))
            case 5:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(odd_array(draw), "f4"), tensor.name))
            case 6:
                model.opset_import[0].version = draw(st.sampled_from([-1, 0, 6, 7, 9, 11, 13, 17, 21, 99]))
            case 7:
                dim = graph.input[0].type.tensor_type.shape.dim
                dim[draw(st.integers(0, len(dim) - 1))].dim_value = draw(
                    st.sampled_from([0, 1, 2, 4, 64, 1 << 20, 1 << 40])
                )
            case 8 if node.attribute:
                one = node.attribute[draw(st.integers(0, len(node.attribute) - 1))]
                one.ints.append(draw(st.sampled_from([0, -1, 1 << 40])))
    return model.SerializeToString()


def spec(draw: Draw, content: bytes) -> bytes:
    """Change a spec; write it as YAML or JSON."""
    document = changed(draw, yaml.safe_load(content))
    return (json.dumps(document) if draw(st.booleans()) else yaml.safe_dump(document)).encode()


def index(draw: Draw, content: bytes) -> bytes:
    """Change an index or a card; write it as JSON."""
    return json.dumps(changed(draw, json.loads(content))).encode()


def idx(draw: Draw, content: bytes) -> bytes:
    """Change numbers in the header of an IDX file."""
    n_dims, shape = (
        draw(st.integers(0, 9)),
        draw(st.lists(st.sampled_from([0, 1, 3, 4, 28, 1 << 16, (1 << 32) - 1]), max_size=5)),
    )
    header = bytes([0, 0, draw(st.sampled_from([8, 8, 8, 9, 13])), n_dims]) + struct.pack(f">{len(shape)}I", *shape)
    return header + content[: draw(st.integers(0, len(content)))]


def npz(draw: Draw, content: bytes, *, names: tuple[str, ...] = ARRAYS) -> bytes:
    """Change names, shapes and dtypes of the arrays of an .npz."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(names))
        arrays[name] = odd_array(draw, arrays.get(name))
    return valid_files.npz(draw(st.booleans()), **arrays)


def npy(draw: Draw, content: bytes) -> bytes:
    """Change values and dtypes of the fields of an .npy of records; or write another array."""
    array = np.load(io.BytesIO(content))
    for name in draw(st.lists(st.sampled_from(array.dtype.names), min_size=1)):
        array[name][draw(st.integers(0, len(array) - 1))] = draw(st.sampled_from([0, 1, 7, 64, 127]))
    match draw(st.integers(0, 2)):
        case 0:
            array = odd_array(draw)
        case 1:
            array = array.astype([(name, draw(st.sampled_from(DTYPES))) for name in array.dtype.names])
    return valid_files.npy(array)


def words(draw: Draw, content: bytes) -> bytes:
    """Change events of five bytes, repeat them, and perhaps cut the file short."""
    events = [content[start : start + 5] for start in range(0, len(content), 5)]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(events) - 1))
        if draw(st.booleans()):
            events[place] = draw(
                st.sampled_from([bytes(5), b"\xff" * 5, b"\0\xf0\0\0\0"]) | st.binary(min_size=5, max_size=5)
            )
        else:
            events[place:place] = draw(st.integers(1, 1000)) * [events[place]]
    return shortened(draw, b"".join(events))


def sound(draw: Draw, content: bytes) -> bytes:
    """Change numbers in the header of a WAV file, perhaps add a chunk in front, perhaps cut the file short."""
    changed_bytes = bytearray(content)
    for place, size in draw(
        st.lists(st.sampled_from([(16, 4), (20, 2), (22, 2), (24, 4), (34, 2), (40, 4)]), max_size=3)
    ):
        number = draw(st.sampled_from([0, 1, 2, 3, 16, 18, 40, 8000, 0xFFFE, (1 << 32) - 1])) % (1 << 8 * size)
        changed_bytes[place : place + size] = number.to_bytes(size, "little")
    if draw(st.booleans()):
        n_bytes = draw(st.sampled_from([0, 1, 3, (1 << 32) - 1]))
        changed_bytes[12:12] = b"LIST" + n_bytes.to_bytes(4, "little") + bytes(draw(st.integers(0, 4)))
    return shortened(draw, bytes(changed_bytes))


def shortened(draw: Draw, content: bytes) -> bytes:
    """Return the content, or the start of it."""
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


def image(draw: Draw, content: bytes) -> bytes:
    """Change the header of a PNG and its checksum; in other images, change bytes at the start."""
    if content.startswith(b"\x89PNG"):
        width, height = (draw(st.sampled_from([0, 1, 9, 7, 5000, 1 << 16, (1 << 31) - 1])) for _ in range(2))
        depth, kind = draw(st.sampled_from([1, 2, 8, 16, 3])), draw(st.sampled_from([0, 2, 3, 4, 6, 1]))
        header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, draw(st.integers(0, 2)))
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    places = draw(
        st.lists(st.tuples(st.integers(0, min(64, len(content) - 1)), st.integers(0, 255)), min_size=1, max_size=6)
    )
    changed_bytes = bytearray(content)
    for place, value in places:
        changed_bytes[place] = value
    return bytes(changed_bytes)


CHANGES: dict[str, Callable[[Draw, bytes], bytes]] = {
    "safetensors": safetensors,
    "state-dict": state_dict,
    "netx": hdf5,
    "nir": hdf5,
    "torch": state_dict,
    "onnx": onnx_model,
    "spec": spec,
    "idx": idx,
    "npz": npz,
    "image": image,
    "bs1": words,
    "bs2": words,
    "events": partial(npz, names=("x", "y", "p", "t", "ts", "z")),
    "events-npy": npy,
    "sound": sound,
    "frames": npz,
    "index": index,
    "card": spec,
}
"""Functions that change a file, by format of `reader_targets.TARGETS`."""
