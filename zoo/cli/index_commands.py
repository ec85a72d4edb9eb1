"""Commands about the models of indexes: list, pull, publish."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from converters.cli.console import byte_bar, command, force_option, json_option, print_table, say
from converters.cli.options import PathArgument, cache_option, complete_models, percent
from zoo.model_format import ModelFormat

__all__ = ["list_models", "publish_model", "pull"]


def _index_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--from` and `--offline`."""
    command = click.option("--offline", is_flag=True, help="Nothing from other machines but what was pulled before.")(
        command
    )
    return click.option(
        "--from",
        "urls",
        multiple=True,
        metavar="INDEX",
        help="A folder, https://, hf:// or any URL of fsspec. May be repeated: the first with the name wins. "
        "[default: $ZOO_INDEX, then the package, then what was pulled]",
    )(command)


@command("list")
@click.argument("pattern", default="*", shell_complete=complete_models)
@_index_options
@cache_option
@json_option
def list_models(pattern: str, urls: tuple[str, ...], offline: bool, cache_dir: Path | None, as_json: bool) -> None:
    """List the models whose names match PATTERN, or NAME@REVISION.

    Those of all indexes, and those that were pulled. Accuracy is that of the card, as SNN on the test images of the
    data.

    Example: zoo list 'mnist-*'
    """
    from zoo.hub.catalog import CACHE, PACKAGE, cached_models, no_model, open_catalogs, search

    cached = cached_models(cache_dir)
    catalogs = open_catalogs(urls, cache_dir=cache_dir, offline=offline)
    rows = []
    matching = search(pattern, catalogs)
    if not matching and pattern != "*":
        raise no_model(pattern, catalogs)
    for found in matching:
        local = found.catalog.name == PACKAGE or cached.index.get(found.name, found.model.revision) is not None
        rows.append({
            "name": found.name,
            **found.model.model_dump(mode="json", exclude={"files", "card"}),
            "formats": sorted(found.model.files),
            "bytes": found.model.files[ModelFormat.SAFETENSORS].bytes,
            "sha256": found.model.files[ModelFormat.SAFETENSORS].sha256,
            "index": found.catalog.name,
            "pulled": local,
        })  # fmt: skip
    if as_json:
        click.echo(json.dumps({"models": rows}))
        return
    print_table(
        ["name", "revision", "data", "T", "accuracy", "MB", "index"],
        [
            [
                row["name"],
                row["revision"],
                row["data"],
                str(row["time_steps"]),
                percent(row["accuracy"]),
                f"{row['bytes'] / 1e6:.2f}",
                row["index"] + (" (pulled)" if row["pulled"] and row["index"] not in (PACKAGE, CACHE) else ""),
            ]
            for row in rows
        ],
    )


@command()
@click.argument("references", nargs=-1, required=True, shell_complete=complete_models, metavar="NAME[@REVISION]...")
@click.option("-o", "--output", "folder", type=PathArgument, help="Also write the files, and the card, there.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice([format.value for format in ModelFormat]),
    default=[ModelFormat.SAFETENSORS.value],
    show_default=True,
    help="May be repeated. What an index does not have, is converted here.",
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
    cache_dir: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Fetch models into the cache, and print where they are.

    Sizes and digests are checked; of each model and format a path is printed. A revision is the beginning of the model
    file's sha256: NAME@REVISION is that file or an error. Transfers that broke off go on where they ended. Other
    commands know by name what lies in $ZOO_CACHE_DIR.

    Example: zoo pull mnist-dense -o models --format safetensors --format netx
    """
    from zoo.hub import fetch
    from zoo.hub.catalog import find_models, open_catalogs, packaged_models

    catalogs = open_catalogs(urls, cache_dir=cache_dir, offline=offline)
    pulled, packaged = [], packaged_models()
    for found in find_models(references, catalogs):
        with byte_bar(found.name) as progress:
            paths = fetch.pull(
                found,
                formats=[ModelFormat(format) for format in formats],
                folder=folder,
                cache_dir=cache_dir,
                force=force,
                progress=progress,
            )
        ours, revision = packaged.index.get(found.name), found.model.revision
        if ours is not None and ours.revision != revision:
            say(f"note: {found.name} alone means the package's {ours.revision}; this one is {found.name}@{revision}")
        pulled.append({
            "name": found.name,
            "revision": revision,
            "index": found.catalog.name,
            "paths": dict(zip(dict.fromkeys(formats), map(str, paths), strict=True)),
        })  # fmt: skip
        if not as_json:
            for path in paths:
                click.echo(path)
    if as_json:
        click.echo(json.dumps({"models": pulled}))


@command("publish")
@click.argument("file", type=PathArgument)
@click.argument("card", type=PathArgument)
@click.option("--to", "url", required=True, metavar="INDEX", help="A folder, which is made, or hf://OWNER/REPOSITORY.")
@click.option("--own-data", is_flag=True, help="All may see the path of your own images, and the eight on the card.")
@json_option
def publish_model(file: Path, card: Path, url: str, own_data: bool, as_json: bool) -> None:
    """Add the model FILE, with its CARD, to an index.

    Prints NAME@REVISION. Files come first and index.json last, so readers find the old or the new. What a revision
    holds never changes. A folder can be pulled from as it is, or from any web server that shows it. Name, description
    and licence are those of the card, which zoo card writes.

    Example: zoo publish run/model.safetensors run/model.yaml --to /srv/models
    """
    from zoo.hub.publish import publish

    reference = publish(file, card, url, own_data=own_data)
    click.echo(json.dumps({"published": reference, "index": url}) if as_json else reference)
