"""Imports point down the layers, load little and print nothing; packages export what they list."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["specs", "bootstrap_core", "converters", "zoo"]
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = {"torch", "numpy", "h5py", "pyfive", "httpx", "onnx", "click", "safetensors", "matplotlib", "tqdm", "nir"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = [name_of(path) for path in FILES]
COMMANDS = [name for name in MODULES if "cli" in name.split(".")]


def run(program: str, *arguments: str) -> str:
    """Run a program in a new Python in the root of the repository; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def imported(path: Path) -> ModuleType:
    return importlib.import_module(name_of(path))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def public_definitions(path: Path) -> set[str]:
    """Return functions and classes without a leading underscore, except the commands of a click group."""
    return {
        node.name
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not any(
            ".command(" in ast.unparse(line) for line in node.decorator_list if "click." not in ast.unparse(line)
        )
    }


# --- which modules import which


def test_specs_imports_neither_torch_nor_numpy() -> None:
    program = (
        "import sys; from specs import *; import specs.files.whole_file; print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert set(run(program).split()) & HEAVY == set()


def test_only_command_lines_import_click() -> None:
    users = [
        name_of(path)
        for path in FILES
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "click" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "click")
    ]
    assert set(users) <= set(COMMANDS)


PROGRAMS = ["zoo.cli.program", "converters.cli.convert_command", "converters.cli.migrate_command"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_command_line_answers_without_what_is_slow_to_load(name: str) -> None:
    loaded = run(f"import sys, {name}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))").split()
    assert not {"torch", "numpy", "pydantic", "yaml"} & set(loaded)


# --- what an import does

WATCH = '''
import os, sys
root, names = sys.argv[1], sys.argv[2:]
ours = tuple(f"{root}/{name}/" for name in ("specs", "bootstrap_core", "converters", "zoo"))

def by_us():
    """Whether the nearest caller outside the standard library is a file of ours, other than by an import."""
    frame = sys._getframe(2)
    while frame:
        name = frame.f_code.co_filename
        if name.startswith(ours):
            return f"{name}:{frame.f_lineno}"
        if name.startswith("<frozen importlib") or "site-packages" in name:
            return None
        frame = frame.f_back

class Watched(type(os.environ)):
    def __getitem__(self, key):
        if where := by_us():
            print("reads environment", key, where)
        return super().__getitem__(key)
    def __iter__(self):
        if where := by_us():
            print("reads environment", where)
        return super().__iter__()

os.environ.__class__ = Watched
IO = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "socket.connect", "socket.getaddrinfo",
      "subprocess.Popen", "os.system", "os.putenv"}

def hook(event, arguments):
    if event in IO and (where := by_us()):
        print(event, arguments[:1], where)

sys.addaudithook(hook)
for name in names:
    __import__(name)
'''


def test_importing_anything_reads_no_environment_and_opens_no_file() -> None:
    assert run(WATCH, str(ROOT), *MODULES) == ""


def test_importing_says_nothing_and_leaves_torchs_generator_alone() -> None:
    program = (
        "import sys, importlib, torch\nbefore = torch.get_rng_state()\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "assert torch.equal(before, torch.get_rng_state())\nassert torch.get_default_dtype() is torch.float32"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *MODULES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- what a module exports


@pytest.mark.parametrize("package", PACKAGES)
def test_completion_offers_what_a_package_lists_and_no_more(package: str) -> None:
    shown = f"import {package}; print(sorted(set({package}.__all__) ^ set(dir({package})) - {{'__version__'}}))"
    assert run(shown) == "[]\n"


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("import zoo; print(zoo.__version__)") == f"{project['version']}\n"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_what_it_imports_from_itself_and_no_more(package: str) -> None:
    """Names imported under `if TYPE_CHECKING`, which load at first use, count too."""
    path = ROOT / package / "__init__.py"
    taken = {
        alias.asname or alias.name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES
        for alias in node.names
    }
    assert set(getattr(imported(path), "__all__", [])) == taken


def test_every_error_is_of_the_one_tree() -> None:
    errors = importlib.import_module("specs.errors")
    defined = public_definitions(ROOT / "specs/errors.py")
    assert [name for name in defined if not issubclass(getattr(errors, name), errors.SnnZooError)] == []
