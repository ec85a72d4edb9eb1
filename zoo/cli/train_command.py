"""The command `train`."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converters.cli.console import (
    ProgressLine,
    command,
    echo,
    force_option,
    is_quiet,
    json_option,
    json_text,
    note_missing_library,
    print_table,
    refuse_existing,
    say,
    say_overflow,
    shows_progress,
    warn,
)
from converters.cli.interrupt import INTERRUPTED
from converters.cli.options import (
    DataPlaces,
    PathArgument,
    Seed,
    complete_data,
    data_options,
    run_options,
    say_sample,
    set_option,
    use_threads,
)
from specs.dataset_sources import check_class_names, found_data
from specs.errors import DataError, SnnZooError
from specs.words import counted
from zoo.cli.given_model import check_named_data, complete_specs, say_doubts

if TYPE_CHECKING:
    from bootstrap_core.data.frames import FrameDataset
    from bootstrap_core.data.splits import Dataset
    from bootstrap_core.distributed import Group
    from bootstrap_core.tasks.measures import Measure
    from bootstrap_core.training.history import EpochReport
    from converters.model import Model
    from specs.network import NetworkSpec
    from specs.training import TrainingSpec
    from zoo.runs.training_run import TrainingRun


def _header(measure: "Measure") -> tuple[str, ...]:
    """Return the header of the table of epochs."""
    return "", "training loss", measure.name, "validation ANN", "      SNN   ", "seconds"


@command()
@click.argument("spec", shell_complete=complete_specs)
@click.option("-o", "--output", "folder", required=True, type=PathArgument, help="Folder of the run.")
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="Number of epochs, ANN and SNN together; if less than in the recipe, SNN epochs keep their share. Same as "
    "--set training.epochs=N.",
)
@click.option("--seed", type=Seed, help="Seed of the training. Same as --set training.seed=N.")
@click.option("--data", shell_complete=complete_data, help="Dataset to train on. Same as --set training.data=NAME.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Number type of matrix products; auto: bfloat16 where the CPU is faster with it. Same as --set "
    "training.precision=NAME.",
)
@set_option
@click.option("--resume", is_flag=True, help="Continue from the checkpoint in the folder.")
@click.option(
    "--timeout",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="With several processes: seconds to wait for a process that does not answer.",
)
@data_options
@run_options
@force_option
@json_option
def train(
    spec: str,
    folder: Path,
    epochs: int | None,
    seed: int | None,
    data: str | None,
    precision: str | None,
    assignments: tuple[str, ...],
    resume: bool,
    timeout: int,
    places: DataPlaces,
    device: str,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Train a network by bootstrap training.

    SPEC is a YAML file, or the name of a network or model: it is trained from fresh weights, or from the model that its
    recipe names as training.start. SPEC can also be a model file: its training continues, with the recipe in it.

    The folder gets model.safetensors, checkpoint.pt, metrics.jsonl and curves.png. The model comes from the epoch with
    the best SNN accuracy on validation images, which are cut from the training set. At the end it is scored on the test
    set. After Ctrl-C, the same command with --resume continues.

    A network that gives values, such as a sigma-delta network, learns the targets y of frames x in an .npz (--data);
    its score is the rms error. One with output: spikes learns the spike trains y of events x; its score is their
    distance.

    Epochs count from 1 in printed text, and from 0 in JSON, metrics.jsonl, cards and recipes.

    Several processes, on one host or more, can train together: start them with torchrun or accelerate launch.

    Example: zoo train mnist-dense -o run --epochs 5

    Example: torchrun --nproc-per-node 2 -m zoo train mnist-dense -o run
    """
    from bootstrap_core.distributed import join_group
    from zoo.runs.training_run import sole_run

    shortcuts = {"epochs": epochs, "seed": seed, "data": data, "precision": precision}
    assignments += tuple(f"training.{key}={value}" for key, value in shortcuts.items() if value is not None)
    with join_group(timeout_s=timeout) as group, sole_run(folder) if group.leads else nullcontext():
        run = _start_run(spec, folder, assignments, places, device, threads, resume, force, group)
        _train(run)
        _report_run(run, as_json)


def _start_run(
    spec: str,
    folder: Path,
    assignments: tuple[str, ...],
    places: DataPlaces,
    device: str,
    threads: int | None,
    resume: bool,
    force: bool,
    group: "Group",
) -> "TrainingRun":
    from bootstrap_core.distributed import local_device
    from specs.files.file_digest import sha256_of
    from specs.training import TrainingSpec
    from zoo.card import revision_of
    from zoo.runs.training_run import CHECKPOINT, FILES, Start, TrainingRun, load_start
    from zoo.sources import is_spec, model_path, override_spec, read_start, resolve_device

    if not resume and group.leads:
        otherwise = "continue with --resume, " if (folder / CHECKPOINT).exists() else ""
        for name in FILES:
            refuse_existing(folder / name, force, otherwise=otherwise)
    start, model = read_start(spec)
    network = override_spec(start, assignments)
    if model is not None:
        network = _without_start(network, assignments)
    if network.training is not None and (data := found_data(network.training.data)) != network.training.data:
        network = network.model_copy(update={"training": network.training.model_copy(update={"data": data})})
    recipe = network.training or TrainingSpec()
    if problem := network.recipe_problem(recipe):
        raise SnnZooError(f"training.{problem[0]}: {problem[1]}")
    if start.training is None and "data" not in recipe.model_fields_set and not is_spec(spec):
        raise SnnZooError(
            f"{start.name} has no recipe, since it was trained elsewhere, or converted and not tuned: name data, as in "
            "--data mnist, to train with the default recipe, which --set changes"
        )
    if not (is_spec(spec) or any(assignment.startswith("training.data=") for assignment in assignments)):
        check_named_data(recipe.data, model_path(spec), start.name)
    use_threads(threads)
    device = local_device(resolve_device(device))
    begins_with = load_start(network)
    if model is not None:
        begins_with = Start(model, model.build().state_dict(), revision_of(sha256_of(Path(spec))))
    if group.leads:
        note_missing_library(device)
        say_doubts(network, recipe)
        if begins_with is not None:
            _say_learnt_validation(spec if model else f"the start model {recipe.start}", begins_with.model, recipe)
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
        weights=None if begins_with is None else begins_with.weights,
        start_revision=None if begins_with is None else begins_with.revision,
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
    if group.leads and recipe.teacher is not None:
        _say_of_teacher(spec, run, recipe.teacher)
    return run


