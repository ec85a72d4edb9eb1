"""Every option and field is described, and every example in `--help` runs without an error."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from bootstrap_core import load_dataset
from bootstrap_core.pictures import png
from specs import json_schema
from zoo.cli.program import zoo
from zoo.factory import packaged_path

FIRST = ["zoo train", "zoo card"]
"""Examples that run first, since others read their files."""
ELSEWHERE = {"zoo demo", "zoo demo -o demo", "torchrun --nproc-per-node 2 -m zoo train mnist-dense -o run"}
"""Examples that other tests run: those of the README, and those of training in several processes."""
SMALLER = {
    "zoo train mnist-dense -o run --epochs 5": "--epochs 1 --data mnist-sample --set training.validation=500",
    "zoo card run -o run/model.yaml --licence Apache-2.0": "--name tried",  # its own name is that of a packaged model
}
"""Options appended to examples that would need a download or take minutes."""
INSTEAD = {"zoo data pull mnist": "zoo data pull mnist-sample", "/srv/models": "index"}
"""Replacements in examples: tests write only into their folder and have no network."""


def examples() -> Iterator[str]:
    commands = [zoo, *zoo.commands.values()]
    commands += [sub for group in commands[1:] if isinstance(group, click.Group) for sub in group.commands.values()]
    for command in commands:
        yield from re.findall(r"Example: (.*)", command.help or "")


def parameters(command: click.Command) -> list[click.Option]:
    own = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    if isinstance(command, click.Group):
        own += [parameter for each in command.commands.values() for parameter in parameters(each)]
    return own


def test_all_options_and_all_fields_of_specs_are_described() -> None:
    assert [option.name for option in parameters(zoo) if not option.help] == []
    whole = json_schema()
    models = {"NetworkSpec": whole, **whole["$defs"]}
    fields = {f"{name}.{key}": x for name, model in models.items() for key, x in model.get("properties", {}).items()}
    assert [name for name, x in fields.items() if not name.endswith(".kind") and not x.get("description")] == []


def test_every_example_goes_through(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(packaged_path("examples", "network.pt"), tmp_path)
    shutil.copy(packaged_path("examples", "network.net"), tmp_path)
    Path("seven.png").write_bytes(png(load_dataset("mnist-sample").test.images[0, 0]))
    lines = sorted(set(examples()) - ELSEWHERE, key=lambda line: [not line.startswith(first) for first in FIRST])
    assert len(lines) > 15
    assert set(SMALLER) <= set(lines)
    for line in lines:
        typed = f"{line.partition('>')[0]} {SMALLER.get(line, '')}"
        for old, new in INSTEAD.items():
            typed = typed.replace(old, new)
        result = CliRunner().invoke(zoo, shlex.split(typed)[1:])
        assert result.exit_code == 0, f"{typed}\n{result.output}"
    made = ("page.html", "network.svg", "models/mnist-dense.net", "index/index.json", "seven.gif", "modern.safetensors")
    assert [name for name in made if not Path(name).stat().st_size] == []
