"""Reports of epochs: accuracies or errors, read again from JSON."""

import json
from dataclasses import asdict

import pytest
from pydantic import TypeAdapter, ValidationError

from bootstrap_core.training.epoch_report import AccuracyReport, EpochReport, ErrorReport, Report

COMMON = {"epoch": 2, "seconds": 1.5, "learning_rate": 0.1, "training_loss": 0.25, "validation_ann_loss": None}
COMMON |= {"validation_snn_loss": 1.0, "best": True, "overflow": "block 1", "precision": "float64"}
ADAPTER: TypeAdapter[EpochReport] = TypeAdapter(Report)


@pytest.mark.parametrize(("kind", "key"), [(AccuracyReport, "accuracy"), (ErrorReport, "error")])
def test_a_line_of_json_says_of_which_kind_it_is(kind: type[EpochReport], key: str) -> None:
    scores = {f"training_{key}": 0.5, f"validation_ann_{key}": None, f"validation_snn_{key}": 0.75}
    report = kind(**COMMON, **scores)
    found = ADAPTER.validate_json(json.dumps(asdict(report)))
    assert (found, type(found)) == (report, kind)
    assert (found.training_score, found.validation_ann_score, found.validation_snn_score) == (0.5, None, 0.75)
    assert found.measure.key == key


def test_a_report_with_both_or_neither_is_refused() -> None:
    for scores in ({}, {"validation_snn_error": 1.0}):
        with pytest.raises(ValidationError, match="training_"):
            ADAPTER.validate_python({**COMMON, **scores})
