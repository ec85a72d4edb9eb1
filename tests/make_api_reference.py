"""Write the API reference from the docstrings into a folder: `make docs-api`."""

import pkgutil
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

from pydantic import BaseModel

PACKAGES = ("specs", "bootstrap_core", "converters", "zoo")
DATA = {"__main__", "cli", "examples", "networks", "weights", "cards"}
"""Modules that are left out: commands and folders of data."""
NATIVE = "bootstrap_core.ops.libsnnzoo"
"""Beginning of the names of native libraries, which look like Python modules."""


def main(folder: Path) -> None:
    """Import the packages with their lazy names, and render all modules except commands and data."""
    import pdoc

    modules = []
    for package in map(import_module, PACKAGES):
        for name in package.__all__:
            setattr(package, name, getattr(package, name))
        rooms = [import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)]
        rooms = [room for room in rooms if room.__name__.split(".")[-1] not in DATA]
        package.__doc__ = f"{package.__doc__}\n\n{overview(rooms)}"
        modules += [package.__name__, *(room.__name__ for room in rooms)]
    show_plain_types()
    warnings.filterwarnings("ignore", f"Couldn't import {NATIVE}")
    pdoc.render.configure(docformat="google", footer_text="snnzoo")
    pdoc.pdoc(*modules, f"!{NATIVE}.*", output_directory=folder)


def overview(rooms: list[ModuleType]) -> str:
    """Return a list of modules, each with a link and the first line of its docstring."""
    lines = [f"- `{room.__name__}`: {(room.__doc__ or '').splitlines()[0]}" for room in rooms]
    return "\n".join(["## Modules", "", *lines])


def show_plain_types() -> None:
    """Show the fields of specs as `int` or `float`, without the bounds, which fill several lines of a page."""
    models = BaseModel.__subclasses__()
    for model in models:
        models += model.__subclasses__()
        hints = get_type_hints(model)
        model.__annotations__ = {name: hints[name] for name in model.__annotations__}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
