"""Contents of the wheel (pyproject.toml) and of the source distribution (MANIFEST.in)."""

import importlib.util
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from zoo.card import load_card
from zoo.factory import create_model
from zoo.hub.catalog import find_model, local_catalogs
from zoo.hub.publish import read_index

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
FILES = [path for top in ("specs", "bootstrap_core", "converters", "zoo") for path in (ROOT / top).rglob("*.*")]
FOUND = [path.relative_to(ROOT) for path in FILES if "__pycache__" not in path.parts and path.is_file()]
NATIVE = Path("bootstrap_core/ops/native")
"""Sources of the native library, which setup.py builds: not a package, and not in the wheel."""
SOURCES = [path for path in FOUND if path.parent != NATIVE and path.suffix != ".so"]


def test_it_holds_every_package() -> None:
    """Every folder with files has an `__init__.py`, and so have its parent folders."""
    folders = {folder for path in SOURCES for folder in path.parents if folder.name}
    assert [str(folder) for folder in sorted(folders) if folder / "__init__.py" not in SOURCES] == []
    found = SETTINGS["packages"]["find"]["include"]
    assert [name for name in map(str, folders) if not any(fnmatch(name, pattern) for pattern in found)] == []


def test_it_holds_every_file_that_is_no_module() -> None:
    patterns = SETTINGS["package-data"]
    left_out = [
        str(path)
        for path in SOURCES
        if path.suffix != ".py"
        and not any(
            path.match(pattern)
            for package in ("*", ".".join(path.parent.parts))
            for pattern in patterns.get(package, [])
        )
    ]
    assert left_out == []


def test_sources_of_the_native_library_are_distributed_and_not_installed() -> None:
    command, folder, *patterns = (ROOT / "MANIFEST.in").read_text("utf-8").split()
    assert (command, folder) == ("recursive-include", str(NATIVE))
    native = [path.name for path in FOUND if path.parent == NATIVE]
    assert native
    assert [name for name in native if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    assert SETTINGS["include-package-data"] is False


def test_its_index_is_that_of_its_cards() -> None:
    """zoo/index.json matches the cards; `make docs` writes it."""
    path = ROOT / "tests" / "make_package_index.py"
    spec = importlib.util.spec_from_file_location("make_package_index", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.package_index() == (ROOT / "zoo" / "index.json").read_bytes()


def test_its_weights_take_at_most_20_mb() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "zoo" / "weights").glob("*.safetensors")) <= 20_000_000


def test_revisions_before_the_weights_were_in_8_bits_name_the_same_models() -> None:
    before = load_card(ROOT / "zoo" / "cards" / "mnist-dense-shallow.yaml").earlier[0]
    assert create_model(f"mnist-dense-shallow@{before[:12]}").spec.name == "mnist-dense-shallow"
    assert find_model(f"mnist-dense-shallow@{before}", local_catalogs()) is not None
    assert find_model(f"mnist-dense@{before}", local_catalogs()) is None


def test_its_index_has_every_model_with_the_digests_of_its_files() -> None:
    index = read_index(ROOT / "zoo")
    assert set(index.models) == {path.stem for path in (ROOT / "zoo" / "weights").glob("*.safetensors")}
    for models in index.models.values():
        for file in (*models[-1].files.values(), models[-1].card):
            file.check(ROOT / "zoo" / file.path)
