"""`zoo gallery` and `zoo show --graph`."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_gallery_of_a_run_has_its_curves(run, trained, tmp_path) -> None:
    page = tmp_path / "page.html"
    assert run("gallery", trained / "model.safetensors", "-o", page, "--limit", 60).stdout == f"{page}\n"
    html = page.read_text("utf-8")
    assert "Accuracy over the epochs" in html
    assert "zoo gallery" in html
    assert "--limit 60" in html
    run("gallery", trained / "model.safetensors", "-o", page, code=1)


def test_a_gallery_counts_what_eval_counts(run, trained, tmp_path) -> None:
    told = run("gallery", trained / "model.safetensors", "-o", tmp_path / "p.html", "--json").stdout
    score = run("eval", trained / "model.safetensors", "--engine", "integer", "--json").stdout
    assert json.loads(told)["accuracy"] == json.loads(score)["results"][0]["accuracy"]
    assert json.loads(told)["images"] == 1000


def test_a_gallery_of_mnist_needs_no_data(run, tmp_path) -> None:
    told = run("gallery", "mnist-dense-shallow", "-o", tmp_path / "p.html", "--limit", 20)
    assert "embedded sample" in told.stderr
    assert "No learning curves" not in (tmp_path / "p.html").read_text("utf-8")


@pytest.mark.parametrize("source", ["mnist-conv", "dense/network.net", "nir/snntorch_dense.nir"])
def test_networks_of_every_format_are_drawn(run, tmp_path, source) -> None:
    if source.endswith(".nir"):
        run("convert", GOLDEN / source, "--dt", "1e-4", "-o", tmp_path / "own.nir")
        source = tmp_path / "own.nir"
    elif "." in source:
        source = GOLDEN / source
    out = tmp_path / "graph.svg"
    assert run("show", source, "--graph", out).stdout == f"{out}\n"
    marks = ET.parse(out).getroot().iter("{http://www.w3.org/2000/svg}rect")
    assert len([mark for mark in marks if mark.get("class") == "weights"]) > 10
    run("show", source, "--graph", out, code=1)


def test_a_spec_is_drawn_without_weights(run, spec_file, tmp_path) -> None:
    out = tmp_path / "graph.html"
    run("show", spec_file, "--graph", out)
    html = out.read_text("utf-8")
    assert "12,544 weights" in html
    assert 'class="weights"' not in html
