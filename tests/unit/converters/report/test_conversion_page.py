"""The page of a conversion shows all its results. Rules for all pages are in test_every_page.py."""

from dataclasses import replace

import pytest
import torch

from converters.ann_to_snn.onnx_conversion import import_onnx
from converters.report.comparison import measure_conversion
from converters.report.network_figures import Example
from converters.report.pages import conversion_page
from converters.report.rendering import score_rows, visible

SECTIONS = ["accuracy", "steps", "nodes", "layers", "confusion", "energy", "examples", "files"]


@pytest.fixture(scope="module")
def html(conversion_html) -> str:
    return conversion_html


@pytest.fixture(scope="module")
def page(html, parse):
    return parse(html)


def test_hostile_names_are_text(page, html) -> None:
    for name in ("<u>.onnx", "<i>.net"):
        assert name in page.text
        assert name not in html
    assert "\u202e" not in html
    assert "flat\N{REPLACEMENT CHARACTER}" in page.text


def test_every_figure_of_the_conversion_is_on_it(page, conversion) -> None:
    words = page.text.replace("\N{NO-BREAK SPACE}", " ")
    for accuracy in [conversion.ann, *conversion.converted.values()]:
        assert f"{100 * accuracy:.2f} %" in words
    for node in conversion.nodes:
        assert visible(node["name"]) in words
        assert node["reason"] in words
    assert f"{conversion.imported.max_abs_error:.2e}" in words
    assert f"{sum(conversion.score.synops):,.0f}" in words
    for said in (
        *conversion.notes,
        conversion.judged_by,
        "converted (written)",
        "Horowitz",
        "Davies",
        "not measured on hardware",
        "23.6 pJ",
        "0f" * 32,
    ):
        assert said in words
    assert str(conversion.candidate.input_form) in words


def test_without_data_the_page_says_so(onnx_file, parse) -> None:
    conversion = import_onnx(onnx_file)
    page = parse(conversion_page(conversion, None, source="x.onnx", command="c", outputs=[]))
    assert page.text.count("Not measured: no data.") == 5
    assert "No data was given" in page.text
    assert 'alert("1")' in page.text


def test_gaps_and_disagreements_and_tuning_show(conversion, parse) -> None:
    figures = measure_conversion(conversion)
    network = replace(figures.network, by_steps={**figures.network.by_steps, 64: None})
    tuned = replace(conversion, tuned={16: 0.4321, 8: 0.4321, 4: None}, written="tuned")
    page = parse(conversion_page(tuned, replace(figures, network=network), source="x", command="c", outputs=[]))
    assert "a state exceeds 24 bits" in page.text
    assert "overflows" in page.text
    assert "43.21" in page.text
    assert "tuned (written)" in page.text
    example, ann = figures.examples[-1]
    swapped = replace(figures, examples=[(example, -ann)], agreement=0.5)
    text = parse(conversion_page(conversion, swapped, source="x", command="c", outputs=[])).text
    assert "ANN and SNN disagree." in text
    assert "✗ wrong" in text


def test_scores_of_many_classes_are_the_highest_of_both() -> None:
    scores, ann = torch.arange(100.0), -torch.arange(100.0)
    example = Example(torch.zeros(1, 2, 2, dtype=torch.uint8), 0, scores[None], ())
    rows = score_rows(example, ann)
    assert [label for label, _ in rows] == [*range(5), *range(95, 100)]
    assert rows[0] == (0, [("ann", 0, 1), ("snn", 0, 0)])
    assert rows[-1] == (99, [("ann", -99, 0), ("snn", 99, 1)])
    assert [len(bars) for _, bars in score_rows(example)] == [1] * 10


def test_invisible_characters_are_shown() -> None:
    assert visible("a\x00\x1b\u202e\ud800b") == "a" + "\N{REPLACEMENT CHARACTER}" * 4 + "b"
    assert visible("a\tb\nü") == "a\tb\nü"
    assert visible(3) == 3
