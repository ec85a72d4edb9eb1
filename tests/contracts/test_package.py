"""What pyproject.toml puts into the wheel."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
FILES = [path for top in ("specs", "bootstrap_core", "converters", "zoo") for path in (ROOT / top).rglob("*.*")]
SOURCES = [path.relative_to(ROOT) for path in FILES if "__pycache__" not in path.parts and path.is_file()]


def test_it_holds_every_package() -> None:
    assert set(SETTINGS["packages"]) == {".".join(path.parent.parts) for path in SOURCES if path.name == "__init__.py"}


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
