"""Reports of epochs: the figures of one epoch, one line of `metrics.jsonl`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Discriminator, Tag

from bootstrap_core.analysis.measures import ACCURACY, DISTANCE, ERROR, Measure

__all__ = ["AccuracyReport", "DistanceReport", "EpochReport", "ErrorReport", "Report"]


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """Figures of one epoch. Losses are means over images or recordings; scores are those of the `measure`.

    Attributes:
        measure: name and order of the scores: accuracy, error or distance.
        epoch: index of the epoch, from 0.
        seconds: duration of the epoch.
        learning_rate: learning rate of its first batch.
        training_loss: on augmented training examples, in the modes of the schedule, while the weights change.
        validation_ann_loss, validation_snn_loss: on the validation examples after the epoch; that of the ANN is None
            for a network without one.
        best: True if the score as SNN on the validation examples is better than in all epochs before; an epoch without
            an overflow is better than any with one.
        overflow: message that says which state left the hardware's 24 bits on the validation examples, or None.
        precision: type of the factors of matrix products, "float32", "bfloat16" or "float64"; for `auto`, the type it
            chose.
    """

    measure: ClassVar[Measure]

    epoch: int
    seconds: float
    learning_rate: float
    training_loss: float
    validation_ann_loss: float | None
    validation_snn_loss: float
    best: bool
    overflow: str | None = None
    precision: str | None = None

    @property
    def training_score(self) -> float:
        """Score on the training examples."""
        score: float = getattr(self, f"training_{self.measure.key}")
        return score

    @property
    def validation_ann_score(self) -> float | None:
        """Score on the validation examples as ANN; None for a network without one."""
        score: float | None = getattr(self, f"validation_ann_{self.measure.key}")
        return score

    @property
    def validation_snn_score(self) -> float:
        """Score on the validation examples as SNN."""
        score: float = getattr(self, f"validation_snn_{self.measure.key}")
        return score


@dataclass(frozen=True, kw_only=True)
class AccuracyReport(EpochReport):
    """Figures of one epoch of a classification; see `EpochReport`. Accuracies are 0 to 1."""

    measure = ACCURACY

    training_accuracy: float
    validation_ann_accuracy: float | None
    validation_snn_accuracy: float


@dataclass(frozen=True, kw_only=True)
class ErrorReport(EpochReport):
    """Figures of one epoch of a network that gives values; see `EpochReport`. Errors are rms errors of its values."""

    measure = ERROR

    training_error: float
    validation_ann_error: float | None
    validation_snn_error: float


@dataclass(frozen=True, kw_only=True)
class DistanceReport(EpochReport):
    """Figures of one epoch of a network that gives spike trains; see `EpochReport`. Figures as ANN are None."""

    measure = DISTANCE

    training_distance: float
    validation_ann_distance: float | None
    validation_snn_distance: float


def _kind(report: object) -> str:
    """Return the key of the measure of a report, or of a JSON document, which has fields with this key."""
    if isinstance(report, EpochReport):
        return report.measure.key
    given = report if isinstance(report, dict) else {}
    return next((x.key for x in (ERROR, DISTANCE) if f"validation_snn_{x.key}" in given), ACCURACY.key)


Report = Annotated[
    Annotated[AccuracyReport, Tag(ACCURACY.key)]
    | Annotated[ErrorReport, Tag(ERROR.key)]
    | Annotated[DistanceReport, Tag(DISTANCE.key)],
    Discriminator(_kind),
]
"""Type of any report, by which Pydantic reads a line of `metrics.jsonl`."""
