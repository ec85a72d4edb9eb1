"""The command `completion`: let a shell complete commands of `zoo`."""

import click
from click.shell_completion import get_completion_class

from converters.cli.console import command, echo

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
