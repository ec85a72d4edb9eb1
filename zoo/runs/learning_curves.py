"""Convert a run's metrics to the learning curves of a card, and back."""

from dataclasses import replace
from pathlib import Path

from bootstrap_core.training.history import REPORT, EpochReport
from specs.errors import SnnZooError
from zoo.card import Curves, Training
from zoo.runs.training_run import METRICS, read_metrics

DIGITS = 6
"""Significant digits of values in a card's curves."""


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
