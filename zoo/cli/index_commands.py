"""The commands that work with indexes of models: list, pull, publish and site."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from converters.cli.console import (
    byte_bar,
    command,
    echo,
    force_option,
    json_option,
    json_text,
    print_table,
    refuse_existing,
    say,
    warn,
)
from converters.cli.options import PathArgument, cache_option, complete_models
from specs.errors import SnnZooError
from specs.words import percent
from zoo.model_format import ModelFormat


def _index_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--offline", is_flag=True, help="Use only indexes on this machine, and models that were pulled before."
    )(command)
    return click.option(
        "--from",
        "urls",
        multiple=True,
        metavar="INDEX",
        help="Index of models: a folder, https://, hf:// or another URL of fsspec. May be repeated; the first index "
        "that has the model is used. [default: $ZOO_INDEX, then the package, then pulled models]",
    )(command)


def _warn_of_failure(error: SnnZooError) -> None:
    warn(f"{error}; using the models in the cache instead")


@command("list")
@click.argument("pattern", default="*", shell_complete=complete_models)
@_index_options
@cache_option
@json_option
def list_models(pattern: str, urls: tuple[str, ...], offline: bool, as_json: bool) -> None:
    """List the models whose names match PATTERN.

    PATTERN is NAME or NAME@REVISION; in both, * stands for any letters and ? for one. NAME shows one revision, NAME@*
    all; a card that was corrected later is shown as REVISION+CARD. Accuracy is the SNN's on the test images of the
    dataset, from the model's card. MB is the size of the model file.

    Example: zoo list 'mnist-*'
    """
    from zoo.hub.catalog import CACHE, PACKAGE, cached_models, no_model, open_catalogs, search

    cached = cached_models()
    on_failure = None if urls else _warn_of_failure
    catalogs = open_catalogs(urls, offline=offline, on_failure=on_failure)
    rows, revisions = [], []
    for found in search(pattern, catalogs):
        is_pulled = cached.index.get(found.name, found.model.pin) is not None
        rows.append({**found.facts(), "pulled": found.catalog.name == PACKAGE or is_pulled})
        revisions.append(found.shown_revision)
    if not rows and pattern != "*":
        raise no_model(pattern, catalogs)
    if as_json:
        echo(json_text({"models": rows}))
        return
    print_table(
        ["name", "revision", "data", "T", "accuracy", "MB", "licence", "index"],
        [
            [
                row["name"],
                revision,
                row["data"],
                str(row["time_steps"]),
                percent(row["accuracy"]),
                f"{row['bytes'] / 1e6:.2f}",
                row["licence"],
                row["index"] + (" (pulled)" if row["pulled"] and row["index"] not in (PACKAGE, CACHE) else ""),
            ]
            for row, revision in zip(rows, revisions, strict=True)
        ],
    )


@command()
@click.argument("references", nargs=-1, required=True, shell_complete=complete_models, metavar="NAME[@REVISION]...")
@click.option(
    "-o", "--output", "folder", type=PathArgument, help="Also write the files, and the card, into this folder."
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice([format.value for format in ModelFormat]),
    default=[ModelFormat.SAFETENSORS.value],
    show_default=True,
    help="Format of the files. May be repeated. A format that the index lacks is converted here.",
)
@_index_options
@cache_option
@force_option
@json_option
def pull(
    references: tuple[str, ...],
    folder: Path | None,
    formats: tuple[str, ...],
    urls: tuple[str, ...],
    offline: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Fetch models into the cache, and print the path of each file.

    Other commands then find the models by name. Sizes and sha256 are checked. A transfer that broke off continues where
    it ended. A revision is the beginning of the model file's sha256, so NAME@REVISION always means the same file.

    Example: zoo pull mnist-dense -o models --format safetensors --format netx
    """
    from zoo.hub import fetch
    from zoo.hub.catalog import find_models, open_catalogs, packaged_models

    # a revision means the same bytes in each index, so pulled ones do; a name alone could get another model's weights
    on_failure = None if urls and not all("@" in reference for reference in references) else _warn_of_failure
    catalogs = open_catalogs(urls, offline=offline, on_failure=on_failure)
    pulled, packaged = [], packaged_models()
    for found in find_models(references, catalogs):
        with byte_bar(found.name) as progress:
            paths = fetch.pull(
                found,
                formats=[ModelFormat(format) for format in formats],
                folder=folder,
                force=force,
                progress=progress,
            )
        ours, revision = packaged.index.get(found.name), found.model.revision
        if ours is not None and ours.revision != revision:
            say(f"note: {found.name} means the package's {ours.revision}; name this one as {found.name}@{revision}")
        pulled.append({
            "name": found.name,
            "revision": revision,
            "pin": found.model.pin,
            "index": found.catalog.name,
            "paths": dict(zip(dict.fromkeys(formats), map(str, paths), strict=True)),
        })  # fmt: skip
        if not as_json:
            for path in paths:
                echo(path)
    if as_json:
        echo(json_text({"models": pulled}))


@command("publish")
@click.argument("file", type=PathArgument)
@click.argument("card", type=PathArgument)
@click.option(
    "--to",
    "url",
    required=True,
    metavar="INDEX",
    help="Index to add to: a folder, made if missing, or hf://OWNER/REPOSITORY.",
)
@click.option(
    "--own-data",
    is_flag=True,
    help="If the data are your own: agree to publish their path, and the eight images on the card.",
)
@click.option(
    "--card-only",
    is_flag=True,
    help="Put CARD in the place of the published card of the same FILE. The old one stays, as NAME@REVISION+CARD.",
)
@json_option
def publish_model(file: Path, card: Path, url: str, own_data: bool, card_only: bool, as_json: bool) -> None:
    """Add the model FILE, with its CARD, to an index.

    Prints NAME@REVISION. Name, description and licence come from the card, which zoo card writes; a card without a
    licence is refused. The files of a published revision never change; --card-only adds a corrected card. The files are
    written first and index.json last, so that readers always see a complete index. A README.md is made of the card,
    with the front matter that Hugging Face reads. Others can pull from the folder, or from any web server that serves
    it.

    Example: zoo publish run/model.safetensors run/model.yaml --to /srv/models
    """
    from zoo.hub.publish import publish

    reference = publish(file, card, url, own_data=own_data, card_only=card_only)
    echo(json_text({"published": reference, "index": url}) if as_json else reference)


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
