"""Run a model on a dataset or on files, and print scores or answers: the work of eval and predict."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bootstrap_core import IntegerNetwork, Mode, evaluate
from bootstrap_core.analysis.evaluation import Runnable
from bootstrap_core.analysis.plots import draw_accuracy, save_png
from bootstrap_core.data.data_places import DataPlaces
from bootstrap_core.data.frames import FRAME_SUFFIXES, read_frames
from bootstrap_core.data.splits import Split
from bootstrap_core.inference.integer_network import Overflow
from bootstrap_core.tasks import task_of
from bootstrap_core.tasks.evaluation import Evaluation
from bootstrap_core.tasks.recordings import RecordingTask
from bootstrap_core.tasks.task import Examples
from converters.cli.console import (
    ProgressLine,
    echo,
    json_text,
    note_missing_library,
    print_rows,
    print_table,
    refuse_existing,
    say,
    warn,
)
from converters.cli.options import recorded_steps, say_sample, use_threads
from converters.cli.usage import UsageError, given, leave_out
from converters.model import Model
from specs.dataset_sources import dataset_names
from specs.errors import DataError, StateOverflowError
from specs.words import percent, probability
from zoo.cli.given_model import load_data, read_and_say, say_fresh
from zoo.prediction import animate_prediction, predict_files, read_files
from zoo.runs.harness import check_harness, harness_version, measure_with_harness
from zoo.sources import resolve_device

BEYOND = "with more time steps than the network was made for, answers get worse, or a state leaves the chip's 24 bits"
NEAR_CHANCE = 0.25
"""Accuracy below which a note says what may be wrong, as a part of the way from chance to 1."""
WARM_UP = 256
"""Number of images that run before the timing begins."""


def score_source(
    source: str,
    *,
    data: str | None,
    engine: str,
    overflow: str | None,
    mode: str,
    time_steps: list[int | None] | None,
    limit: int | None,
    plot: Path | None,
    neurobench: bool,
    places: DataPlaces,
    device: str,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run the command `eval`; the arguments are its options."""
    if plot is not None:
        refuse_existing(plot, force)
    if neurobench:
        check_harness()
    model, trained = read_and_say(source)
    spec, task = model.spec, task_of(model.spec)
    use_threads(threads)
    network = model.build().to(resolve_device(device))
    runnable: Runnable = network
    if overflow is not None or engine == "integer":
        runnable, engine = IntegerNetwork(network, overflow=Overflow(overflow or Overflow.REFUSE)), "integer"
    if spec.without_ann:
        leave_out(f"{spec.without_ann} has no ANN", ["--mode ann"])
    load = _load_recordings if spec.without_classes else _load_images
    examples, steps, about, say_notes = load(model, data, places, limit, time_steps or [None])
    note_missing_library(network.device.type)
    scores, beyond = _score_each(runnable, examples, Mode(mode), steps)
    figures = []
    if scores and neurobench:
        assert isinstance(examples, Split)
        say(f"running the harness of neurobench {harness_version()}, which takes some minutes for 10,000 images")
        figures = measure_with_harness(network, examples, scores[-1])
    if scores:
        say_notes()
    if scores and as_json:
        results = [task.document(score) for score in scores]
        if engine != "integer":
            results = [{**result, "overflows": None} for result in results]
        about = {"model": source, **about, "engine": engine, "seed": model.card.get("training", {}).get("seed")}
        if figures:
            about["neurobench"] = {"version": harness_version(), "figures": [asdict(one) for one in figures]}
        echo(json_text({**about, "results": results}))
    elif scores:
        say_fresh(trained)
        if not spec.without_classes:
            best = max(score.accuracy for score in scores)
            _say_chance(model, best, own_images=about["data"] not in dataset_names())
        print_rows([{"": _named(score, engine), **task.cells(score)} for score in scores])
        if layers := task.layer_cells(scores[-1]):
            echo()
            print_rows(layers)
        if figures:
            echo()
            print_rows(
                [{"": one.name, "NeuroBench": f"{one.theirs:,.9g}", "ours": f"{one.ours:,.9g}"} for one in figures]
            )
            for one in figures:
                if one.note:
                    say(f"{one.name}: {one.note}")
        if mode == "ann" and model.card_entry("conversion"):
            say("note: ANN means this network with its fitted activations, not the ANN that it was converted from")
        for score in scores:
            warn_overflows(f"T = {score.time_steps}: ", score.overflows)
        if mode == "snn" and engine == "torch" and not spec.without_classes:
            if network.device.type == "cpu" and not given(["--engine"]) and model.overflow is None:
                say("note: --engine integer computes the same spikes, mostly faster, and checks the chip's 24 bits")
            if any(t and t > spec.time_steps for t in steps):
                say(f"note: {BEYOND}; only --engine integer checks that")
    if scores and plot is not None:
        ann = evaluate(network, examples, mode=Mode.ANN).accuracy if network.fitted else None
        say(str(save_png(draw_accuracy({score.time_steps: score.accuracy for score in scores}, ann=ann), plot)))
    if beyond:
        raise StateOverflowError("; ".join(beyond))


