"""The commands `eval` and `predict`, which run a model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
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
    from bootstrap_core.analysis.evaluation import Runnable
    from bootstrap_core.inference.integer_network import IntegerNetwork
    from bootstrap_core.network.mode import Mode
    from bootstrap_core.tasks.evaluation import Evaluation
    from bootstrap_core.tasks.task import Examples
    from converters.model import Model
    from zoo.prediction import Prediction

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
    from bootstrap_core.inference.overflow import Overflow
    from bootstrap_core.tasks import task_of
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
    if mode == "ann" and (what := model.spec.without_ann):
        raise click.UsageError(f"--mode ann: {what} has no ANN")
    what = model.spec.without_classes
    if what and (plot is not None or places.classes):
        raise click.UsageError(f"{what}: leave out {'--classes' if plot is None else '--plot'}")
    given = (_load_recordings if what else _load_images)(model, data, places, limit, steps)
    note_missing_library(network.device.type)
    scores, beyond = _score_each(runnable, given.examples, Mode(mode), given.steps)
    task = task_of(model.spec)
    if scores:
        given.say()
    if scores and as_json:
        results = [task.document(score) for score in scores]
        if engine != "integer":
            results = [{**result, "overflows": None} for result in results]
        about = {"model": source, **given.about, "engine": engine, "seed": model.card.get("training", {}).get("seed")}
        echo(json_text({**about, "results": results}))
    elif scores:
        say_fresh(trained)
        if given.has_classes:
            _say_chance(model, max(score.accuracy for score in scores), own_images=given.is_own)
        _print_rows([{"": _named(score, engine), **task.cells(score)} for score in scores])
        if layers := task.layer_cells(scores[-1]):
            echo()
            _print_rows(layers)
        if mode == "ann" and model.card_entry("conversion"):
            say("note: ANN means this network with its fitted activations, not the ANN that it was converted from")
        _say_overflows([(f"T = {score.time_steps}: ", score.overflows) for score in scores])
        if mode == "snn" and engine == "torch" and given.has_classes:
            if network.device.type == "cpu" and not chosen and model.overflow is None:
                say("note: --engine integer computes the same spikes, mostly faster, and checks the chip's 24 bits")
            if any(t and t > model.spec.time_steps for t in steps):
                say(f"note: {BEYOND}; only --engine integer checks that")
    if scores and plot is not None:
        _plot_scores(plot, scores, evaluate(network, given.examples, mode=Mode.ANN) if network.fitted else None)
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
    if what := model.spec.without_classes:
        if classes or animate is not None or invert is not None:
            raise click.UsageError(f"{what}: leave out --classes, --animate and --invert")
        _predict_recordings(
            IntegerNetwork(model.build(), overflow=Overflow(overflow or Overflow.REFUSE)), images, time_steps, as_json
        )
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


def _predict_recordings(
    network: "IntegerNetwork", paths: Sequence[Path], time_steps: int | None, as_json: bool
) -> None:
    """Print the outputs of a network for each recording in the files; a folder stands for the recordings in it.

    Raises `DataError` at the end if a file cannot be read.
    """
    from bootstrap_core.data.frames import FRAME_SUFFIXES, read_frames
    from bootstrap_core.tasks import task_of
    from bootstrap_core.tasks.recordings import RecordingTask
    from zoo.prediction import read_files

    unreadable, task = list[DataError](), task_of(network.spec)
    assert isinstance(task, RecordingTask)
    files = read_files(
        paths,
        FRAME_SUFFIXES,
        partial(read_frames, spec=network.spec, time_steps=time_steps),
        on_unreadable=unreadable.append,
        on_skipped=lambda note: say(f"note: {note}"),
    )
    rows = [
        {"file": str(path), "recording": i, "time_steps": len(outputs), **task.predicted(outputs)}
        for path, given in files
        for i, outputs in enumerate(task.over_time(network, given.frames).unbind(1))
    ]
    if rows and as_json:
        echo(json_text({"predictions": rows, "overflows": network.overflows}))
    elif rows:
        _print_rows([
            {
                str(network.spec.input.encoding): row["file"],
                "recording": str(row["recording"]),
                "steps": str(row["time_steps"]),
                **cells,
            }
            for row in rows
            for cells in task.predicted_cells(row)
        ])  # fmt: skip
    _say_overflows([("", +network.overflows)])
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
    network: "Runnable", test: "Examples", mode: "Mode", steps: list[int | None]
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
    from bootstrap_core.analysis.plots import draw_accuracy, save_png

    by_steps = {score.time_steps: score.accuracy for score in scores}
    say(str(save_png(draw_accuracy(by_steps, ann=None if ann is None else ann.accuracy), path)))


def _named(score: "Evaluation", engine: str) -> str:
    return f"{score.mode.name}, T={score.time_steps}, {engine}" if score.mode.spiking else "ANN"


def _print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Print a table of rows that have the same columns."""
    print_table(list(rows[0]), [list(row.values()) for row in rows])


@dataclass(frozen=True)
class _Given:
    """Examples that `eval` scores: their numbers of time steps, what JSON says about them, and notes for people.

    `is_own` is True for data that no name stands for.
    """

    examples: "Examples"
    steps: list[int | None]
    about: dict[str, Any]
    say: Callable[[], object]
    has_classes: bool = False
    is_own: bool = True


def _load_images(
    model: "Model", data: str | None, places: DataPlaces, limit: int | None, steps: list[int | None]
) -> _Given:
    dataset = places.load(data or usual_data(model), input_shape(model), model.classes, model.spec).limited(limit)
    test = dataset.test
    return _Given(
        test,
        recorded_steps(steps, test.images.shape[1]) if test.has_events else steps,
        {"data": dataset.name, "sample": dataset.is_sample, "drawn_from": dataset.drawn_from},
        partial(say_sample, dataset),
        has_classes=True,
        is_own=dataset.name not in dataset_names(),
    )


def _load_recordings(
    model: "Model", data: str | None, places: DataPlaces, limit: int | None, steps: list[int | None]
) -> _Given:
    from bootstrap_core.data.frames import FRAME_SUFFIXES, read_frames
    from bootstrap_core.tasks import task_of

    spec = model.spec
    if data is None or Path(data).suffix.lower() not in FRAME_SUFFIXES:
        what = f"{spec.without_classes}: name its {spec.input.encoding}"
        raise click.UsageError(f"{what} with --data FILE.npz or FILE.npy")
    every = read_frames(Path(data), spec)
    given = every.limited(limit)

    def say_notes() -> None:
        if len(given) < len(every):
            say(f"note: scored on {len(given):,} of the {len(every):,} recordings, drawn at random")
        if given.targets is None:
            say(f"note: {data} has no targets y, so no {task_of(spec).measure.key}s are computed")

    if given.are_still:
        given = given.held(max(t or spec.time_steps for t in steps))
    else:
        steps = recorded_steps(steps, len(given.frames))
    return _Given(given, steps, {"data": data}, say_notes)
