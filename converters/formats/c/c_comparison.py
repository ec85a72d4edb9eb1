"""Compare a C source with a model, and compile and run its self-test; only code that snnzoo itself writes is run."""

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from converters.formats.c.c_writer import (
    COptions,
    c_texts,
    check_c_name,
    header_of,
    self_test_options,
    without_comments,
)
from converters.model import Model
from specs.errors import IntegrityError, SnnZooError, UnsupportedError
from specs.files.given_file import check_given_file
from specs.files.limits import C_SOURCE_BYTES
from specs.words import counted

SELF_TEST_S = 300
"""Longest time of the compiler, and of the self-test, in seconds."""
COMPILERS = ("cc", "gcc", "clang")
PREFIX = re.compile(r"^static (\w+)_state state;$", re.MULTILINE)
CONSTANT = re.compile(r"^(?:static const|\w+_WEIGHTS) \w+ (\w+)(?:\[.*\])? = ([^;]*);", re.MULTILINE)
MACRO = re.compile(r"^#define (\w+) (-?\d+) *$", re.MULTILINE)
PICTURES = re.compile(r"^static const \w+ (?:pictures|recordings)\[(\d+)\].* = ([^;]*);", re.MULTILINE)
NUMBER = re.compile(r"-?\d+")


@dataclass(frozen=True)
class CComparison:
    """Comparison of a C source with a model.

    Attributes:
        differences: constants that differ, with the number of integers; or that the code differs.
        texts: header and source as snnzoo writes them, with the pictures of the file.
        options: prefix and pictures of the file.
    """

    differences: list[str]
    texts: tuple[str, str]
    options: COptions


def compare_c(model: Model, path: Path) -> CComparison:
    """Compare a C source and its header with those that the model gives, apart from comments."""
    check_c_name(path)  # as it stands in the code that is compiled
    source = without_comments(_read(path))
    if not source.split():
        raise IntegrityError(f"{path} is empty")
    prefix = PREFIX.search(source)
    if prefix is None:
        raise UnsupportedError(f"{path} is not C source of snnzoo")
    header = without_comments(_read(header_of(path), error=IntegrityError))
    options = COptions(prefix[1], _pictures(source, model))
    texts = c_texts(model, path.stem, options)
    wanted_header, wanted = map(without_comments, texts)
    differences = [*_differences(_constants(wanted_header + wanted), _constants(header + source))]
    if not differences and (wanted_header.split(), wanted.split()) != (header.split(), source.split()):
        differences = ["the integers are the same, but the code is not what this version of snnzoo writes"]
    return CComparison(differences, texts, options)


def run_self_test(compared: CComparison, stem: str) -> tuple[bool, str]:
    """Compile the texts of a comparison with the compiler of `$CC`, or of the system, and run their self-test.

    Returns whether it passed, and what was found.
    """
    compiler = (
        shlex.split(os.environ.get("CC", "")) or [found for name in COMPILERS if (found := shutil.which(name))][:1]
    )
    if not compiler:
        raise UnsupportedError(f"no C compiler: install one of {', '.join(COMPILERS)}, or name one in CC")
    with TemporaryDirectory() as folder:
        for suffix, text in zip((".h", ".c"), compared.texts, strict=True):
            (Path(folder) / f"{stem}{suffix}").write_text(text, "ascii")
        command = [*compiler, *self_test_options(Path(f"{stem}.c"), compared.options)]
        try:
            for step in (command, ["./selftest"]):
                done = subprocess.run(
                    step, cwd=folder, capture_output=True, text=True, errors="replace", timeout=SELF_TEST_S, check=False
                )
                if done.returncode:
                    said = (done.stderr.strip() or done.stdout.strip()).partition("\n")[0]
                    return False, f"{shlex.join(step)}: exit code {done.returncode}: {said}"
        except OSError as error:
            raise UnsupportedError(f"cannot run {step[0]}: {error.strerror or error}") from None
        except subprocess.TimeoutExpired:
            raise UnsupportedError(f"{step[0]} takes more than {SELF_TEST_S} s") from None
    return done.stdout == "ok\n", f"{done.stdout.strip()}, compiled with {compiler[0]}"


def _read(path: Path, *, error: type[SnnZooError] = SnnZooError) -> str:
    check_given_file(path, limit=C_SOURCE_BYTES, error=error)
    return path.read_text("utf-8", errors="replace")


def _pictures(source: str, model: Model) -> Tensor | None:
    """Return the pictures or recordings of the self-test of a source; None if there are none that fit the model."""
    found, entering = PICTURES.search(source), model.spec.input
    if found is None:
        return None
    numbers = list(map(int, NUMBER.findall(found[2])))
    size = int(found[1]) * prod(entering.shape)
    if not size or not numbers or len(numbers) % size or max(map(abs, numbers)) >= 1 << 16:
        return None
    images = torch.tensor(numbers, dtype=torch.int32).reshape(int(found[1]), -1, *entering.shape)
    return images if entering.is_timed else images[:, 0].to(torch.uint8)


def _constants(code: str) -> dict[str, list[str]]:
    """Return the numbers of each constant and macro of C code, by name."""
    found = {name: NUMBER.findall(value) for name, value in CONSTANT.findall(code)}
    return found | {name: [value] for name, value in MACRO.findall(code)}


def _differences(wanted: dict[str, list[str]], found: dict[str, list[str]]) -> list[str]:
    differences = []
    for name in [*wanted, *(found.keys() - wanted.keys())]:
        ours, theirs = wanted.get(name), found.get(name)
        if ours is None or theirs is None:
            differences.append(f"{name}: only in the {'file' if ours is None else 'model'}")
        elif len(ours) != len(theirs):
            differences.append(f"{name}: {counted(len(theirs), 'integer')} instead of {len(ours):,}")
        elif n := sum(a != b for a, b in zip(ours, theirs, strict=True)):
            differences.append(f"{name}: {n:,} of {counted(len(ours), 'integer')} differ")
    return differences
