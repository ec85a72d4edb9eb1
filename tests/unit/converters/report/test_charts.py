import pytest
import torch

from converters.report.charts import BOTTOM, TOP, accuracy_chart, learning_charts, output_chart, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.971, 1.0, [0.97, 0.98, 0.99, 1.0]),
        (-3.2, 7, [-5, 0, 5, 10]),
        (2.0, 2.0, [1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 2.6]),
    ],
)
def test_ticks_are_round_and_hold_the_range(low, high, expected) -> None:
    assert ticks(low, high) == expected


def test_accuracy_rises_upwards_with_doublings_evenly_spaced_and_gaps() -> None:
    chart = accuracy_chart({1: 0.2, 2: 0.6, 4: None, 8: 1.0}, 0.9)
    ann, snn = chart.lines
    (one, two), (eight,) = snn.pieces
    assert two[0] - one[0] == pytest.approx((eight[0] - two[0]) / 2)
    assert one[1] > two[1] > eight[1] == TOP
    assert len({y for piece in ann.pieces for _, y in piece}) == 1
    assert [text for _, text in chart.x.labels] == ["1", "2", "4", "8"]
    assert chart.y.labels[0] == (BOTTOM, "20 %")
    assert chart.description == "ANN: 90.00 %. SNN: 20.00 % at T=1, 60.00 % at T=2, 100.00 % at T=8."


@pytest.mark.parametrize(
    ("steps", "labels"), [((1, 8, 16, 30), ["1", "8", "16", "30"]), ((1, 4, 5), ["1", "5"]), ((1,), ["1"])]
)
def test_the_longest_t_always_has_a_label(steps, labels) -> None:
    assert [text for _, text in accuracy_chart(dict.fromkeys(steps, 0.5)).x.labels] == labels


def test_the_answer_and_the_label_stand_out_of_the_output() -> None:
    over_time = torch.tensor([[0.0, 2.0, 1.0, 0.0], [0.5, 1.0, 1.5, 0.0], [0.5, 1.0, 2.0, 0.0]])
    chart = output_chart(over_time, "abcd", 1)
    assert {line.name: line.style for line in chart.lines} == {"a": "other", "d": "other", "b": "label", "c": "snn"}
    assert chart.description == "c leads from step 2 of 3 on."
    answer = chart.lines[-1]
    assert answer.name == "c"
    heights = [y for _, y in answer.pieces[0]]
    assert heights[0] > heights[1] > heights[2] == TOP
    right = output_chart(over_time, "abcd", 2)
    assert [line.style for line in right.lines].count("other") == 3
    assert right.lines[-1].style == "snn"


def test_learning_curves_run_over_the_epochs_with_gaps_where_a_loss_is_not_finite(reports) -> None:
    accuracy, loss = learning_charts(reports)
    assert [text for _, text in accuracy.x.labels] == ["1", "2", "3"]
    assert [line.style for line in accuracy.lines] == ["other", "ann", "snn"]
    (snn,) = accuracy.lines[2].pieces
    assert [x for x, _ in snn] == [accuracy.x.at(epoch) for epoch in (1, 2, 3)]
    assert [y for _, y in snn] == [accuracy.y.at(value) for value in (0.375, 0.8125, 0.8125)]
    assert accuracy.y.labels[0] == (BOTTOM, "20 %")
    assert "81.25 %, in epoch 2 of 3" in accuracy.description
    (training,), (ann,), _ = (line.pieces for line in loss.lines)
    assert [x for x, _ in training] == [loss.x.at(2), loss.x.at(3)]
    assert [y for _, y in ann] == [loss.y.at(value) for value in (1.5, 1.0, 1.0)]
    assert "training 0.2500, validation, ANN 1.0000, validation, SNN 1.5000" in loss.description
