"""Folders with a folder of image files, sounds or events for each class, on disk or in a tar archive."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from os.path import commonprefix
from pathlib import Path, PurePosixPath

from specs.errors import DataError
from specs.files.given_archives import TarMember, tar_members
from specs.files.given_file import check_given_file, real_path
from specs.files.limits import IMAGE_FILE_BYTES

ExampleFile = Path | TarMember
"""Image, sound, or recording of events, on disk or in a tar archive."""
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
SOUND_SUFFIX = ".wav"
EVENT_SUFFIXES = {".bin", ".bs1", ".bs2", ".npy", ".npz"}
PARTS = ("train", "test")
"""Folders of class folders for training and testing; N-MNIST writes them with a capital letter."""


class Content(StrEnum):
    """Kind of the files in class folders."""

    IMAGES = "images"
    SOUNDS = "WAV files"
    EVENTS = "recordings of events"


CONTENTS = {
    **dict.fromkeys(IMAGE_SUFFIXES, Content.IMAGES),
    SOUND_SUFFIX: Content.SOUNDS,
    **dict.fromkeys(EVENT_SUFFIXES, Content.EVENTS),
}
"""Kind of a file by its suffix, in lower case; other files are ignored."""


@dataclass(frozen=True)
class ClassFolders:
    """Files of each class; classes and files are sorted by name."""

    place: str
    classes: Mapping[str, Sequence[ExampleFile]]

    def __post_init__(self) -> None:
        empty = [name for name, files in self.classes.items() if not files]
        if 0 < len(empty) < len(self.classes):
            raise DataError(
                f"{self.place} has no images, WAV files or recordings of events in the folder "
                f"{', '.join(empty)[:200]}; add some, or remove the folder"
            )
        if not self.classes or empty:
            raise DataError(
                f"{self.place} must contain class folders with images, WAV files or recordings of events in each; it "
                f"has {', '.join(self.classes)[:200] or 'none'} (store images without labels in an .npz, as x alone)"
            )

    @property
    def files(self) -> tuple[ExampleFile, ...]:
        """All files, class by class."""
        return tuple(chain(*self.classes.values()))

    @property
    def content(self) -> Content:
        """Kind of all files. Raises `DataError` if they are of several kinds."""
        found = {content_of(file.name): file for file in reversed(self.files)}
        if len(found) > 1:
            (one, first), (other, second) = list(found.items())[:2]
            raise DataError(
                f"{self.place} has {one} ({first.name}) and {other} ({second.name}): all files must be of one kind"
            )
        (content,) = found
        assert content is not None  # others are not listed
        return content


def class_folders(path: Path) -> list[ClassFolders]:
    """Return the class folders in a folder or tar archive: those in `train` and in `test` if it has both, or else one.

    Folders around all class folders of a tar archive are ignored, and so are files of other kinds; see `content_of`.

    Raises `DataError` if there are no class folders, or one without files, or links out of the folder.
    """
    if not path.is_dir():
        return list(_in_tar(path))
    folders = {folder.name.lower(): folder for folder in path.iterdir() if folder.is_dir()}
    if folders.keys() >= {*PARTS}:
        return [_on_disk(folders[part]) for part in PARTS]
    return [_on_disk(path)]


def content_of(name: str) -> Content | None:
    """Return the kind of a file by the suffix of its name; None for files that are ignored.

    >>> content_of("7.PNG"), content_of("README")
    (<Content.IMAGES: 'images'>, None)
    """
    return CONTENTS.get(PurePosixPath(name).suffix.lower())


def read_file(file: ExampleFile, limit: int) -> bytes:
    """Return the bytes of a file. Raises `DataError` if it cannot be read, or has more than `limit` bytes."""
    n_bytes = check_given_file(file, error=DataError) if isinstance(file, Path) else file.n_bytes
    if n_bytes > limit:
        raise DataError(f"{file} has {n_bytes:,} bytes, more than the limit of {limit:,}")
    return file.read_bytes() if isinstance(file, Path) else file.read()


def _on_disk(path: Path) -> ClassFolders:
    inside = real_path(path)
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    found = ClassFolders(
        str(path),
        {folder.name: sorted(file for file in folder.iterdir() if content_of(file.name)) for folder in folders},
    )
    for file in found.files:
        if isinstance(file, Path) and not real_path(file).is_relative_to(inside):
            raise DataError(f"{file} is a link out of {path}: links are followed only within it")
    return found


def _in_tar(path: Path) -> Iterator[ClassFolders]:
    images = {
        parts: member for member in tar_members(path) if len(parts := _parts(member.name)) > 1 and content_of(parts[-1])
    }
    if large := next((member for member in images.values() if member.n_bytes > IMAGE_FILE_BYTES), None):
        raise DataError(f"{large} has {large.n_bytes:,} bytes, more than the limit of {IMAGE_FILE_BYTES:,}")
    outer = min(len(commonprefix(list(images))), min(map(len, images)) - 2) if images else 0  # noqa: RUF071 - of tuples
    by_folder: dict[tuple[str, ...], list[ExampleFile]] = {}
    for parts in sorted(images):
        by_folder.setdefault(parts[outer:-1], []).append(images[parts])
    whole = {folder[0]: files for folder, files in by_folder.items() if len(folder) == 1}
    halves = {
        part: {
            folder[1]: files for folder, files in by_folder.items() if len(folder) == 2 and folder[0].lower() == part
        }
        for part in PARTS
    }
    if all(halves.values()):
        yield from (ClassFolders(f"{path}: {part}", classes) for part, classes in halves.items())
    else:
        yield ClassFolders(str(path), whole)


def _parts(name: str) -> tuple[str, ...]:
    """Return the folders and the name of a file; none if one of them is hidden.

    >>> _parts("./train/cat/1.png"), _parts("train/.cache/1.png")
    (('train', 'cat', '1.png'), ())
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    return () if any(part.startswith(".") for part in parts) else parts
