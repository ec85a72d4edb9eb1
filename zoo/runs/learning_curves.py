"""Convert a run's metrics to the learning curves of a card, and back."""

from itertools import accumulate
from pathlib import Path

from bootstrap_core.training.epoch_report import AccuracyReport
from specs.errors import SnnZooError
from zoo.card import Curves, Training
from zoo.runs.training_run import METRICS, read_metrics

__all__ = ["read_curves", "reports_of"]

DIGITS = 6
"""Significant digits of values in a card's curves."""


def read_curves(run: Path) -> Curves:
    """Read the learning curves of the training run in the folder `run`.

    Raises:
        SnnZooError: the folder has no metrics of any epoch.
        IntegrityError: the metrics are damaged.
    """
    reports = read_metrics(run)
    if not reports:
        raise SnnZooError(f"no learning curves: {run / METRICS} is missing or has no epoch")
    if not all(isinstance(report, AccuracyReport) for report in reports):
        raise SnnZooError(f"{run / METRICS} has no accuracies: networks that give values have no cards")
    fields = {name: tuple(_rounded(getattr(report, name)) for report in reports) for name in Curves.model_fields}
    return Curves(**fields)


def reports_of(training: Training) -> list[AccuracyReport]:
    """Return a report for each epoch, empty without curves; the last one with `best` is the epoch that was kept."""
    if (curves := training.curves) is None:
        return []
    kept = len(curves.seconds) if training.epoch is None else training.epoch
    bests = accumulate(curves.validation_snn_accuracy, max, initial=-1.0)
    columns = zip(*curves.model_dump().values(), strict=True)
    return [
        AccuracyReport(
            epoch=epoch,
            best=epoch == kept or (accuracy > best and epoch < kept),  # a later epoch with a better accuracy overflowed
            **dict(zip(Curves.model_fields, values, strict=True)),
        )
        for epoch, (values, accuracy, best) in enumerate(
            zip(columns, curves.validation_snn_accuracy, bests, strict=False)
        )
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
