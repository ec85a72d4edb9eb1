"""Objectives of training: networks learn classes, values or spike trains, whichever they give.

An objective holds the training examples, makes batches of them, computes loss and score, and names the classes of
statistics and reports. The `Trainer` has the rest: epochs, modes, the optimiser, teachers and checkpoints.

To add one, write a `Measure`, a `Stat` and its `Stats`, an `EpochReport`, a subclass of `Objective`, and a case in
`objective_of`.
"""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.analysis.evaluation import Score, evaluate, evaluate_exactly, score_exactly
from bootstrap_core.analysis.spike_trains import SpikeTrainScore, score_spike_trains, train_distances
from bootstrap_core.analysis.statistics import DistanceStats, ErrorStats, LearningStats
from bootstrap_core.analysis.values import ValueScore, score_values
from bootstrap_core.data.frames import Frames, check_frames
from bootstrap_core.data.splits import Split, check_split, time_first, train_validation_split
from bootstrap_core.distributed import Group, Share
from bootstrap_core.network.mode import Mode
from bootstrap_core.network.network import Network
from bootstrap_core.ops.precision import product_dtype
from bootstrap_core.progress import Progress
from bootstrap_core.training.augmentation import are_columns, augmentation
from bootstrap_core.training.epoch_report import AccuracyReport, DistanceReport, EpochReport, ErrorReport
from specs.errors import SnnZooError
from specs.network import NetworkSpec
from specs.training import TrainingSpec

__all__ = [
    "Batch",
    "Classification",
    "Examples",
    "Objective",
    "Regression",
    "SpikeTrains",
    "TargetObjective",
    "distillation_loss",
    "objective_of",
]


class Examples(Protocol):
    """Training examples: inputs with targets, such as a `Split` with labels, or `Frames` with targets."""

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def inputs(self, index: slice | Tensor, /) -> Tensor:
        """Return inputs as networks take them: images `[n, ...]`, events or frames time first, `[T, n, ...]`."""
        ...

    def take(self, indices: slice | Tensor, /) -> Self:
        """Return the examples at `indices`, in this order."""
        ...


Kind = TypeVar("Kind", bound=Examples)


class Batch(NamedTuple):
    """Part of a batch that one process computes, on the network's device.

    Attributes:
        inputs: as the network takes them.
        answers: labels, values or spikes that the score compares the outputs with.
        targets: labels, values or spikes of the loss; they differ from the answers only if images are mixed.
    """

    inputs: Tensor
    answers: Tensor
    targets: Tensor


