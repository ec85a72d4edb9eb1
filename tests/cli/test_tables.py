import shutil
from pathlib import Path

import pytest

from converters.cli.console import print_table, say
from zoo.factory import model_file
from zoo.packaged_files import packaged_path
from zoo.runs.card_files import card_file

GOLDEN = Path(__file__).parents[1] / "golden/dense"
HEADER, ROWS = ["old", "what"], [["blocks.1.parametrizations.weight.original0", "ok"], ["a", "some words more " * 9]]


def test_a_table_that_fits_or_is_piped_has_a_line_a_row(capsys, monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(HEADER, ROWS, words=True)
    piped = capsys.readouterr().out
    assert len(piped.splitlines()) == 3
    monkeypatch.setenv("COLUMNS", "999")
    print_table(HEADER, ROWS, words=True)
    assert capsys.readouterr().out == piped


@pytest.mark.parametrize("columns", [40, 80])
def test_a_table_fits_its_terminal_and_loses_nothing(capsys, monkeypatch, columns) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(HEADER, ROWS, words=True)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= columns
    assert text.count("words") == 9
    start = text.index("what")
    first = "".join(line[:start].strip() for line in text.splitlines())
    assert ROWS[0][0] in first


@pytest.mark.parametrize("terminal", [False, True])
def test_talk_is_parted_between_words_on_a_terminal_alone(capsys, monkeypatch, terminal) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    say("note: blocks.1.synapse.weight-norm.original0 and " + "more " * 9)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (4 if terminal else 1)
    assert (max(map(len, lines)) <= 40) == terminal
    assert any("blocks.1.synapse.weight-norm.original0" in line for line in lines)


def test_an_error_is_parted_on_a_terminal_but_a_command_on_its_line_is_not(run, tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(packaged_path("examples", "mnist-relu.onnx").read_bytes())
    monkeypatch.setenv("COLUMNS", str(len(f"zoo convert {path} --data mnist -o a.safetensors")))
    told = run("show", path, code=1).stderr
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    parted = run("show", path, code=1).stderr
    assert told.split() == parted.split()
    assert len(told.splitlines()) < len(parted.splitlines())
    assert told.splitlines()[-1] == parted.splitlines()[-1] == f"zoo convert {path} --data mnist -o a.safetensors"


def test_names_are_folded_last(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    print_table(["name", "what"], [["mnist-dense-shallow", "some words more " * 3]], words=True)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 44
    assert "mnist-dense-shallow" in text


def test_the_models_of_the_package_are_listed_in_80_columns(run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("list").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "mnist-dense-shallow" in [line.split()[0] for line in lines]


def test_verify_and_migrate_fit_80_columns(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copy(model_file("mnist-dense-shallow"), tmp_path / "a.safetensors")
    shutil.copy(card_file("mnist-dense"), tmp_path / "a.yaml")
    table = run("verify", tmp_path / "a.safetensors", code=1).stdout
    assert max(map(len, table.splitlines())) <= 80
    table = run("migrate", GOLDEN / "network.pt", "--to", "parametrized", "--dry-run").stdout.splitlines()
    assert max(map(len, table)) <= 80
    assert any("parametrizations" in line for line in table)
