"""The commands `data list`, `data pull` and `data export`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.console import (
    CONTEXT_SETTINGS,
    Command,
    echo,
    force_option,
    json_option,
    json_text,
    refuse_existing,
    talk_options,
)
from converters.cli.options import (
    PathArgument,
    cache_option,
    complete_data,
    complete_models,
    data_options,
    limit_option,
    places_options,
    say_drawn,
)
from specs.errors import SnnZooError
from specs.words import counted
from zoo.cli.given_model import load_data, read_and_say, usual_data

if TYPE_CHECKING:
    from bootstrap_core.data.data_places import DataPlaces


@click.group(context_settings=CONTEXT_SETTINGS)
def data() -> None:
    """List and download datasets, and write them for programs in C.

    Example: zoo data list
    """


data.params += talk_options()


@data.command("list", cls=Command)
@places_options
@json_option
def data_list(places: "DataPlaces", as_json: bool) -> None:
    """List the datasets, and the folder of each on this machine.

    Example: zoo data list
    """
    from bootstrap_core.data.datasets import find_dataset
    from specs.dataset_sources import dataset_names, sources

    found = {name: find_dataset(name, data_dir=places.data_dir) for name in dataset_names()}
    if as_json:
        echo(json_text({name: None if path is None else str(path) for name, path in found.items()}))
        return
    known = sources()
    for name, path in found.items():
        is_downloadable = known[known[name].made_from or name].is_downloadable
        source = f"zoo data pull {name}" if is_downloadable else "no download: see zoo/README.md"
        echo(f"{name:<25}{path or f'missing ({source})'}")


@data.command("pull", cls=Command)
@click.argument("name", shell_complete=complete_data)
@cache_option
@json_option
def data_pull(name: str, as_json: bool) -> None:
    """Download a dataset into the cache, and print its folder.

    NAME is one of zoo data list. The digest of each file is checked.

    Example: zoo data pull mnist
    """
    from bootstrap_core.data.datasets import pull_dataset

    folder = pull_dataset(name)
    echo(json_text({"name": name, "path": str(folder)}) if as_json else folder)


@data.command("export", cls=Command)
@click.argument("source", shell_complete=complete_models)
@click.option("--output", "-o", type=PathArgument, required=True, help="File to write; its labels go to NAME.labels.")
@click.option(
    "--data",
    "name",
    shell_complete=complete_data,
    help="Dataset, .npz file, or folder with a folder of images for each class. [default: the dataset that the model "
    "was trained on]",
)
@limit_option
@data_options
@force_option
@json_option
def data_export(
    source: str,
    output: Path,
    name: str | None,
    limit: int | None,
    places: "DataPlaces",
    force: bool,
    as_json: bool,
) -> None:
    """Write test images as raw bytes, for programs in C.

    SOURCE is a model file or the name of a model. Images are resized, sounds become pictures, and events are counted,
    as the C source of this model needs it. Labels are written to a text file beside it, a number a line. For a network
    that gives values, --data is a file of frames, and no labels are written; nor are they for images without.

    Example: zoo data export mnist-dense --data mnist-sample -o images.raw
    """
    from bootstrap_core.data.frames import read_frames
    from bootstrap_core.data.image_arrays import UNLABELLED
    from converters.formats.c.c_targets import labels_path, write_frames, write_inputs

    labels = labels_path(output)
    if labels == output:
        raise click.UsageError(f"--output: must have another suffix than {labels.suffix}, which the labels get")
    for path in (output, labels):
        refuse_existing(path, force)
    model = read_and_say(source)[0]
    spec = model.spec
    if (outputs := spec.gives) == "spike trains":
        raise SnnZooError(f"{spec.name} gives spike trains, which C source cannot express")
    steps: int | None
    if outputs == "values":
        labelled = False
        places.refuse_classes(spec)
        frames = read_frames(Path(name or usual_data(model)), spec).limited(limit)
        write_frames(frames, spec, output)
        n, steps = len(frames), len(frames.frames)
    else:
        dataset = load_data(model, name, places, labelled=False).limited(limit)
        say_drawn(dataset)
        labelled = dataset.classes != (UNLABELLED,)
        write_inputs(dataset.test, spec, output, labelled=labelled)
        n, steps = len(dataset.test), dataset.test.images.shape[1] if dataset.test.has_events else None
    if as_json:
        found = {"path": str(output), "labels": str(labels) if labelled else None, "inputs": n}
        echo(json_text({**found, "time_steps": steps, "bytes": output.stat().st_size}))
        return
    what = counted(n, spec.input.sample) + ("" if steps is None else f" of {steps} steps")
    echo(f"{output}: {what}, {output.stat().st_size // max(1, n):,} bytes each")
    if labelled:
        echo(f"{labels}: their classes")