class Objective(ABC, Generic[Kind]):
    """Examples, loss and score of a training: everything that depends on the kind of target.

    Args:
        spec, recipe: the network and its recipe.
        examples: training examples; the validation examples are taken from them, as the recipe's seed decides.

    Raises:
        DataError: the examples are of another kind, do not fit the network, or none is left for training.
        SpecError: a field of the recipe does not apply to such examples.
    """

    stats: ClassVar[type[LearningStats] | type[ErrorStats] | type[DistanceStats]]
    report: ClassVar[type[EpochReport]]

    def __init__(self, spec: NetworkSpec, recipe: TrainingSpec, examples: Kind) -> None:
        self.spec, self.recipe = spec, recipe
        self.check(examples)
        recipe.check_images(len(examples), f"{spec.input.sample}s")
        self.training, self.validation = self.divided(examples)

    @abstractmethod
    def check(self, examples: Kind) -> None:
        """Raise an error unless the examples fit the network and the recipe; see the class."""

    @abstractmethod
    def divided(self, examples: Kind) -> tuple[Kind, Kind]:
        """Return the training and the validation examples, each in the order of `examples`."""

    @abstractmethod
    def batch(
        self, indices: Tensor, generator: torch.Generator, share: Share, device: torch.device, *, in_time: bool
    ) -> Batch:
        """Return this process's share of a batch.

        Batches are made between training steps and not in a thread beside them: torch would start a second team of
        threads, whose waiting slows the steps down by more than this work takes.

        Args:
            indices: training examples of the whole batch.
            generator: source of all random changes, the same in each process.
            share: rows of this process.
            device: device of the network.
            in_time: False if the batch runs as ANN alone, which may need one time step.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch, taught: Tensor | None, part: float) -> Tensor:
        """Return the mean loss of the outputs.

        With a teacher, a `part` from 0 to 1 of the loss is the divergence from its outputs, `taught`.
        """

    @abstractmethod
    def counts(self, outputs: Tensor, batch: Batch) -> list[float]:
        """Return the counts that the score needs besides the loss; see `Stat.add_batch`."""

    def product_dtype(self, device: str) -> torch.dtype:
        """Return the type of the factors of matrix products in training. Spikes are exact in any of them."""
        return product_dtype(self.recipe.precision, device)

    @abstractmethod
    def score_ann(self, network: Network, examples: Kind, *, progress: Progress, group: Group) -> Score:
        """Score a network as ANN."""

    @abstractmethod
    def score_snn(
        self, network: Network, examples: Kind, *, progress: Progress, group: Group
    ) -> tuple[Score, str | None]:
        """Score a network as SNN in integers; also return the message of a state overflow, or None."""


class Classification(Objective[Split]):
    """Cross-entropy of the logits from labels; the score is the accuracy."""

    stats, report = LearningStats, AccuracyReport

    def __init__(self, spec: NetworkSpec, recipe: TrainingSpec, examples: Split) -> None:
        super().__init__(spec, recipe, examples)
        self.augment = None if recipe.augment is None else augmentation(recipe.augment)

    def check(self, examples: Split) -> None:
        """See `Objective`."""
        check_split(examples, self.spec.n_classes)
        self.recipe.check_kind(events=examples.has_events, columns=are_columns(examples.images.shape))

    def divided(self, examples: Split) -> tuple[Split, Split]:
        """See `Objective`; the validation images are balanced by class."""
        return train_validation_split(examples, n_validation=self.recipe.validation, seed=self.recipe.seed)

    def batch(
        self, indices: Tensor, generator: torch.Generator, share: Share, device: torch.device, *, in_time: bool
    ) -> Batch:
        """See `Objective`. Images are mixed and augmented; targets of mixed ones are probabilities `[n, classes]`."""
        images, labels = self._examples(indices[share.rows], device)
        targets = labels
        if self.recipe.mixup:
            others, other_labels = self._examples(indices.roll(1)[share.rows], device)
            kept = _parts_kept(self.recipe.mixup, len(indices), generator)[share.rows].to(images)
            images = torch.lerp(others, images, kept[:, None, None, None])
            classes = torch.eye(self.spec.n_classes, device=images.device)
            targets = torch.lerp(classes[other_labels], classes[labels], kept[:, None])
        if self.augment is not None:
            images = self.augment(images, generator, share)
        return Batch(time_first(images), labels, targets)

    def _examples(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return images in 0..1, or stored events `[n, T, C, H, W]`, and labels."""
        images = self.training.pixels(indices).to(device)
        if not self.training.has_events:
            images = images.float().div_(255)
        return images, self.training.labels[indices].to(device)

    def loss(self, outputs: Tensor, batch: Batch, taught: Tensor | None, part: float) -> Tensor:
        """See `Objective`."""
        logits = outputs.float() * self.recipe.logit_scale
        return distillation_loss(logits, batch.targets, taught, part, self.recipe.label_smoothing)

    def counts(self, outputs: Tensor, batch: Batch) -> list[float]:
        """Return the number of right classes."""
        return [int((outputs.argmax(1) == batch.answers).sum())]

    def score_ann(self, network: Network, examples: Split, *, progress: Progress, group: Group) -> Score:
        """See `Objective`."""
        return evaluate(network, examples, mode=Mode.ANN, progress=progress, group=group)

    def score_snn(
        self, network: Network, examples: Split, *, progress: Progress, group: Group
    ) -> tuple[Score, str | None]:
        """See `Objective`."""
        return evaluate_exactly(network, examples, progress=progress, group=group)


