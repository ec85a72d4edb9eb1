import pytest

from converters.cli.console import print_table

HEADER, ROWS = ["old", "what"], [["blocks.1.parametrizations.weight.original0", "ok"], ["a", "some words more " * 9]]


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
