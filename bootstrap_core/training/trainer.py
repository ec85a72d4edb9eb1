"""The bootstrap training loop."""

import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from bootstrap_core.analysis.evaluation import batches, evaluate, evaluate_exactly
from bootstrap_core.analysis.statistics import LearningStats, first_problem
from bootstrap_core.data.datasets import Split, check_split, train_validation_split
from bootstrap_core.data.splits import time_first
from bootstrap_core.functional.dropout import masks_from
from bootstrap_core.network.batch_norm import BatchNorm, NormModule
from bootstrap_core.network.blocks import SpikingBlock
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network, check_network
from bootstrap_core.network.sampler import RateSampler, mix_seed
from bootstrap_core.ops.heap import keep_freed_memory
from bootstrap_core.ops.precision import product_dtype, products_in
from bootstrap_core.progress import Progress, no_progress
from bootstrap_core.training.augmentation import are_columns, augmentation
from bootstrap_core.training.averaging import MovingAverage
from bootstrap_core.training.distributed import ALONE, Group, Share
from bootstrap_core.training.initialization import initialize
from bootstrap_core.training.schedule import LayerModes, Scheduler
from bootstrap_core.training.trainer_state import TrainerState, check_tensors, tensors_of_optimizer
from specs.arguments import check_type
from specs.errors import IntegrityError, SnnZooError
from specs.training import LearningRateSchedule, SnnGradient, TrainingSpec
from specs.words import counted

__all__ = ["EpochReport", "Teacher", "Trainer", "distillation_loss", "fit"]

N_INITIALIZING = 256
"""Number of images to which initial weights are scaled."""

DELAY_RATE = 100
"""Learning rate of trained delays, in units of that of the weights. A delay is tens of steps where a weight is about 1;
the factor is that of Hammouamri et al., see `functional.delays`."""

RANK_STRIDE = 1 << 16
"""Distance between the seed counters of two ranks; larger than any number of epochs, so that no seed occurs twice."""

Teacher = Callable[[Tensor], Tensor]
"""Function that returns logits `[N, classes]` for images `[N, C, H, W]` in 0..1, or for events `[T, N, C, H, W]`."""


@dataclass(frozen=True)
class EpochReport:
    """Figures of one epoch, one line of `metrics.jsonl`: losses are means over images, accuracies are 0 to 1.

    Attributes:
        epoch: index of the epoch, from 0.
        seconds: duration of the epoch.
        learning_rate: learning rate of its first batch.
        training_loss, training_accuracy: on augmented training images, in the modes of the schedule, while the weights
            change.
        validation_ann_loss, validation_ann_accuracy, validation_snn_loss, validation_snn_accuracy: on the validation
            images after the epoch; those of the ANN are None for a recurrent network, which has none.
        best: True if `validation_snn_accuracy` is higher than in all epochs before; an epoch without an overflow is
            better than any with one.
        overflow: message that says which state left the hardware's 24 bits on the validation images, or None.
        precision: type of the factors of matrix products, "float32" or "bfloat16"; for `auto`, the type it chose.
    """

    epoch: int
    seconds: float
    learning_rate: float
    training_loss: float
    training_accuracy: float
    validation_ann_loss: float | None
    validation_ann_accuracy: float | None
    validation_snn_loss: float
    validation_snn_accuracy: float
    best: bool
    overflow: str | None = None
    precision: str | None = None


