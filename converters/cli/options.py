"""Options of several commands: places of datasets, devices, completion; and text of figures."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from converters.cli.console import KnownModels, ProgressLine, say, warn
from specs.dataset_sources import dataset_names, parse_class_names
from specs.errors import DataError

if TYPE_CHECKING:
    from bootstrap_core.data.data_places import DataPlaces
    from bootstrap_core.data.frames import FrameDataset
    from bootstrap_core.data.splits import Dataset

PathArgument = click.Path(path_type=Path)
Seed = click.IntRange(0, (1 << 63) - 1)
CACHE = "ZOO_CACHE_DIR"
THREADS_HELP = "CPU threads. [default: chosen by torch]"


class Number(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5
    """Finite number as the type of an option, above 0 if `positive`; with `several`, also a comma-separated tuple."""

    def __init__(self, *, positive: bool = False, several: bool = False) -> None:
        self.positive, self.several = positive, several
        self.name = "number[,...]" if several else "number"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
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
    """Add the option `--cache-dir`, which sets $ZOO_CACHE_DIR while the command runs."""
    return click.option(
        "--cache-dir",
        type=PathArgument,
        expose_value=False,
        callback=_use_cache,
        help="Folder for downloads. [default: $ZOO_CACHE_DIR, else ~/.cache/snnzoo]",
    )(command)


def _use_cache(context: click.Context, parameter: click.Parameter, folder: Path | None) -> None:
    if folder is not None:
        before = os.environ.get(CACHE)
        os.environ[CACHE] = str(folder)
        context.call_on_close(lambda: os.environ.update({CACHE: before}) if before else os.environ.pop(CACHE))


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
    def with_classes(places: "DataPlaces", classes: tuple[str, ...], **others: Any) -> Any:
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
    def with_places(data_dir: Path | None, offline: bool, **others: Any) -> Any:
        from bootstrap_core.data.data_places import DataPlaces

        def note(text: str) -> None:
            say(f"note: {text}")

        return command(
            places=DataPlaces(data_dir, offline, say=note, progress=ProgressLine("reading", "files")), **others
        )

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
