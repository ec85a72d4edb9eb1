"""The README says what is so."""

import importlib.util
import re
from pathlib import Path

import pytest

from specs import parse_spec
from zoo.cli import zoo

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_tables_are_those_of_the_cards_and_the_benchmark() -> None:
    path = ROOT / "tests" / "make_readme_tables.py"
    spec = importlib.util.spec_from_file_location("make_readme_tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert module.render(README) == README
    assert module.render(contributing) == contributing


def test_its_spec_is_valid() -> None:
    assert parse_spec(blocks("yaml")[0]).n_classes == 10


def test_its_commands_exist() -> None:
    named = set(re.findall(r"^zoo ([a-z]+)", README, re.MULTILINE))
    assert named
    assert named <= zoo.commands.keys()


def test_its_python_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "net.net").exists()


@pytest.mark.parametrize("target", re.findall(r"make ([a-z-]+)", README))
def test_its_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
