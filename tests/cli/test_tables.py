import pytest

from converters.cli.console import print_table, say

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
