"""Training run on disk: the files that `zoo train` writes, and how `--resume` continues from them.

- `spec.yaml`: the network and its recipe, as trained
- `checkpoint.pt`: the state after the last epoch, from which `--resume` continues; written at the start and after each
  epoch. The figures of former epochs are in `metrics.jsonl` alone, so that it does not grow with their number
- `metrics.jsonl`: an `EpochReport` on each line; written before the checkpoint, so it may have one epoch more
- `model.safetensors`: the network of the epoch with the best score as SNN on the validation examples
- `curves.png`: loss and accuracy, or the rms error or distance alone, if matplotlib is installed

If several processes train together, only the first one reads and writes the folder.
"""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Json, ValidationError
from torch import Tensor

from bootstrap_core.analysis.evaluation import evaluate, evaluate_exactly
from bootstrap_core.data.data_places import changes, data_files
from bootstrap_core.data.frames import FrameDataset
from bootstrap_core.data.splits import Dataset
from bootstrap_core.distributed import ALONE, Group
from bootstrap_core.network.build import build_network
from bootstrap_core.network.mode import Mode
from bootstrap_core.progress import Progress, no_progress
from bootstrap_core.tasks import task_of
from bootstrap_core.tasks.evaluation import Evaluation, Measure
from bootstrap_core.training.history import REPORT, EpochReport
from bootstrap_core.training.trainer import Teacher, Trainer
from converters.formats.model_files import write_model
from converters.formats.safetensors_file import read_safetensors
from converters.formats.state_dict_file import check_pickle
from converters.model import Model
from specs.errors import IntegrityError, SnnZooError
from specs.files.given_file import check_given_file, sha256_of
from specs.files.named_data import note_named_data
from specs.files.whole_file import refuse_file_as_folder, remove_leftovers, write_whole
from specs.io import dump_spec
from specs.network import NetworkSpec
from specs.shapes import fit_input
from specs.training import LearningRateSchedule, TrainingSpec
from specs.words import counted, first_problem
from zoo.card import Curves, Training, Versions, revision_of
from zoo.sources import TRAINED, model_path, read_source

