"""The bootstrap training loop, and the schema of its state, by which checkpoints from elsewhere are checked."""

import io
import math
import time
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.optim import Optimizer

from bootstrap_core.analysis.evaluation import evaluate, evaluate_exactly
from bootstrap_core.data.frames import Frames
from bootstrap_core.data.splits import Split
from bootstrap_core.data.torch_data import TorchData
from bootstrap_core.distributed import ALONE, Group
from bootstrap_core.functional.dropout import masks_from
from bootstrap_core.network.batch_norm import BatchNorm, NormModule
from bootstrap_core.network.blocks import SpikingBlock
from bootstrap_core.network.inputs import AxesWarning, is_dense
from bootstrap_core.network.mode import LayerModes, Mode
from bootstrap_core.network.network import Network, check_network
from bootstrap_core.network.sampler import RateSampler, mix_seed
from bootstrap_core.ops.heap import keep_freed_memory
from bootstrap_core.ops.precision import products_in
from bootstrap_core.progress import Progress, no_progress
from bootstrap_core.tasks import task_of
from bootstrap_core.tasks.evaluation import Evaluation
from bootstrap_core.tasks.task import Batch
from bootstrap_core.training.averaging import MovingAverage
from bootstrap_core.training.history import REPORTED, EpochReport, LearningStat, LearningStats, Report
from bootstrap_core.training.initialization import initialize
from bootstrap_core.training.schedule import Scheduler
from specs.arguments import check_type
from specs.errors import IntegrityError, SnnZooError
from specs.fields import Integer
from specs.files.whole_file import write_whole
from specs.training import LearningRateSchedule, SnnGradient, TrainingSpec
from specs.words import counted, first_problem

N_INITIALIZING = 256

DELAY_RATE = 100
"""Learning rate of trained delays, in units of that of the weights. A delay is tens of steps where a weight is about 1;
the factor is that of Hammouamri et al., see `functional.delays`."""

RANK_STRIDE = 1 << 16
"""Distance between the seed counters of two ranks; larger than any number of epochs, so that no seed occurs twice."""

Teacher = Callable[[Tensor], Tensor]
"""Function that returns logits `[N, classes]` for images `[N, C, H, W]` in 0..1, or for events `[T, N, C, H, W]`."""


def _plain(tensor: Tensor) -> Tensor:
    if not is_dense(tensor):
        raise ValueError("must be a dense tensor with values")
    return tensor


_Tensors = dict[str, Annotated[Tensor, AfterValidator(_plain)]]


