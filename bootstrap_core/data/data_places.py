"""Open the data that a user names for a network: a dataset by its name, or images of the user's own."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from bootstrap_core.data.class_folders import ExampleFile, class_folders
from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.events.binning import EventBins
from bootstrap_core.data.image_arrays import UNLABELLED
from bootstrap_core.data.image_files import load_images
from bootstrap_core.data.splits import Dataset, listed
from bootstrap_core.progress import Progress, file_progress, no_progress
from specs.dataset_sources import check_data_file, dataset_names, find_user_data
from specs.errors import DataError, SnnZooError
from specs.fields import Shape
from specs.network import NetworkSpec
from specs.words import counted

END_BYTES = 1 << 15
"""Number of bytes at the start and at the end of a file that its digest covers."""
N_NAMED = 3


@dataclass(frozen=True)
class DataPlaces:
    """Places of datasets, and how a network numbers their classes.

    Attributes:
        data_dir: folder with the files of named datasets.
        offline: whether downloads are forbidden.
        classes: names of the classes in the network's order; empty if they are as in the network or the data.
        say: called with each note about the data.
        progress: called with the numbers of files that were read, and of all.
    """

    data_dir: Path | None = None
    offline: bool = False
    classes: tuple[str, ...] = ()
    say: Callable[[str], object] = lambda note: None
    progress: Progress = no_progress

    def load(
        self,
        name: str,
        shape: Shape | None = None,
        classes: Sequence[str] = (),
        spec: NetworkSpec | None = None,
        *,
        labelled: bool = True,
    ) -> Dataset:
        """Load a dataset by name, or a user's .npz, folder or .tar; download a missing dataset unless `offline`.

        Args:
            name: name of a dataset, or path of an .npz, or of a folder or .tar with a folder of images for each class.
            shape: input shape of the network; images of a folder are resized to it.
            classes: class names of the network, if known. Labels are numbered as there, or as in `self.classes`.
            spec: network for which sounds and recordings of events are read; None if it takes images.
            labelled: False if the images may be without labels.

        Raises `DataError` if the data are missing or malformed, lack labels, or have names that are not classes
        of the network.
        """
        log_mel = None if spec is None else spec.input.log_mel
        events = None if spec is None else EventBins.of(spec, shape)
        if self.classes and classes:
            self.check_classes(len(classes))
        path = find_user_data(name)
        with file_progress(self.progress):
            if path is not None:
                dataset = replace(load_images(path, shape=shape, log_mel=log_mel, events=events), name=name)
            else:
                dataset = load_dataset(
                    name, data_dir=self.data_dir, offline=self.offline, log_mel=log_mel, events=events
                )
        is_labelled = dataset.classes != (UNLABELLED,)
        if path is None:
            found = "sounds" if dataset.log_mel else "recordings of events" if dataset.test.has_events else "images"
            taken = "images" if events is None else "recordings of events" if log_mel is None else "sounds"
            if found != taken and (found, taken) != ("sounds", "images"):
                advice = ", which it gets by input.log_mel" if found == "sounds" else ""
                raise DataError(f"{name} has {found}{advice}; the network takes {taken}")
            classes = ()
        elif labelled and not is_labelled:
            raise DataError(f"{name} has no labels, which training and scoring need: add an array y")
        elif path.is_file() and min(int(split.labels.min()) for split in (dataset.train, dataset.test)) == 1:
            self.say(f"{name} has no label 0: labels count from 0; if these count from 1, subtract 1")
        if is_labelled and (names := self.classes or classes):
            dataset = dataset.with_classes(names)
        if path is not None:
            seen = set(dataset.test.labels.tolist())
            if untested := [known for label, known in enumerate(dataset.classes) if label not in seen]:
                self.say(f"{name} has no test images of {listed(untested)}")
        if left_out := dataset.test.left_out:
            self.say(left_out)
        return dataset

    def check_classes(self, n_classes: int) -> None:
        """Raise `DataError` if `--classes` was given, and not with a name for each class of the network."""
        if self.classes and len(self.classes) != n_classes:
            found = counted(len(self.classes), "name")
            raise DataError(f"--classes: must name the network's {n_classes} classes, got {found}")

    def refuse_classes(self, spec: NetworkSpec) -> None:
        """Raise `SnnZooError` if `--classes` was given for a network of values or spike trains."""
        if self.classes:
            raise SnnZooError(f"--classes: {spec.without_classes}: leave it out")


def data_files(data: str) -> dict[str, str]:
    """Return the size and a digest of each file of a user's data, by its name within them; of an `.npz`, of the file.

    Named datasets, whose files are verified whenever they are read, and missing data give an empty dict.

    The digest covers the first and the last 32 KiB, so that no file costs more than 64 KiB of reading. That is the
    whole of most image files; and an `.npz` ends with checksums of its arrays. Not noticed is a change in the middle of
    a larger image or sound that keeps its size.
    """
    path = Path(data)
    if data in dataset_names() or not os.path.exists(data):  # noqa: PTH110 - False for an invalid name
        return {}
    if path.is_dir() or check_data_file(path):
        return {_name(file, path): _known_by(file) for part in class_folders(path) for file in part.files}
    return {path.name: _known_by(path)}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return in which files two records differ, for people; empty if in none.

    >>> changes({"cat/1.png": "9 a", "cat/2.png": "9 b"}, {"cat/1.png": "9 c", "cat/2.png": "9 b", "cat/3.png": "9 d"})
    'cat/1.png has changed, cat/3.png is new'
    """
    found = [
        f"{name} {'is new' if name not in before else 'is missing' if name not in now else 'has changed'}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    rest = len(found) - N_NAMED
    return ", ".join([*found[:N_NAMED], *([f"and {counted(rest, 'other file')}"] if rest > 0 else [])])


def _name(file: ExampleFile, path: Path) -> str:
    return file.relative_to(path).as_posix() if isinstance(file, Path) else file.name


def _known_by(file: ExampleFile) -> str:
    if not isinstance(file, Path):
        return _of_ends(file.archive.file, file.start, file.n_bytes)
    with file.open("rb") as opened:
        return _of_ends(opened, 0, os.fstat(opened.fileno()).st_size)


def _of_ends(file: BinaryIO, start: int, n_bytes: int) -> str:
    file.seek(start)
    ends = file.read(min(n_bytes, END_BYTES))
    if (rest := max(END_BYTES, n_bytes - END_BYTES)) < n_bytes:
        file.seek(start + rest)
        ends += file.read(n_bytes - rest)
    return f"{n_bytes} {blake2b(ends, digest_size=8).hexdigest()}"
