"""Compile C sources of networks, and run them on images."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

__all__ = ["COMPILER", "answers", "compile_c", "needs_compiler", "run"]

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler: cc, gcc or clang")
WARNINGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")

Ints = npt.NDArray[np.int64]


def compile_c(source: Path, *flags: str, compiler: str | None = None) -> Path:
    """Return the program that a compiler makes of a C source; a warning is an error."""
    program = source.with_suffix(".program")
    command = [compiler or COMPILER or "cc", *WARNINGS, *flags, str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def run(program: Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a program with standard input."""
    return subprocess.run([program], input=given, capture_output=True, check=False)


def answers(program: Path, images: torch.Tensor) -> tuple[Ints, Ints]:
    """Return classes `[N]` and logits `[N, classes]` of images of bytes, from a program made with -DSNN_STDIN.

    Raises `AssertionError` if the program failed, counted an overflow, or has another number of answers.
    """
    done = run(program, images.contiguous().numpy().tobytes())
    assert done.returncode == 0, done.stderr.decode()
    rows = np.array([list(map(int, line.split())) for line in done.stdout.splitlines()], np.int64)
    assert len(rows) == len(images)
    return rows[:, 0], rows[:, 1:]
