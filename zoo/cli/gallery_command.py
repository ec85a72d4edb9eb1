"""The command `gallery`: a page that shows a model at work."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.console import (
    command,
    command_line,
    echo,
    force_option,
    json_option,
    json_text,
    refuse_existing,
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
from zoo.cli.given_model import input_shape, need_classes, own_card, read_and_say, say_fresh, usual_data

if TYPE_CHECKING:
    from bootstrap_core.training.history import EpochReport


@command()
@click.argument("source", shell_complete=complete_models)
@click.option("-o", "--output", required=True, type=PathArgument, help="Page to write, FILE.html.")
@click.option(
    "--data",
    shell_complete=complete_data,
    help="Dataset to run on. [default: the one the model was trained on, or mnist-sample if mnist is missing]",
)
@click.option(
    "--limit", type=click.IntRange(1), default=2000, show_default=True, help="Number of test images to use, at most."
)
@data_options
@click.option("--threads", type=click.IntRange(1), help=THREADS_HELP)
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
    """Write a page that shows a model at work.

    The page is one HTML file that loads nothing else. It shows images with their spikes, accuracy by number of time
    steps, layers, confusions, learning curves, a drawing of the network, and its spec. Learning curves come from the
    model's card, or from the metrics.jsonl of zoo train beside the model.

    Example: zoo gallery mnist-dense -o page.html
    """

    from converters.report.gallery import gallery_page, measure_gallery
    from specs.files.whole_file import write_whole

    if output.suffix not in {".html", ".htm"}:
        raise click.UsageError(f"-o: must be FILE.html, got {str(output)!r}")
    refuse_existing(output, force)
    model, trained = read_and_say(source)
    need_classes(model, "page")
    say_fresh(trained)
    use_threads(threads)
    dataset = places.load(data or _found(usual_data(model), places), input_shape(model), model.classes, model.spec)
    say_sample(dataset)
    figures = measure_gallery(model, dataset, limit=limit)
    page = gallery_page(model, figures, source=source, command=command_line(), reports=_reports(source))
    write_whole(output, page.encode())
    if as_json:
        echo(json_text({
            "model": source,
            "output": str(output),
            "data": dataset.name,
            "images": figures.score.n_images,
            "accuracy": figures.score.accuracy,
            "seconds": figures.seconds,
        }))  # fmt: skip
    else:
        echo(output)


def _reports(source: str) -> "list[EpochReport]":
    """Return the reports of all epochs of a model's training, empty if unknown."""
    from zoo.runs.learning_curves import reports_of
    from zoo.runs.training_run import read_metrics

    card = own_card(source)
    if card is not None and (reports := reports_of(card.training)):
        return reports
    return read_metrics(Path(source).parent) if Path(source).is_file() else []


def _found(name: str, places: DataPlaces) -> str:
    """Return `name`, or the embedded sample instead of MNIST if MNIST would have to be downloaded."""
    from bootstrap_core.data.datasets import find_dataset
    from specs.dataset_sources import SAMPLE_NAME

    if name == "mnist" and find_dataset(name, data_dir=places.data_dir, cache_dir=places.cache_dir) is None:
        name = SAMPLE_NAME
    return name
