"""The group of commands zoo, and demo and completion. A command parses, calls the library once, and prints."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from converters.cli.console import (
    CONTEXT_SETTINGS,
    KnownModels,
    command,
    describe_platform,
    echo,
    force_option,
    is_verbose,
    json_option,
    json_text,
    print_table,
    refuse_existing,
    say,
    talk_options,
)
from converters.cli.convert_command import convert
from converters.cli.migrate_command import migrate
from converters.cli.options import PathArgument
from specs.errors import SnnZooError
from specs.words import percent
from zoo.cli.data_commands import data
from zoo.cli.index_commands import list_models, publish_model, pull, site
from zoo.cli.model_commands import card, evaluate_model, gallery, predict, show, verify
from zoo.cli.spec_commands import build, check, schema, train

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "_ZOO_COMPLETE"
"""Environment variable by which a shell asks click for completions."""


@command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes a shell complete zoo commands.

    It completes commands, options, models and datasets. Evaluate it in the start-up file of the shell:

    \b
    ~/.bashrc                    eval "$(zoo completion bash)"
    ~/.zshrc                     eval "$(zoo completion zsh)"
    ~/.config/fish/config.fish   zoo completion fish | source

    Example: zoo completion bash
    """
    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root()
    echo(found(root.command, {}, "zoo", VARIABLE).source())


@command()
@click.option(
    "-o",
    "--output",
    "folder",
    type=PathArgument,
    default=Path("demo"),
    show_default=True,
    help="Folder to write into.",
)
@force_option
@json_option
def demo(folder: Path, force: bool, as_json: bool) -> None:
    """Score a model and convert an ANN in a minute, offline.

    Writes a trained model and scores it on embedded test images, converts an embedded ANN into a spiking network, and
    draws a page about each.

    Example: zoo demo -o demo
    """
    import torch

    from converters.formats.model_files import file_entry
    from zoo.demo import ANN, FILES, MODEL, run_demo

    for name in FILES:
        refuse_existing(folder / name, force)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    found = run_demo(folder, force=force, say=say)
    if as_json:
        score = {"time_steps": found.score.time_steps, "accuracy": found.score.accuracy}
        outputs = [file_entry(folder / name) for name in FILES]
        echo(json_text({MODEL: score, "conversion": found.conversion.report, "outputs": outputs}))
        return
    say("")
    rows = [
        [MODEL, f"T={found.score.time_steps}, integers", percent(found.score.accuracy)],
        [ANN, "ANN", percent(found.conversion.ann)],
    ]
    for t, accuracy in found.conversion.tuned.items():
        rows.append([ANN, f"T={t}, integers", "overflows" if accuracy is None else percent(accuracy)])
    print_table(["network", "run", "accuracy"], rows)
    echo()
    print_table(["file", "what it is"], [[str(folder / name), what] for name, what in FILES.items()], words=True)


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