class _OptimizerState(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    state: dict[Integer, _Tensors]


class _AverageState(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    network: _Tensors
    n_updates: Annotated[Integer, Field(ge=0)]


class TrainerState(BaseModel):
    """State that `Trainer.state_dict` returns."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    epoch: Annotated[Integer, Field(ge=0)]
    recipe: TrainingSpec
    network: _Tensors
    optimizer: _OptimizerState
    as_ann: _Tensors | None
    average: _AverageState | None
    reports: list[Report]


def check_tensors(what: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise `IntegrityError` unless two dicts have the same names, and tensors of the same dtype and shape."""
    if names := found.keys() ^ wanted.keys():
        raise IntegrityError(f"{what}: {min(names)} is {'unknown' if min(names) in found else 'missing'}")
    for name, tensor in wanted.items():
        ours, theirs = ([str(one.dtype).removeprefix("torch."), *one.shape] for one in (tensor, found[name]))
        if ours != theirs:
            raise IntegrityError(f"{what}: {name} must be {ours}, got {theirs}")


def tensors_of_optimizer(optimizer: Optimizer, state: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Return a state for `Optimizer.load_state_dict` with checked tensors and the settings of `optimizer` itself."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, found in state.items():
        if not 0 <= index < len(parameters):
            raise IntegrityError(f"optimizer.state: parameter {index} is unknown; there are {len(parameters)}")
        like = parameters[index]
        check_tensors(f"optimizer.state.{index}", found, {"step": torch.zeros(()), "exp_avg": like, "exp_avg_sq": like})
    return {"state": dict(state), "param_groups": optimizer.state_dict()["param_groups"]}


class Trainer:
    """Bootstrap training of a network, one epoch at a time.

    A network that gives logits learns the labels of a `Split`; one that gives values or spike trains, the targets of
    `Frames`.

    All random numbers of an epoch come from generators seeded with (seed, epoch), so a run resumed from `state_dict`
    continues exactly as if it had not stopped. Several processes, each with a trainer of the same arguments, share each
    batch and keep the same weights. These equal the weights of a single process except for the order of additions and
    the dropout masks, which each process draws for itself.

    Args:
        split: training images, or recordings of events or frames; of images or events and labels also a torch `Dataset`
            or `DataLoader`, of which neither batch size nor order matters, as the recipe says them. Validation examples
            are taken from them, balanced by class if there are classes, as the seed decides.
        recipe: training recipe; by default the spec's `training`.
        teacher: function whose logits the network learns besides the labels; see `Teacher`.
        group: processes that train together.

    Raises:
        DataError: `split` is not what the network learns from, none is left for training, or labels are
            beyond the classes.
        SnnZooError: `network` is not a `Network` or has no weights, `recipe` is not a `TrainingSpec`, or `teacher` is
            missing although the recipe names one.
        LostProcessError: another process has ended or does not answer.
    """

    def __init__(
        self,
        network: Network,
        split: Split | Frames | TorchData,
        recipe: TrainingSpec | None = None,
        *,
        teacher: Teacher | None = None,
        group: Group = ALONE,
    ) -> None:
        check_network(network, "training", takes_own=True)
        if recipe is not None:
            check_type(recipe, TrainingSpec, "recipe must be a TrainingSpec", advice="TrainingSpec(**fields) makes one")
        recipe = recipe or network.spec.training or TrainingSpec()
        if problem := recipe.problem_for(network.spec.gives, network.without_ann):
            raise SnnZooError(f"training.{problem[0]}: {problem[1]}")
        if next(network.parameters(), None) is None:
            raise SnnZooError(f"{network.spec.name} has no weights to train: it can be scored and used as it is")
        self.task = task_of(network.spec, recipe)
        examples: Split | Frames = self.task.examples_of(split)
        self.task.check(examples)
        recipe.check_images(len(examples), f"{network.spec.input.sample}s")
        if recipe.teacher is not None and teacher is None:
            raise SnnZooError(
                f"the recipe's teacher is {recipe.teacher!r}: pass a function that returns its logits as teacher=, or "
                "set training.teacher to null"
            )
        keep_freed_memory()
        self.network, self.recipe, self.teacher, self.group = network, recipe, teacher, group
        self.training, self.validation = self.task.divided(examples)
        self.n_images = min(len(self.training), recipe.images_per_epoch or len(self.training))
        self.n_batches = math.ceil(self.n_images / recipe.batch_size)
        self.scheduler = Scheduler(
            recipe.sample_period, max(1, min(recipe.sample_iterations, self.n_batches - 1)), recipe.crossover_epochs
        )
        self.delayed = [block for block in network.blocks if isinstance(block, SpikingBlock) and block.learns_delay]
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), fused=True)
        if recipe.initialize and not network.fitted:
            initialize(network, self.training.inputs(slice(0, N_INITIALIZING)).to(network.device))
        for module in network.modules():
            if isinstance(module, RateSampler | NormModule):
                module.group = group
        self.n_ann_epochs = recipe.epochs - recipe.snn_epochs
        self.as_ann: Network | None = None
        self.average = MovingAverage(network, recipe.ema_decay) if recipe.ema_decay else None
        self.stats = LearningStats(self.task.measure)
        self.reports: list[EpochReport] = []
        """Reports of all epochs so far."""

    @property
    def epoch(self) -> int:
        """Number of epochs that are done."""
        return len(self.reports)

    @property
    def best(self) -> EpochReport | None:
        """Report of the best epoch so far; None before the first one has ended."""
        return next((report for report in reversed(self.reports) if report.best), None)

    @property
    def trained(self) -> Network:
        """Network that is scored and saved: the trained one or, with `ema_decay`, the moving average of its weights."""
        return self.network if self.average is None else self.average.network

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups of the optimizer, with their `rate` relative to the recipe's; delays do not decay."""
        delays = [block.delay for block in self.delayed]
        others = [p for p in self.network.parameters() if all(p is not delay for delay in delays)]
        rate, decay = self.recipe.learning_rate, self.recipe.weight_decay
        groups = [{"params": others, "lr": rate, "weight_decay": decay, "rate": 1}]
        faster = {"params": delays, "lr": DELAY_RATE * rate, "weight_decay": 0.0, "rate": DELAY_RATE}
        return [*groups, faster] if delays else groups

    def run_epoch(self, on_batch: Progress = no_progress, on_scored: Progress = no_progress) -> EpochReport:
        """Train one epoch and score the validation examples as ANN and as SNN.

        Args:
            on_batch: called after each batch with the number of batches done and their total.
            on_scored: called with the number of validation examples done and of all, first as ANN and then as SNN.

        Raises `SnnZooError` if all epochs of the recipe are done, or the loss or a weight is not finite.
        """
        start, epoch = time.perf_counter(), self.epoch
        if epoch >= self.recipe.epochs:
            raise SnnZooError(
                f"{counted(epoch, 'epoch')} done, as many as in the recipe: raise training.epochs to train longer"
            )
        self.group.broadcast(self.network.state_dict().values())  # hosts may differ in the last bit
        if self.average is not None:
            self.group.broadcast(self.trained.state_dict().values())
        masks = torch.Generator().manual_seed(mix_seed(self.recipe.seed, epoch + self.group.rank * RANK_STRIDE))
        with masks_from(masks):
            self._train(epoch, on_batch)
        given: dict[str, Any] = {"task": self.task, "progress": on_scored, "group": self.group}
        as_ann: Evaluation | None = None
        as_snn: Evaluation | None = None
        overflow: str | None = None
        if self.network.without_ann is None:
            self._fit_activations(self.network, sampling=epoch >= self.n_ann_epochs)
            if self.average is not None:
                self._fit_activations(self.trained, sampling=True)
            if self.recipe.validation:
                as_ann = evaluate(self.trained, self.validation, mode=Mode.ANN, **given)
        if self.recipe.validation:
            as_snn, overflow = evaluate_exactly(self.trained, self.validation, **given)
        _add(self.stats.testing, as_ann)
        _add(self.stats.snn, as_snn)
        figures = dict[str, Any]()
        for part, stat in zip(REPORTED, self.stats.states.values(), strict=True):
            figures |= {f"{part}_loss": stat.loss, f"{part}_score": stat.score}
        self.stats.update()
        report = EpochReport(
            measure=self.task.measure,
            epoch=epoch,
            seconds=time.perf_counter() - start,
            learning_rate=self._learning_rate(epoch * self.n_batches),
            best=False,
            overflow=overflow,
            precision=str(self._product_dtype()).removeprefix("torch."),
            **figures,
        )
        if self.best is None or report.rank > self.best.rank:
            report = replace(report, best=True)
        self.reports.append(report)
        return report

    def _train(self, epoch: int, on_batch: Progress) -> None:
        if epoch < self.n_ann_epochs or not self.recipe.self_distillation:
            self.as_ann = None
        elif self.as_ann is None:
            self.as_ann = self._frozen()
        if epoch >= self.n_ann_epochs and self.recipe.snn_gradient is SnnGradient.TANDEM and not self.network.fitted:
            self._fit_activations(self.network, sampling=True)
        network, recipe = self.network.train(), self.recipe
        for module in network.modules():
            if isinstance(module, BatchNorm) and epoch >= self.n_ann_epochs:
                module.eval()  # SNN epochs train with the folded norm
        generator = torch.Generator().manual_seed(mix_seed(recipe.seed, epoch))
        order = torch.randperm(len(self.training), generator=generator)[: self.n_images]
        for iteration, indices in enumerate(order.split(recipe.batch_size)):
            share = self.group.share(len(indices))
            modes = self._modes(epoch, iteration)
            in_time = modes != LayerModes(Mode.ANN)
            batch = self.task.batch(self.training, indices, generator, share, network.device, in_time=in_time)
            tandem = modes == LayerModes(Mode.SNN) and recipe.snn_gradient is SnnGradient.TANDEM
            rounds = (tandem or modes == LayerModes(Mode.ANN)) and self._may_round()
            cast = torch.autocast(network.device.type, torch.bfloat16, enabled=rounds)
            unwarned = warnings.catch_warnings(action="ignore", category=AxesWarning)  # batches are time first
            with products_in(recipe.precision), cast, unwarned:
                outputs: Tensor = network.tandem(batch.inputs) if tandem else network(batch.inputs, modes)
            loss = self._loss(outputs, batch) * share.weight
            value, correct = self.group.add([loss.item(), self.task.n_correct(outputs, batch) / share.repeats])
            if not math.isfinite(value):
                raise SnnZooError(f"loss is {value} in epoch {epoch}, batch {iteration}: lower the learning rate")
            for group in self.optimizer.param_groups:
                group["lr"] = group["rate"] * self._learning_rate(epoch * self.n_batches + iteration)
            self.optimizer.zero_grad()
            with products_in(recipe.precision):
                loss.backward()
            self.group.add_up(p.grad for p in network.parameters() if p.grad is not None)
            self.optimizer.step()
            for block in self.delayed:
                block.limit_delay()
            if self.average is not None:
                self.average.update()
            self.stats.training.add(value, round(correct), len(indices))
            on_batch(iteration + 1, self.n_batches)
        if not all(parameter.isfinite().all() for parameter in network.parameters()):
            raise SnnZooError(f"weights are not finite after epoch {epoch}: lower the learning rate")
        network.eval()

    def _loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        teacher, part = self._teacher()
        taught = None
        if teacher is not None:
            with torch.no_grad(), torch.autocast(outputs.device.type, torch.bfloat16, enabled=self._may_round()):
                taught = teacher(batch.inputs).float()
        return self.task.loss(outputs, batch, taught, part)

    def _teacher(self) -> tuple[Teacher | None, float]:
        """Return the teacher of this epoch, or None, and its share of the loss."""
        if self.as_ann is not None:
            as_ann, scale = self.as_ann, self.recipe.logit_scale
            return lambda images: as_ann(images, Mode.ANN) * scale, self.recipe.self_distillation
        return self.teacher, self.recipe.distillation if self.teacher is not None else 0.0

    def _frozen(self) -> Network:
        """Return a frozen copy of the network, which teaches the SNN epochs as ANN."""
        self.recipe.check_own_teacher(fitted=self.trained.fitted)
        return deepcopy(self.trained).eval().requires_grad_(False)

    @torch.no_grad()
    def _fit_activations(self, network: Network, *, sampling: bool) -> None:
        """Fit all activations that have samples; with `sampling`, first run some training batches in SAMPLE mode."""
        samplers, size = _samplers(network), self.recipe.batch_size
        if sampling and samplers:
            for start in range(0, len(self.training), size)[: self.recipe.sample_iterations]:
                rows = self.group.share(min(size, len(self.training) - start)).rows
                some = self.training.inputs(slice(start + rows.start, start + rows.stop))
                network(some.to(network.device), Mode.SAMPLE)
        for sampler in samplers:
            sampler.refit()

    def _modes(self, epoch: int, iteration: int) -> LayerModes:
        if epoch >= self.n_ann_epochs:
            return LayerModes(Mode.SNN)
        if not _samplers(self.network):
            return LayerModes(Mode.ANN)
        return self.scheduler.mode(epoch, iteration, training=True)

    def _product_dtype(self) -> torch.dtype:
        return self.task.product_dtype(self.network.device.type)

    def _may_round(self) -> bool:
        return self._product_dtype() == torch.bfloat16

    def _learning_rate(self, step: int) -> float:
        """Return the learning rate of batch `step`, counted over all epochs; SNN epochs have their own schedule."""
        recipe, n_ann_steps = self.recipe, self.n_ann_epochs * self.n_batches
        if step < n_ann_steps:
            peak, part = recipe.learning_rate, step / n_ann_steps
        else:
            peak, part = recipe.snn_learning_rate, (step - n_ann_steps) / (recipe.snn_epochs * self.n_batches)
        if recipe.learning_rate_schedule is LearningRateSchedule.CONSTANT:
            return peak
        return peak * 0.5 * (1 + math.cos(math.pi * part))

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which `load_state_dict` continues: a copy, of tensors and plain values only.

        Only its `reports` grow with the number of epochs; they may be kept elsewhere.
        """
        return deepcopy({
            "epoch": self.epoch,
            "recipe": self.recipe.model_dump(mode="json"),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "as_ann": None if self.as_ann is None else self.as_ann.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "reports": [report.document() for report in self.reports],
        })  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises:
            SnnZooError: recipes differ in more than the numbers of epochs and the path of the data; nothing has
                changed.
            IntegrityError: the state has another format, or is of another network.
        """
        try:
            checked = TrainerState.model_validate(state)
        except ValidationError as error:
            raise IntegrityError(first_problem(error)) from None
        ours, theirs = dict(self.recipe), dict(checked.recipe)
        changed = sorted(
            key for key in ours if key not in {"data", "epochs", "snn_epochs"} and ours[key] != theirs[key]
        )
        if changed:
            raise SnnZooError(
                f"the checkpoint was trained with another recipe (differs in: {', '.join(changed)}): resume it with "
                "its own, or start a new run"
            )
        own = self.network.state_dict()
        check_tensors("network", checked.network, own)
        optimizer = tensors_of_optimizer(self.optimizer, checked.optimizer.state)
        if (checked.average is None) is not (self.average is None):
            raise IntegrityError("average: must be given if the recipe has an ema_decay, and null otherwise")
        if checked.average is not None:
            check_tensors("average.network", checked.average.network, own)
        if checked.as_ann is not None:
            check_tensors("as_ann", checked.as_ann, own)
        if len(checked.reports) != checked.epoch:
            raise IntegrityError(f"reports: must be those of {checked.epoch} epochs, got {len(checked.reports)}")
        self.network.load_state_dict(checked.network)
        self.optimizer.load_state_dict(deepcopy(optimizer))  # it would keep these very tensors
        if self.average is not None and checked.average is not None:
            self.average.load_state_dict(dict(checked.average))
        self.reports, self.stats = list(checked.reports), LearningStats(self.task.measure)
        for report in self.reports:
            for part, stat in zip(REPORTED, self.stats.states.values(), strict=True):
                stat.log(getattr(report, f"{part}_loss"), getattr(report, f"{part}_score"))
        if checked.as_ann is not None:
            self.as_ann = self._frozen()
            self.as_ann.load_state_dict(checked.as_ann)


def fit(
    network: Network,
    split: Split | Frames | TorchData,
    recipe: TrainingSpec | None = None,
    *,
    teacher: Teacher | None = None,
    on_epoch: Callable[[EpochReport], object] = lambda report: None,
    on_batch: Progress = no_progress,
    checkpoint: str | Path | None = None,
    group: Group = ALONE,
) -> LearningStats:
    """Train `network` by bootstrap, load the weights of the best epoch, and return the statistics of all epochs.

    Args:
        split, recipe, teacher, group: see `Trainer`.
        on_epoch: called with the report of each epoch.
        on_batch: called after each batch with the number of batches done in the epoch and their total.
        checkpoint: file that gets the state after each epoch; if it exists, training continues from it, as if it had
            not stopped. Data and recipe must be the same. Only for training in one process.

    Raises as `Trainer` does, and `IntegrityError` for a file that is not such a checkpoint.

    >>> from bootstrap_core import build_network, load_dataset
    >>> from specs import load_spec
    >>> net = build_network(load_spec("mnist-dense-shallow"), seed=0)
    >>> recipe = TrainingSpec(epochs=1, validation=500, batch_size=50)
    >>> stats = fit(net, load_dataset("mnist-sample").train, recipe)
    >>> stats.snn.best_score > 0.5
    True
    """
    trainer = Trainer(network, split, recipe, teacher=teacher, group=group)
    if checkpoint is not None and group is not ALONE:
        raise SnnZooError("checkpoint: must be None where several processes train: use zoo train, which has --resume")
    best = _continued(trainer, Path(checkpoint)) if checkpoint is not None else {}
    while trainer.epoch < trainer.recipe.epochs:
        report = trainer.run_epoch(on_batch)
        if report.best:
            best = {name: tensor.clone() for name, tensor in trainer.trained.state_dict().items()}
        if checkpoint is not None:
            buffer = io.BytesIO()
            torch.save({"trainer": trainer.state_dict(), "best": best}, buffer)
            write_whole(Path(checkpoint), buffer.getvalue())
        on_epoch(report)
    network.load_state_dict(best)
    return trainer.stats


def _continued(trainer: Trainer, path: Path) -> dict[str, Tensor]:
    """Continue from a checkpoint of `fit` if there is one; return the weights of the best epoch so far."""
    if not path.exists():
        return {}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        best = dict(state["best"])
        check_tensors("best", best, trainer.network.state_dict())
        trainer.load_state_dict(state["trainer"])
    except SnnZooError as error:
        raise type(error)(f"{path}: {error}") from None
    except Exception as error:  # torch.load raises many types for damaged files
        raise IntegrityError(
            f"{path} is not a checkpoint of fit: {str(error)[:200]}: remove it to begin anew"
        ) from None
    return best


def _samplers(network: Network) -> list[RateSampler]:
    return [module for module in network.modules() if isinstance(module, RateSampler)]


def _add(stat: LearningStat, score: Evaluation | None) -> None:
    if score is not None and score.loss is not None:
        stat.add(score.loss, score.n_correct or 0, score.n_images)
