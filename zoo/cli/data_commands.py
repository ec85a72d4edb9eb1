"""The commands `data list` and `data pull`."""

from pathlib import Path

import click

from converters.cli.console import (
    CONTEXT_SETTINGS,
    Command,
    echo,
    json_option,
    json_text,
    talk_options,
)
from converters.cli.options import DataPlaces, cache_option, complete_data, places_options

__all__ = ["data"]


@click.group(context_settings=CONTEXT_SETTINGS)
def data() -> None:
    """List and download datasets.

    Example: zoo data list
    """


data.params += talk_options()


@data.command("list", cls=Command)
@places_options
@json_option
def data_list(places: DataPlaces, as_json: bool) -> None:
    """List the datasets, and the folder of each on this machine.

    Example: zoo data list
    """
    from bootstrap_core.data.datasets import SOURCES, dataset_names, find_dataset

    found = {name: find_dataset(name, data_dir=places.data_dir, cache_dir=places.cache_dir) for name in dataset_names()}
    if as_json:
        echo(json_text({name: None if path is None else str(path) for name, path in found.items()}))
        return
    for name, path in found.items():
        is_downloadable = SOURCES[SOURCES[name].simulated_from or name].is_downloadable
        source = f"zoo data pull {name}" if is_downloadable else "no download: see zoo/README.md"
        echo(f"{name:<25}{path or f'missing ({source})'}")


@data.command("pull", cls=Command)
@click.argument("name", shell_complete=complete_data)
@cache_option
@json_option
def data_pull(name: str, cache_dir: Path | None, as_json: bool) -> None:
    """Download a dataset into the cache, and print its folder.

    NAME is one of zoo data list. The sha256 of each file is checked.

    Example: zoo data pull mnist
    """
    from bootstrap_core.data.datasets import pull_dataset

    folder = pull_dataset(name, cache_dir=cache_dir)
    echo(json_text({"name": name, "path": str(folder)}) if as_json else folder)
