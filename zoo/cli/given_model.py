"""Helpers of commands that take a model: reading, notes, warnings, completion and tables."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from converters.cli.console import echo, print_rows, say, say_notes, warn
from converters.cli.options import complete_from
from specs.dataset_sources import doubts
from specs.errors import SnnZooError
from specs.files.named_data import check_named_data
from specs.words import counted

if TYPE_CHECKING:
    from bootstrap_core.data.data_places import DataPlaces
    from bootstrap_core.data.splits import Dataset
    from converters.model import Model
    from specs.network import NetworkSpec
    from specs.training import TrainingSpec
    from zoo.card import Card


def complete_specs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a spec for the shell: names of packaged specs, and files."""
    from specs.io import network_names

    return complete_from(network_names(), incomplete)


def print_layers(network: "NetworkSpec") -> None:
    """Print the layer table of a spec, and what it gives unless that is classes."""
    from specs.summary import layer_rows

    print_rows(layer_rows(network))
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
    warn(*filter(None, [doubt]), *network.idle(recipe))


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


def load_data(model: "Model", data: str | None, places: "DataPlaces", *, labelled: bool = True) -> "Dataset":
    """Load `data` for a model, by default the data that it was trained on; arguments as in `DataPlaces.load`."""
    shape = model.image_shape or model.spec.input.shape
    return places.load(data or usual_data(model), shape, model.classes, model.spec, labelled=labelled)
