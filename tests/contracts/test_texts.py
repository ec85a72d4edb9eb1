"""Rules of plain words that a program can check; see "Style" in CONTRIBUTING."""

import re

import click
import pytest
from list_texts import docstrings, messages, sources

from specs import json_schema
from zoo.cli import zoo

UNCLEAR_START = re.compile(
    r"(Of|What|That|Those|Whether|How|Where|Which|As|By|For each|Such|In|On|At|To|From|With|Without|If|When)\b"
)
"""Words that leave a first line without a verb or a noun of its own."""
UNCLEAR = re.compile(r"\bis none\b|\bis no (?!longer|more)|\bare no (?!longer|more)|\btold\b|\btells\b", re.IGNORECASE)
FILES = sources()


@pytest.mark.parametrize("path", [*FILES, *sources(("tests",))], ids=str)
def test_first_lines_of_docstrings_are_statements(path) -> None:
    found = list(docstrings(path))
    assert [str(text) for text in found if UNCLEAR_START.match(text.text)] == []


@pytest.mark.parametrize("path", FILES, ids=str)
def test_messages_use_plain_words(path) -> None:
    assert [str(text) for text in messages(path) if UNCLEAR.search(text.text)] == []


def test_all_parameters_of_commands_have_help() -> None:
    for name, command in zoo.commands.items():
        for parameter in _parameters(command):
            assert parameter.help, f"zoo {name} {parameter.name}"


def _parameters(command: click.Command) -> list[click.Option]:
    own = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    if isinstance(command, click.Group):
        own += [parameter for each in command.commands.values() for parameter in _parameters(each)]
    return own


def test_all_fields_of_specs_are_described() -> None:
    whole = json_schema()
    for name, model in {"NetworkSpec": whole, **whole["$defs"]}.items():
        for field, schema in model.get("properties", {}).items():
            if field != "kind":
                text = schema["description"]
                assert text.endswith("."), f"{name}.{field}"
                assert not UNCLEAR_START.match(text), f"{name}.{field}"


def test_the_rules_find_what_they_forbid(tmp_path) -> None:
    path = tmp_path / "unclear.py"
    path.write_text('"""Of AdamW."""\nraise ValueError(f"{path}: its card is none")\n')
    assert UNCLEAR_START.match(next(docstrings(path)).text)
    assert UNCLEAR.search(next(messages(path)).text)
