import json
from dataclasses import replace

import pytest

from bootstrap_core.tasks.evaluation import ACCURACY
from bootstrap_core.training.history import EpochReport
from specs import IntegrityError, SnnZooError
from zoo.card import Training
from zoo.runs.training_run import read_curves, reports_of

REPORTS = [
    EpochReport(
        measure=ACCURACY, epoch=epoch, seconds=2.5 + epoch, learning_rate=1.2345678e-4, training_loss=1.5,
        training_score=0.5, validation_ann_loss=0.25, validation_ann_score=0.6, validation_snn_loss=0.75,
        validation_snn_score=accuracy, best=best,
    )
    for epoch, (accuracy, best) in enumerate([(0.7, True), (0.6, False), (0.8, True), (0.8, False)])
]  # fmt: skip


def test_curves_are_the_columns_of_the_metrics_and_come_back_as_reports(tmp_path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(report.document()) + "\n" for report in REPORTS))
    curves = read_curves(tmp_path)
    assert curves.seconds == (2.5, 3.5, 4.5, 5.5)
    assert curves.learning_rate[0] == 1.23457e-4
    found = reports_of(Training(recipe=None, epoch=2, validation_accuracy=0.8, curves=curves))
    assert found == [replace(report, learning_rate=1.23457e-4) for report in REPORTS]


def test_the_last_star_is_that_of_the_epoch_that_was_kept(tmp_path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(report.document()) + "\n" for report in REPORTS))
    for kept, stars in ((1, [0, 1]), (0, [0]), (3, [0, 2, 3])):
        training = Training(recipe=None, epoch=kept, validation_accuracy=0.6, curves=read_curves(tmp_path))
        assert [report.epoch for report in reports_of(training) if report.best] == stars


def test_curves_that_are_none_are_told(tmp_path) -> None:
    with pytest.raises(SnnZooError, match="no learning curves"):
        read_curves(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 0}\n')
    with pytest.raises(IntegrityError, match=r"metrics\.jsonl"):
        read_curves(tmp_path)
