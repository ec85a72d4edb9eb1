"""Learning curves: of a run's metrics, by field, as cards keep them, and back to a report for each epoch."""

from itertools import accumulate
from pathlib import Path

from bootstrap_core.training.trainer import EpochReport
from specs.errors import SnnZooError
from zoo.runs.card import Curves, Training
from zoo.runs.training_run import METRICS, read_metrics

__all__ = ["read_curves", "reports_of"]

DIGITS = 6
"""That matter of a loss, a rate or a time."""


def read_curves(run: Path) -> Curves:
    """The learning curves of the training run in the folder `run`.

    Raises:
        SnnZooError: there is none.
        IntegrityError: its metrics are damaged.
    """
    reports = read_metrics(run)
    if not reports:
        raise SnnZooError(f"no learning curves: no epoch in {run / METRICS}")
    fields = {name: tuple(_rounded(getattr(report, name)) for report in reports) for name in Curves.model_fields}
    return Curves(**fields)


def reports_of(training: Training) -> list[EpochReport]:
    """A report for each epoch, if the curves were kept; the last that is `best` is the one that the card tells of."""
    if (curves := training.curves) is None:
        return []
    kept = len(curves.seconds) if training.epoch is None else training.epoch
    bests = accumulate(curves.validation_snn_accuracy, max, initial=-1.0)
    columns = zip(*curves.model_dump().values(), strict=True)
    return [
        EpochReport(
            epoch=epoch,
            best=epoch == kept or (accuracy > best and epoch < kept),  # better ones behind it left 24 bits
            **dict(zip(Curves.model_fields, values, strict=True)),
        )
        for epoch, (values, accuracy, best) in enumerate(
            zip(columns, curves.validation_snn_accuracy, bests, strict=False)
        )
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
