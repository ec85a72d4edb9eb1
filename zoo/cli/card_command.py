"""The command `card`: measure a trained model and write its card."""

from typing import Any

import click

from converters.cli.console import command, force_option, json_option
from converters.cli.options import THREADS_HELP, PathArgument, complete_data, complete_models, data_options
from converters.cli.usage import FileName


def _check_name(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    from specs.fields import is_name

    if name is not None and not is_name(name):
        raise click.BadParameter(f"must have only lower-case letters, digits, '.', '_' and '-', got {name!r}")
    return name


@command()
@click.argument("source", shell_complete=complete_models)
@click.option("-o", "--output", type=FileName(".yaml"), help="Card to write, FILE.yaml. [default: print it]")
@click.option("--check", is_flag=True, help="Compare the existing card with the measurements; write nothing.")
@click.option(
    "--data", shell_complete=complete_data, help="Dataset to measure on. [default: the one the model was trained on]"
)
@click.option(
    "--run",
    type=PathArgument,
    help="Folder of the training run, for its learning curves. [default: SOURCE, if that is a folder]",
)
@click.option(
    "--seed-run",
    "seed_runs",
    type=PathArgument,
    multiple=True,
    help="Folder of a run with another seed, whose score the card gets. May be repeated.",
)
@click.option("--name", callback=_check_name, help="Name of the model. [default: the name in its spec]")
@click.option(
    "--licence", help="Licence of the weights, by its SPDX name, as in Apache-2.0. [default: as on the old card]"
)
@data_options
@click.option("--threads", type=click.IntRange(1), help=THREADS_HELP)
@force_option
@json_option
def card(source: str, **options: Any) -> None:
    """Measure a trained model and write its card.

    SOURCE is the folder of a training run, a .safetensors file, or the name of a model. The model runs on all test
    images of the dataset that it was trained on.

    A new card keeps the licence of the old one, and its learning curves and other seeds if both describe the same file.
    The description comes from the spec: set it with zoo train SPEC -o run --set description=TEXT.

    Example: zoo card run -o run/model.yaml --licence Apache-2.0
    """
    from zoo.cli.measuring import make_card

    make_card(source, **options)
