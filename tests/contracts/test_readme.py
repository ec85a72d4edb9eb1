"""The documents state what is so: their tables, commands, code and links."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from specs import parse_spec
from zoo.cli.program import zoo
from zoo.packaged_files import packaged_path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / name
    for name in (
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        *(f"{folder}/README.md" for folder in ("specs", "bootstrap_core", "converters", "zoo", "tests/benchmarks")),
    )
]

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_generated_tables_are_up_to_date() -> None:
    path = ROOT / "tests" / "make_readme_tables.py"
    spec = importlib.util.spec_from_file_location("make_readme_tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert set(module.DOCUMENTS) == set(DOCUMENTS) - {ROOT / "CONTRIBUTING.md"}
    used = set()
    for document in module.DOCUMENTS:
        text = document.read_text("utf-8")
        assert module.render(text) == text, document
        used |= set(re.findall(r"<!-- ([a-z-]+) -->", text))
    assert used == {*module.TABLES, "end"}


@each_document
def test_specs_are_valid(document) -> None:
    for text in blocks(document, "yaml"):
        spec = parse_spec(text)
        assert spec.n_classes == 10 or spec.without_classes


def test_the_stories_run(tmp_path, monkeypatch) -> None:
    """All `sh` blocks of the main README run in order, in the folder of the demo, without a network or other data."""
    monkeypatch.chdir(tmp_path)
    for spec in blocks(DOCUMENTS[0], "yaml"):
        (tmp_path / f"{parse_spec(spec).name}.yaml").write_text(spec)
    lines = [line.partition("#")[0] for block in blocks(DOCUMENTS[0], "sh") for line in block.splitlines()]
    assert len(lines) > 15
    for line in ["zoo demo", *lines]:
        result = CliRunner().invoke(zoo, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
    made = (
        "models/mnist-dense.safetensors",
        "seven.gif",
        "relu.net",
        "relu.html",
        "network.svg",
        "run/model.nir",
        "run/model.h",
        "seen.html",
    )
    assert all((tmp_path / name).stat().st_size > 1000 for name in made)


def run_story(document: Path, data: str) -> int:
    """Run the only spec, the block with the function `data`, and the `sh` blocks of a document; return their lines."""
    (spec,) = blocks(document, "yaml")
    Path(f"{parse_spec(spec).name}.yaml").write_text(spec)
    (code,) = (code for code in blocks(document, "python") if f"def {data}" in code)
    exec(compile(code, str(document), "exec"), {})
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    for line in lines:
        result = CliRunner().invoke(zoo, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
    return len(lines)


def best_of(run: str, figure: str) -> float:
    return min(json.loads(row)[figure] for row in Path(run, "metrics.jsonl").read_text().splitlines())


def test_the_story_of_values_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_story(ROOT / "bootstrap_core/README.md", "bars") == 5
    assert best_of("bars", "validation_snn_error") < 0.045
    assert best_of("tuned", "validation_snn_error") < 0.085


def test_the_story_of_spike_trains_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_story(ROOT / "zoo/README.md", "trains") == 3
    assert best_of("trains", "validation_snn_distance") < 0.6


@each_document
def test_python_blocks_run(document, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ann = tmp_path / "demo/mnist-relu.onnx"
    ann.parent.mkdir()
    ann.write_bytes(packaged_path("examples", ann.name).read_bytes())
    names: dict[str, object] = {}
    for code in blocks(document, "python"):
        exec(compile(code, str(document), "exec"), names)


@each_document
def test_commands_and_options_exist(document) -> None:
    lines = "\n".join(blocks(document, "(?:sh)?")).splitlines()
    for line in lines:
        if found := re.match(r"(?:.* -m )?zoo ([a-z]+)(.*)", line):
            command = zoo.commands[found[1]]
            if isinstance(command, click.Group):
                command = command.commands[found[2].split()[0]]
            known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
            assert set(re.findall(r"\s(--?[a-z][a-z-]*)", found[2].partition(" #")[0])) <= known, line


@each_document
def test_make_targets_exist(document) -> None:
    text = document.read_text("utf-8")
    targets = set(re.findall(r"^make ([a-z-]+)|`make\s+([a-z-]+)", text, re.MULTILINE))
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {name for pair in targets for name in pair if name} <= known


@each_document
def test_links_lead_somewhere(document) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text("utf-8")), target


def anchors(text: str) -> set[str]:
    """Return the anchors of all headings."""
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_tests_named_for_faults_of_lava_dl_exist() -> None:
    converters = ROOT / "converters"
    found = re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", (converters / "README.md").read_text("utf-8"))
    assert len(found) == 11
    for name, path in found:
        assert f"def {name}(" in (converters / path).read_text("utf-8")
