"""The command `site`, which writes the pages of an index."""

from pathlib import Path

import click

from converters.cli.console import command, echo, force_option, json_option, json_text, refuse_existing, say, warn
from converters.cli.options import PathArgument


@command()
@click.argument("index", required=False)
@click.option("-o", "--output", "folder", required=True, type=PathArgument, help="Folder to write the pages into.")
@force_option
@json_option
def site(index: str | None, folder: Path, force: bool, as_json: bool) -> None:
    """Write a static site of an index: a table of its models, and a page for each.

    INDEX is a folder, https://, hf:// or another URL of fsspec; by default it is the package. The pages open from the
    folder and from any web server. A page has the model's card, its spikes, the commands that get it, and the model
    itself, which runs in the page: this needs clang and lld where the site is made. A page without it says why.

    Example: zoo site -o site
    """
    from zoo.site import INDEX_PAGE, make_site

    refuse_existing(folder / INDEX_PAGE, force)
    made = make_site(folder, index, say=say, warn=warn)
    if as_json:
        echo(json_text({"output": str(folder), "models": made}))
    else:
        echo(folder / INDEX_PAGE)
