"""Open the data that a user names for a network: a dataset by its name, or images of the user's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.events.binning import EventBins
from bootstrap_core.data.image_arrays import UNLABELLED
from bootstrap_core.data.image_files import load_images
from bootstrap_core.data.splits import Dataset, listed
from bootstrap_core.progress import Progress, file_progress, no_progress
from specs.dataset_sources import find_user_data
from specs.errors import DataError, SnnZooError
from specs.fields import Shape
from specs.network import NetworkSpec
from specs.words import counted


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

        Raises:
            DataError: the data are missing or malformed, lack labels, or have names that are not classes of the
                network.
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
