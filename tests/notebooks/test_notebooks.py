"""The notebook runs with fewer epochs and contains no outputs. `make notebook` runs it unchanged in Jupyter."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PATH = Path(__file__).with_name("bootstrap_mnist.ipynb")
CELLS: list[dict[str, Any]] = [c for c in json.loads(PATH.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]


class Shown:
    """A picture that a cell displays, from bytes or a file."""

    def __init__(self, data: Any, **_: Any) -> None:
        self.data = data.read_bytes() if isinstance(data, Path) else data


def test_it_holds_no_outputs() -> None:
    assert CELLS
    assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in CELLS)


def test_it_runs_and_shows_every_picture(monkeypatch, tmp_path, capsys) -> None:
    shown: list[Shown] = []
    display = SimpleNamespace(Image=Shown, SVG=Shown, display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=display, version_info=(9, 0)))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    names: dict[str, Any] = {}
    for cell in CELLS:
        exec(compile("".join(cell["source"]), PATH.name, "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            names["EPOCHS"] = 2
    kinds = [data[:4] if isinstance(data, bytes) else data[:4].encode() for data in (one.data for one in shown)]
    png = b"\x89PNG"
    assert kinds == [png, b"<svg", png, png, png, *[b"GIF8"] * 3, png]
    said = capsys.readouterr().out
    assert said.count("epoch") == 2
    assert said.count("the same answers") == 3
    assert names["evaluate"](names["net"], names["digits"].test).accuracy > 0.7


@pytest.mark.parametrize("word", ["TODO", "/work", "/home"])
def test_it_is_of_no_machine(word) -> None:
    assert word not in PATH.read_text("utf-8")
