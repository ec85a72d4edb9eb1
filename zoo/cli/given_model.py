"""Helpers of commands that take a model: reading, notes, warnings, completion and tables."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from converters.cli.console import echo, print_table, say, say_notes, warn
from converters.cli.options import complete_from
from specs.dataset_sources import dataset_names, doubts
from specs.errors import DataError, SnnZooError
from specs.files.named_data import is_named_data
from specs.words import counted

if TYPE_CHECKING:
    from converters.model import Model
    from specs.fields import Shape
    from specs.network import NetworkSpec
    from specs.training import TrainingSpec
    from zoo.card import Card


def local_names() -> list[str]:
    """Return the names of the trained models on this machine, sorted; only packaged ones if the cache is damaged."""
    from zoo.hub.catalog import local_catalogs, packaged_models, search

    try:
        return [found.name for found in search("*", local_catalogs())]
    except (SnnZooError, OSError):
        return [found.name for found in search("*", [packaged_models()])]


def complete_specs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a spec for the shell: names of packaged specs, and files."""
    from specs.io import network_names

    return complete_from(network_names(), incomplete)


def _reads(index: int, sources: "tuple[int, ...]") -> str:
    """Return what a layer reads, if it is more or other than the layer before."""
    own = f" < {sources[0]}" if sources and sources[0] != index - 1 else ""
    return own + "".join(f" + {source}" for source in sources[1:])


def print_layers(network: "NetworkSpec") -> None:
    """Print the layer table of a spec.

    `5 conv + 2` is layer 5 with a skip from layer 2; `5 conv wide < 1 + 2` is called wide, and reads layers 1 and 2
    instead of layer 4; `0 input, graded, 3 bits` takes pixels as integers of 3 bits; `1 dense, recurrent` has synapses
    to itself.
    """
    from specs.layers.input import Encoding
    from specs.summary import summarize

    rows, entering = summarize(network), network.input
    special = [
        () if entering.encoding is Encoding.SPIKE else (entering.form,),
        *(block.extras for block in network.blocks),
    ]
    names = ["", *("" if block.name is None else f" {block.name}" for block in network.blocks)]
    total = [
        "total",
        "",
        *(f"{sum(getattr(row, key) for row in rows):,}" for key in ("parameters", "weight_bytes", "synops")),
    ]
    print_table(
        ["layer", "shape", "parameters", "weight bytes", "synops/step"],
        [
            [
                ", ".join((f"{i} {row.kind}{names[i]}", *special[i])) + _reads(i, row.sources),
                "x".join(map(str, row.shape)),
                f"{row.parameters:,}",
                f"{row.weight_bytes:,}",
                f"{row.synops:,}",
            ]
            for i, row in enumerate(rows)
        ]
        + [total],
    )
    if (outputs := network.gives) != "classes":
        neurons = network.neuron.kind.replace("_", "-")
        echo(f"output: {counted(network.n_classes, outputs.removesuffix('s'))}, of {neurons} neurons")


def read_and_say(source: str) -> "tuple[Model, bool]":
    """Read a model as `read_source` does, and print the reader's notes to stderr."""
    from zoo.sources import read_source

    model, trained = read_source(source)
    say_notes(model)
    return model, trained


def own_card(source: str) -> "Card | None":
    """Return the card of a model; warn, and return None, if it describes another file."""
    from zoo.runs.card_files import card_of, is_of
    from zoo.sources import model_path

    card, path = card_of(source), model_path(source)
    if card is None or is_of(card, path):
        return card
    beside = path.with_suffix(".yaml")
    warn(
        f"{beside} is the card of another file than {path} and is not shown; to measure this file:\n"
        f"zoo card {path} -o {beside} --force"
    )
    return None


def say_doubts(network: "NetworkSpec", recipe: "TrainingSpec") -> None:
    """Print warnings about a network and its recipe: data that do not fit, and fields without effect."""
    doubt = doubts(recipe.data, network.input.shape, network.n_classes)
    for warning in filter(None, [doubt, *network.idle(recipe)]):
        warn(warning)


def need_classes(model: "Model", what: str) -> None:
    """Raise `SnnZooError` if a model gives no classes, and so has no `what`, such as "card"."""
    if told := model.spec.without_classes:
        raise SnnZooError(f"{told}, and has no {what}: zoo eval scores it")


def say_fresh(trained: bool) -> None:
    """Print a note if the weights are fresh."""
    if not trained:
        say("note: these are fresh weights, never trained")


def usual_data(model: "Model") -> str:
    """Return the dataset that a model was trained on. Raises `SnnZooError` if that is unknown, or not to be opened."""
    if model.data is None:
        raise SnnZooError(f"{model.spec.name} does not say which data it was trained on: name them, as in --data mnist")
    check_named_data(model.data, Path(model.origin), model.spec.name)
    return model.data


def check_named_data(data: str, file: Path, name: str) -> None:
    """Raise `DataError` if the data that a model names are missing, or may not be opened.

    A model may come from a stranger, so it must not choose which files are opened outside its folder. Data that the
    user named when the model was made on this machine are opened; see `specs.files.named_data`.

    Args:
        data: name of a dataset, or a path.
        file: file of the model.
        name: name of the model, for the error.
    """
    if data in dataset_names():
        return
    if not os.path.exists(data):  # noqa: PTH110 - False for a bad name
        raise DataError(f"{name} was made with {data!r}, which is missing: name the data with --data")
    is_inside = Path(os.path.realpath(data)).is_relative_to(os.path.realpath(file.parent))
    if not (is_inside or is_named_data(file, data)):
        raise DataError(
            f"{name} was made with {data!r}, which is not in its folder and is only opened if you name it: "
            f"--data {shlex.quote(data)}"
        )


def input_shape(model: "Model") -> "Shape":
    """Return the shape of the images that a model was made for, or else of its input."""
    return model.image_shape or model.spec.input.shape
