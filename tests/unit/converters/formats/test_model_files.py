"""Any model file is read by its kind, with the options that apply to it."""

from dataclasses import replace
from shlex import quote
from types import SimpleNamespace

import pytest
import torch

from bootstrap_core import IntegerNetwork, build_network
from converters import Model, read_model, write_c, write_model, write_netx, write_nir
from converters.formats.c.c_writer import COptions
from converters.formats.model_files import (
    C_SOURCE,
    MODEL_SUFFIXES,
    Hints,
    check_writable_format,
    files_of,
    format_notes,
)
from specs import ConversionError, NetworkSpec, UnsupportedError

SPEC = NetworkSpec.model_validate(
    {"name": "tiny", "time_steps": 4, "input": {"shape": [6]}, "blocks": [{"kind": "affine", "features": 3}]}
)


@pytest.fixture
def model() -> Model:
    return Model.of(build_network(SPEC, seed=0))


@pytest.mark.parametrize("lie", [".pt", ".onnx", ".nir", ".net", ".hdf5", ".bin"])
@pytest.mark.parametrize("truth", [".safetensors", ".net"])
def test_content_goes_before_the_suffix(truth, lie, model, tmp_path) -> None:
    path = write_model(model, tmp_path / f"a{truth}").rename(tmp_path / f"b{lie}")
    read = read_model(path)
    assert read.spec.input == model.spec.input
    told = any(f"that of a {truth} file" in note for note in read.notes)
    assert told == (lie in {".pt", ".onnx", ".nir", ".net"} - {truth})


@pytest.mark.parametrize("suffix", [".safetensors", ".net", ".hdf5"])
def test_hints_without_use_are_refused(suffix, model, tmp_path) -> None:
    path = write_model(model, tmp_path / f"a{suffix}")
    with pytest.raises(ConversionError, match="leave out --spec and --threshold"):
        read_model(path, Hints(spec=SPEC, threshold=1.0))


def test_an_onnx_model_has_no_reader_by_name(tmp_path) -> None:
    import onnx

    path = tmp_path / "a.onnx"
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])).SerializeToString())
    with pytest.raises(UnsupportedError, match=r"zoo convert .*a\.onnx --data mnist -o a\.safetensors"):
        read_model(path)


def test_a_network_is_written_like_its_model(tmp_path) -> None:
    network = build_network(SPEC, seed=0)
    paths = [write_model(given, tmp_path / f"{i}.safetensors") for i, given in enumerate((network, Model.of(network)))]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_is_no_model_is_refused_before_anything_is_written(model, tmp_path) -> None:
    with pytest.raises(ConversionError, match="write_model takes a Model or a Network, not a dict"):
        write_model({}, tmp_path / "a.net")
    with pytest.raises(ConversionError, match=r"not a SimpleNamespace: pass its \.model"):
        write_model(SimpleNamespace(model=model), tmp_path / "a.net")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["spike", "graded"])
def test_padded_images_are_the_same_in_both_engines_and_in_every_format(encoding, tmp_path) -> None:
    """The network computes what it computes on images that were padded before."""
    blocks = [{"kind": "conv", "channels": 4, "kernel": 3, "stride": 2}, {"kind": "flatten"}, SPEC.blocks[0]]
    entering = {"shape": [2, 6, 7], "encoding": encoding, "padding": [1, 2, 0, 1], "border": [0.25, 0.5]}
    network = build_network(SPEC.model_validate({**dict(SPEC), "input": entering, "blocks": blocks}), seed=0)
    images = torch.rand(5, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    wide = torch.tensor([0.25, 0.5]).reshape(2, 1, 1).repeat(5, 1, 7, 10)
    wide[:, :, 1:, 2:9] = images
    plain = SPEC.model_validate({**dict(SPEC), "input": {"shape": [2, 7, 10], "encoding": encoding}, "blocks": blocks})
    already_padded = build_network(plain, seed=0)
    already_padded.load_state_dict(network.state_dict())
    wanted = already_padded(wide)
    assert wanted.any()
    assert torch.equal(network(images), wanted)
    assert torch.equal(IntegerNetwork(network)(images), wanted)
    for suffix in (".safetensors", ".net", ".nir"):
        path = write_model(network, tmp_path / f"a{suffix}")
        assert torch.equal(read_model(path).build()(images), wanted)
        notes = format_notes(Model.of(network), suffix)
        assert any("pads the images for this file by [1, 2, 0, 1]" in note for note in notes) == (
            suffix != ".safetensors"
        )


def test_formats_without_names_of_classes_are_told() -> None:
    model = Model.of(build_network(SPEC, seed=0))
    names = [f"class {i}" for i in range(SPEC.n_classes)]
    assert not any("names" in note for note in format_notes(model, ".net"))
    for suffix, told in ((".net", True), (".hdf5", True), (".nir", False), (".safetensors", False)):
        notes = format_notes(replace(model, card={"classes": names}), suffix)
        assert any(f"--classes {quote(','.join(names))}" in note for note in notes) == told


def test_c_source_has_a_header_and_no_reader(model, tmp_path) -> None:
    path = write_model(model, tmp_path / "a.c", c=COptions(prefix="tiny"))
    assert files_of(path, COptions()) == [path, tmp_path / "a.h"]
    assert "int32_t tiny_run(" in (tmp_path / "a.h").read_text()
    assert C_SOURCE not in MODEL_SUFFIXES
    with pytest.raises(UnsupportedError, match="C source, which nothing reads back"):
        read_model(path)
    with pytest.raises(ConversionError, match="must consist of letters"):
        check_writable_format(tmp_path / "a b.c")


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (lambda model, path: write_netx(model.build(), path), ["a.net"]),
        (write_nir, ["a.nir"]),
        (write_c, ["a.c", "a.h"]),
        (write_model, ["a.safetensors"]),
    ],
)
def test_no_writer_overwrites_unasked(write, names, model, tmp_path) -> None:
    for name in names:
        (tmp_path / name).write_text("mine")
        with pytest.raises(ConversionError, match=f"{name} exists: choose another path, or pass overwrite=True"):
            write(model, tmp_path / names[0])
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
