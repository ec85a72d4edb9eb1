"""The command `card`: measure a trained model and write its card."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.console import (
    command,
    echo,
    force_option,
    json_option,
    json_text,
    print_table,
    refuse_existing,
    say,
)
from converters.cli.options import (
    THREADS_HELP,
    DataPlaces,
    PathArgument,
    complete_data,
    complete_models,
    data_options,
    say_sample,
    use_threads,
)
from specs.errors import ConversionError, SnnZooError
from specs.words import counted

if TYPE_CHECKING:
    from zoo.card import Card

NO_LICENCE = "NOASSERTION"
"""Licence on a card if none is given: SPDX's identifier for no statement."""


@command()
@click.argument("source", shell_complete=complete_models)
@click.option("-o", "--output", type=PathArgument, help="Card to write, FILE.yaml. [default: print it]")
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
@click.option("--name", help="Name of the model. [default: the name in its spec]")
@click.option(
    "--licence", help="Licence of the weights, by its SPDX name, as in Apache-2.0. [default: as on the old card]"
)
@data_options
@click.option("--threads", type=click.IntRange(1), help=THREADS_HELP)
@force_option
@json_option
def card(
    source: str,
    output: Path | None,
    check: bool,
    data: str | None,
    run: Path | None,
    seed_runs: tuple[Path, ...],
    name: str | None,
    licence: str | None,
    places: DataPlaces,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure a trained model and write its card.

    SOURCE is the folder of a training run, a .safetensors file, or the name of a model. The model runs on all test
    images of the dataset that it was trained on.

    A new card keeps the licence of the old one, and its learning curves and other seeds if both describe the same file.
    The description comes from the spec: set it with zoo train SPEC -o run --set description=TEXT.

    Example: zoo card run -o run/model.yaml
    """
    from converters.formats.file_kind import USES, FileKind, kind_of_file
    from converters.formats.model_files import MODEL_SUFFIXES
    from specs.fields import is_name
    from zoo.card import dump_card
    from zoo.factory import local_model, unknown_model
    from zoo.runs.card_files import SUFFIX, card_path
    from zoo.sources import TRAINED, refuse_folder

    if name is not None and not is_name(name):
        raise click.UsageError(f"--name: must have only lower-case letters, digits, '.', '_' and '-', got {name!r}")
    if output is not None and output.suffix != SUFFIX:
        raise click.UsageError(f"-o: must be FILE.yaml, which zoo show finds beside FILE.safetensors, got {output}")
    path, before = Path(source), None
    if path.is_dir():
        path, run = path / TRAINED, run or path
        if not path.exists():
            refuse_folder(path.parent)
    elif not path.exists() and path.suffix not in MODEL_SUFFIXES:
        local = local_model(source)
        if local is None:
            raise unknown_model(source)
        path, before, name = local, card_path(source), name or source.partition("@")[0]
    if (kind := kind_of_file(path)) is not FileKind.SAFETENSORS:
        raise ConversionError(f"a card describes a .safetensors file, but {path} is {USES[kind]}")
    if output is not None and not check:
        refuse_existing(output, force)
    before = before or card_path(str(path))
    if output is not None and output.exists():
        before = output
    use_threads(threads)
    found = _measure(path, before, run, seed_runs, name, licence, data, places)
    if check:
        _compare(before, found, as_json)
        return
    text = dump_card(found, output)
    if as_json:
        echo(json_text(found.model_dump(mode="json")))
    else:
        echo(text if output is None else f"{output}\n", nl=False)


def _measure(
    path: Path,
    before: Path | None,
    run: Path | None,
    seed_runs: tuple[Path, ...],
    name: str | None,
    licence: str | None,
    data: str | None,
    places: DataPlaces,
) -> "Card":
    from converters.formats.safetensors_file import read_safetensors
    from specs.dataset_sources import found_data
    from zoo.card import FileFacts, load_card
    from zoo.cli.given_model import input_shape, need_classes, usual_data
    from zoo.runs.learning_curves import read_curves
    from zoo.runs.measurement import measure_card, measure_seed
    from zoo.sources import TRAINED

    model = read_safetensors(path).with_data(partial(found_data, folder=path.parent))
    need_classes(model, "card")
    dataset = places.load(data or usual_data(model), input_shape(model), model.classes, model.spec)
    say_sample(dataset)
    old = None if before is None else load_card(before)
    licence = licence or (NO_LICENCE if old is None else old.licence)
    if licence == NO_LICENCE:
        say("note: the card has no licence: set one, as in --licence Apache-2.0")
    if old is not None and FileFacts.of_file(path) not in old.files.values():
        old = None
    curves = None if old is None else old.training.curves
    if run is not None:
        curves = read_curves(run)
    seeds = () if old is None else old.training.other_seeds
    if seed_runs:
        seeds = tuple(measure_seed(folder / TRAINED, model, dataset) for folder in seed_runs)
    say(f"{name or model.spec.name}: measuring on {len(dataset.test):,} test {dataset.sample}s of {dataset.name}")
    return measure_card(
        path,
        dataset,
        name=name,
        licence=licence,
        curves=curves,
        other_seeds=seeds,
        progress=lambda name: say(f"  {name}"),
    )


def _compare(before: Path | None, found: "Card", as_json: bool) -> None:
    """Print the fields in which the card differs from the measurements; raise `SnnZooError` if there are any."""
    from zoo.card import load_card
    from zoo.runs.measurement import differences

    if before is None:
        raise SnnZooError(f"{found.name} has no card to check: write one with -o")
    different = differences(load_card(before), found)
    rows = [[one.field, _short(one.stored), _short(one.found)] for one in different]
    if as_json:
        fields = [dict(zip(("field", "card", "measured"), row, strict=True)) for row in rows]
        echo(json_text({"name": found.name, "differences": fields}))
    elif different:
        print_table(["field", "card", "measured"], rows, words=True)
    else:
        echo(f"{found.name}: the card agrees with the measurements")
    if not different:
        return
    n = len(different)
    raise SnnZooError(
        f"{before} differs from the measurements in {counted(n, 'field')}: write it anew with -o {before} --force"
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
