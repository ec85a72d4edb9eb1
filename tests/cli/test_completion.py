import os
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


def test_zoo_answers_what_the_script_asks() -> None:
    asked = {"_ZOO_COMPLETE": "bash_complete", "COMP_WORDS": "zoo gal", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MAIN], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert done.stdout == "plain,gallery\n"


def test_an_unknown_shell_is_wrong_usage(run) -> None:
    assert "'bash', 'zsh', 'fish'" in run("completion", "csh", code=2).stderr
