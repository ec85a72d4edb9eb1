"""`zoo site`: what it writes, what it refuses, and pages without WebAssembly."""

import json
from pathlib import Path

import pytest

from converters.formats.c import c_targets as c_wasm
from converters.formats.safetensors_file import read_safetensors
from specs import UnsupportedError
from zoo.factory import model_file
from zoo.hub.publish import publish
from zoo.runs.card_files import card_file

NAME = "spoken-digits-recurrent"


@pytest.fixture
def index(tmp_path) -> Path:
    publish(model_file(NAME), card_file(NAME), str(tmp_path / "index"))
    return tmp_path / "index"


@pytest.fixture
def without_clang(monkeypatch) -> None:
    monkeypatch.setattr(c_wasm, "COMPILER", "no-such-compiler")


def test_a_page_without_webassembly_says_so_and_has_all_else(run, index, tmp_path, without_clang) -> None:
    told = run("site", index, "-o", tmp_path / "pages")
    assert told.stdout == f"{tmp_path / 'pages' / 'index.html'}\n"
    assert "no-such-compiler not found" in told.stderr
    page = (tmp_path / "pages" / "models" / f"{NAME}.html").read_text("utf-8")
    revision = read_revision(index)
    for text in (
        "no-such-compiler not found",
        f"zoo pull {NAME}@{revision} --from {index} -o .",
        f"zoo.create_model(&#34;{NAME}@{revision}&#34;)",
        json.loads((index / "index.json").read_text())["models"][NAME][0]["files"]["safetensors"]["sha256"],
        "Apache-2.0",
        "Accuracy against time steps",
    ):
        assert text in page
    assert "<script" not in page


def read_revision(index: Path) -> str:
    return json.loads((index / "index.json").read_text())["models"][NAME][0]["revision"]


def test_json_names_each_page(run, index, tmp_path, without_clang) -> None:
    told = json.loads(run("site", index, "-o", tmp_path / "pages", "--json").stdout)
    page = {"name": NAME, "revision": read_revision(index), "page": f"models/{NAME}.html", "runs": False}
    assert told == {"output": str(tmp_path / "pages"), "models": [page]}


def test_a_damaged_model_is_left_out_and_named(run, index, tmp_path, without_clang) -> None:
    publish(model_file("mnist-dense-t4"), card_file("mnist-dense-t4"), str(index))
    (file,) = index.glob("mnist-dense-t4/*/*.safetensors")
    file.write_bytes(b"damaged")
    told = run("site", index, "-o", tmp_path / "pages")
    assert "mnist-dense-t4 is left out" in told.stderr
    assert [path.stem for path in (tmp_path / "pages" / "models").iterdir()] == [NAME]
    table = (tmp_path / "pages" / "index.html").read_text("utf-8")
    assert f"models/{NAME}.html" in table
    assert "mnist-dense-t4" not in table


def test_a_site_is_not_overwritten_unasked(run, index, tmp_path, without_clang) -> None:
    run("site", index, "-o", tmp_path / "pages")
    assert "--force" in run("site", index, "-o", tmp_path / "pages", code=1).stderr
    run("site", index, "-o", tmp_path / "pages", "--force")


def test_an_index_must_be_there_and_have_models(run, tmp_path) -> None:
    assert "zoo publish makes one" in run("site", tmp_path / "none", "-o", tmp_path / "pages", code=1).stderr
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "index.json").write_text('{"schema_version": 1, "models": {}}')
    assert "has no models" in run("site", tmp_path / "empty", "-o", tmp_path / "pages", code=1).stderr


def test_a_compiler_that_fails_is_quoted(monkeypatch) -> None:
    monkeypatch.setattr(c_wasm, "COMPILER", "false")
    monkeypatch.setattr(c_wasm, "LINKER", "true")
    with pytest.raises(UnsupportedError, match="false cannot compile it for WebAssembly"):
        c_wasm.compile_wasm(read_safetensors(model_file(NAME)))
