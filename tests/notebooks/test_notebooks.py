"""The notebooks run and contain no outputs. `make notebooks` runs them unchanged in Jupyter."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))
PICTURES = {
    "ann_to_chip": ["html", "png", "png"],
    "bootstrap_mnist": ["png", "svg", "png", "png", "png", "gif", "gif", "gif", "png"],
    "events": ["gif", "png"],
    "lava_checkpoint": ["svg"],
    "own_loop": ["png"],
    "publish_and_pull": [],
}
"""Kinds of the pictures that each notebook shows, in their order."""
BEGINNINGS = {b"\x89PNG": "png", b"<svg": "svg", b"GIF8": "gif"}
EPOCHS = 2
"""Number of epochs in a notebook that has it as a parameter."""


class Shown:
    """A picture that a cell displays, from bytes or a file."""

    def __init__(self, data: Any, **_: Any) -> None:
        self.data = data.read_bytes() if isinstance(data, Path) else data

    @property
    def kind(self) -> str:
        data = self.data if isinstance(self.data, bytes) else self.data.encode()
        return BEGINNINGS[data[:4]]


def kind_of(shown: Any) -> str:
    return shown.kind if isinstance(shown, Shown) else "html" if "<img" in shown._repr_html_() else "text"


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


def run(path: Path, monkeypatch, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Run all cells in this process; return the names that they leave, and the kinds of the pictures shown."""
    shown: list[Any] = []
    display = SimpleNamespace(Image=Shown, SVG=Shown, display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=display, version_info=(9, 0)))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("ZOO_CACHE_DIR", str(folder / "cache"))
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for cell in code_cells(path):
        exec(compile("".join(cell["source"]), path.name, "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            names["EPOCHS"] = EPOCHS
    return names, [kind_of(one) for one in shown]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_holds_no_outputs(path) -> None:
    assert code_cells(path)
    assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in code_cells(path))


@pytest.mark.parametrize("word", ["TODO", "/work", "/home", "/tmp"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_of_no_machine(path, word) -> None:
    assert word not in path.read_text("utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_shows_every_picture(path, monkeypatch, tmp_path, capsys) -> None:
    names, shown = run(path, monkeypatch, tmp_path)
    assert shown == PICTURES[path.stem]
    CHECKS[path.stem](names, "".join(capsys.readouterr()))


def check_ann_to_chip(names, said) -> None:
    assert names["ann_accuracy"] > 0.9
    assert names["by_steps"][4] > names["ann_accuracy"] - 0.05
    assert said.endswith("four\n")


def check_bootstrap_mnist(names, said) -> None:
    assert said.count("epoch") == EPOCHS
    assert said.count("the same answers") == 3
    assert names["evaluate"](names["net"], names["digits"].test).accuracy > 0.7


def check_events(names, said) -> None:
    assert "after 300 ms: 4" in said
    assert said.count("epoch") == 5


def check_lava_checkpoint(names, said) -> None:
    assert "weight_g" in said
    assert said.count("the same answers") == 4


def check_own_loop(names, said) -> None:
    assert "did you mean time_steps" in said
    assert names["best_accuracy"] > 0.85


def check_publish_and_pull(names, said) -> None:
    assert names["pulled"].spec.name == "our-digits"
    assert "card of another file" in said


CHECKS = {
    "ann_to_chip": check_ann_to_chip,
    "bootstrap_mnist": check_bootstrap_mnist,
    "events": check_events,
    "lava_checkpoint": check_lava_checkpoint,
    "own_loop": check_own_loop,
    "publish_and_pull": check_publish_and_pull,
}
