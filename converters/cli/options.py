"""Options of several commands: places of datasets, devices, completion; and text of figures."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from converters.cli.console import KnownModels, ProgressLine, say, warn
from specs.dataset_sources import dataset_names, find_user_data, parse_class_names
from specs.errors import DataError, SnnZooError
from specs.words import counted

if TYPE_CHECKING:
    from bootstrap_core.data.frames import FrameDataset
    from bootstrap_core.data.splits import Dataset
    from specs.fields import Shape
    from specs.network import NetworkSpec

PathArgument = click.Path(path_type=Path)
Seed = click.IntRange(0, (1 << 63) - 1)
THREADS_HELP = "CPU threads. [default: chosen by torch]"
CLASSES_SHOWN = 10
"""Largest number of classes in a message."""


class Number(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """Finite number as the type of an option, above 0 if `positive`; with `several`, also a comma-separated tuple."""

    def __init__(self, *, positive: bool = False, several: bool = False) -> None:
        self.positive, self.several = positive, several
        self.name = "number[,...]" if several else "number"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """See `click.ParamType`."""
        parts = str(value).split(",") if self.several else [value]
        numbers = tuple(self._convert_one(part, parameter, context) for part in parts)
        return numbers if len(numbers) > 1 else numbers[0]

    def _convert_one(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        wanted = f"a finite number{' above 0' if self.positive else ''}"
        if self.several:
            wanted += ", or one for each channel, as in 0.49,0.48,0.45"
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not {wanted}", parameter, context)
        if not isfinite(number) or (self.positive and number <= 0):
            self.fail(f"{value} is not {wanted}", parameter, context)
        return number


@dataclass(frozen=True)
class DataPlaces:
    """Folders to search for datasets, whether downloads are forbidden, and the classes in the network's order."""

    data_dir: Path | None = None
    cache_dir: Path | None = None
    offline: bool = False
    classes: tuple[str, ...] = ()

    def load(
        self,
        name: str,
        shape: "Shape | None" = None,
        classes: Sequence[str] = (),
        spec: "NetworkSpec | None" = None,
        *,
        labelled: bool = True,
    ) -> "Dataset":
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
        from bootstrap_core.data.datasets import load_dataset
        from bootstrap_core.data.events.binning import EventBins
        from bootstrap_core.data.image_arrays import UNLABELLED
        from bootstrap_core.data.image_files import load_images
        from bootstrap_core.progress import file_progress

        log_mel = None if spec is None else spec.input.log_mel
        events = None if spec is None else EventBins.of(spec, shape)
        progress = ProgressLine("reading", "files")
        if self.classes and classes:
            self.check_classes(len(classes))
        if path := find_user_data(name):
            with file_progress(progress):
                dataset = load_images(path, shape=shape, log_mel=log_mel, events=events)
            if labelled and dataset.classes == (UNLABELLED,):
                raise DataError(f"{name} has no labels, which training and scoring need: add an array y")
            dataset = replace(dataset, name=name)  # the name by which it is found again
            if path.is_file() and min(int(split.labels.min()) for split in (dataset.train, dataset.test)) == 1:
                say(f"note: {name} has no label 0: labels count from 0; if these count from 1, subtract 1")
            dataset = _numbered(dataset, self.classes or tuple(classes))
            seen = set(dataset.test.labels.tolist())
            if untested := [known for label, known in enumerate(dataset.classes) if label not in seen]:
                say(f"note: {name} has no test images of {_listed(untested)}")
            return _said_left_out(dataset)
        with file_progress(progress):
            dataset = load_dataset(
                name,
                data_dir=self.data_dir,
                cache_dir=self.cache_dir,
                offline=self.offline,
                log_mel=log_mel,
                events=events,
            )
        found = "sounds" if dataset.log_mel else "recordings of events" if dataset.test.has_events else "images"
        taken = "images" if events is None else "recordings of events" if log_mel is None else "sounds"
        if found != taken and (found, taken) != ("sounds", "images"):
            advice = ", which it gets by input.log_mel" if found == "sounds" else ""
            raise DataError(f"{name} has {found}{advice}; the network takes {taken}")
        return _said_left_out(_numbered(dataset, self.classes))

    def check_classes(self, n_classes: int) -> None:
        """Raise `DataError` if `--classes` was given, and not with a name for each class of the network."""
        if self.classes and len(self.classes) != n_classes:
            found = counted(len(self.classes), "name")
            raise DataError(f"--classes: must name the network's {n_classes} classes, got {found}")

    def refuse_classes(self, spec: "NetworkSpec") -> None:
        """Raise `SnnZooError` if `--classes` was given for a network of values or spike trains."""
        if self.classes:
            raise SnnZooError(f"--classes: {spec.without_classes}: leave it out")


def _said_left_out(dataset: "Dataset") -> "Dataset":
    """Print which events of the test recordings come after the last time step; return the dataset."""
    if left_out := dataset.test.left_out:
        say(f"note: {left_out}")
    return dataset


