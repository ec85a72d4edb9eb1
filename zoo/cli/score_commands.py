"""The commands `eval` and `predict`, which run a model."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from converters.cli.console import (
    ProgressLine,
    command,
    echo,
    force_option,
    json_option,
    json_text,
    note_missing_library,
    print_table,
    refuse_existing,
    say,
    warn,
)
from converters.cli.options import (
    DataPlaces,
    PathArgument,
    classes_option,
    complete_data,
    complete_models,
    data_options,
    limit_option,
    recorded_steps,
    run_options,
    say_sample,
    use_threads,
)
from specs.dataset_sources import dataset_names
from specs.errors import DataError, StateOverflowError
from specs.files.limits import TIME_STEPS
from specs.words import percent, probability
from zoo.cli.given_model import input_shape, read_and_say, say_fresh, usual_data

if TYPE_CHECKING:
    from bootstrap_core.analysis.evaluation import Evaluation, Runnable
    from bootstrap_core.data.datasets import Dataset, Split
    from bootstrap_core.network.mode import Mode
    from converters.model import Model
    from specs.network import NetworkSpec
    from zoo.prediction import Prediction

__all__ = ["evaluate_model", "predict"]

STEPS, OVERFLOW = "--time-steps", "--overflow"
BEYOND = "with more time steps than the network was made for, answers get worse, or a state leaves the chip's 24 bits"
NEAR_CHANCE = 0.25
"""Accuracy below which a note says what may be wrong, as a part of the way from chance to 1."""
WARM_UP = 256
"""Number of images that run before the timing begins."""


@command("eval")
@click.argument("source", shell_complete=complete_models)
@click.option(
    "--data",
    shell_complete=complete_data,
    help="Dataset, .npz file, or folder with a folder of images for each class, named like the class; a model of "
    "values or spike trains takes .npz or .npy. [default: the dataset that the model was trained on]",
)
@click.option(
    "--engine",
    type=click.Choice(["torch", "integer"]),
    default="torch",
    show_default=True,
    help="torch: floats. integer: the chip's integers, with the same spikes and mostly faster; an error if a state "
    "leaves the chip's 24 bits.",
)
@click.option(
    OVERFLOW,
    type=click.Choice(["refuse", "chip"]),
    help="Where a state leaves the chip's 24 bits: stop with an error, or go on as the chip does and count such states "
    "(currents wrap around, voltages are clipped; not for models of values). Means --engine integer. [default: refuse]",
)
@click.option(
    "--mode",
    type=click.Choice(["snn", "ann"]),
    default="snn",
    show_default=True,
    help="snn: spikes over time. ann: the fitted activations, without time.",
)
@click.option(STEPS, metavar="T[,T...]", help="Numbers of time steps to score. [default: as in the spec]")
@limit_option
@click.option(
    "--plot", type=PathArgument, help="Also draw accuracy by number of time steps, and as ANN, into FILE.png."
)
@data_options
@run_options
@force_option
@json_option
def evaluate_model(
    source: str,
    data: str | None,
    engine: str,
    overflow: str | None,
    mode: str,
    time_steps: str | None,
    limit: int | None,
    plot: Path | None,
    places: DataPlaces,
    device: str,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Score a model on test images.

    Prints accuracy and speed, and for each layer the rate (spikes per neuron and time step) and the synops (synaptic
    operations) per image. SOURCE is a model file or the name of a model.

    For a model of values, such as a sigma-delta network, it prints errors, messages and synops, for a model of spike
    trains distances, rates and synops. --data is then an .npz with inputs x and, if they are known, targets y.

    Example: zoo eval mnist-dense --data mnist-sample --time-steps 1,4,16
    """
    from bootstrap_core import IntegerNetwork, Mode, evaluate
    from bootstrap_core.data.frames import FRAME_SUFFIXES
    from bootstrap_core.inference.overflow import Overflow
    from zoo.cli.recording_commands import evaluate_recordings
    from zoo.sources import resolve_device

    steps = _parse_steps(time_steps)
    chosen = click.get_current_context().get_parameter_source("engine") is ParameterSource.COMMANDLINE
    if overflow is not None:
        if chosen and engine == "torch":
            raise click.UsageError(f"{OVERFLOW} needs the chip's integers: leave out --engine torch")
        engine = "integer"
    if engine == "integer" and (mode == "ann" or device == "cuda"):
        raise click.UsageError("--engine integer runs spikes on the CPU: leave out --mode ann and --device cuda")
    if mode == "ann" and time_steps is not None:
        raise click.UsageError(f"an ANN has no time steps: leave out {STEPS} or --mode ann")
    if plot is not None:
        if mode == "ann":
            raise click.UsageError("--plot draws the accuracy of the SNN: leave out --mode ann")
        if plot.suffix != ".png":
            raise click.UsageError(f"--plot: must be FILE.png, got {str(plot)!r}")
        refuse_existing(plot, force)
    model, trained = read_and_say(source)
    use_threads(threads)
    network = model.build().to(resolve_device(device))
    runnable: Runnable = network
    if engine == "integer":
        runnable = IntegerNetwork(network, overflow=Overflow(overflow or Overflow.REFUSE))
    if not model.spec.gives_classes:
        what = f"{model.spec.name} gives {model.spec.gives}, not classes"
        if plot is not None or places.classes:
            raise click.UsageError(f"{what}: leave out {'--classes' if plot is None else '--plot'}")
        if data is None or Path(data).suffix.lower() not in FRAME_SUFFIXES:
            raise click.UsageError(f"{what}: name its {model.spec.input.encoding} with --data FILE.npz or FILE.npy")
        if mode == "ann" and not model.spec.has_ann:
            raise click.UsageError(f"--mode ann: {model.spec.without_ann} has no ANN")
        evaluate_recordings(source, runnable, Path(data), mode, steps, limit, as_json=as_json)
        return
    dataset = places.load(data or usual_data(model), input_shape(model), model.classes, model.spec).limited(limit)
    test = dataset.test
    note_missing_library(network.device.type)
    steps = recorded_steps(steps, test.images.shape[1]) if test.has_events else steps
    scores, beyond = _score_each(runnable, test, Mode(mode), steps)
    if scores:
        say_sample(dataset)
    if scores and as_json:
        echo(json_text(_scores_as_json(source, model.card, dataset, engine, scores)))
    elif scores:
        say_fresh(trained)
        _say_chance(model, max(score.accuracy for score in scores), own_images=dataset.name not in dataset_names())
        _print_scores(model.spec, scores, engine)
        if mode == "ann" and model.card_entry("conversion"):
            say("note: ANN means this network with its fitted activations, not the ANN that it was converted from")
        _say_overflows([(f"T = {score.time_steps}: ", score.overflows) for score in scores])
        if mode == "snn" and engine == "torch":
            if network.device.type == "cpu" and not chosen and model.overflow is None:
                say("note: --engine integer computes the same spikes, mostly faster, and checks the chip's 24 bits")
            if any(t and t > model.spec.time_steps for t in steps):
                say(f"note: {BEYOND}; only --engine integer checks that")
    if scores and plot is not None:
        _plot_scores(plot, scores, evaluate(network, test, mode=Mode.ANN) if network.fitted else None)
    if beyond:
        raise StateOverflowError("; ".join(beyond))


