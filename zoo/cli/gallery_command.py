"""The command about pages: gallery."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.console import command, command_line, force_option, json_option, refuse_existing
from converters.cli.options import (
    DataPlaces,
    PathArgument,
    complete_data,
    complete_models,
    data_options,
    say_sample,
    use_threads,
)
from zoo.cli.given_model import input_shape, own_card, read_and_say, say_fresh, usual_data

if TYPE_CHECKING:
    from bootstrap_core.training.trainer import EpochReport

__all__ = ["gallery"]


@command()
@click.argument("source", shell_complete=complete_models)
@click.option("-o", "--output", required=True, type=PathArgument, help="The page, FILE.html.")
@click.option(
    "--data",
    shell_complete=complete_data,
    help="Dataset; by default the one it was trained on, of MNIST the embedded sample if need be.",
)
@click.option("--limit", type=click.IntRange(1), default=2000, show_default=True, help="Test images, at most.")
@data_options
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@force_option
@json_option
def gallery(
    source: str,
    output: Path,
    data: str | None,
    limit: int,
    places: DataPlaces,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Show a model at work on one page.

    It fetches nothing and needs no other file. Images with the spikes that they cause, accuracy against T, layers,
    confusions, learning curves (of the model's card, or of the metrics.jsonl that `zoo train` leaves beside it), the
    network drawn, its spec.

    Example: zoo gallery mnist-dense -o page.html
    """
    import json

    from converters.report.gallery import gallery_page, measure_gallery
    from specs.files.whole_file import write_whole

    if output.suffix not in {".html", ".htm"}:
        raise click.UsageError(f"a gallery is a page: -o takes FILE.html; this is {str(output)!r}")
    refuse_existing(output, force)
    model, trained = read_and_say(source)
    say_fresh(trained)
    use_threads(threads)
    dataset = places.load(data or _found(usual_data(model), places), input_shape(model), model.classes)
    say_sample(dataset)
    figures = measure_gallery(model, dataset, limit=limit)
    page = gallery_page(model, figures, source=source, command=command_line(), reports=_reports(source))
    write_whole(output, page.encode())
    if as_json:
        click.echo(json.dumps({
            "model": source,
            "output": str(output),
            "data": dataset.name,
            "images": figures.score.n_images,
            "accuracy": figures.score.accuracy,
            "seconds": figures.seconds,
        }))  # fmt: skip
    else:
        click.echo(output)


def _reports(source: str) -> "list[EpochReport]":
    """What is known of its training, epoch by epoch."""
    from zoo.runs.learning_curves import reports_of
    from zoo.runs.training_run import read_metrics

    card = own_card(source)
    if card is not None and (reports := reports_of(card.training)):
        return reports
    return read_metrics(Path(source).parent) if Path(source).is_file() else []


def _found(name: str, places: DataPlaces) -> str:
    """The dataset `name`; of MNIST, where it would have to be downloaded, the embedded sample."""
    from bootstrap_core.data.datasets import SAMPLE_NAME, find_dataset

    if name == "mnist" and find_dataset(name, data_dir=places.data_dir, cache_dir=places.cache_dir) is None:
        name = SAMPLE_NAME
    return name
