"""The group of commands `zoo`. A command parses, calls the library once, and prints; it imports torch inside itself."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.console import CONTEXT_SETTINGS, KnownModels, describe_platform, echo, is_verbose, talk_options
from converters.cli.convert_command import convert
from converters.cli.migrate_command import migrate
from specs.errors import SnnZooError
from zoo.cli.card_command import card
from zoo.cli.completion_command import completion
from zoo.cli.data_commands import data
from zoo.cli.demo_command import demo
from zoo.cli.gallery_command import gallery
from zoo.cli.index_commands import list_models, publish_model, pull
from zoo.cli.score_commands import evaluate_model, predict
from zoo.cli.show_commands import show, verify
from zoo.cli.site_command import site
from zoo.cli.spec_commands import build, check, schema
from zoo.cli.train_command import train

if TYPE_CHECKING:
    from torch import Tensor


def _local_model(name: str) -> Path | None:
    """Return the file of a packaged or pulled model, or None if `name` cannot be a model name.

    Raises `SnnZooError` for a name of no model on this machine.
    """
    from zoo.factory import local_model, unknown_model

    path = local_model(name)
    if path is None and Path(name).name == name and not Path(name).suffix:
        raise unknown_model(name)
    return path


def _local_names() -> list[str]:
    """Return the names of the trained models on this machine, sorted; only packaged ones if the cache is damaged."""
    from zoo.hub.catalog import local_catalogs, packaged_models, search

    try:
        return [found.name for found in search("*", local_catalogs())]
    except (SnnZooError, OSError):
        return [found.name for found in search("*", [packaged_models()])]


def _golden_images(source: str) -> "Tensor | None":
    """Return the golden images in a model's card, uint8 `[N, C, H, W]`; None if it has no card."""
    from zoo.runs.card_files import card_of
    from zoo.runs.golden import golden_images

    card = card_of(source)
    return None if card is None else golden_images(card.golden)


KNOWN_MODELS = KnownModels(_local_model, _local_names, _golden_images)


@click.group(context_settings={**CONTEXT_SETTINGS, "obj": KNOWN_MODELS}, invoke_without_command=True)
@click.option("--version", is_flag=True, help="Print the version; with -v, also the versions of Python and torch.")
@click.pass_context
def zoo(context: click.Context, version: bool) -> None:
    """Train, convert, score and deploy low-latency spiking networks.

    Every command has its own help: zoo COMMAND --help.

    Example: zoo demo
    """
    if version:
        from zoo import __version__

        echo(f"zoo, version {__version__}")
        if is_verbose():
            import torch  # noqa: F401 - describe_platform describes it if it is loaded

            echo("\n".join(describe_platform()))
        context.exit()
    if context.invoked_subcommand is None:
        echo(context.get_help(), err=True)
        context.exit(2)


zoo.params += talk_options()
for member in (
    *(demo, check, schema, build, train, evaluate_model, predict, show, gallery, verify, card),
    *(list_models, pull, publish_model, site, data, completion, convert, migrate),
):
    zoo.add_command(member)