@command()
@click.argument("source", shell_complete=complete_models)
@click.argument("images", nargs=-1, required=True, type=PathArgument)
@click.option(
    "--invert/--no-invert",
    default=None,
    help="Invert brightness, or do not. [default: invert if the object is darker than the background, for models of "
    "MNIST and Fashion-MNIST]",
)
@click.option(STEPS, type=click.IntRange(1, TIME_STEPS), help="Number of time steps. [default: as in the spec]")
@click.option(
    OVERFLOW,
    type=click.Choice(["refuse", "chip"]),
    help="Run in the chip's integers. Where a state leaves their 24 bits: stop with an error, or go on as the chip "
    "does and count such states. [default: run in floats, without these limits]",
)
@click.option(
    "--animate", type=PathArgument, help="Also write the output spikes for the first image as a GIF, FILE.gif."
)
@classes_option
@force_option
@json_option
def predict(
    source: str,
    images: tuple[Path, ...],
    invert: bool | None,
    time_steps: int | None,
    overflow: str | None,
    animate: Path | None,
    classes: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Classify images of any size, sounds, or events.

    Prints the two likeliest classes of each file; --json has the scores of all classes. A folder stands for the files
    in it. Models of sounds take WAV files of 16 bits; models of events .bin, .bs1, .bs2, .npz and .npy. Images are made
    grey or coloured, and resized, as the network needs. For models of MNIST and Fashion-MNIST the object is also cut
    out, made light on dark, and centred as in these datasets. stderr says what was done to each file.

    Models of values, such as sigma-delta networks, and models of spike trains take .npy and .npz. They print values
    after the last step, or the steps in which each neuron spikes, instead of classes.

    Example: zoo predict mnist-dense seven.png --animate seven.gif
    """
    from bootstrap_core import IntegerNetwork
    from bootstrap_core.inference.overflow import Overflow
    from zoo.prediction import animate_prediction, predict_files

    if animate is not None:
        if animate.suffix.lower() != ".gif":
            raise click.UsageError(f"--animate: must be FILE.gif, got {str(animate)!r}")
        refuse_existing(animate, force)
    model = read_and_say(source)[0]
    if not model.spec.gives_classes:
        from zoo.cli.recording_commands import predict_recordings

        if classes or animate is not None or invert is not None:
            raise click.UsageError(
                f"{model.spec.name} gives {model.spec.gives}, not classes: leave out --classes, --animate and --invert"
            )
        integers = IntegerNetwork(model.build(), overflow=Overflow(overflow or Overflow.REFUSE))
        predict_recordings(integers, images, time_steps, as_json=as_json)
        return
    DataPlaces(classes=classes).check_classes(model.spec.n_classes)
    network, names = model.build(), classes or model.classes
    unreadable = list[DataError]()
    exact = None if overflow is None else IntegerNetwork(network, overflow=Overflow(overflow))
    predictions = predict_files(
        exact or network,
        images,
        data=model.data,
        shape=model.image_shape,
        invert=invert,
        time_steps=time_steps,
        on_unreadable=unreadable.append,
        on_skipped=lambda note: say(f"note: {note}"),
    )
    overflows = None if exact is None else dict(+exact.overflows)
    if exact is None and (time_steps or 0) > model.spec.time_steps:
        say(f"note: {BEYOND}; {OVERFLOW} refuse checks that")
    for p in predictions:
        say(f"{p.path}: {p.done}")
        if p.doubt:
            warn(f"{p.path} {p.doubt}: its class means nothing")
    if predictions and as_json:
        rows = [_prediction_as_json(p, names[p.label]) for p in predictions]
        echo(json_text({"predictions": rows, "overflows": overflows}))
    elif predictions:
        print_table(
            [model.spec.input.sample, "class", "probability", "next class", "probability"],
            [
                [
                    str(p.path),
                    *(cell for label in p.likeliest(2) for cell in (names[label], probability(p.scores[label]))),
                ]
                for p in predictions
            ],
        )
    _say_overflows([("", overflows or {})])
    if predictions and animate is not None:
        say(str(animate_prediction(exact or network, predictions[0], animate, time_steps=time_steps)))
    if unreadable:
        raise DataError("\n".join(map(str, unreadable)))


def _prediction_as_json(prediction: "Prediction", name: str) -> dict[str, Any]:
    return {
        "image": str(prediction.path),
        "class": prediction.label,
        "name": name,
        "scores": prediction.scores,
        "blank": prediction.is_blank,
        "done": prediction.done,
    }


def _parse_steps(text: str | None) -> list[int | None]:
    """Return the numbers of `--time-steps`, each once; None stands for the spec's."""
    try:
        steps: list[int | None] = [None] if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"must be whole numbers with commas, as in 4,8,16, got {text!r}", param_hint=STEPS
        ) from None
    if any(t is not None and not 1 <= t <= TIME_STEPS for t in steps):
        raise click.BadParameter(f"must be 1 to {TIME_STEPS}, got {text!r}", param_hint=STEPS)
    return list(dict.fromkeys(steps))


