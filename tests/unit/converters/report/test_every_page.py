"""Every page is well-formed, fetches nothing, and has a text for every picture."""

import re

import pytest

from converters.report.network_graph import graph_of_model, graph_page

HOSTILE = '<script>alert("1")</script>'


@pytest.fixture(scope="module", params=["conversion", "gallery", "graph"])
def html(request, model) -> str:
    if request.param == "graph":
        return graph_page(graph_of_model(model))
    return request.getfixturevalue(f"{request.param}_html")


@pytest.fixture(scope="module")
def page(html, parse):
    return parse(html)


def test_ids_are_unique_and_whatever_refers_to_one_finds_it(page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
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
    assert page.all("img", "svg")
    assert all(image["alt"] for image in page.all("img"))
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing["role"] == "img" and drawing["aria-labelledby"])


def test_what_files_say_is_text(page, html) -> None:
    assert HOSTILE not in html
    if page.all("article"):
        for said in (HOSTILE, "<b>a", "drawn <at> random"):
            assert said in page.text
