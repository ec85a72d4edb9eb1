"""Names of board projects: a folder, and in it an Arduino sketch of the same name. This module loads fast."""

import os
from pathlib import Path

SKETCH = ".ino"
"""Suffix of an Arduino sketch; written as a file, it stands for a project."""


def sketch_path(given: str | os.PathLike[str]) -> Path:
    """Return a path; for a folder, whose text ends with a slash, that of the sketch in it.

    >>> sketch_path("boards/digits/").as_posix(), sketch_path("model.net").as_posix()
    ('boards/digits/digits.ino', 'model.net')
    """
    path, text = Path(given), os.fspath(given)
    if not text.endswith(("/", os.sep)):
        return path
    return path / f"{os.path.basename(os.path.abspath(path))}{SKETCH}"  # noqa: PTH100, PTH119 - for `./`