def _load_frames(data: str, network: "NetworkSpec", places: DataPlaces) -> "FrameDataset":
    from bootstrap_core.data.frames import load_frames

    places.refuse_classes(network)
    try:
        return load_frames(Path(data), network)
    except DataError as error:
        raise DataError(f"training.data: {error}") from None


def _without_start(network: "NetworkSpec", assignments: tuple[str, ...]) -> "NetworkSpec":
    """Return the network without the start of its recipe, as a model file that is continued is the start itself."""
    if any(assignment.startswith("training.start=") for assignment in assignments):
        raise SnnZooError("training.start: the training starts from the model file itself: leave it out")
    if network.training is None or network.training.start is None:
        return network
    return network.model_copy(update={"training": network.training.model_copy(update={"start": None})})


def _classes_of_run(folder: Path, places: DataPlaces, group: "Group") -> tuple[str, ...]:
    """Return the names of the classes that a run has trained with; empty before the end of its first epoch.

    Raises `SnnZooError` if `--classes` has others.
    """
    from converters.formats.model_files import read_model
    from zoo.sources import TRAINED

    path = folder / TRAINED
    found = read_model(path).card.get("classes", ()) if group.leads and path.exists() else ()
    names = check_class_names(json.loads(group.broadcast_bytes(json.dumps(found).encode())), f"{path}: classes")
    if names and places.classes and places.classes != names:
        raise SnnZooError(f"--classes: the run in {folder} has the classes {', '.join(names)}: leave out --classes")
    return names


def _say_learnt_validation(who: str, model: "Model", recipe: "TrainingSpec") -> None:
    """Warn if a model has learnt from images that `recipe` validates on."""
    from specs.training import TrainingSpec

    before = model.spec.training or (TrainingSpec() if model.card_entry("training") else None)
    has_learnt = model.card_entry("training") or model.card_entry("conversion")
    if before and has_learnt and (remedy := recipe.learnt_validation(before)):
        samples = f"{model.spec.input.sample}s"
        warn(f"{who} has learnt from some of the validation {samples}, so their score will be too good: {remedy}")


def _say_of_teacher(source: str, run: "TrainingRun", teacher: str) -> None:
    """Warn if the teacher is not the one on the card of `source`, or has learnt from the validation images."""
    from zoo.runs.card_files import card_of
    from zoo.sources import read_source

    card, model = card_of(source), read_source(teacher)[0]
    taught_by = None if card is None or card.training.recipe is None else card.training.recipe.teacher
    if card is not None and taught_by == teacher and card.training.teacher_revision not in (None, run.teacher_revision):
        warn(
            f"{source} was taught by {teacher}@{card.training.teacher_revision}, but {teacher} is now revision "
            f"{run.teacher_revision}: this run will end with other weights"
        )
    _say_learnt_validation(f"the teacher {teacher}", model, run.recipe)


def _train(run: "TrainingRun") -> None:
    """Train all epochs; print a line for each, and on a terminal a progress bar."""
    quiet, explained = is_quiet() or not run.group.leads, False
    bar = shows_progress() and not quiet
    measure, samples = run.measure, run.samples
    run.score_start(ProgressLine("scoring the start model", samples))
    if not (quiet or run.finished):
        if run.start_score is not None:
            score = f"SNN {measure.name} {measure.text(run.start_score)}"
            echo(f"before training: {score} on the validation {samples}", err=True)
        if run.recipe.validation:
            best = f"best SNN {measure.name} on the validation {samples} so far"
        else:
            best = f"last epoch, kept as there are no validation {samples}"
        echo(f"*: {best}, saved as {run.model_path.name}", err=True)
        echo(_columns(_header(measure), run.recipe.epochs, measure), err=True)
    try:
        while not run.finished:
            label = f"epoch {run.trainer.epoch + 1}"
            lines = (ProgressLine(label, "batches"), ProgressLine(f"{label}, validation", samples)) if bar else ()
            report = run.run_epoch(*lines)
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


def _epoch_line(report: "EpochReport", epochs: int) -> str:
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


def _columns(cells: tuple[str, ...], epochs: int, measure: "Measure") -> str:
    widths = (len(f"epoch {epochs}/{epochs}"), *map(len, _header(measure)[1:]))
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _report_run(run: "TrainingRun", as_json: bool) -> None:
    from bootstrap_core.network.mode import Mode

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
