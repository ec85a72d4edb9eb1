"""The command `gallery`: a page that shows a model at work."""

from typing import Any

import click

from converters.cli.console import command, force_option, json_option
from converters.cli.options import THREADS_HELP, complete_data, complete_models, data_options
from converters.cli.usage import FileName


@command()
@click.argument("source", shell_complete=complete_models)
@click.option("-o", "--output", required=True, type=FileName(".html", ".htm"), help="Page to write, FILE.html.")
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
def gallery(source: str, **options: Any) -> None:
    """Write a page that shows a model at work.

    The page is one HTML file that loads nothing else. It shows images with their spikes, accuracy by number of time
    steps, layers, confusions, learning curves, a drawing of the network, and its spec. Learning curves come from the
    model's card, or from the metrics.jsonl of zoo train beside the model.

    Example: zoo gallery mnist-dense -o page.html
    """
    from zoo.cli.measuring import make_page

    make_page(source, **options)
