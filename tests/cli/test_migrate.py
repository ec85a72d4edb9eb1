"""The command `migrate`: its output, and the files that it refuses."""

import json
import os
import pty
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from converters.cli import main_migrate
from converters.cli.migrate_command import DTYPES, STYLES
from converters.weight_norm.norm_styles import COMPUTED, Style

STATE = {
    "module.a.weight_g": torch.tensor([[5.0], [2.0]]),
    "module.a.weight_v": torch.tensor([[3.0, 4.0], [0.0, 1.0]]),
    "module.a.bias": torch.zeros(2),
}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "old.pt"
    torch.save({"state_dict": STATE, "epoch": 3}, path)
    return path


def test_its_choices_are_those_of_the_library() -> None:
    """The command repeats the choices, so that --help does not need torch."""
    assert list(Style) == STYLES
    assert {getattr(torch, name) for name in DTYPES.values()} == set(COMPUTED)


def test_json_is_all_there_is_on_stdout(run, source, tmp_path) -> None:
    output = tmp_path / "new.safetensors"
    result = run("migrate", source, "--to", "parametrized", "-o", output, "--json")
    assert json.loads(result.stdout) == {
        "from": "legacy",
        "to": "parametrized",
        "tensors": 3,
        "renamed": [
            ["a.weight_g", "a.parametrizations.weight.original0"],
            ["a.weight_v", "a.parametrizations.weight.original1"],
        ],
        "max_abs_diff": 0.0,
        "output": str(output),
        "key": "state_dict",
        "stripped_prefix": "module.",
        "notes": ["left out: epoch (beside state_dict)"],
        "warnings": [],
    }
    assert set(safetensors.torch.load_file(output)) == {
        "a.parametrizations.weight.original0",
        "a.parametrizations.weight.original1",
        "a.bias",
    }


def test_a_dry_run_shows_all_and_writes_nothing(run, tmp_path) -> None:
    state = {f"{i}.weight": torch.ones(2, 2) for i in range(20)}
    torch.save(state, tmp_path / "old.pt")
    result = run("migrate", tmp_path / "old.pt", "--to", "legacy", "--dry-run")
    assert len(result.stdout.splitlines()) == 1 + 40 + 2
    assert result.stdout.splitlines()[1].split() == ["0.weight", "0.weight_g", "split", "[2,", "1]"]
    assert "note: norm of dim 0 for 20 plain weights (see `only`, `dim`): 0.weight" in result.stderr
    result = run("migrate", tmp_path / "old.pt", "--to", "legacy", "--dry-run", "--json", "-o", tmp_path / "old.pt")
    assert json.loads(result.stdout)["output"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["old.pt"]
    result = run("migrate", tmp_path / "old.pt", "--to", "legacy", "-o", tmp_path / "new.pt")
    assert "... and 28 more" in result.stdout


def test_the_options_reach_the_library(run, tmp_path) -> None:
    state = {"net.a.w": torch.ones(3, 2), "net.b.w": torch.ones(3, 2)}
    torch.save({"g": state, "d": state}, tmp_path / "old.pt")
    arguments = ["--key", "g", "--strip-prefix", "net", "--only", "a.*", "--dim", "none", "--dtype", "bf16"]
    run("migrate", tmp_path / "old.pt", "--to", "legacy", "-o", tmp_path / "new.pt", *arguments)
    found = torch.load(tmp_path / "new.pt", weights_only=True)
    assert {name: (tuple(value.shape), value.dtype) for name, value in found.items()} == {
        "a.w_g": ((), torch.bfloat16),
        "a.w_v": ((3, 2), torch.bfloat16),
        "b.w": ((3, 2), torch.bfloat16),
    }
    run("migrate", tmp_path / "old.pt", "--to", "legacy", "--key", "g", "--only", "*", "--dim", "1", "--dry-run")


def test_nothing_is_overwritten_without_force(run, source, tmp_path) -> None:
    for output in (source, tmp_path / "there.pt"):
        output.touch()
        before = output.read_bytes()
        result = run("migrate", source, "--to", "plain", "-o", output, code=1)
        assert "overwrite it with --force" in result.stderr
        assert output.read_bytes() == before
    run("migrate", source, "--to", "plain", "-o", source, "--force")
    assert list(torch.load(source, weights_only=True)) == ["a.weight", "a.bias"]


@pytest.mark.parametrize("content", [b"", b"hello", b"<html>", b"version https://git-lfs.github.com/spec/v1"])
def test_what_is_no_state_dict_is_one_line(run, tmp_path, content) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    result = run("migrate", tmp_path / "a.pt", "--to", "plain", "--dry-run", code=1)
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {tmp_path / 'a.pt'}")
    assert result.stderr.count("\n") == 1


def test_a_program_of_its_own(source, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["migrate", str(source), "--to", "plain", "--dry-run"])
    with pytest.raises(SystemExit) as done:
        main_migrate()
    assert done.value.code == 0
    assert "nothing written" in capsys.readouterr().out


def test_a_terminal_sees_progress(source, tmp_path) -> None:
    terminal, ours = pty.openpty()
    program = "from converters.cli import main_migrate; main_migrate()"
    command = [sys.executable, "-c", program, str(source), "--to", "plain", "-o", str(tmp_path / "a.safetensors")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=ours, env={**os.environ, "TERM": "xterm"}, check=True)
    os.close(ours)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert "migrate" in shown
    assert "100%" in shown
    assert done.stdout.startswith(b"old")