class Trainer:
    """Bootstrap training of a network, one epoch at a time.

    All random numbers of an epoch come from generators seeded with (seed, epoch), so a run resumed from `state_dict`
    continues exactly as if it had not stopped. Several processes, each with a trainer of the same arguments, share each
    batch and keep the same weights. These equal the weights of a single process except for the order of additions and
    the dropout masks, which each process draws for itself.

    Args:
        network: network to train, in place.
        split: training images, or recordings of events; validation images are taken from them, balanced by class, as
            the seed decides.
        recipe: training recipe; by default the spec's `training`.
        teacher: function whose logits the network learns besides the labels; see `Teacher`.
        group: processes that train together.

    Raises:
        DataError: `split` is not a `Split`, has no images left for training, or has labels beyond the classes.
        SnnZooError: `network` is not a `Network`, `recipe` not a `TrainingSpec`, or `teacher` is missing although the
            recipe names one.
        LostProcessError: another process has ended or does not answer.
    """

    def __init__(
        self,
        network: Network,
        split: Split,
        recipe: TrainingSpec | None = None,
        *,
        teacher: Teacher | None = None,
        group: Group = ALONE,
    ) -> None:
        check_network(network, "training")
        if recipe is not None:
            check_type(recipe, TrainingSpec, "recipe must be a TrainingSpec", advice="TrainingSpec(**fields) makes one")
        recipe = recipe or network.spec.training or TrainingSpec()
        if problem := network.spec.recipe_problem(recipe):
            raise SnnZooError(f"training.{problem[0]}: {problem[1]}")
        check_split(split, network.spec.n_classes)
        recipe.check_images(len(split))
        recipe.check_kind(events=split.has_events, columns=are_columns(split.images.shape))
        if recipe.teacher is not None and teacher is None:
            raise SnnZooError(
                f"the recipe's teacher is {recipe.teacher!r}: pass a function that returns its logits as teacher=, or "
                "set training.teacher to null"
            )
        keep_freed_memory()
        self.network, self.recipe, self.teacher, self.group = network, recipe, teacher, group
        self.training, self.validation = train_validation_split(split, n_validation=recipe.validation, seed=recipe.seed)
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
        self.augment = None if recipe.augment is None else augmentation(recipe.augment)
        self.n_ann_epochs = recipe.epochs - recipe.snn_epochs
        self.as_ann: Network | None = None
        self.average = MovingAverage(network, recipe.ema_decay) if recipe.ema_decay else None
        self.stats = LearningStats()
        self.epoch = 0
        self.best = (False, -1.0)
        """Best epoch so far: True if no state overflowed, and its SNN accuracy."""

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
        """Train one epoch and score the validation images as ANN and as SNN.

        Args:
            on_batch: called after each batch with the number of batches done and their total.
            on_scored: called with the number of validation images done and of all, first as ANN and then as SNN.

        Raises:
            SnnZooError: all epochs of the recipe are done, or the loss or a weight is not finite.
        """
        start, epoch = time.perf_counter(), self.epoch
        if epoch >= self.recipe.epochs:
            raise SnnZooError(
                f"{counted(epoch, 'epoch')} done, as many as in the recipe: raise training.epochs to train longer"
            )
        self.group.spread(self.network.state_dict().values())  # hosts may differ in the last bit
        if self.average is not None:
            self.group.spread(self.trained.state_dict().values())
        masks = torch.Generator().manual_seed(mix_seed(self.recipe.seed, epoch + self.group.rank * RANK_STRIDE))
        with masks_from(masks):
            self._train(epoch, on_batch)
        if self.network.spec.has_ann:
            self._fit_activations(self.network, sampling=epoch >= self.n_ann_epochs)
            if self.average is not None:
                self._fit_activations(self.trained, sampling=True)
            as_ann = evaluate(self.trained, self.validation, mode=Mode.ANN, progress=on_scored, group=self.group)
            self.stats.testing.add(as_ann.loss, as_ann.n_correct, as_ann.n_images)
        as_snn, overflow = evaluate_exactly(self.trained, self.validation, progress=on_scored, group=self.group)
        self.stats.snn.add(as_snn.loss, as_snn.n_correct, as_snn.n_images)
        self.stats.update()
        before, reached = self.best, (overflow is None, as_snn.accuracy)
        self.best = max(before, reached)
        self.epoch += 1
        training, testing, snn = self.stats.training, self.stats.testing, self.stats.snn
        return EpochReport(
            epoch=epoch,
            seconds=time.perf_counter() - start,
            learning_rate=self._learning_rate(epoch * self.n_batches),
            training_loss=_last(training.loss_log),
            training_accuracy=_last(training.accuracy_log),
            validation_ann_loss=testing.loss_log[-1],
            validation_ann_accuracy=testing.accuracy_log[-1],
            validation_snn_loss=_last(snn.loss_log),
            validation_snn_accuracy=_last(snn.accuracy_log),
            best=reached > before,
            overflow=overflow,
            precision=str(self._product_dtype()).removeprefix("torch."),
        )

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
            images, labels, targets = self._batch(indices, generator, share)
            modes = self._modes(epoch, iteration)
            tandem = modes == LayerModes(Mode.SNN) and recipe.snn_gradient is SnnGradient.TANDEM
            rounds = (tandem or modes == LayerModes(Mode.ANN)) and self._may_round()
            cast = torch.autocast(network.device.type, torch.bfloat16, enabled=rounds)
            with products_in(recipe.precision), cast:
                logits: Tensor = network.tandem(images) if tandem else network(images, modes)
            loss = self._loss(logits.float() * recipe.logit_scale, images, targets) * share.weight
            n_right = int((logits.argmax(1) == labels).sum()) / share.repeats
            value, n_right = self.group.add([loss.item(), n_right])
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
            self.stats.training.add(value, round(n_right), len(indices))
            on_batch(iteration + 1, self.n_batches)
        if not all(parameter.isfinite().all() for parameter in network.parameters()):
            raise SnnZooError(f"weights are not finite after epoch {epoch}: lower the learning rate")
        network.eval()

    def _loss(self, logits: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        teacher, part = self._teacher()
        if teacher is None:
            return distillation_loss(logits, targets, None, part, self.recipe.label_smoothing)
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=self._may_round()):
            wanted = teacher(images).float()
        return distillation_loss(logits, targets, wanted, part, self.recipe.label_smoothing)

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

    def _batch(self, indices: Tensor, generator: torch.Generator, share: Share) -> tuple[Tensor, Tensor, Tensor]:
        """Return this process's images, mixed and augmented, their labels, and the targets of the loss.

        Targets are the labels `[n]`, or probabilities `[n, classes]` if images are mixed. All are on the network's
        device. Batches are made between training steps and not in a thread beside them: torch would start a second team
        of threads, whose waiting slows the steps down by more than this work takes.
        """
        images, labels = self._examples(indices[share.rows])
        targets = labels
        if self.recipe.mixup:
            others, other_labels = self._examples(indices.roll(1)[share.rows])
            kept = _parts_kept(self.recipe.mixup, len(indices), generator)[share.rows].to(images)
            images = torch.lerp(others, images, kept[:, None, None, None])
            classes = torch.eye(self.network.spec.n_classes, device=images.device)
            targets = torch.lerp(classes[other_labels], classes[labels], kept[:, None])
        if self.augment is not None:
            images = self.augment(images, generator, share)
        return time_first(images), labels, targets

    def _examples(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images in 0..1, or stored events `[n, T, C, H, W]`, and labels, on the network's device."""
        device = self.network.device
        images = self.training.pixels(indices).to(device)
        if not self.training.has_events:
            images = images.float().div_(255)
        return images, self.training.labels[indices].to(device)

    @torch.no_grad()
    def _fit_activations(self, network: Network, *, sampling: bool) -> None:
        """Fit all activations that have samples; with `sampling`, first run some training batches in SAMPLE mode."""
        samplers = [module for module in network.modules() if isinstance(module, RateSampler)]
        if sampling:
            for images, labels in islice(batches(self.training, self.recipe.batch_size), self.recipe.sample_iterations):
                rows = self.group.share(len(labels)).rows
                some = images[:, rows] if self.training.has_events else images[rows]
                network(some.to(network.device), Mode.SAMPLE)
        for sampler in samplers:
            sampler.fit()
            sampler.clear()

    def _modes(self, epoch: int, iteration: int) -> LayerModes:
        if epoch >= self.n_ann_epochs:
            return LayerModes(Mode.SNN)
        return self.scheduler.mode(epoch, iteration, training=True)

    def _product_dtype(self) -> torch.dtype:
        """Return the type of the factors of matrix products in training. Spikes are exact in either type."""
        return product_dtype(self.recipe.precision, self.network.device.type)

    def _may_round(self) -> bool:
        """Return whether ANN batches are computed in bfloat16."""
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
        """Return the state from which `load_state_dict` continues: a copy, of tensors and plain values only."""
        return deepcopy({
            "epoch": self.epoch,
            "recipe": self.recipe.model_dump(mode="json"),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "as_ann": None if self.as_ann is None else self.as_ann.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "stats": self.stats.state_dict(),
            "best": self.best,
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
            raise SnnZooError(f"the checkpoint was trained with another recipe (differs in: {', '.join(changed)})")
        own = self.network.state_dict()
        check_tensors("network", checked.network, own)
        optimizer = tensors_of_optimizer(self.optimizer, checked.optimizer.state)
        if (checked.average is None) is not (self.average is None):
            raise IntegrityError("average: must be there if the recipe has an ema_decay, else null")
        if checked.average is not None:
            check_tensors("average.network", checked.average.network, own)
        if checked.as_ann is not None:
            check_tensors("as_ann", checked.as_ann, own)
        self.stats.load_state_dict(checked.stats)
        self.network.load_state_dict(checked.network)
        self.optimizer.load_state_dict(deepcopy(optimizer))  # it would keep these very tensors
        if self.average is not None and checked.average is not None:
            self.average.load_state_dict(dict(checked.average))
        self.epoch = checked.epoch
        self.best = checked.best or (True, self.stats.snn.max_accuracy or -1.0)
        if checked.as_ann is not None:
            self.as_ann = self._frozen()
            self.as_ann.load_state_dict(checked.as_ann)


def fit(
    network: Network,
    split: Split,
    recipe: TrainingSpec | None = None,
    *,
    teacher: Teacher | None = None,
    on_epoch: Callable[[EpochReport], object] = lambda report: None,
    group: Group = ALONE,
) -> LearningStats:
    """Train `network` by bootstrap, load the weights of the best epoch, and return the statistics of all epochs.

    Args:
        network: network to train, in place.
        split, recipe, teacher, group: see `Trainer`.
        on_epoch: called with the report of each epoch.

    >>> from bootstrap_core import build_network, load_dataset
    >>> from specs import load_spec
    >>> net = build_network(load_spec("mnist-dense-shallow"), seed=0)
    >>> recipe = TrainingSpec(epochs=1, validation=500, batch_size=50)
    >>> stats = fit(net, load_dataset("mnist-sample").train, recipe)
    >>> stats.snn.max_accuracy > 0.5
    True
    """
    trainer = Trainer(network, split, recipe, teacher=teacher, group=group)
    best: dict[str, Tensor] = {}
    while trainer.epoch < trainer.recipe.epochs:
        report = trainer.run_epoch()
        if report.best:
            best = {name: tensor.clone() for name, tensor in trainer.trained.state_dict().items()}
        on_epoch(report)
    network.load_state_dict(best)
    return trainer.stats


def distillation_loss(
    logits: Tensor, targets: Tensor, wanted: Tensor | None, part: float, label_smoothing: float = 0.0
) -> Tensor:
    """Return the loss: cross-entropy with the targets and, to a `part`, Kullback-Leibler divergence from a teacher.

    Args:
        logits: logits of the network, `[N, classes]`.
        targets: labels `[N]`, or probabilities `[N, classes]`.
        wanted: logits of the teacher, `[N, classes]`; None without a teacher, with `part` 0.
        part: share of the divergence in the loss, 0 to 1.
        label_smoothing: see `TrainingSpec`.
    """
    loss = (1 - part) * F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if wanted is None:
        return loss
    distance = F.kl_div(logits.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="batchmean")
    return loss + part * distance


def _parts_kept(alpha: float, n: int, generator: torch.Generator) -> Tensor:
    """Draw the share that each of `n` images keeps in mixup, `[n]`: the larger of two parts from Beta(alpha, alpha).

    Source: Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization.
    """
    seed = int(torch.randint(1 << 62, (), generator=generator, device=generator.device))
    drawn = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, n))
    return torch.maximum(drawn, 1 - drawn).float()


def _last(log: list[float | None]) -> float:
    value = log[-1]
    assert value is not None
    return value
