import os
import re
import shutil
import subprocess
import sys

import pytest

MAIN = "from zoo.cli import main; main()"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_asks_zoo(run, shell) -> None:
    script = run("completion", shell).stdout
    assert f"_ZOO_COMPLETE={shell}_complete" in script
    assert script.count("_zoo_completion") > 1
    if program := shutil.which(shell):
        assert subprocess.run([program, "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("shell", "typed", "expected"),
    [
        ("bash", "zoo show mnist-dense-s", {"mnist-dense-shallow"}),
        ("zsh", "zoo show mnist-dense-s", {"mnist-dense-shallow"}),
        ("fish", "zoo show mnist-dense-s", {"mnist-dense-shallow"}),
        ("bash", "zoo pull mnist-dense mnist-c", {"mnist-conv"}),
        ("zsh", "zoo convert mnist-c", {"mnist-conv"}),
        ("fish", "zoo train mnist-dem", {"mnist-demo"}),
        ("bash", "zoo eval mnist-dense --data mnist-", {"mnist-1d", "mnist-sample"}),
        ("zsh", "zoo data pull f", {"fashion-mnist"}),
    ],
)
def test_names_complete_in_every_shell_without_torch(shell, typed, expected) -> None:
    words = typed.split()
    code = f"import sys, zoo.cli\ntry: {MAIN.partition('; ')[2]}\nfinally: assert 'torch' not in sys.modules"
    code = code.replace("main()", "zoo.cli.main()")
    current = words[-1] if shell == "fish" else str(len(words) - 1)
    asked = {"_ZOO_COMPLETE": f"{shell}_complete", "COMP_WORDS": typed, "COMP_CWORD": current}
    environment = {**os.environ, **asked}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert set(re.findall(r"^plain(?:,|\n)(\S+)", done.stdout, re.MULTILINE)) == expected
    assert re.match(r"file\b", done.stdout)


def test_names_of_the_package_complete_beside_a_damaged_cache(tmp_path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/index.json").write_text("{")
    asked = {"_ZOO_COMPLETE": "bash_complete", "COMP_WORDS": "zoo eval mnist-c", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        env={**os.environ, **asked, "ZOO_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.splitlines()[1:], done.stderr) == (["plain,mnist-conv"], "")


def test_bash_completes_a_name(tmp_path) -> None:
    """Completion uses the program's own script and offers names before files."""
    (tmp_path / "zoo").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{MAIN}' \"$@\"\n")
    (tmp_path / "zoo").chmod(0o755)
    script = 'eval "$(zoo completion bash)"; COMP_WORDS=(zoo show mnist-c); COMP_CWORD=2; '
    script += ' compopt() { :; }; _zoo_completion zoo; echo "${COMPREPLY[@]}"'
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, **path}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "mnist-conv\n"
