"""Options that several commands share: where data lies, what it runs on; and how figures are printed."""

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

from converters.cli.console import KnownModels, say, warn
from specs.dataset_sources import dataset_names, find_user_data
from specs.errors import DataError

if TYPE_CHECKING:
    from bootstrap_core.data.datasets import Dataset
    from specs.fields import Shape

__all__ = [
    "DataPlaces",
    "Number",
    "PathArgument",
    "Seed",
    "cache_option",
    "complete_data",
    "complete_from",
    "complete_models",
    "data_options",
    "percent",
    "run_options",
    "say_sample",
    "use_threads",
]

PathArgument = click.Path(path_type=Path)
Seed = click.IntRange(0, (1 << 63) - 1)
CLASSES_TOLD = 10


class Number(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """A finite number, above 0 if it must be; with `several`, also a tuple of such, given with commas between."""

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
    """Where the user wants datasets looked for."""

    data_dir: Path | None = None
    cache_dir: Path | None = None
    offline: bool = False

    def load(self, name: str, shape: "Shape | None" = None, classes: Sequence[str] = ()) -> "Dataset":
        """The dataset `name`, downloaded if it is nowhere and that is allowed; or a user's .npz or folder, read for a
        network that takes images of `shape` and, if it knows them, has `classes`: by these a folder's are numbered."""
        from bootstrap_core.data.datasets import load_dataset
        from bootstrap_core.data.image_files import load_images

        if path := find_user_data(name):
            dataset = replace(load_images(path, shape=shape), name=name)  # as it is found again
            if classes and path.is_dir():
                dataset = _numbered(dataset, classes)
            seen = set(dataset.test.labels.tolist())
            if untested := [known for label, known in enumerate(dataset.classes) if label not in seen]:
                more = f", and {len(untested) - CLASSES_TOLD} more" if len(untested) > CLASSES_TOLD else ""
                say(f"note: {name} has no test images of {', '.join(untested[:CLASSES_TOLD])}{more}")
            return dataset
        return load_dataset(name, data_dir=self.data_dir, cache_dir=self.cache_dir, offline=self.offline)

    def load_labelled(self, name: str, shape: "Shape | None" = None, classes: Sequence[str] = ()) -> "Dataset":
        """The same; raises `DataError` for images without labels."""
        from bootstrap_core.data.image_files import UNLABELLED

        dataset = self.load(name, shape, classes)
        if dataset.classes == (UNLABELLED,):
            raise DataError(f"{name} has no labels to train or score by: give it an array y")
        return dataset


def _numbered(dataset: "Dataset", classes: Sequence[str]) -> "Dataset":
    """A folder's images with the numbers that a model has for the names of their folders."""
    import torch

    if strange := [name for name in dataset.classes if name not in classes]:
        if len(dataset.classes) != len(classes) or tuple(classes) != tuple(map(str, range(len(classes)))):
            warn(
                f"{dataset.name} has folders that are no class of the model ({', '.join(strange[:CLASSES_TOLD])}), "
                f"which has {', '.join(classes[:CLASSES_TOLD])}: its folders count as classes 0, 1, ... in their order"
            )
        return dataset
    numbers = torch.tensor([classes.index(name) for name in dataset.classes])
    train, test = (replace(split, labels=numbers[split.labels]) for split in (dataset.train, dataset.test))
    return replace(dataset, train=train, test=test, classes=tuple(classes))


def complete_from(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """For a shell: the names that begin so, or else files."""
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type="file"), *found]  # bash drops what comes before a request for files


def complete_models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For a shell: the models that the program knows by name, or else files."""
    return complete_from(context.obj.names() if isinstance(context.obj, KnownModels) else (), incomplete)


def complete_data(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For a shell: the datasets, or else files."""
    return complete_from(dataset_names(), incomplete)


def cache_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--cache-dir`."""
    return click.option(
        "--cache-dir", type=PathArgument, callback=_use_cache, help="Folder of downloads. [default: $ZOO_CACHE_DIR]"
    )(command)


def _use_cache(context: click.Context, parameter: click.Parameter, folder: Path | None) -> Path | None:
    """While the command runs, its models are found there too."""
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


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--data-dir`, `--cache-dir` and `--offline`; it takes them as `places`."""

    @click.option(
        "--data-dir",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Folder with the datasets' idx files. [default: $ZOO_DATA_DIR]",
    )
    @cache_option
    @click.option("--offline", is_flag=True, help="Never download.")
    @wraps(command)
    def with_places(data_dir: Path | None, cache_dir: Path | None, offline: bool, **others: Any) -> Any:
        return command(places=DataPlaces(data_dir, cache_dir, offline), **others)

    return with_places


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--device` and `--threads`."""
    command = click.option("--threads", type=click.IntRange(1), help="CPU threads.")(command)
    return click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), default="cpu", show_default=True)(
        command
    )


def say_sample(dataset: "Dataset") -> None:
    """Say so on stderr if figures are of the embedded sample, or of images that were drawn for it."""
    if dataset.is_sample:
        say(f"note: scored on {dataset.source}")
    if dataset.is_drawn:
        n_test, n = len(dataset.test), len(dataset.train) + len(dataset.test)
        say(
            f"note: scored on {n_test:,} of the {n:,} images of {dataset.source}, drawn, as it does not say which are "
            "for testing (folders train and test do, or x_train and x_test)"
        )


def percent(part: float | None) -> str:
    """0.9876 as `98.76 %`; a dash for None."""
    return "-" if part is None else f"{100 * part:.2f} %"


def use_threads(threads: int | None) -> None:
    """Tell torch how many CPU threads to use."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