class TargetObjective(Objective[Frames]):
    """Base of the objectives whose examples are `Frames` with targets."""

    def check(self, examples: Frames) -> None:
        """See `Objective`."""
        check_frames(examples, self.spec)

    def divided(self, examples: Frames) -> tuple[Frames, Frames]:
        """See `Objective`."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        order = torch.randperm(len(examples), generator=generator)
        validation, training = order.tensor_split([self.recipe.validation])
        return examples.take(training.sort().values), examples.take(validation.sort().values)

    def counts(self, outputs: Tensor, batch: Batch) -> list[float]:
        """Return nothing: the score follows from the loss."""
        return []


class Regression(TargetObjective):
    """Mean squared error of the values after the last step; the score is the rms error.

    As ANN, a network sees the last frame of each recording alone.
    """

    stats, report = ErrorStats, ErrorReport

    def batch(
        self, indices: Tensor, generator: torch.Generator, share: Share, device: torch.device, *, in_time: bool
    ) -> Batch:
        """See `Objective`."""
        own, examples = indices[share.rows], self.training if in_time else self.training.last
        assert examples.targets is not None
        targets = examples.targets[own].to(device)
        return Batch(examples.inputs(own).to(device), targets, targets)

    def loss(self, outputs: Tensor, batch: Batch, taught: Tensor | None, part: float) -> Tensor:
        """See `Objective`; there is no teacher."""
        return F.mse_loss(outputs, batch.targets)

    def product_dtype(self, device: str) -> torch.dtype:
        """Return float64, which holds activations exactly."""
        return torch.float64

    def score_ann(self, network: Network, examples: Frames, *, progress: Progress, group: Group) -> ValueScore:
        """See `Objective`."""
        return score_values(network, examples.last, mode=Mode.ANN, progress=progress, group=group)

    def score_snn(
        self, network: Network, examples: Frames, *, progress: Progress, group: Group
    ) -> tuple[ValueScore, str | None]:
        """See `Objective`."""
        score = partial(score_values, given=examples, progress=progress, group=group)
        return score_exactly(network, score, group=group, what="recordings")


class SpikeTrains(TargetObjective):
    """Van Rossum distance of the readout's spikes from the targets, as loss and as score. Such networks have no ANN."""

    stats, report = DistanceStats, DistanceReport

    def batch(
        self, indices: Tensor, generator: torch.Generator, share: Share, device: torch.device, *, in_time: bool
    ) -> Batch:
        """See `Objective`; targets are time first, `[T, n, neurons]`."""
        own = indices[share.rows]
        assert self.training.targets is not None
        targets = self.training.targets[own].transpose(0, 1).to(device)
        return Batch(self.training.inputs(own).to(device), targets, targets)

    def loss(self, outputs: Tensor, batch: Batch, taught: Tensor | None, part: float) -> Tensor:
        """See `Objective`; there is no teacher."""
        return train_distances(outputs, batch.targets, self.recipe.spike_tau).mean()

    def score_ann(self, network: Network, examples: Frames, *, progress: Progress, group: Group) -> Score:
        """See `Objective`; never called, as there is no ANN."""
        raise SnnZooError(f"{network.spec.name} gives spike trains and has no ANN")

    def score_snn(
        self, network: Network, examples: Frames, *, progress: Progress, group: Group
    ) -> tuple[SpikeTrainScore, str | None]:
        """See `Objective`."""
        score = partial(score_spike_trains, given=examples, tau=self.recipe.spike_tau, progress=progress, group=group)
        return score_exactly(network, score, group=group, what="recordings")


def objective_of(spec: NetworkSpec, recipe: TrainingSpec, examples: Any) -> Objective[Any]:
    """Return the objective of a network; see `Objective` for the arguments and errors."""
    kind: type[Objective[Any]] = Classification
    if not spec.gives_classes:
        kind = Regression if spec.gives_values else SpikeTrains
    return kind(spec, recipe, examples)


def distillation_loss(
    logits: Tensor, targets: Tensor, taught: Tensor | None, part: float, label_smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy with the targets, mixed with the Kullback-Leibler divergence from a teacher.

    Args:
        logits: logits of the network, `[N, classes]`.
        targets: labels `[N]`, or probabilities `[N, classes]`.
        taught: logits of the teacher, `[N, classes]`; None without a teacher, with `part` 0.
        part: share of the divergence in the loss, 0 to 1.
        label_smoothing: see `TrainingSpec`.
    """
    loss = (1 - part) * F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if taught is None:
        return loss
    distance = F.kl_div(logits.log_softmax(1), taught.log_softmax(1), log_target=True, reduction="batchmean")
    return loss + part * distance


def _parts_kept(alpha: float, n: int, generator: torch.Generator) -> Tensor:
    """Draw the share that each of `n` images keeps in mixup, `[n]`: the larger of two parts from Beta(alpha, alpha).

    Source: Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization.
    """
    seed = int(torch.randint(1 << 62, (), generator=generator, device=generator.device))
    drawn = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, n))
    return torch.maximum(drawn, 1 - drawn).float()
