import json
import math

import pytest

from bootstrap_core.tasks.evaluation import ACCURACY, ERROR, Measure
from bootstrap_core.training.history import REPORT, EpochReport, LearningStat, LearningStats
from specs.errors import SnnZooError


def three_epochs() -> LearningStats:
    """Return statistics of three epochs: training and ANN in each, SNN in epochs 0 and 2 only."""
    stats = LearningStats()
    for epoch, (training, testing, snn) in enumerate([(5, 4, 3), (7, 6, 0), (8, 5, 4)]):
        stats.training.add(loss=1.0 / (epoch + 1), correct=training, n=10)
        stats.testing.add(loss=2.0 / (epoch + 1), correct=testing, n=10)
        if epoch != 1:
            stats.snn.add(loss=3.0 / (epoch + 1), correct=snn, n=10)
        stats.update()
    return stats


def test_loss_is_the_mean_over_samples_not_over_batches() -> None:
    stat = LearningStat()
    stat.add(loss=1.0, correct=3, n=3)
    stat.add(loss=5.0, correct=0, n=1)
    assert (stat.loss, stat.score) == (2.0, 0.75)
    assert (stat.loss_sum, stat.correct_samples, stat.num_samples) == (8.0, 3, 4)


def test_empty_epoch_is_none_and_none_correct_is_zero() -> None:
    stat = LearningStat()
    assert (stat.loss, stat.score, stat.best_epoch, stat.improved) == (None, None, None, False)
    stat.add(loss=math.nan, correct=0, n=0)  # the mean loss of an empty batch
    assert stat.loss is None
    stat.update()
    assert (stat.loss_log, stat.score_log) == ([None], [None])
    assert (stat.min_loss, stat.best_score, stat.improved) == (None, None, False)
    stat.add(loss=1.0, correct=0, n=5)
    stat.update()
    assert (stat.best_score, stat.best_epoch, stat.improved) == (0.0, 1, True)


@pytest.mark.parametrize(("correct", "n"), [(-1, 3), (4, 3), (0, -1)])
def test_impossible_counts_are_refused(correct: int, n: int) -> None:
    with pytest.raises(SnnZooError, match=rf"correct = {correct} of n = {n}"):
        LearningStat().add(1.0, correct, n)


def test_of_equal_scores_the_lower_loss_is_better() -> None:
    stat, improved = LearningStat(), []
    for loss in (2.0, 1.0, 1.0, math.inf, 0.5):
        stat.add(loss, 7, 10)
        stat.update()
        improved.append((stat.improved, stat.best_epoch))
    assert improved == [(True, 0), (True, 1), (False, 1), (False, 1), (True, 4)]


def test_a_diverged_loss_is_logged_but_never_the_best() -> None:
    stat = LearningStat()
    for loss in (math.nan, -math.inf, 2.0, 1.0, 3.0):
        stat.add(loss, 1, 2)
        stat.update()
    assert math.isnan(stat.loss_log[0] or 0.0)
    assert stat.min_loss == 1.0


def test_records_line_the_states_up_by_epoch() -> None:
    records = three_epochs().records()
    assert [record["epoch"] for record in records] == [0, 1, 2]
    assert records[1] == {
        "epoch": 1,
        "training": {"loss": 0.5, "accuracy": 0.7},
        "testing": {"loss": 1.0, "accuracy": 0.6},
        "snn": {"loss": None, "accuracy": None},
    }


def test_records_of_states_closed_one_by_one() -> None:
    stats = LearningStats()
    stats.training.add(1.0, 1, 2)
    stats.training.update()
    assert stats.records()[0]["snn"] == {"loss": None, "accuracy": None}


# --- Errors


def two_epochs() -> LearningStats:
    stats = LearningStats(ERROR)
    for training, snn in ((4.0, 0.25), (1.0, 0.36)):
        stats.training.add(training, 0, 3)
        stats.snn.add(snn, 0, 5)
        stats.update()
    return stats


def test_errors_are_roots_of_losses_and_the_lowest_is_the_best() -> None:
    stats = two_epochs()
    assert (stats.training.score_log, stats.snn.score_log) == ([2.0, 1.0], [0.5, 0.6])
    assert (stats.snn.best_score, stats.snn.best_epoch, stats.snn.improved) == (0.5, 0, False)
    assert stats.training.improved
    assert stats.testing.best_score is None
    stats.snn.add(9.0, 0, 1)
    stats.snn.add(1.0, 0, 3)
    assert stats.snn.score == math.sqrt(3)
    assert stats.records()[1] == {
        "epoch": 1,
        "training": {"loss": 1.0, "error": 1.0},
        "testing": {"loss": None, "error": None},
        "snn": {"loss": 0.36, "error": 0.6},
    }
    assert str(two_epochs()).splitlines()[2] == (
        "snn       loss   0.36000 (best 0.25000)   rms error  0.60000 (best 0.50000, epoch 0)"
    )


def test_a_diverged_error_is_not_the_best() -> None:
    stats = LearningStats(ERROR)
    for loss in (math.nan, math.inf, 4.0):
        stats.snn.add(loss, 0, 1)
        stats.update()
    assert (stats.snn.best_score, stats.snn.best_epoch) == (2.0, 2)


# --- Reports of epochs

COMMON = {"epoch": 2, "seconds": 1.5, "learning_rate": 0.1, "training_loss": 0.25, "validation_ann_loss": None}
COMMON |= {"validation_snn_loss": 1.0, "best": True, "overflow": "block 1", "precision": "float64"}


@pytest.mark.parametrize("measure", [ACCURACY, ERROR])
def test_scores_of_reports_have_the_name_of_their_measure_in_json(measure: Measure) -> None:
    report = EpochReport(
        **COMMON, measure=measure, training_score=0.5, validation_ann_score=None, validation_snn_score=0.75
    )
    document = json.loads(json.dumps(report.document()))
    key = measure.key
    assert [document[f"{part}_{key}"] for part in ("training", "validation_ann", "validation_snn")] == [0.5, None, 0.75]
    assert REPORT.validate_python(document) == report
