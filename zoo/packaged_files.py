"""Data files in the package, by folder and name."""

from importlib import resources
from pathlib import Path


def packaged_path(folder: str, name: str) -> Path:
    """Return the path of a file in a folder of `zoo`."""
    with resources.as_file(resources.files("zoo") / folder / name) as path:
        return Path(path)
