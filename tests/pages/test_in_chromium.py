"""Pages in a browser: no errors, no requests, no wider than a phone, usable by mouse and by keyboard."""

import json
from pathlib import Path

import click.testing
import numpy as np
import pytest

from zoo.cli.program import zoo

PHONE = 390
KINDS = ["gallery", "report", "graph", "drawing"]
ONNX = Path(__file__).parents[1] / "golden" / "onnx" / "mlp-fixed-15.onnx"


def run(*arguments: object) -> None:
    result = click.testing.CliRunner().invoke(zoo, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def pages(browser, tmp_path_factory) -> dict[str, Path]:
    """One page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    images = np.random.default_rng(0).integers(0, 256, (120, 8, 8), np.uint8)
    np.savez(folder / "noise.npz", x=images, y=np.arange(120) % 5)
    paths = {kind: folder / f"{kind}.{'svg' if kind == 'drawing' else 'html'}" for kind in KINDS}
    run("gallery", "mnist-dense-shallow", "-o", paths["gallery"], "--data", "mnist-sample", "--limit", 40)
    options = "--data", folder / "noise.npz", "--epochs", 0, "--report", paths["report"]
    run("convert", ONNX, "-o", folder / "noise.net", *options)
    run("show", "mnist-conv", "--graph", paths["graph"])
    run("show", "mnist-conv", "--graph", paths["drawing"])
    return paths


def quiet(browser, path: Path) -> None:
    """Check that the console is empty and only the file itself was requested."""
    assert browser.said == []
    assert {url for url in browser.requested if not url.startswith("data:")} == {path.as_uri()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, 1200])
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_opens_without_a_word_and_fits_its_window(browser, pages, kind, width, scheme) -> None:
    browser.open(pages[kind], width=width, prefers_color_scheme=scheme)
    quiet(browser, pages[kind])
    assert browser.run("document.documentElement.scrollWidth") <= width
    root = "document.body" if kind != "drawing" else "document.querySelector('.ground')"
    colour = browser.run(f"getComputedStyle({root}).{'fill' if kind == 'drawing' else 'backgroundColor'}")
    assert (sum(json.loads(f"[{colour[4:-1]}]")) > 382) == (scheme == "light")
    if kind != "drawing":
        broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth || !i.alt).length"
        assert browser.run(broken) == 0


def click_all(browser, selector: str) -> int:
    """Click each element in turn; return the number of elements."""
    n = browser.run(f"document.querySelectorAll('{selector}').length")
    for i in range(n):
        place = browser.run(f"""(() => {{
            const element = document.querySelectorAll('{selector}')[{i}];
            element.scrollIntoView({{block: 'center', behavior: 'instant'}});
            const box = element.getBoundingClientRect();
            return [box.x + 10, box.y + box.height / 2];
        }})()""")
        browser.click(*place)
    return n


@pytest.mark.parametrize("kind", ["gallery", "report"])
def test_every_link_and_fold_answers_to_the_mouse(browser, pages, kind) -> None:
    browser.open(pages[kind], prefers_reduced_motion="reduce")  # a smooth scroll would move the next target
    assert click_all(browser, "nav a") > 5
    assert browser.run("location.hash === [...document.querySelectorAll('nav a')].at(-1).hash")
    assert browser.run("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    folds = "[...document.querySelectorAll('details')].map(fold => fold.open)"
    before = browser.run(folds)
    assert click_all(browser, "summary") == len(before) > 6
    assert browser.run(folds) == [not was_open for was_open in before]
    quiet(browser, pages[kind])


@pytest.mark.parametrize("kind", KINDS[:3])
def test_tab_reaches_everything_that_acts_or_scrolls(browser, pages, kind) -> None:
    browser.open(pages[kind], width=PHONE)
    wanted = "a[href], summary, input, [tabindex='0']"
    n_wanted = browser.run(f'[...document.querySelectorAll("{wanted}")].filter(e => e.checkVisibility()).length')
    assert n_wanted > 0
    reached = set()
    for _ in range(n_wanted + 1):
        browser.press("Tab")
        reached.add(browser.run("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert browser.run(f"[...document.querySelectorAll(\"{wanted}\")].filter(e => e.checkVisibility()).every(e => "
                       f"{sorted(reached)}.includes([...document.querySelectorAll('*')].indexOf(e)))")  # fmt: skip
    quiet(browser, pages[kind])


MOVING = "document.getAnimations().filter(a => a.playState === 'running').length"


def test_space_stops_the_spikes_and_starts_them_again(browser, pages) -> None:
    browser.open(pages["gallery"], prefers_reduced_motion="no-preference")
    n_films = browser.run("document.querySelectorAll('.film, .playhead').length")
    assert browser.run(MOVING) == n_films > 0
    assert browser.run("document.querySelector('#pause').checkVisibility()")
    assert not browser.run("document.querySelector('#play').checkVisibility()")
    browser.run("document.querySelector('#pause').focus()")
    for expected in (0, n_films):
        browser.press("Space")
        assert browser.run(MOVING) == expected
    quiet(browser, pages["gallery"])


def test_nothing_moves_unasked_where_motion_is_unwanted(browser, pages) -> None:
    browser.open(pages["gallery"], prefers_reduced_motion="reduce")
    assert browser.run(MOVING) == 0
    browser.run("document.querySelector('#play').focus()")
    browser.press("Space")
    assert browser.run(MOVING) == browser.run("document.querySelectorAll('.film, .playhead').length") > 0
