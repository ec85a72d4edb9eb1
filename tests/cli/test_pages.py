"""`zoo gallery` and `zoo show --graph`."""

import json
import shutil
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


def test_a_gallery_of_what_was_not_trained_has_no_learning_curves(run, tmp_path) -> None:
    run("build", "mnist-dense-shallow", "-o", tmp_path / "m.safetensors")
    run("gallery", tmp_path / "m.safetensors", "-o", tmp_path / "p.html", "--limit", 20)
    assert "No learning curves" in (tmp_path / "p.html").read_text("utf-8")


def test_a_gallery_is_a_page(run, tmp_path) -> None:
    assert "FILE.html" in run("gallery", "mnist-dense", "-o", tmp_path / "p.pdf", code=2).stderr


def test_metrics_of_another_program_are_told_by_line(run, trained, tmp_path) -> None:
    shutil.copy(trained / "model.safetensors", tmp_path)
    metrics = (trained / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text(f'{metrics[0]}\n{{"step": 3}}\n')
    error = run("gallery", tmp_path / "model.safetensors", "-o", tmp_path / "p.html", code=1).stderr
    assert "metrics.jsonl:2: epoch: Field required" in error


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


def test_a_drawing_is_svg_or_html_of_one_network(run, tmp_path) -> None:
    assert "FILE.svg or FILE.html" in run("show", "mnist-dense", "--graph", tmp_path / "g.png", code=2).stderr
    both = run("show", "mnist-dense", "--graph", tmp_path / "g.svg", "--diff", "mnist-conv", code=2).stderr
    assert "one at a time" in both
