"""The README says what is so."""

import importlib.util
import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from specs import parse_spec
from zoo.cli import zoo
from zoo.packaged_files import packaged_path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_tables_are_those_of_the_cards_and_the_benchmark() -> None:
    path = ROOT / "tests" / "make_readme_tables.py"
    spec = importlib.util.spec_from_file_location("make_readme_tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for document in module.DOCUMENTS:
        text = document.read_text("utf-8")
        assert module.render(text) == text, document


def test_its_spec_is_valid() -> None:
    assert parse_spec(blocks("yaml")[0]).n_classes == 10


def test_its_stories_go_through(tmp_path, monkeypatch) -> None:
    """As they stand, one after the other, where the demo ran; with no network, and no data but what the package has."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(blocks("yaml")[0])
    lines = [line.partition("#")[0] for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) > 15
    for line in ["zoo demo", *lines]:
        result = CliRunner().invoke(zoo, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
    made = ("models/mnist-dense.safetensors", "seven.gif", "relu.net", "relu.html", "network.svg", "run/model.nir")
    assert all((tmp_path / name).stat().st_size > 1000 for name in made)


def test_the_tests_that_hold_the_faults_of_lava_dl_are_there() -> None:
    found = re.findall(r"\[`(test_\w+)`\]\((tests/[^)]+)\)", README)
    assert len(found) == 11
    for name, path in found:
        assert f"def {name}(" in (ROOT / path).read_text("utf-8")


def test_its_commands_exist() -> None:
    named = set(re.findall(r"^zoo ([a-z]+)", README, re.MULTILINE))
    assert named
    assert named <= zoo.commands.keys()


def test_its_python_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ann = tmp_path / "demo/mnist-relu.onnx"
    ann.parent.mkdir()
    ann.write_bytes(packaged_path("examples", ann.name).read_bytes())
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "net.net").exists()


def test_its_make_targets_exist() -> None:
    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert "test" in targets
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
