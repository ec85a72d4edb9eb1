"""Kinds of files, recognised by their content."""

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

from converters.formats.file_kind import FileKind, kind_of_file
from converters.onnx.reading.onnx_file import load_onnx
from specs import IntegrityError, SnnZooError, UnsupportedError


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def torch_bytes(**options) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer, **options)
    return buffer.getvalue()


def hdf5_bytes(*groups: str, **attributes: str) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, value in attributes.items():
            file.attrs[name] = value.encode()
        for group in groups:
            file.create_group(group)
    return buffer.getvalue()


def zip_bytes(*names: str, **contents: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, contents.get(name.partition(".")[0], "x"))
    return buffer.getvalue()


def npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(2))
    return buffer.getvalue()


def npy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(2))
    return buffer.getvalue()


def onnx_bytes() -> bytes:
    graph = onnx.helper.make_graph([], "g", [], [])
    return onnx.helper.make_model(graph).SerializeToString()


MODELS = {
    FileKind.SAFETENSORS: [safetensors.torch.save({"w": torch.zeros(2)}),
                           safetensors.torch.save({f"w{i}": torch.zeros(2) for i in range(9)})],
    FileKind.TORCH: [torch_bytes(), torch_bytes(_use_new_zipfile_serialization=False)],
    FileKind.NETX: [hdf5_bytes("layer", "simulation")],
    FileKind.NIR: [hdf5_bytes("node")],
    FileKind.ONNX: [onnx_bytes()],
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["", ".pt", ".onnx", ".net", ".nir", ".xyz"])
@pytest.mark.parametrize("kind", MODELS)
def test_models_are_known_by_their_content(kind, suffix, tmp_path) -> None:
    for data in MODELS[kind]:
        assert kind_of_file(save(tmp_path / f"a{suffix}", data)) is kind


def test_safetensors_whose_header_has_the_length_of_a_pickles_mark(tmp_path) -> None:
    """The file starts with the length of its header; a length with the bytes 0x80 0x02 looks like a pickle."""
    for extra in range(700):
        data = safetensors.torch.save({"w": torch.zeros(1)}, {"a": "x" * extra})
        if data[:2] == b"\x80\x02":
            break
    assert data[:2] == b"\x80\x02"
    assert kind_of_file(save(tmp_path / "a", data)) is FileKind.SAFETENSORS


IMPOSTERS = {
    "is empty": b"",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n",
    "a web page": b"\n  <!DOCTYPE html><html><body>404</body></html>",
    "a web page, not": b"<HTML><head></head></HTML>",
    "an XML document": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "the error message of a server": b'{"error":"Repository not found"}',
    "a gzip file, not a model: unpack it first": b"\x1f\x8b\x08\x00" + b"\0" * 20,
    "a GGUF file, not a model": b"GGUF\x03\0\0\0",
    "a NumPy array": npy_bytes(),
    "a NumPy archive": npz_bytes(),
    "a zip archive that holds model.onnx: unpack it first": zip_bytes("model.onnx", "README"),
    "a zip archive, not a model; it holds a.txt": zip_bytes("a.txt"),
    "damaged zip": torch_bytes()[:200],
    "a zip archive that holds a.tflite: unpack it first": zip_bytes("a.tflite"),
    "of neither netx nor NIR; it holds other": hdf5_bytes("other"),
    "is text, not a model": b"name: net\ntime_steps: 4\n",
    "not a model file of a known kind": bytes(range(64, 255)),
}


@pytest.mark.parametrize("suffix", [".onnx", ".pt", ".net", ""])
@pytest.mark.parametrize("what", IMPOSTERS)
def test_what_is_no_model_is_told_by_what_it_is(what, suffix, tmp_path) -> None:
    with pytest.raises(IntegrityError, match=what):
        kind_of_file(save(tmp_path / f"a{suffix}", IMPOSTERS[what]))


def test_files_that_cannot_be_read_are_told(tmp_path) -> None:
    with pytest.raises(SnnZooError, match="No such file"):
        kind_of_file(tmp_path / "none.pt")
    with pytest.raises(SnnZooError, match="Is a directory"):
        kind_of_file(tmp_path)
    with pytest.raises(SnnZooError, match="cannot read"):
        kind_of_file(Path("a\0b"))


KERAS_ENTRIES = "metadata.json", "config.json", "model.weights.h5"
SAVED_MODEL = b"\x08\x01\x12\xc6\xb6\x04\x0a\xfd\x19\x12\xcd\x19"
FOREIGN = {
    "a model of Keras 3;": [
        zip_bytes(*KERAS_ENTRIES, metadata='{"keras_version": "3.15.1"}'),
        hdf5_bytes("model_weights", "optimizer_weights", keras_version="3.15.1"),
        zip_bytes(*KERAS_ENTRIES),
        hdf5_bytes("model_weights"),
    ],
    "a model of Keras 2;": [
        zip_bytes(*KERAS_ENTRIES, metadata='{"keras_version": "2.15.0"}'),
        hdf5_bytes("model_weights", keras_version="2.15.0"),
    ],
    "a model of TensorFlow Lite;": [b"\x1c\0\0\0TFL3\x14\0\x20\0"],
    "a SavedModel of TensorFlow;": [SAVED_MODEL],
    "TorchScript, a program": [zip_bytes("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py")],
    "a program of torch.export;": [
        zip_bytes("m/archive_format", "m/models/model.json", "m/data/weights/weight_0"),
        zip_bytes("serialized_exported_program.json", "serialized_state_dict.pt"),
    ],
    "holds the weights of a Keras model": [hdf5_bytes("layers", "vars"), hdf5_bytes("dense", keras_version="2.15.0")],
}


@pytest.mark.parametrize("suffix", [".keras", ".safetensors", ".onnx", ""])
@pytest.mark.parametrize("what", FOREIGN)
def test_anns_of_other_programs_are_named_with_the_way_to_onnx(what, suffix, tmp_path) -> None:
    for data in FOREIGN[what]:
        path = save(tmp_path / f"a{suffix}", data)
        for read in (kind_of_file, load_onnx):
            with pytest.raises(UnsupportedError, match=what) as error:
                read(path)
            assert "\nzoo convert model." in str(error.value)


def test_a_saved_model_is_known_as_folder_and_by_its_file(tmp_path) -> None:
    folder = tmp_path / "my model"
    folder.mkdir()
    path = save(folder / "saved_model.pb", SAVED_MODEL)
    for given in (folder, path):
        with pytest.raises(UnsupportedError, match="is a SavedModel") as error:
            kind_of_file(given)
        assert f"--saved-model '{folder}' --output model.onnx\n" in str(error.value)


def test_an_onnx_file_with_a_producer_is_no_saved_model(tmp_path) -> None:
    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph, producer_name="x" * 300)
    assert kind_of_file(save(tmp_path / "a", model.SerializeToString())) is FileKind.ONNX


def test_c_source_is_told_from_other_text(tmp_path) -> None:
    path = save(tmp_path / "a.c", b"/* a: a spiking network in exact integers, written by snnzoo.\n */\n")
    with pytest.raises(UnsupportedError, match="is C source, which nothing reads back"):
        kind_of_file(path)
