"""Data files in the package, by folder and name."""

from importlib import resources
from pathlib import Path


def packaged_names(folder: str, suffix: str) -> list[str]:
    """Return the names of the files in a folder of `zoo` that end in `suffix`, without the suffix, sorted."""
    files = (resources.files("zoo") / folder).iterdir()
    return sorted(file.name.removesuffix(suffix) for file in files if file.name.endswith(suffix))


def packaged_path(folder: str, name: str) -> Path:
    """Return the path of a file in a folder of `zoo`."""
    with resources.as_file(resources.files("zoo") / folder / name) as path:
        return Path(path)