def _say_overflows(found: Sequence[tuple[str, Mapping[int, int]]]) -> None:
    """Print for each run how many states left 24 bits; nothing for runs without such states."""
    for run, overflows in found:
        if overflows:
            blocks = ", ".join(f"{n:,} in block {i}" for i, n in sorted(overflows.items()))
            warn(f"{run}states left the chip's 24 bits, and were changed as on the chip: {blocks}")


def _score_each(
    network: "Runnable", test: "Split", mode: "Mode", steps: list[int | None]
) -> "tuple[list[Evaluation], list[str]]":
    """Score a network for each number of time steps, where None means the spec's.

    Returns the scores, and a message for each number at which a state leaves the hardware's 24 bits.
    """
    from bootstrap_core import evaluate

    with suppress(StateOverflowError):  # warm-up, so that the speed does not include loading
        evaluate(network, test.take(slice(0, WARM_UP)), mode=mode, time_steps=steps[0])
    scores, beyond = [], list[str]()
    for t in steps:
        try:
            progress = ProgressLine("scoring", f"{network.spec.input.sample}s")
            scores.append(evaluate(network, test, mode=mode, time_steps=t, progress=progress))
        except StateOverflowError as error:
            beyond.append(f"T = {t or network.spec.time_steps}: {error}")
    return scores, beyond


