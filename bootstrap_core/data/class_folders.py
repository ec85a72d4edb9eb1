"""Folders with a folder of image files, or of recordings, for each class, on disk or in a tar archive."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from specs.errors import DataError
from specs.files.given_file import real_path
from specs.files.given_tar import TarMember, tar_members
from specs.files.limits import IMAGE_FILE_BYTES

__all__ = [
    "IMAGE_SUFFIXES",
    "SOUND_SUFFIX",
    "ClassFolders",
    "ImageFile",
    "class_folders",
    "each_file",
    "file_progress",
]

ImageFile = Path | TarMember
"""Image file or recording, on disk or in a tar archive."""
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
SOUND_SUFFIX = ".wav"
SUFFIXES = {*IMAGE_SUFFIXES, SOUND_SUFFIX}
PARTS = ("train", "test")
"""Folders of class folders for training and testing."""

Progress = Callable[[int, int], object]
"""Function that is called with the number of files read and of all files."""
_progress = ContextVar[Progress]("progress", default=lambda done, total: None)


@contextmanager
def file_progress(progress: Progress) -> Iterator[None]:
    """Call `progress` after each image file or recording that is read in the `with` block."""
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


def each_file(files: Sequence[ImageFile]) -> Iterator[ImageFile]:
    """Yield the files, and report to `file_progress` when the loop comes back from each."""
    progress = _progress.get()
    for done, file in enumerate(files, 1):
        yield file
        progress(done, len(files))


@dataclass(frozen=True)
class ClassFolders:
    """Image files of each class; classes and files are sorted by name.

    Attributes:
        place: path of the folder or archive, for messages.
        classes: image files by the name of their class.
    """

    place: str
    classes: Mapping[str, Sequence[ImageFile]]

    def __post_init__(self) -> None:
        if not self.classes or not all(self.classes.values()):
            raise DataError(
                f"{self.place} must contain class folders with images or WAV files in each; it has "
                f"{', '.join(self.classes)[:200] or 'none'} (store images without labels in an .npz, as x alone)"
            )

    @property
    def files(self) -> tuple[ImageFile, ...]:
        """All image files, class by class."""
        return tuple(chain(*self.classes.values()))

    @property
    def are_sounds(self) -> bool:
        """True if the files are recordings. Raises `DataError` if only some of them are."""
        sounds, images = list[ImageFile](), list[ImageFile]()
        for file in self.files:
            (sounds if file.name.lower().endswith(SOUND_SUFFIX) else images).append(file)
        if sounds and images:
            raise DataError(f"{sounds[0]} is a recording and {images[0]} an image: all files must be of one kind")
        return bool(sounds)


def class_folders(path: Path) -> list[ClassFolders]:
    """Return the class folders in a folder or tar archive: those in `train` and in `test` if it has both, or else one.

    Folders around all images of a tar archive are ignored, and so are other files than images.

    Raises:
        DataError: there are no class folders, or one without images, or links out of the folder.
        IntegrityError: the tar archive is damaged, or too large.
    """
    if not path.is_dir():
        return list(_in_tar(path))
    if all((path / part).is_dir() for part in PARTS):
        return [_on_disk(path / part) for part in PARTS]
    return [_on_disk(path)]


def _on_disk(path: Path) -> ClassFolders:
    inside = real_path(path)
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    found = ClassFolders(
        str(path),
        {
            folder.name: sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
            for folder in folders
        },
    )
    for file in found.files:
        if isinstance(file, Path) and not real_path(file).is_relative_to(inside):
            raise DataError(f"{file} is a link out of {path}: links are followed only within it")
    return found


def _in_tar(path: Path) -> Iterator[ClassFolders]:
    images = {
        parts: member
        for member in tar_members(path)
        if len(parts := _parts(member.name)) > 1 and PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES
    }
    if large := next((member for member in images.values() if member.n_bytes > IMAGE_FILE_BYTES), None):
        raise DataError(f"{large} has {large.n_bytes:,} bytes, more than the limit of {IMAGE_FILE_BYTES:,}")
    outer = _n_common(min(images), max(images), min(map(len, images)) - 2) if images else 0
    by_folder: dict[tuple[str, ...], list[ImageFile]] = {}
    for parts in sorted(images):
        by_folder.setdefault(parts[outer:-1], []).append(images[parts])
    whole = {folder[0]: files for folder, files in by_folder.items() if len(folder) == 1}
    halves = {
        part: {folder[1]: files for folder, files in by_folder.items() if len(folder) == 2 and folder[0] == part}
        for part in PARTS
    }
    if all(halves.values()):
        yield from (ClassFolders(f"{path}: {part}", classes) for part, classes in halves.items())
    else:
        yield ClassFolders(str(path), whole)


def _n_common(one: tuple[str, ...], other: tuple[str, ...], most: int) -> int:
    """Return the number of folders, at most `most`, with which both paths begin."""
    return next((n for n, (a, b) in enumerate(zip(one[:most], other[:most], strict=True)) if a != b), most)


def _parts(name: str) -> tuple[str, ...]:
    """Return the folders and the name of a file; none if one of them is hidden.

    >>> _parts("./train/cat/1.png"), _parts("train/.cache/1.png")
    (('train', 'cat', '1.png'), ())
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    return () if any(part.startswith(".") for part in parts) else parts
