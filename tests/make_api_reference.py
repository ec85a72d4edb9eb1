"""Write the API reference, from the docstrings, into a folder: `make docs-api`."""

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

PACKAGES = ("specs", "bootstrap_core", "converters", "zoo")
LEFT_OUT = {"__main__", "cli", "examples", "networks", "weights"}


def main(folder: Path) -> None:
    """Import the packages, lazy names too, and render what is for users: no commands and data."""
    import pdoc

    packages = [import_module(name) for name in PACKAGES]
    for package in packages:
        for name in package.__all__:
            setattr(package, name, getattr(package, name))
    # pdoc takes a package's __all__ for all that is in it, so modules are named.
    modules = [
        f"{package.__name__}.{module.name}"
        for package in packages
        for module in pkgutil.iter_modules(package.__path__)
        if module.name not in LEFT_OUT
    ]
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*PACKAGES, *modules, output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
