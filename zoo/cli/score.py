"""Commands that run a trained model: eval, predict."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converters.cli.options import DataPlaces, PathArgument, data_options, percent, run_options, say_sample, use_threads
from converters.cli.shared import command, force_option, json_option, print_table, refuse_existing
from zoo.cli.shared import read_and_say, say_fresh, trained_on

if TYPE_CHECKING:
    from bootstrap_core.datasets import Dataset
    from bootstrap_core.evaluation import Evaluation
    from specs.network import NetworkSpec

__all__ = ["evaluate_model", "predict"]


@command("eval")
@click.argument("source")
@click.option("--data", help="Dataset; by default the one it was trained on.")
@click.option("--engine", type=click.Choice(["torch", "integer"]), default="torch", show_default=True)
@click.option("--mode", type=click.Choice(["snn", "ann"]), default="snn", show_default=True)
@click.option("--time-steps", default="", metavar="T[,T...]", help="Time steps; by default the spec's.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N images.")
@data_options
@run_options
@json_option
def evaluate_model(
    source: str,
    data: str | None,
    engine: str,
    mode: str,
    time_steps: str,
    limit: int | None,
    places: DataPlaces,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Score a model on the test images: accuracy, rates, synaptic operations of an image, images a second.

    Example: zoo eval run/model.safetensors --time-steps 4,8,16
    """
    from bootstrap_core import IntegerNetwork, Mode, evaluate
    from zoo.sources import resolve_device

    steps = _parse_steps(time_steps)
    if engine == "integer" and (mode == "ann" or device == "cuda"):
        raise click.UsageError("the integer engine runs spikes on the CPU: no --mode ann, no --device cuda")
    model, trained = read_and_say(source)
    use_threads(threads)
    dataset = places.load(data or trained_on(model.card, model.spec))
    test = dataset.test.take(slice(0, limit)) if limit else dataset.test
    network = model.build().to(resolve_device(device))
    runnable = IntegerNetwork(network) if engine == "integer" else network
    scores = []
    for t in steps if mode == "snn" else [None]:
        with _image_bar(len(test)) as progress:
            scores.append(evaluate(runnable, test, mode=Mode(mode), time_steps=t, progress=progress))
    if as_json:
        click.echo(json.dumps(_scores_as_json(source, model.card, dataset, engine, scores)))
        return
    say_fresh(trained)
    say_sample(dataset)
    _print_scores(model.spec, scores, engine)


@command()
@click.argument("source")
@click.argument("images", nargs=-1, required=True, type=PathArgument)
@click.option("--invert", is_flag=True, help="Dark digits on light paper.")
@click.option("--animate", type=PathArgument, help="Write the output spikes of the first image as a GIF.")
@force_option
@json_option
def predict(
    source: str, images: tuple[Path, ...], invert: bool, animate: Path | None, force: bool, as_json: bool
) -> None:
    """Classify image files: class and scores.

    Example: zoo predict run/model.safetensors seven.png --animate seven.gif
    """
    from zoo.prediction import animate_prediction, predict_files

    if animate is not None:
        refuse_existing(animate, force)
    network = read_and_say(source)[0].build()
    predictions = predict_files(network, images, invert=invert)
    if animate is not None:
        click.echo(animate_prediction(network, predictions[0], animate), err=True)
    if as_json:
        click.echo(json.dumps({
            "predictions": [{"image": str(p.path), "class": p.label, "scores": p.scores} for p in predictions]
        }))  # fmt: skip
        return
    print_table(
        ["image", "class", "probability"],
        [[str(p.path), str(p.label), percent(p.scores[p.label])] for p in predictions],
    )


def _parse_steps(text: str) -> list[int | None]:
    try:
        steps: list[int | None] = [int(part) for part in text.split(",")] if text else [None]
    except ValueError:
        raise click.BadParameter(f"takes numbers with commas, as in 4,8,16; this is {text!r}") from None
    if any(t is not None and not 1 <= t <= 4096 for t in steps):
        raise click.BadParameter(f"time steps are 1 to 4096; this is {text!r}")
    return steps


@contextmanager
def _image_bar(n_images: int) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr if that is a terminal; gives the function to call with the number of images done."""
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    with click.progressbar(length=n_images, label="images", file=sys.stderr, show_pos=True) as bar:
        yield bar.update


def _print_scores(spec: "NetworkSpec", scores: "list[Evaluation]", engine: str) -> None:
    print_table(
        ["", "accuracy", "images", "loss", "synops/image", "images/s"],
        [
            [
                f"{score.mode.name}, T={score.time_steps}, {engine}" if score.mode.spiking else "ANN",
                percent(score.accuracy),
                f"{score.n_images:,}",
                f"{score.loss:.4f}",
                "-" if score.synops is None else f"{sum(score.synops):,.0f}",
                f"{score.images_per_second:,.0f}",
            ]
            for score in scores
        ],
    )
    last = scores[-1]
    click.echo()
    print_table(
        ["layer", "rate", "synops/image"],
        [
            [
                f"{i} {layer.kind}",
                "-" if last.rates[i] is None else f"{last.rates[i]:.4f}",
                "-" if last.synops is None else f"{last.synops[i]:,.0f}",
            ]
            for i, layer in enumerate(spec.layers)
        ],
    )


def _scores_as_json(
    source: str, card: Any, dataset: "Dataset", engine: str, scores: "list[Evaluation]"
) -> dict[str, Any]:
    return {
        "model": source,
        "data": dataset.name,
        "sample": dataset.is_sample,
        "engine": engine,
        "seed": card.get("training", {}).get("seed"),
        "results": [
            {
                "mode": score.mode.value,
                "time_steps": score.time_steps if score.mode.spiking else None,
                "images": score.n_images,
                "accuracy": score.accuracy,
                "loss": score.loss,
                "rates": score.rates,
                "synops": score.synops,
                "images_per_second": score.images_per_second,
            }
            for score in scores
        ],
    }
