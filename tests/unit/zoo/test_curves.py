import json
from dataclasses import asdict

import pytest

from bootstrap_core.training import EpochReport
from specs import IntegrityError, SnnZooError
from zoo.curves import read_curves, reports_of

REPORTS = [
    EpochReport(
        epoch=epoch, seconds=2.5 + epoch, learning_rate=1.2345678e-4, training_loss=1.5, training_accuracy=0.5,
        validation_ann_loss=0.25, validation_ann_accuracy=0.6, validation_snn_loss=0.75,
        validation_snn_accuracy=accuracy, best=best,
    )
    for epoch, (accuracy, best) in enumerate([(0.7, True), (0.6, False), (0.8, True), (0.8, False)])
]  # fmt: skip


def test_curves_are_the_columns_of_the_metrics_and_come_back_as_reports(tmp_path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(asdict(report)) + "\n" for report in REPORTS))
    curves = read_curves(tmp_path)
    assert curves.seconds == (2.5, 3.5, 4.5, 5.5)
    assert curves.learning_rate[0] == 1.23457e-4
    found = reports_of(curves)
    assert found == [EpochReport(**{**asdict(report), "learning_rate": 1.23457e-4}) for report in REPORTS]


def test_curves_that_are_none_are_told(tmp_path) -> None:
    with pytest.raises(SnnZooError, match="no learning curves"):
        read_curves(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 0}\n')
    with pytest.raises(IntegrityError, match=r"metrics\.jsonl"):
        read_curves(tmp_path)
