"""The command that lets a shell complete `zoo`."""

import click
from click.shell_completion import get_completion_class

from converters.cli.console import command

__all__ = ["completion"]

VARIABLE = "_ZOO_COMPLETE"
"""By which click, run as `zoo`, is asked for completions."""


@command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete what is typed after zoo.

    Its start-up file evaluates that. Commands, options, models and datasets are completed.

    \b
    ~/.bashrc                    eval "$(zoo completion bash)"
    ~/.zshrc                     eval "$(zoo completion zsh)"
    ~/.config/fish/config.fish   zoo completion fish | source

    Example: zoo completion bash
    """
    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root()
    click.echo(found(root.command, {}, "zoo", VARIABLE).source())