def warn_overflows(run: str, overflows: Mapping[int, int]) -> None:
    """Warn with the number of states of each block that left 24 bits in a run; nothing if there are none."""
    if overflows:
        blocks = ", ".join(f"{n:,} in block {i}" for i, n in sorted(overflows.items()))
        warn(f"{run}states left the chip's 24 bits, and were changed as on the chip: {blocks}")


def _score_each(
    network: Runnable, test: Examples, mode: Mode, steps: Sequence[int | None]
) -> tuple[list[Evaluation], list[str]]:
    """Score a network for each number of time steps, where None means the spec's.

    Returns the scores, and a message for each number at which a state leaves the hardware's 24 bits.
    """
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


def _say_chance(model: Model, accuracy: float, *, own_images: bool) -> None:
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


def _named(score: Evaluation, engine: str) -> str:
    return f"{score.mode.name}, T={score.time_steps}, {engine}" if score.mode.spiking else "ANN"


Loaded = tuple[Examples, Sequence[int | None], dict[str, Any], Callable[[], object]]
"""Examples, their numbers of time steps, what JSON says about them, and a function that prints notes about them."""


def _load_images(
    model: Model, data: str | None, places: DataPlaces, limit: int | None, steps: Sequence[int | None]
) -> Loaded:
    dataset = load_data(model, data, places).limited(limit)
    if dataset.test.has_events:
        steps = recorded_steps(steps, dataset.test.images.shape[1])
    about = {"data": dataset.name, "sample": dataset.is_sample, "drawn_from": dataset.drawn_from}
    return dataset.test, steps, about, partial(say_sample, dataset)


def _load_recordings(
    model: Model, data: str | None, places: DataPlaces, limit: int | None, steps: Sequence[int | None]
) -> Loaded:
    spec = model.spec
    leave_out(str(spec.without_classes), ["--plot", "--classes", "--neurobench"])
    if data is None or Path(data).suffix.lower() not in FRAME_SUFFIXES:
        raise UsageError(f"{spec.without_classes}: name its {spec.input.encoding} with --data FILE.npz or FILE.npy")
    every = read_frames(Path(data), spec)
    drawn = every.limited(limit)

    def say_notes() -> None:
        if len(drawn) < len(every):
            say(f"note: scored on {len(drawn):,} of the {len(every):,} recordings, drawn at random")
        if drawn.targets is None:
            say(f"note: {data} has no targets y, so no {task_of(spec).measure.key}s are computed")

    if drawn.are_still:
        return drawn.held(max(t or spec.time_steps for t in steps)), steps, {"data": data}, say_notes
    return drawn, recorded_steps(steps, len(drawn.frames)), {"data": data}, say_notes


def predict_with(
    source: str,
    images: tuple[Path, ...],
    *,
    invert: bool | None,
    time_steps: int | None,
    overflow: str | None,
    animate: Path | None,
    classes: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Run the command `predict`; the arguments are its options."""
    if animate is not None:
        refuse_existing(animate, force)
    model = read_and_say(source)[0]
    network, names, unreadable = model.build(), classes or model.classes, list[DataError]()
    if what := model.spec.without_classes:
        leave_out(what, ["--classes", "--animate", "--invert"])
        integers = IntegerNetwork(network, overflow=Overflow(overflow or Overflow.REFUSE))
        _predict_recordings(integers, images, time_steps, unreadable, as_json)
    else:
        DataPlaces(classes=classes).check_classes(model.spec.n_classes)
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
            say(f"note: {BEYOND}; --overflow refuse checks that")
        for p in predictions:
            say(f"{p.path}: {p.done}")
            if p.doubt:
                warn(f"{p.path} {p.doubt}: its class means nothing")
        if predictions and as_json:
            rows = [
                {
                    "image": str(p.path),
                    "class": p.label,
                    "name": names[p.label],
                    "scores": p.scores,
                    "blank": p.is_blank,
                    "done": p.done,
                }
                for p in predictions
            ]
            echo(json_text({"predictions": rows, "overflows": overflows}))
        elif predictions:
            cells = [
                [cell for i in p.likeliest(2) for cell in (names[i], probability(p.scores[i]))] for p in predictions
            ]
            header = [model.spec.input.sample, "class", "probability", "next class", "probability"]
            print_table(header, [[str(p.path), *likeliest] for p, likeliest in zip(predictions, cells, strict=True)])
        warn_overflows("", overflows or {})
        if predictions and animate is not None:
            say(str(animate_prediction(exact or network, predictions[0], animate, time_steps=time_steps)))
    if unreadable:
        raise DataError("\n".join(map(str, unreadable)))


def _predict_recordings(
    network: IntegerNetwork,
    paths: Sequence[Path],
    time_steps: int | None,
    unreadable: list[DataError],
    as_json: bool,
) -> None:
    """Print the outputs of a network for each recording in the files; a folder stands for the recordings in it."""
    task = task_of(network.spec)
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
        names = {str(network.spec.input.encoding): "file", "recording": "recording", "steps": "time_steps"}
        print_rows([
            {**{header: str(row[key]) for header, key in names.items()}, **cells}
            for row in rows
            for cells in task.predicted_cells(row)
        ])  # fmt: skip
    warn_overflows("", +network.overflows)