def _numbered(dataset: "Dataset", classes: tuple[str, ...]) -> "Dataset":
    """Number the classes of a dataset as in `classes`, by name; data that have only numbers get the names.

    Raises `DataError` for numbers beyond the classes, and for names that are not in `classes`: their order is unknown,
    and accuracies would mean nothing.
    """
    import torch

    from bootstrap_core.data.image_arrays import UNLABELLED
    from bootstrap_core.data.splits import check_split

    own = dataset.classes
    if not classes or own == (UNLABELLED,):
        return dataset
    if not dataset.has_names:
        for split in (dataset.train, dataset.test):
            check_split(split, len(classes))
        return replace(dataset, classes=classes)
    numbers = {name: number for number, name in enumerate(classes)}
    if strange := [name for name in own if name not in numbers]:
        raise DataError(
            f"{dataset.name} has classes that the network does not have ({_listed(strange)}); the network's are "
            f"{_listed(classes)}: name the classes of {dataset.name} in the network's order, as in --classes a,b,c"
        )
    of_own = torch.tensor([numbers[name] for name in own])
    train, test = (replace(split, labels=of_own[split.labels]) for split in (dataset.train, dataset.test))
    return replace(dataset, train=train, test=test, classes=classes)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - CLASSES_SHOWN} more" if len(names) > CLASSES_SHOWN else ""
    return ", ".join(names[:CLASSES_SHOWN]) + more


def complete_from(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Complete a word for the shell: names that begin with it, and files."""
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type="file"), *found]  # bash drops what comes before a request for files


def complete_models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a model for the shell: names that the program knows, and files."""
    return complete_from(context.obj.names() if isinstance(context.obj, KnownModels) else (), incomplete)


def complete_data(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a dataset for the shell: names of datasets, and files."""
    return complete_from(dataset_names(), incomplete)


def cache_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option `--cache-dir`."""
    return click.option(
        "--cache-dir",
        type=PathArgument,
        callback=_use_cache,
        help="Folder for downloads. [default: $ZOO_CACHE_DIR, else ~/.cache/snnzoo]",
    )(command)


def _use_cache(context: click.Context, parameter: click.Parameter, folder: Path | None) -> Path | None:
    """Set $ZOO_CACHE_DIR while the command runs, so that pulled models are found there too."""
    if folder is not None:
        context.with_resource(_environment("ZOO_CACHE_DIR", str(folder)))
    return folder


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def classes_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option `--classes`, a tuple of names."""
    return click.option(
        "--classes",
        metavar="NAME[,NAME...]",
        callback=_parse_classes,
        help="Names of the network's classes, in its order, where folders have other names or another order; a name "
        "with commas in double quotes, as in 'cat,\"dog, small\"'. "
        "[default: the names in the model; for an ANN the folders in alphabetical order]",
    )(command)


def _parse_classes(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    try:
        return () if text is None else parse_class_names(text)
    except DataError as error:
        raise click.BadParameter(str(error)) from None


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `places_options` and `--classes`; the command takes them as `places`."""

    @wraps(command)
    def with_classes(places: DataPlaces, classes: tuple[str, ...], **others: Any) -> Any:
        return command(places=replace(places, classes=classes), **others)

    return places_options(classes_option(with_classes))


def limit_option(command: Callable[..., Any], *, prefix: str = "") -> Callable[..., Any]:
    """Add the option `--limit`; its help begins with `prefix`."""
    return click.option(
        "--limit",
        type=click.IntRange(1),
        help=f"{prefix}Number of test images to score, drawn at random, each class with its share; the same ones each "
        "time. [default: all]",
    )(command)


def places_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data-dir`, `--cache-dir` and `--offline`; the command takes them as `places`."""

    @click.option(
        "--data-dir",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Folder with the files of named datasets. [default: $ZOO_DATA_DIR]",
    )
    @cache_option
    @click.option("--offline", is_flag=True, help="Do not download datasets.")
    @wraps(command)
    def with_places(data_dir: Path | None, cache_dir: Path | None, offline: bool, **others: Any) -> Any:
        return command(places=DataPlaces(data_dir, cache_dir, offline), **others)

    return with_places


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options `--device` and `--threads`."""
    command = click.option("--threads", type=click.IntRange(1), help=THREADS_HELP)(command)
    return click.option(
        "--device",
        type=click.Choice(["cpu", "cuda", "auto"]),
        default="cpu",
        show_default=True,
        help="Device to run on; auto: CUDA if there is one.",
    )(command)


def set_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option `--set`, which the command takes as `assignments`."""
    return click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help="Replace a field of the spec, as in training.epochs=5 or blocks.0.features=64. May be repeated.",
    )(command)


def say_sample(dataset: "Dataset | FrameDataset") -> None:
    """Print notes if the scores are of the embedded sample, of a part drawn for testing, or of some test images."""
    say_drawn(dataset)
    if dataset.is_sample:
        say(f"note: scored on {dataset.source}")
    if dataset.limit_note:
        say(f"note: {dataset.limit_note}")


def say_drawn(dataset: "Dataset | FrameDataset") -> None:
    """Print a note if the test images or recordings were drawn at random from all."""
    if not dataset.is_drawn:
        return
    what, n_test = f"{dataset.sample}s", dataset.drawn_from or len(dataset.test)
    say(
        f"note: {n_test:,} of the {len(dataset.train) + n_test:,} {what} of {dataset.name} are for testing, drawn at "
        f"random, because it has no separate test {what} ({dataset.test_places})"
    )


def recorded_steps(steps: Sequence[int | None], longest: int) -> list[int | None]:
    """Return the numbers of time steps that recordings of `longest` steps have, with a warning about others."""
    too_many = [t for t in steps if t is not None and t > longest]
    if not too_many or len(too_many) == len(steps):  # with none left, the run says what is wrong
        return list(steps)
    left_out = ", ".join(map(str, too_many))
    warn(f"--time-steps {left_out}: left out, as the recordings have {longest} time steps")
    return [t for t in steps if t not in too_many]


def use_threads(threads: int | None) -> None:
    """Set the number of torch's CPU threads; None leaves it."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