def _say_chance(model: "Model", accuracy: float, *, own_images: bool) -> None:
    """Print what may be wrong if a converted or trained model is near chance; see `NEAR_CHANCE`."""
    chance, entering = 1 / model.spec.n_classes, model.spec.input
    if accuracy >= chance + NEAR_CHANCE * (1 - chance):
        return
    near = f"note: {percent(accuracy)} is near chance ({percent(chance)})"
    normalises = not entering.has_neurons or (entering.mean, entering.std) != (0, 1)
    if model.card_entry("conversion") and not normalises:
        say(f"{near}: if the training normalised its images, convert again with its --mean and --std")
    elif own_images and (model.card_entry("conversion") or model.card_entry("training")):
        say(
            f"{near}: the model may need more training, or the data may number the classes in another order than the "
            "model (name them in the model's order with --classes)"
        )


def _plot_scores(path: Path, scores: "list[Evaluation]", ann: "Evaluation | None") -> None:
    from bootstrap_core.analysis.plots import plot_accuracy

    by_steps = {score.time_steps: score.accuracy for score in scores}
    say(str(plot_accuracy(by_steps, path, ann=None if ann is None else ann.accuracy)))


def _print_scores(spec: "NetworkSpec", scores: "list[Evaluation]", engine: str) -> None:
    from zoo.runs.card_text import rate_words

    sample = spec.input.sample
    print_table(
        ["", "accuracy", f"{sample}s", "loss", f"synops/{sample}", f"{sample}s/s"],
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
    echo()
    print_table(
        [f"layer, T={last.time_steps}" if last.mode.spiking else "layer", "rate", f"synops/{sample}"],
        [
            [
                f"{i} {layer.kind}",
                rate_words(last.rates[i]),
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
        "drawn_from": dataset.drawn_from,
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
                "overflows": score.overflows if engine == "integer" else None,
            }
            for score in scores
        ],
    }
