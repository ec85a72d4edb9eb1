"""Commands that make ONNX of other programs' files."""

import shlex
from pathlib import Path

import pytest

from converters.formats.file_kind import ForeignModel, export_advice


def words(model: ForeignModel, path: str) -> list[list[str]]:
    lines = export_advice(model, Path(path)).splitlines()
    assert lines[-2] == "zoo convert model.onnx --data DATA -o model.safetensors"
    return [shlex.split(command) for command in lines[1 : lines.index("Then convert the ONNX file:")]]


@pytest.mark.parametrize("model", ForeignModel)
@pytest.mark.parametrize("name", ["it's $(rm x) here", 'a"b`c`', "a{0}"])
def test_a_shell_reads_the_path_as_one_word(model, name) -> None:
    as_plain = [[name if word == "FILE" else word for word in command] for command in words(model, "FILE")]
    assert words(model, name) == as_plain
    assert sum(name in command for command in as_plain) == 1


@pytest.mark.parametrize("model", ForeignModel)
def test_its_python_is_code(model) -> None:
    for command in words(model, "FILE"):
        if command[:2] == ["python", "-c"]:
            compile(command[2], "command", "exec")
