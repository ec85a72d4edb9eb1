"""Wheels with the native library and without (built without a compiler), each in an empty environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("specs", "bootstrap_core", "converters", "zoo", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md")
LEGAL = ("LICENSE", "NOTICE")
PROGRAM = """
import torch, zoo
from bootstrap_core import IntegerNetwork, load_dataset
from bootstrap_core.ops.library import describe
images = load_dataset("mnist-sample").test.images[:20]
print(describe(), IntegerNetwork(zoo.create_model("mnist-dense-shallow"))(images).argmax(1).tolist(), sep="|")
"""


def run(*command: object, path: str, **environment: str) -> str:
    done = subprocess.run(
        [*map(str, command)],
        env={"PATH": path, "HOME": os.environ.get("HOME", "/"), **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(folder: Path, path: str, kind: str = "build_wheel") -> Path:
    """Build a wheel of the sources with the installed setuptools; `build_editable` for one that leads to them."""
    source = folder / "source"
    for part in (*PARTS, *LEGAL):
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / part, source / part, ignore=ignored)
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(ROOT / part, source / part)
    program = f"from setuptools import build_meta; import sys; print(build_meta.{kind}(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=source, env={**os.environ, "PATH": path}, check=True,
        capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_out(wheel: Path, folder: Path) -> list[str]:
    """Install a wheel; return the description of its native library, and the classes of some digits."""
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder)
    run(sys.executable, *install, wheel, path=os.defpath)
    # dependencies come from this environment, whose .pth files, which lead to the sources, -S leaves out
    found = os.pathsep.join([str(folder), sysconfig.get_path("purelib")])
    return run(sys.executable, "-S", "-c", PROGRAM, path=str(folder), PYTHONPATH=found).strip().split("|")


@pytest.fixture(scope="module")
def without_compiler(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("alone")
    wheel = build(folder, str(folder))
    assert not any(".so" in name for name in run(sys.executable, "-m", "zipfile", "-l", wheel, path="").splitlines())
    return try_out(wheel, folder / "environment")


def test_the_wheel_brings_its_library_to_where_no_compiler_is(tmp_path, without_compiler) -> None:
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    wheel = build(tmp_path, os.environ["PATH"])
    assert "-py3-none-" in wheel.name
    kind, classes = try_out(wheel, tmp_path / "environment")
    assert kind.startswith("native library")
    assert classes == without_compiler[1]


def test_without_a_compiler_the_package_runs_on_torch_alone(without_compiler) -> None:
    assert without_compiler[0] == "torch alone (the native library is not installed)"


def test_type_checkers_see_an_editable_install_from_another_folder(tmp_path) -> None:
    """They read .pth files with folders, but do not run the import hooks that setuptools may install instead."""
    wheel = build(tmp_path, str(tmp_path), "build_editable")
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    run(sys.executable, "-m", "venv", environment, path=os.defpath)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, path=os.defpath)
    elsewhere.mkdir()
    (elsewhere / "theirs.py").write_text("import specs, zoo\nspecs.load_spec(3)\nzoo.create_model(3)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", python, "--ignore-missing-imports",
         "--follow-imports=silent", "--cache-dir", tmp_path / "cache", "theirs.py"],
        env={"PATH": os.environ["PATH"]}, cwd=elsewhere, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'Argument 1 to "load_spec" has incompatible type "int"' in done.stdout, done.stdout + done.stderr
    assert 'Argument 1 to "create_model" has incompatible type "int"' in done.stdout
