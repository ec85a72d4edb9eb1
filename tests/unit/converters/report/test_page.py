"""The page is well-formed, fetches nothing, and says everything in words too."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from converters.onnx_conversion import convert_onnx
from converters.report.comparison import measure_conversion
from converters.report.measure import Example
from converters.report.page import conversion_page, score_rows, visible

VOID = {"meta", "link", "img", "br"}
SECTIONS = ["accuracy", "steps", "nodes", "layers", "confusion", "energy", "examples", "files"]
OUTPUTS = [{"path": "<i>.net", "format": "net", "sha256": "0f" * 32}]


class Page(HTMLParser):
    """Elements with their attributes; text by the element it stands in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def html(conversion) -> str:
    return conversion_page(
        conversion, measure_conversion(conversion), source="<u>.onnx", command="convert '<u>.onnx'", outputs=OUTPUTS
    )


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_every_section_is_there_and_the_links_reach_it(page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [link["href"] for link in page.all("a")] == [f"#{section}" for section in SECTIONS]
    assert set(SECTIONS) <= set(ids)
    for _, attributes in page.elements:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)


def test_nothing_is_fetched_and_nothing_runs(page, html) -> None:
    assert {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "base", "form"} == set()
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(
                "data:" if tag in {"img", "link"} and name in attributes else "#"
            )
    assert not re.search(r"url\(|@import|https?:", html)
    assert "default-src 'none'" in html


def test_every_picture_has_words(page) -> None:
    assert page.all("img")
    assert all(image["alt"] for image in page.all("img"))
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing["role"] == "img" and drawing["aria-labelledby"])


def test_tables_scroll_by_keyboard_in_named_regions(page) -> None:
    regions = [attributes for attributes in page.all("div") if attributes.get("class") == "scroll"]
    assert len(regions) == len(page.all("table")) == len(page.all("caption"))
    assert all((r["role"], r["tabindex"]) == ("region", "0") and r["aria-labelledby"] for r in regions)


def test_it_is_a_document_for_phones_and_for_the_dark(page, html) -> None:
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert any(meta.get("name") == "viewport" and "width=device-width" in meta["content"] for meta in page.all("meta"))
    assert "@media (prefers-color-scheme: dark)" in html


def test_hostile_names_are_text(page, html) -> None:
    for name in ('<script>alert("1")</script>', "<u>.onnx", "<i>.net", "<b>a", "drawn <at> random"):
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
    for said in (*conversion.notes, "Horowitz", "Davies", "not measured on hardware", "23.6 pJ", "0f" * 32):
        assert said in words
    assert str(conversion.candidate.input_form) in words


def test_without_data_the_page_says_so(onnx_file) -> None:
    conversion = convert_onnx(onnx_file)
    page = Page(conversion_page(conversion, None, source="x.onnx", command="c", outputs=OUTPUTS))
    assert page.text.count("Not measured: no data.") == 5
    assert "No data was given" in page.text
    assert 'alert("1")' in page.text


def test_gaps_and_disagreements_and_tuning_show(conversion) -> None:
    figures = measure_conversion(conversion)
    network = replace(figures.network, by_steps={**figures.network.by_steps, 64: None})
    tuned = replace(conversion, tuned={16: 0.4321, 8: 0.4321, 4: None})
    page = Page(conversion_page(tuned, replace(figures, network=network), source="x", command="c", outputs=[]))
    assert "a state leaves 24 bits" in page.text
    assert "overflows" in page.text
    assert "43.21" in page.text
    example, ann = figures.examples[-1]
    swapped = replace(figures, examples=[(example, -ann)], agreement=0.5)
    text = Page(conversion_page(conversion, swapped, source="x", command="c", outputs=[])).text
    assert "They disagree." in text
    assert "✗ wrong" in text


def test_scores_of_many_classes_are_the_highest_of_both() -> None:
    scores, ann = torch.arange(100.0), -torch.arange(100.0)
    example = Example(torch.zeros(1, 2, 2, dtype=torch.uint8), 0, scores[None], ())
    rows = score_rows(example, ann)
    assert [row.label for row in rows] == [*range(5), *range(95, 100)]
    assert (rows[0].snn, rows[0].snn_part, rows[0].ann, rows[0].ann_part) == (0, 0, 0, 1)
    assert (rows[-1].snn_part, rows[-1].ann_part) == (1, 0)
    assert [row.ann for row in score_rows(example)] == [None] * 10


def test_invisible_characters_are_shown() -> None:
    assert visible("a\x00\x1b\u202e\ud800b") == "a" + "\N{REPLACEMENT CHARACTER}" * 4 + "b"
    assert visible("a\tb\nü") == "a\tb\nü"
    assert visible(3) == 3
