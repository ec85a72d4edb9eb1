"""History of a training: the report of each epoch, and learning statistics with loss and score of each epoch.

The three states are kept apart, because they are three different networks: `training` (in the mode of the schedule),
`testing` (the piecewise-linear ANN) and `snn` (the same weights, running as spikes). Only the last gets deployed.
Which of two epochs is better is told by `Measure.rank`.

Source: `slayer.utils.LearningStats` of lava-dl; the accumulators have the same names.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, InstanceOf, TypeAdapter

from bootstrap_core.tasks.evaluation import ACCURACY, MEASURES, Measure
from specs.errors import SnnZooError
from specs.outline import few_lines

REPORTED = ("training", "validation_ann", "validation_snn")
"""First parts of the fields of a report: training, and validation as ANN and as SNN."""

STATES = ("training", "testing", "snn")
"""Names of the states of `LearningStats`, in the order in which they are printed and drawn."""


class Rank(NamedTuple):
    """Rank of an epoch; the larger of two ranks is that of the better epoch."""

    fits: bool
    score: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """Figures of one epoch. Losses are means over images or recordings; scores are those of the `measure`.

    Attributes:
        measure: name and order of the scores: accuracy, error or distance.
        training_loss, training_score: on augmented training examples, in the modes of the schedule, while the weights
            change.
        validation_ann_loss, validation_snn_loss, validation_ann_score, validation_snn_score: on the validation examples
            after the epoch; those of the ANN are None for a network without one, and all without validation.
        best: True if the epoch is better than all before; see `rank`.
        overflow: message that says which state left the hardware's 24 bits on the validation examples, or None.
        precision: type of the factors of matrix products, "float32", "bfloat16" or "float64"; for `auto`, the type it
            chose.
    """

    measure: InstanceOf[Measure]
    epoch: int
    seconds: float
    learning_rate: float
    training_loss: float
    validation_ann_loss: float | None
    validation_snn_loss: float | None
    best: bool
    overflow: str | None = None
    precision: str | None = None
    training_score: float
    validation_ann_score: float | None
    validation_snn_score: float | None

    @property
    def rank(self) -> Rank:
        """Rank by which epochs are compared.

        An epoch without an overflow is better than any with one; then the score as SNN on the validation examples
        decides, and between equal scores the loss. Without validation the later epoch is better.
        """
        if self.validation_snn_score is None or self.validation_snn_loss is None:
            return Rank(True, self.epoch, 0.0)
        return Rank(self.overflow is None, *self.measure.rank(self.validation_snn_score, self.validation_snn_loss))

    def record(self) -> dict[str, Any]:
        """Return losses and scores of the epoch by state, as `LearningStats.records` does."""
        fields, key = vars(self), self.measure.key
        parts = ({"loss": fields[f"{part}_loss"], key: fields[f"{part}_score"]} for part in REPORTED)
        return {"epoch": self.epoch, **dict(zip(STATES, parts, strict=True))}

    def document(self) -> dict[str, Any]:
        """Return the report as JSON, in which scores have names such as `validation_snn_accuracy`."""
        named = {f"{part}_score": f"{part}_{self.measure.key}" for part in REPORTED}
        return {named.get(name, name): value for name, value in vars(self).items() if name != "measure"}


def _with_measure(document: Any) -> Any:
    """Name the scores of a report in JSON as those of an `EpochReport`, and add the measure that their names tell."""
    if not isinstance(document, Mapping):
        return document
    measure = next((m for m in MEASURES.values() if f"{REPORTED[-1]}_{m.key}" in document), ACCURACY)
    named = {f"{part}_{measure.key}": f"{part}_score" for part in REPORTED}
    return {**{named.get(name, name): value for name, value in document.items()}, "measure": measure}


Report = Annotated[EpochReport, BeforeValidator(_with_measure)]
"""Report of an epoch, or its JSON, by which Pydantic reads a line of `metrics.jsonl`."""
REPORT: TypeAdapter[EpochReport] = TypeAdapter(Report)


@dataclass
class LearningStat:
    """Loss and score of one state: the sums of the open epoch, and one log entry for each closed epoch.

    The best figures are computed from the logs, so they always agree. One name differs from lava-dl on purpose: its
    `best_accuracy` is a flag with the name of a value. Here `best_score` is the value and `improved` the flag.

    Attributes:
        loss_log: mean loss of each closed epoch, None where there were no samples.
        score_log: score of each closed epoch, None where there were no samples.
        correct_samples: number of correctly classified samples of the open epoch; 0 unless scores are accuracies.

    Example:
        >>> stat = LearningStat()
        >>> stat.add(loss=0.5, correct=3, n=4)
        >>> stat.loss, stat.score
        (0.5, 0.75)
        >>> stat.update()
        >>> stat.improved, stat.best_epoch, stat.num_samples
        (True, 0, 0)
    """

    measure: Measure = ACCURACY
    loss_sum: float = 0.0
    num_samples: int = 0
    correct_samples: int = 0
    loss_log: list[float | None] = field(default_factory=list)
    score_log: list[float | None] = field(default_factory=list)

    def reset(self) -> None:
        """Drop the sums of the open epoch; the logs stay."""
        self.loss_sum, self.num_samples, self.correct_samples = 0.0, 0, 0

    def add(self, loss: float, correct: int, n: int) -> None:
        """Add a batch of samples to the open epoch.

        Args:
            loss: mean loss of the batch, as `torch.nn.functional.cross_entropy(...).item()` returns it.
            correct: correctly classified samples, 0 to n; 0 unless scores are accuracies.
        """
        if not 0 <= correct <= n:
            raise SnnZooError(f"correct = {correct} of n = {n} samples: counts must satisfy 0 <= correct <= n")
        if n > 0:  # the mean loss of no samples is NaN
            self.loss_sum += loss * n
            self.num_samples += n
            self.correct_samples += correct

    @property
    def loss(self) -> float | None:
        """Mean loss of the open epoch so far; None before its first sample."""
        return float(self.loss_sum / self.num_samples) if self.num_samples else None

    @property
    def score(self) -> float | None:
        """Score of the open epoch so far; None before its first sample."""
        of_loss, loss = self.measure.of_loss, self.loss
        if loss is None:
            return None
        return self.correct_samples / self.num_samples if of_loss is None else of_loss(loss)

    def update(self) -> None:
        """Close the epoch: log its figures and start the next one at zero."""
        self.log(self.loss, self.score)
        self.reset()

    def log(self, loss: float | None, score: float | None) -> None:
        """Log loss and score of one more closed epoch."""
        self.loss_log.append(loss)
        self.score_log.append(score)

    @property
    def min_loss(self) -> float | None:
        """Lowest finite loss of the closed epochs, or None."""
        return min((loss for loss in self.loss_log if loss is not None and math.isfinite(loss)), default=None)

    @property
    def best_score(self) -> float | None:
        """Best score of the closed epochs, or None."""
        return None if self.best_epoch is None else self.score_log[self.best_epoch]

    @property
    def best_epoch(self) -> int | None:
        """Closed epoch, counted from 0, with the best score, or None; of several the one with the lowest loss."""
        ranks = {
            epoch: self.measure.rank(score, loss)
            for epoch, (score, loss) in enumerate(zip(self.score_log, self.loss_log, strict=True))
            if score is not None and loss is not None and not math.isnan(score)
        }
        return max(ranks, key=ranks.__getitem__, default=None)

    @property
    def improved(self) -> bool:
        """True if the last closed epoch is better than all before: the moment to save a checkpoint."""
        return self.best_epoch is not None and self.best_epoch == len(self.score_log) - 1

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self.loss_log)} epochs: {self}"

    def __str__(self) -> str:
        loss, score = self.loss, self.score
        if not self.num_samples and self.loss_log:
            loss, score = self.loss_log[-1], self.score_log[-1]
        style = ".2%" if self.measure.is_share else ".5f"
        text = f"loss {_text(loss, '9.5f')}{_best(self.min_loss, '.5f')}"
        text += f"   {self.measure.name} {_text(score, f'8{style}')}{_best(self.best_score, style)}"
        return text if self.best_epoch is None else f"{text[:-1]}, epoch {self.best_epoch})"


class LearningStats:
    """Losses and scores of a training run, in its three states.

    Attributes:
        training: the batches that the optimiser saw, in the mode of the schedule.
        testing: evaluation in ANN mode.
        snn: evaluation in SNN mode; its logs hold None for epochs without one.

    Example:
        >>> stats = LearningStats()
        >>> stats.training.add(loss=0.25, correct=7, n=8)
        >>> stats.update()
        >>> print(stats)
        training  loss   0.25000 (best 0.25000)   accuracy   87.50% (best 87.50%, epoch 0)
        testing   loss         -   accuracy        -
        snn       loss         -   accuracy        -
    """

    def __init__(self, measure: Measure = ACCURACY) -> None:
        self.measure = measure
        self.training, self.testing, self.snn = (LearningStat(measure) for _ in STATES)

    @property
    def states(self) -> dict[str, LearningStat]:
        """The three states by their names, in the order of `STATES`."""
        return {name: getattr(self, name) for name in STATES}

    def update(self) -> None:
        """Close the epoch of all three states, so that their logs stay in step."""
        for stat in self.states.values():
            stat.update()

    def __repr__(self) -> str:
        return few_lines(f"{type(self).__name__} of {len(self.training.loss_log)} epochs", str(self).splitlines())

    def __str__(self) -> str:
        return "\n".join(f"{name:8}  {stat}" for name, stat in self.states.items())

    def records(self) -> list[dict[str, Any]]:
        """Return a record for each closed epoch, in order: its number, and loss and score of each state."""
        columns = [zip(stat.loss_log, stat.score_log, strict=True) for stat in self.states.values()]
        return [
            {
                "epoch": epoch,
                **{
                    name: dict(zip(("loss", self.measure.key), entry or (None, None), strict=True))
                    for name, entry in zip(self.states, entries, strict=True)
                },
            }
            for epoch, entries in enumerate(zip_longest(*columns))
        ]


def _text(value: float | None, spec: str) -> str:
    width = int(spec.split(".")[0])
    return f"{'-':>{width}}" if value is None else f"{value:{spec}}"


def _best(value: float | None, spec: str) -> str:
    return "" if value is None else f" (best {value:{spec}})"