SPEC, CHECKPOINT = "spec.yaml", "checkpoint.pt"
OUTCOMES = MODEL, METRICS, CURVES = TRAINED, "metrics.jsonl", "curves.png"
FILES = *OUTCOMES, CHECKPOINT, SPEC
LOCK = ".train.lock"
DIGITS = 6
"""Significant digits of values in a card's curves."""


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Lock the folder of a run, so that no other `zoo train` writes into it; make it if it is missing.

    The system releases the lock of a process that was killed. A folder that was made here and stayed empty is removed.

    Raises `SnnZooError` if another process trains in this folder, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock, is_new = FileLock(folder / LOCK), not folder.exists()
    try:
        refuse_file_as_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise SnnZooError(
            f"another zoo train is running in {folder}: wait until it ends, or choose another folder with -o"
        ) from None
    except OSError as error:
        raise SnnZooError(f"cannot write into {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps a file that is open
            (folder / LOCK).unlink()
        lock.release()
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


class TrainingRun:
    """Training of a network, with its files in a folder.

    Args:
        spec: network and recipe.
        dataset: images, or recordings, to train on; its test images are scored once, at the end.
        folder: folder of the run; made if missing.
        weights: state dict to start from; by default fresh weights from the recipe's seed.
        start_revision: revision of the model file with these weights, for the card.
        start_changes: fields of that file's spec that `spec` replaces, as `key=value`, for the card.
        resume: continue from the checkpoint in the folder.

    Raises:
        SnnZooError: nothing to resume, or the checkpoint has another spec or more epochs.
        LostProcessError: another process has ended or does not answer.
        IntegrityError: the weights do not fit the spec.
        DataError: the network does not take these images or labels.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        dataset: Dataset | FrameDataset,
        folder: Path,
        *,
        weights: Mapping[str, Tensor] | None = None,
        start_revision: str | None = None,
        start_changes: Sequence[str] = (),
        device: str = "cpu",
        resume: bool = False,
        group: Group = ALONE,
    ) -> None:
        self.recipe = spec.training or TrainingSpec()
        recipe = self.recipe if weights is None else self.recipe.model_copy(update={"initialize": False})
        self.spec = spec.model_copy(update={"training": self.recipe}).with_log_mel(dataset.log_mel)
        self.dataset, self.folder = dataset, folder
        if weights is None:
            network = build_network(self.spec, seed=self.recipe.seed)
        else:
            network = Model(self.spec, weights).build()
        self.network = network.to(device)
        teacher = load_teacher(self.spec, device)
        for examples in (dataset.train, dataset.test):
            task_of(self.spec, recipe).check(examples)
        self.start_revision, self.start_changes = start_revision, start_changes
        self.teacher_revision = teacher and revision_of(sha256_of(model_path(str(self.recipe.teacher))))
        self.trainer = Trainer(self.network, dataset.train, recipe, teacher=teacher, group=group)
        self.group = group
        self.data_files = data_files(self.recipe.data) if group.leads else {}
        self.overflow: str | None = None
        self.start_score: float | None = None
        """Score of the start model as SNN on the validation examples; set by `score_start`."""
        self.planned_epochs: int | None = None
        """Number of epochs for which the learning rate was planned before the run was resumed, if that has changed."""
        self._metrics = b""
        if group.leads:
            for name in FILES:
                remove_leftovers(folder / name)
        if resume:
            self._resume()
        elif group.leads:
            self._save_checkpoint()
            for name in OUTCOMES:  # files of an earlier run
                (folder / name).unlink(missing_ok=True)
        if group.leads:
            dump_spec(self.spec, folder / SPEC)

    @property
    def model_path(self) -> Path:
        """Path of the best model."""
        return self.folder / MODEL

    @property
    def measure(self) -> Measure:
        """Figure by which the epochs are judged."""
        return self.trainer.task.measure

    @property
    def samples(self) -> str:
        """Word for the examples: `images`, `sounds` or `recordings`."""
        return f"{self.spec.input.sample}s"

    @property
    def reports(self) -> list[EpochReport]:
        """Reports of all epochs so far."""
        return self.trainer.reports

    @property
    def best(self) -> EpochReport:
        """Report of the epoch whose network is kept."""
        assert self.trainer.best is not None
        return self.trainer.best

    def score_start(self, progress: Progress = no_progress) -> None:
        """Set `start_score` if the run starts from a model; call it before the first epoch."""
        if self.start_revision is not None and self.recipe.validation and not self.reports:
            self.start_score = evaluate_exactly(
                self.network, self.trainer.validation, task=self.trainer.task, progress=progress, group=self.group
            )[0].score

    def run_epoch(self, on_batch: Progress = no_progress, on_scored: Progress = no_progress) -> EpochReport:
        """Train one epoch, and write model, metrics and checkpoint.

        If Ctrl-C stops the first epoch, the model file gets the weights so far.

        Args:
            on_batch, on_scored: see `Trainer.run_epoch`.
        """
        try:
            report = self.trainer.run_epoch(on_batch, on_scored)
        except KeyboardInterrupt:
            if self.group.leads and not self.model_path.exists():
                self._write(Model.of(self.trainer.trained, self._card(None)))
            raise
        if not self.group.leads:
            return report
        if report.best:
            self._write(Model.of(self.trainer.trained, self._card(report)))
        self._metrics += _line(report)
        write_whole(self.folder / METRICS, self._metrics)
        self._save_checkpoint()  # last: if the process ends before this, --resume repeats the epoch
        return report

    @property
    def finished(self) -> bool:
        """True if all epochs of the recipe are done."""
        return self.trainer.epoch >= self.recipe.epochs

    def score(self, progress: Progress = no_progress) -> dict[Mode, Evaluation]:
        """Score the best model on the test images, as SNN and, if it has one, as ANN; write this into the model file.

        `overflow` is then a message if a state leaves the hardware's 24 bits on a test image, else None.

        Args:
            progress: called after each batch with the number of images done and of all images, first as SNN and then
                as ANN.
        """
        group = self.group
        model = read_safetensors(self.model_path) if group.leads else Model.of(self.network)
        network = model.build().to(self.network.device)
        group.broadcast(network.state_dict().values())
        test, task = self.dataset.test, self.trainer.task
        as_snn, self.overflow = evaluate_exactly(network, test, task=task, progress=progress, group=group)
        scores = {Mode.SNN: as_snn}
        if network.spec.has_ann:
            scores[Mode.ANN] = evaluate(network, test, mode=Mode.ANN, task=task, progress=progress, group=group)
        if not group.leads:
            return scores
        known = {"data": self.dataset.name, "time_steps": None, "engine": "torch"}
        figures = {mode.value: {**known, **task.card(score)} for mode, score in scores.items()}
        figures[Mode.SNN.value]["time_steps"] = as_snn.time_steps
        figures[Mode.SNN.value] |= {} if self.overflow is None else {"overflow": self.overflow}
        card = {**model.card, "test": figures}
        self._write(Model(model.spec, model.tensors, card))
        return scores

    def plot(self) -> Path:
        """Draw `curves.png`. Raises `SnnZooError` without matplotlib."""
        from bootstrap_core.analysis.plots import draw_curves, save_png

        return save_png(draw_curves(self.trainer.stats, kept=self.best.epoch), self.folder / CURVES)

    def _write(self, model: Model) -> None:
        write_model(model, self.model_path, overwrite=True)
        note_named_data(self.model_path, self.recipe.data)

    def _save_checkpoint(self) -> None:
        buffer, spec = io.BytesIO(), self._identity().model_dump_json()
        start = {"start_revision": self.start_revision, "start_changes": list(self.start_changes)}
        known = {"spec": spec, **start, "teacher_revision": self.teacher_revision}
        state = self.trainer.state_dict()
        del state["reports"]  # they are in the metrics, so that each checkpoint has the same size
        files = torch.frombuffer(bytearray(json.dumps(self.data_files).encode()), dtype=torch.uint8)  # fast to save
        torch.save({**known, "data_files": files, **state}, buffer)
        write_whole(self.folder / CHECKPOINT, buffer.getvalue())

    def _card(self, report: EpochReport | None) -> Mapping[str, Any]:
        validation = None if report is None else report.validation_snn_score
        return {
            "training": {
                "data": self.dataset.name,
                "seed": self.recipe.seed,
                "epoch": None if report is None else report.epoch,
                "epochs": self.recipe.epochs,
                f"validation_{self.samples}": self.recipe.validation,
                f"validation_snn_{self.measure.key}": validation,
                "start_revision": self.start_revision,
                "start_changes": list(self.start_changes),
                "teacher_revision": self.teacher_revision,
                "versions": Versions.here().model_dump(),
            },
            **self.dataset.card,
        }

    def _identity(self) -> NetworkSpec:
        """Return the spec with what a resumed run may change: numbers of epochs, and the folder of its data.

        The trainer's state holds the whole recipe.
        """
        epochs = {"epochs": 1, "snn_epochs": 0 if self.spec.has_ann else 1, "crossover_epochs": ()}
        changes = {**epochs, "data": Path(self.recipe.data).name}
        recipe = self.recipe.model_copy(update=changes)
        return self.spec.model_copy(update={"training": recipe})

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        data = self.group.broadcast_bytes(_read_checked(path) if self.group.leads else b"")
        metrics = self.group.broadcast_bytes(_read_metrics(self.folder) if self.group.leads else b"")
        try:
            _check_checksums(data)
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            known = _Checkpoint.model_validate(state)
        except ValidationError as error:
            raise IntegrityError(f"{path} is not a checkpoint of snnzoo: {first_problem(error)}") from None
        except Exception as error:  # torch.load raises many types for damaged files
            raise IntegrityError(f"{path} is not a checkpoint of snnzoo: {error}") from None
        if differing := _differing(known.spec.model_dump(), self._identity().model_dump()):
            raise SnnZooError(
                f"{path} has another spec (differs in: {', '.join(differing)}): resume with the spec.yaml beside it"
            )
        where = self.folder / METRICS
        reports = _parse_metrics(metrics, where, known.epoch)
        if self.group.leads and (changed := changes(known.data_files, self.data_files)):
            raise SnnZooError(
                f"{path} was trained on other files than {self.recipe.data} has now: {changed}; restore them, or train "
                "anew with --force"
            )
        if len(reports) != known.epoch or any(report.epoch != place for place, report in enumerate(reports)):
            raise IntegrityError(
                f"{path} needs the figures of its {counted(known.epoch, 'epoch')}, in order; {where} has "
                f"{len(reports)}: restore the file, or train anew with --force"
            )
        if reports and not any(report.best for report in reports):
            raise IntegrityError(f"{where}: none of the {counted(known.epoch, 'epoch')} is the best")
        if any(report.measure != self.measure for report in reports):
            raise IntegrityError(f"{where}: the epochs must have {self.measure.key} fields")
        self._metrics = b"".join(map(_line, reports))
        try:
            self.trainer.load_state_dict({**state, "reports": reports})
        except IntegrityError as error:
            raise IntegrityError(f"{path} is not a checkpoint of snnzoo: {error}") from None
        if self.trainer.epoch > self.recipe.epochs:
            raise SnnZooError(
                f"{path} has {counted(self.trainer.epoch, 'epoch')}, more than the {self.recipe.epochs} of the recipe: "
                f"resume with at least {self.trainer.epoch}, or train anew with --force"
            )
        if (taught_by := known.teacher_revision) != self.teacher_revision:
            raise SnnZooError(
                f"{path} was taught by {self.recipe.teacher}@{taught_by}, but {self.recipe.teacher} is now revision "
                f"{self.teacher_revision}: restore the old revision, or train anew with --force"
            )
        if self.start_revision not in (None, known.start_revision):
            raise SnnZooError(
                f"{path} started from {known.start_revision or 'fresh weights'}, not from the model "
                f"{self.start_revision}: resume with the spec.yaml beside it"
            )
        self.start_revision, self.start_changes = known.start_revision, known.start_changes
        planned = TrainingSpec.model_validate(state["recipe"]).epochs
        falls = self.recipe.learning_rate_schedule is LearningRateSchedule.COSINE
        if falls and self.reports and planned != self.recipe.epochs:
            self.planned_epochs = planned


def _bytes_of(value: object) -> object:
    return value.numpy().tobytes() if isinstance(value, Tensor) else value


class _Checkpoint(BaseModel):
    """Fields of a checkpoint, besides the trainer's state."""

    model_config = ConfigDict(revalidate_instances="always")
    spec: Json[NetworkSpec]
    data_files: Annotated[Json[dict[str, str]], BeforeValidator(_bytes_of)]
    start_revision: str | None
    start_changes: list[str]
    teacher_revision: str | None
    epoch: Annotated[int, Field(ge=0)]


def _read_checked(path: Path) -> bytes:
    """Read a checkpoint, as a file from elsewhere: no pipe, no device, nothing that unpacks without end."""
    if not path.exists():
        raise SnnZooError(f"nothing to resume: {path} does not exist")
    check_pickle(path)
    return path.read_bytes()


def _check_checksums(data: bytes) -> None:
    """Raise `ValueError` if a part of a file of torch differs from its checksum, which torch does not compare."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} is wrong")


def _differing(ours: Any, theirs: Any, name: str = "") -> list[str]:
    """Return the dotted names of the fields in which two dumped specs differ."""
    if ours == theirs:
        return []
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = {**ours, **theirs}
        pairs = ((ours.get(key), theirs.get(key), f"{name}.{key}".lstrip(".")) for key in keys)
        return [found for pair in pairs for found in _differing(*pair)]
    return [name]


def load_teacher(spec: NetworkSpec, device: str = "cpu") -> Teacher | None:
    """Load the teacher that the recipe of `spec` names, as a function from images to logits; None without a teacher.

    The teacher answers in ANN mode.

    Raises `SnnZooError` if there is no such model, or it cannot teach this network.
    """
    if spec.training is None or spec.training.teacher is None:
        return None
    source = spec.training.teacher
    try:
        model, trained = read_source(source)
    except SnnZooError as error:
        raise type(error)(f"training.teacher: {error}") from None
    if not trained:
        raise SnnZooError(f"training.teacher: must be a trained model; {source!r} is a spec, whose weights are fresh")
    network = model.build().eval().to(device)
    if not network.fitted:
        raise SnnZooError(f"training.teacher: {source!r} has no fitted activations, so it cannot run as ANN")
    if not fit_input(spec.input.shape, model.spec.input.shape):
        sizes = f"{list(model.spec.input.shape)}, but {spec.name} takes {list(spec.input.shape)}"
        raise SnnZooError(f"training.teacher: {source!r} takes images of {sizes}")
    if model.spec.n_classes != spec.n_classes:
        classes = f"{counted(model.spec.n_classes, 'class')}, but {spec.name} has {spec.n_classes}"
        raise SnnZooError(f"training.teacher: {source!r} has {classes}")
    return partial(network, mode=Mode.ANN)


def read_metrics(folder: Path) -> list[EpochReport]:
    """Read the reports of all epochs of the run in `folder`, in order; an empty list without a metrics file.

    Raises `IntegrityError` if a line is not what `TrainingRun` writes; the message names file and line.
    """
    return _parse_metrics(_read_metrics(folder), folder / METRICS)


def _read_metrics(folder: Path) -> bytes:
    path = folder / METRICS
    if not path.exists():
        return b""
    check_given_file(path)
    return path.read_bytes()


def _line(report: EpochReport) -> bytes:
    return (json.dumps(report.document()) + "\n").encode()


def _parse_metrics(data: bytes, path: Path, n_epochs: int | None = None) -> list[EpochReport]:
    reports = []
    for number, line in enumerate(data.splitlines()[:n_epochs], 1):
        try:
            reports.append(REPORT.validate_json(line))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise IntegrityError(
                f"{path}:{number}: {where}{': ' if where else ''}{problem['msg']}; this is not a metrics file of "
                "zoo train: move it out of the model's folder"
            ) from None
    return reports


def read_curves(run: Path) -> Curves:
    """Read the learning curves of the training run in the folder `run`.

    Raises:
        SnnZooError: the folder has no metrics of any epoch.
        IntegrityError: the metrics are damaged.
    """
    reports = [report.document() for report in read_metrics(run)]
    if not reports:
        raise SnnZooError(f"no learning curves: {run / METRICS} is missing or has no epoch")
    if missing := [name for name in Curves.model_fields if name not in reports[0]]:
        raise SnnZooError(f"{run / METRICS} has no {missing[0]}: only networks that give classes have cards")
    return Curves(**{name: tuple(_rounded(report[name]) for report in reports) for name in Curves.model_fields})


def reports_of(training: Training) -> list[EpochReport]:
    """Return a report for each epoch, empty without curves; the last one with `best` is the epoch that was kept."""
    if (curves := training.curves) is None:
        return []
    kept = len(curves.seconds) if training.epoch is None else training.epoch
    reports, best = list[EpochReport](), None
    for epoch, values in enumerate(zip(*curves.model_dump().values(), strict=True)):
        figures = dict(zip(Curves.model_fields, values, strict=True))
        report = REPORT.validate_python({"epoch": epoch, "best": False, **figures})
        is_better = best is None or report.rank > best
        best = report.rank if is_better else best
        # a later epoch with a better accuracy overflowed
        reports.append(replace(report, best=epoch == kept or (is_better and epoch < kept)))
    return reports


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
