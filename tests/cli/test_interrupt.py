"""Ctrl-C, by real signals: each program ends with 130 and no traceback, whatever it is doing."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

PROGRAMS = {
    "zoo": ("from zoo.cli import main", "main", ["eval", "mnist-dense", "--data", "nowhere"]),
    "convert": ("from converters.cli import main_convert", "main_convert", ["mnist-dense", "-o", "a.net", "--force"]),
    "migrate": (
        "from converters.cli import main_migrate",
        "main_migrate",
        ["a.safetensors", "--to", "plain", "-o", "b.safetensors", "--force"],
    ),
}
WAITING = """
import os, sys
class Waiting:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            os.write(1, b"reached")
            while True:
                pass
sys.meta_path.insert(0, Waiting())
"""
"""Code after which the import of a module waits for ever."""


def started(program: str, folder: Path, first: str = "") -> "subprocess.Popen[bytes]":
    """Start a program in a folder; the code `first` runs before it."""
    safetensors.torch.save_file({"a": torch.ones(1)}, folder / "a.safetensors")
    load, main, arguments = PROGRAMS[program]
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys\nsys.argv[1:] = {arguments}\n{first}\n{load}\n{main}()"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # tests may run in the background
    )


@pytest.mark.parametrize("module", ["click", "specs.errors", "numpy", "torch", "torch._C", "safetensors"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_amid_imports_a_program_ends_at_once(program: str, module: str, tmp_path: Path) -> None:
    with started(program, tmp_path, WAITING.replace("MODULE", repr(module))) as process:
        assert process.stdout.read(7) == b"reached"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, b"Stopped\n")


@pytest.mark.parametrize("program", PROGRAMS)
def test_at_any_time_there_is_no_traceback(program: str, tmp_path: Path) -> None:
    """The process says when it begins, as before that only Python itself runs."""
    codes = set()
    for delay_s in (0.05, 0.15, 0.3, 0.6, 1.0, 1.5):
        with started(program, tmp_path, "from converters.cli import interrupt\nprint('began', flush=True)") as process:
            assert process.stdout.readline() == b"began\n"
            time.sleep(delay_s)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        assert not any(word in told for word in (b"Traceback", b"Aborted"))
        assert process.returncode == 130 or b"Stopped" not in told
        codes.add(process.returncode)
    assert 130 in codes
    assert codes <= {130, 0, 1}  # 0 and 1 where it had ended before


def end_of(code: str, folder: Path) -> tuple[int, bytes, list[str]]:
    """Run code; return its exit code, what it said on stderr, and the files that it left."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, check=False)
    return done.returncode, done.stderr, [path.name for path in folder.iterdir()]


def test_while_arguments_are_read_it_ends_with_130(tmp_path: Path) -> None:
    code = """
import signal
from zoo.cli import main, zoo
signal.signal(signal.SIGINT, signal.default_int_handler)
zoo.parse_args = lambda *_: signal.raise_signal(signal.SIGINT)
main()
"""
    assert end_of(code, tmp_path) == (130, b"Stopped\n", [])


def test_a_running_command_tidies_up(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from zoo.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
os.fsync = lambda _: signal.raise_signal(signal.SIGINT)
sys.argv[1:] = ["build", "mnist-dense", "-o", "a.safetensors"]
main()
"""
    assert end_of(code, tmp_path) == (130, b"Stopped\n", [])


def test_signals_that_are_ignored_stay_ignored(tmp_path: Path) -> None:
    code = """
import signal, sys
from zoo.cli import main, zoo
signal.signal(signal.SIGINT, signal.SIG_IGN)
parse = zoo.parse_args
zoo.parse_args = lambda *given: (signal.raise_signal(signal.SIGINT), parse(*given))[1]
sys.argv[1:] = ["schema", "--help"]
main()
"""
    assert end_of(code, tmp_path) == (0, b"", [])
