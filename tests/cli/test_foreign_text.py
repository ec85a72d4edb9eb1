"""Text from files, as commands print it: nothing in it reaches the terminal as a control character."""

import json
import re
from pathlib import Path

import h5py
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper
from PIL import Image

import converters.cli
import zoo.cli
from converters import read_model
from converters.cli.console import json_text
from converters.formats.state_dict_file import METADATA_KEY

ESCAPES = "\x1b[31m", "\x9b31m", "\u202e"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
MODULES = [*Path(zoo.cli.__file__).parent.glob("*.py"), *Path(converters.cli.__file__).parent.glob("*.py")]


def checked(result) -> str:
    text = result.stdout + result.stderr
    assert not CONTROL.search(text), text
    return text


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_only_the_console_prints(path) -> None:
    found = re.findall(r"click\.s?echo|(?<![\w.])print\(|sys\.std\w+\.write", path.read_text())
    assert len(found) == 2 * (path.name == "console.py"), found  # in echo and echo_over


@pytest.mark.parametrize("escape", ESCAPES, ids=ascii)
def test_class_folders_and_files(escape, run, tmp_path) -> None:
    for name in ("0" + escape, *"123456789"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (28, 28), 99).save(tmp_path / "images" / name / f"{i}.png")
    assert "does not have" in checked(run("eval", "mnist-dense-shallow", "--data", tmp_path / "images", code=1))
    (tmp_path / "images" / f"0{escape}").rename(tmp_path / "images/0")
    (tmp_path / "images/1" / f"{escape}.png").write_bytes(b"no image")
    assert "as an image" in checked(run("eval", "mnist-dense-shallow", "--data", tmp_path / "images", code=1))
    assert "as an image" in checked(run("predict", "mnist-dense", tmp_path / "images/1" / f"{escape}.png", code=1))


@pytest.mark.parametrize("escape", ESCAPES, ids=ascii)
def test_metadata_and_versions_of_a_state_dict(escape, run, tmp_path) -> None:
    source = tmp_path / "state.safetensors"
    safetensors.torch.save_file({"a.weight": torch.ones(2, 2)}, source, {f"key{escape}": f"text{escape}"})
    assert "left out" in checked(run("migrate", source, "--to", "legacy", "-o", tmp_path / "state.pt"))
    torch.save({f"model{escape}": {"a.weight": torch.ones(2, 2)}, f"other{escape}": 1}, tmp_path / "nested.pt")
    checked(run("migrate", tmp_path / "nested.pt", "--to", "legacy", "-o", tmp_path / "out.pt"))
    torch.save({f"a{escape}.weight": torch.ones(2, 2)}, tmp_path / "named.pt")
    checked(run("migrate", tmp_path / "named.pt", "--to", "legacy", "-o", tmp_path / "out2.pt", code=1))


@pytest.mark.parametrize("escape", ESCAPES, ids=ascii)
def test_the_card_and_the_spec_of_a_model(escape, trained, run, tmp_path) -> None:
    model = read_model(trained / "model.safetensors")
    text = {
        "format": 1,
        "spec": model.spec.model_dump(mode="json") | {"description": f"text{escape}"},
        "card": {"training": {"data": f"data{escape}", f"key{escape}": escape}, escape: escape},
    }
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.torch.save(dict(model.tensors), {METADATA_KEY: json.dumps(text)}))
    for command in ("show", "verify", "eval"):
        checked(run(command, path, code=int(command == "eval")))


@pytest.mark.parametrize(
    "line", ["description: !e%1b[31m x", '"\\e[31m": 1', 'name: "\\x9b31m"', '? "\\e"\n: 1\n"\\e": 2']
)
def test_tags_keys_and_values_of_a_spec(line, spec_file, run) -> None:
    spec_file.write_text(spec_file.read_text() + line + "\n")
    checked(run("check", spec_file, code=1))


def test_numbers_that_json_lacks_become_null() -> None:
    assert json_text([float("nan"), (1.5, {"a": float("inf")})]) == '[null, [1.5, {"a": null}]]'


def onnx_file(path: Path, escape: str) -> None:
    values = [helper.make_tensor_value_info(f"{name}{escape}", TensorProto.FLOAT, ["N", 784]) for name in "xy"]
    node = helper.make_node(f"Odd{escape}", [values[0].name], [values[1].name], name=f"node{escape}")
    graph = helper.make_graph([node], "graph", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)


def netx_file(path: Path, escape: str) -> None:
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer/0")
        layer["type"], layer["shape"] = f"dense{escape}", [3]
        layer["neuron/type"] = f"CUBA{escape}"


@pytest.mark.parametrize("escape", ESCAPES, ids=ascii)
@pytest.mark.parametrize("write", [onnx_file, netx_file])
def test_types_and_names_of_layers(write, escape, run, tmp_path) -> None:
    write(tmp_path / "model", escape)
    error = checked(run("convert", tmp_path / "model", "-o", tmp_path / "out.safetensors", code=1))
    if write is netx_file:
        assert "not a printable text" in error
        checked(run("show", tmp_path / "model", code=1))
    else:
        assert "\N{REPLACEMENT CHARACTER}" in error
