"""Train a network, and print how far it is: the work of `train`."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from bootstrap_core.data.data_places import DataPlaces
from bootstrap_core.data.frames import FrameDataset, load_frames
from bootstrap_core.data.splits import Dataset
from bootstrap_core.distributed import Group, join_group, local_device
from bootstrap_core.network.mode import Mode
from bootstrap_core.tasks.evaluation import Measure
from bootstrap_core.training.history import EpochReport
from converters.cli.console import (
    ProgressLine,
    echo,
    is_quiet,
    json_text,
    note_missing_library,
    print_table,
    refuse_existing,
    say,
    say_overflow,
    warn,
)
from converters.cli.interrupt import INTERRUPTED
from converters.cli.options import say_sample, use_threads
from converters.formats.model_files import read_model
from specs.dataset_sources import check_class_names
from specs.errors import DataError, SnnZooError
from specs.network import NetworkSpec
from specs.training import TrainingSpec
from specs.words import counted
from zoo.cli.given_model import say_doubts
from zoo.runs.training_run import CHECKPOINT, FILES, TrainingRun, sole_run
from zoo.runs.training_start import continued, doubts_about_teacher, learnt_validation, load_start, read_recipe
from zoo.sources import TRAINED, resolve_device

LONG_S = 60
"""Seconds after which a long epoch says how far it is, where there is no terminal."""


def train_from(
    spec: str,
    *,
    folder: Path,
    timeout: int,
    force: bool,
    as_json: bool,
    epochs: int | None,
    seed: int | None,
    data: str | None,
    precision: str | None,
    assignments: tuple[str, ...],
    places: DataPlaces,
    device: str,
    threads: int | None,
    resume: bool,
) -> None:
    """Run the command `train`; the arguments are its options."""
    shortcuts = {"epochs": epochs, "seed": seed, "data": data, "precision": precision}
    assignments += tuple(f"training.{key}={value}" for key, value in shortcuts.items() if value is not None)
    with join_group(timeout_s=timeout) as group, sole_run(folder) if group.leads else nullcontext():
        if not resume and group.leads:
            otherwise = "continue with --resume, " if (folder / CHECKPOINT).exists() else ""
            for name in FILES:
                refuse_existing(folder / name, force, otherwise=otherwise)
        use_threads(threads)
        run = _start_run(spec, folder, assignments, places, local_device(resolve_device(device)), resume, group)
        _train(run)
        _report_run(run, as_json)


def _start_run(
    spec: str,
    folder: Path,
    assignments: tuple[str, ...],
    places: DataPlaces,
    device: str,
    resume: bool,
    group: Group,
) -> TrainingRun:
    network, model = read_recipe(spec, assignments)
    recipe = network.training or TrainingSpec()
    start = load_start(network) if model is None else continued(model, spec)
    if group.leads:
        note_missing_library(device)
        say_doubts(network, recipe)
        if start is not None:
            who = f"the start model {recipe.start}" if model is None else spec
            warn(*learnt_validation(who, start.model, recipe))
    dataset: Dataset | FrameDataset
    if network.without_classes:
        dataset = _load_frames(recipe.data, network, places)
    else:
        places.check_classes(network.n_classes)
        classes = () if model is None else model.classes
        if resume and (known := _classes_of_run(folder, places, group)):
            places, classes = replace(places, classes=known), ()
        dataset = places.load(recipe.data, network.input.shape, classes, network)
    run = TrainingRun(
        network,
        dataset,
        folder,
        weights=None if start is None else start.weights,
        start_revision=None if start is None else start.revision,
        start_changes=() if model is None else assignments,
        device=device,
        resume=resume,
        group=group,
    )
    if group.leads and run.planned_epochs is not None:
        warn(
            f"up to epoch {len(run.reports)} the learning rate was planned for {counted(run.planned_epochs, 'epoch')}: "
            f"a run of {counted(recipe.epochs, 'epoch')} without a break would end with other weights"
        )
    if group.leads:
        warn(*doubts_about_teacher(spec, run.recipe, run.teacher_revision))
    return run


def _load_frames(data: str, network: NetworkSpec, places: DataPlaces) -> FrameDataset:
    places.refuse_classes(network)
    try:
        return load_frames(Path(data), network)
    except DataError as error:
        raise DataError(f"training.data: {error}") from None


def _classes_of_run(folder: Path, places: DataPlaces, group: Group) -> tuple[str, ...]:
    """Return the names of the classes that a run has trained with; empty before the end of its first epoch.

    Raises `SnnZooError` if `--classes` has others.
    """
    path = folder / TRAINED
    found = read_model(path).card.get("classes", ()) if group.leads and path.exists() else ()
    names = check_class_names(json.loads(group.broadcast_bytes(json.dumps(found).encode())), f"{path}: classes")
    if names and places.classes and places.classes != names:
        raise SnnZooError(f"--classes: the run in {folder} has the classes {', '.join(names)}: leave out --classes")
    return names


def _train(run: TrainingRun) -> None:
    """Train all epochs; print a line for each, and on a terminal a progress bar."""
    quiet, explained = is_quiet() or not run.group.leads, False
    measure, samples = run.measure, run.samples
    run.score_start(ProgressLine("scoring the start model", samples))
    if not (quiet or run.finished):
        if run.start_score is not None:
            score = f"SNN {measure.name} {measure.text(run.start_score)}"
            echo(f"before training: {score} on the validation {samples}", err=True)
        if run.recipe.validation:
            best = f"best SNN {measure.name} on the validation {samples} so far"
        else:
            best = f"last epoch, kept for want of validation {samples}"
        echo(f"*: {best}, saved as {run.model_path.name}", err=True)
        echo(_columns(_header(measure), run.recipe.epochs, measure), err=True)
    try:
        while not run.finished:
            label = f"epoch {run.trainer.epoch + 1}"
            lines = [(label, "batches"), (f"{label}, validation", samples)] if not quiet else []
            report = run.run_epoch(*(ProgressLine(*words, every_s=LONG_S) for words in lines))
            if not quiet:
                echo(_epoch_line(report, run.recipe.epochs), err=True)
                if report.overflow and not explained:
                    say(f"!: a state leaves the chip's 24 bits on validation {samples}; epochs without ! are preferred")
                explained = explained or report.overflow is not None
    except KeyboardInterrupt:
        if not run.group.leads:
            raise SystemExit(INTERRUPTED) from None
        what = "best model so far is" if run.trainer.epoch else "first epoch has not ended; its weights are in"
        echo(f"\nStopped; the {what} {run.model_path}", err=True)
        echo("Continue with the same command and --resume", err=True)
        raise SystemExit(INTERRUPTED) from None


def _epoch_line(report: EpochReport, epochs: int) -> str:
    mark, text = ("*" if report.best else "") + ("!" if report.overflow else ""), report.measure.text
    cells = (
        f"epoch {report.epoch + 1:>{len(str(epochs))}}/{epochs}",
        f"{report.training_loss:.4f}",
        text(report.training_score),
        text(report.validation_ann_score),
        f"{text(report.validation_snn_score)} {mark:<2}",
        f"{report.seconds:.1f}",
    )
    return _columns(cells, epochs, report.measure)


def _header(measure: Measure) -> tuple[str, ...]:
    return "", "training loss", measure.name, "validation ANN", "      SNN   ", "seconds"


def _columns(cells: tuple[str, ...], epochs: int, measure: Measure) -> str:
    widths = (len(f"epoch {epochs}/{epochs}"), *map(len, _header(measure)[1:]))
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _report_run(run: TrainingRun, as_json: bool) -> None:
    measure, samples = run.measure, run.samples
    scores = run.score(ProgressLine("scoring the best model", samples))
    if not run.group.leads:
        return
    best = run.best
    try:
        run.plot()
    except SnnZooError as error:
        say(f"note: curves.png was not drawn: {error}")
    say_overflow(run.overflow)
    found = best.validation_snn_score
    if run.start_score is not None and found is not None and measure.rank(run.start_score) > measure.rank(found):
        warn(
            f"the start model has an {measure.name} of {measure.text(run.start_score)} on the validation {samples}, "
            "better than every epoch: keep the start model, or train it with a smaller learning rate"
        )
    silent = scores[Mode.SNN].silent
    if silent is not None:
        warn(run.trainer.task.advice_if_silent(silent))
    say_sample(run.dataset)
    if as_json:
        echo(json_text({
            "model": str(run.model_path),
            "epoch": best.epoch,
            "measure": measure.name,
            "validation": {"snn": found},
            "test": {mode.value: score.score for mode, score in scores.items()},
            "data": run.dataset.name,
        }))  # fmt: skip
        return
    validation = f"{len(run.trainer.validation):,}"
    snn, ann = scores[Mode.SNN], scores.get(Mode.ANN)
    print_table(
        ["", measure.name, samples],
        [
            *([] if found is None else [[f"validation, SNN, epoch {best.epoch + 1}", measure.text(found), validation]]),
            [f"test, SNN, T={snn.time_steps}", measure.text(snn.score), f"{snn.n_images:,}"],
            *([] if ann is None else [["test, ANN", measure.text(ann.score), f"{ann.n_images:,}"]]),
        ],
    )
    echo(run.model_path)
