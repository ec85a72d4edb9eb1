"""Bounds that keep the code readable: parameters, modules in a folder, types, and depth of calls in a training step."""

import ast
import sys
import tomllib
from pathlib import Path
from types import FrameType

import pytest
import torch

from bootstrap_core import Mode, build_network
from bootstrap_core.ops import library, spiking_layer
from specs import load_spec

ROOT = Path(__file__).parents[2]
PACKAGES = ("specs", "bootstrap_core", "converters", "zoo")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MOST_PARAMETERS, MOST_MODULES, MOST_LEVELS = 10, 14, 8


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text("utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return True for a command: click passes it a parameter for each option."""
    return any("option" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_functions_have_few_parameters() -> None:
    found = []
    for path in MODULES:
        for function in functions(path):
            arguments = function.args
            names = [x.arg for x in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            n = len([name for name in names if name not in {"self", "cls"}])
            if n > MOST_PARAMETERS and not is_command(function):
                found.append(f"{path.relative_to(ROOT)}: {function.name} has {n}")
    assert found == []


def test_folders_have_few_modules() -> None:
    folders = {path.parent for path in MODULES}
    found = {folder: len(list(folder.glob("*.py"))) for folder in folders}
    assert {str(folder.relative_to(ROOT)): n for folder, n in found.items() if n > MOST_MODULES} == {}


def test_no_module_is_excused_from_the_type_checker() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]
    assert settings["strict"] is True
    for override in settings["overrides"]:
        names = override["module"] if isinstance(override["module"], list) else [override["module"]]
        assert not [name for name in names if name.split(".")[0] in PACKAGES]


def depth_of(frame: FrameType | None) -> int:
    """Return the number of frames on the stack that belong to the four packages."""
    n = 0
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        n += any(path.is_relative_to(ROOT / package) for package in PACKAGES)
        frame = frame.f_back
    return n


@pytest.mark.parametrize("mode", [Mode.SNN, Mode.SAMPLE])
def test_a_training_step_reaches_arithmetic_in_few_calls(mode: Mode, monkeypatch) -> None:
    if not library.is_installed():
        pytest.skip("needs the native library")
    depths: list[int] = []

    def watched(name, *arguments):
        depths.append(depth_of(sys._getframe(1)) + 1)
        return library.call(name, *arguments)

    monkeypatch.setattr(spiking_layer, "call", watched)
    network = build_network(load_spec("mnist-dense"), seed=0)  # in eval mode: no dropout, but gradients
    assert network(torch.rand(2, 1, 28, 28), mode).requires_grad
    assert depths
    assert max(depths) <= MOST_LEVELS
