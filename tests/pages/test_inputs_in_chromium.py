"""Galleries of each kind of input in a browser: the pixels on the screen are those of the picture."""

import io
import re
from base64 import b64decode
from pathlib import Path

import click.testing
import numpy as np
import pytest
from event_files import bs2
from PIL import Image
from sounds import save_wav, tone

from bootstrap_core.data.events.recordings import Events
from zoo.cli.program import zoo

PLACE = 96
"""Width of a picture on the page, in pixels."""
SPEC = """
name: fresh
time_steps: 6
neuron: {{threshold: 1.0}}
input: {input}
blocks:
  - {{kind: conv, channels: 2, kernel: 3, padding: 1}}
  - {{kind: flatten}}
  - {{kind: dense, features: 12}}
  - {{kind: affine, features: 2}}
"""
RNG = np.random.default_rng(0)


def images(*shape: int):
    """Return a writer of 40 images of noise."""

    def write(folder: Path) -> Path:
        np.savez(folder / "data.npz", x=RNG.integers(0, 256, (40, *shape), np.uint8), y=np.arange(40) % 2)
        return folder / "data.npz"

    return write


def sounds(folder: Path) -> Path:
    for name, hertz in (("0", 2500), ("1", 300)):
        for i in range(10):
            save_wav(folder / "sounds" / name / f"{i}.wav", tone(hertz, seconds=0.2))
    return folder / "sounds"


def recordings(height: int, width: int):
    """Return a writer of recordings of 400 events at random places."""

    def write(folder: Path) -> Path:
        for name in "01":
            (folder / "events" / name).mkdir(parents=True)
            for i in range(10):
                sizes = {"x": width, "y": height, "p": 2, "t": 60_000}
                events = Events.of({key: RNG.integers(0, size, 400) for key, size in sizes.items()}, "")
                (folder / "events" / name / f"{i}.bin").write_bytes(bs2(events))
        return folder / "events"

    return write


INPUTS = {
    "grey": ("{shape: [1, 9, 9]}", images(9, 9)),
    "wide": ("{shape: [1, 4, 12]}", images(4, 12)),
    "flat": ("{shape: [64]}", images(8, 8)),
    "colour": ("{shape: [3, 8, 8], encoding: graded}", images(8, 8, 3)),
    "sounds": ("{shape: [1, 12, 10], encoding: graded, log_mel: {bands: 12, frames: 10, range_db: 30}}", sounds),
    "columns": ("{shape: [12], encoding: events, bits: 2, log_mel: {bands: 12, frames: 6, range_db: 30}}", sounds),
    "events": ("{shape: [2, 34, 34], encoding: events, bin_us: 10000}", recordings(34, 34)),
    "wide events": ("{shape: [2, 8, 24], encoding: events, bin_us: 10000}", recordings(8, 24)),
    "high events": ("{shape: [2, 24, 8], encoding: events, bin_us: 10000}", recordings(24, 8)),
}


def is_flat(entering: str) -> bool:
    return re.search(r"shape: \[\d+\]", entering) is not None


@pytest.fixture
def page(tmp_path, kind) -> Path:
    entering, write = INPUTS[kind]
    text = SPEC.format(input=entering)
    if is_flat(entering):
        text = "".join(line for line in text.splitlines(True) if "conv" not in line and "flatten" not in line)
    (tmp_path / "fresh.yaml").write_text(text)
    options = "--data", write(tmp_path), "-o", tmp_path / "page.html"
    arguments = ["gallery", tmp_path / "fresh.yaml", *options]
    result = click.testing.CliRunner().invoke(zoo, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return tmp_path / "page.html"


@pytest.mark.parametrize("kind", ["grey", "sounds", "columns", "events"])
def test_the_page_calls_what_it_shows_by_its_name(browser, page, kind) -> None:
    word = {"grey": "image", "events": "recording"}.get(kind, "sound")
    browser.open(page)
    text = browser.run("document.body.innerText + [...document.images].map(i => i.alt).join()").lower()
    assert [other for other in ("image", "sound", "recording") if other in text] == [word]
    assert f"synops per {word}" in text


@pytest.mark.parametrize("kind", INPUTS)
def test_a_picture_of_the_input_fills_its_place(browser, page, kind, tmp_path) -> None:
    browser.open(page)
    browser.run(
        "document.getAnimations().forEach(a => { a.pause(); a.currentTime = 0.999 * a.effect.getTiming().duration; })"
    )
    source, film, x, y, width, height = browser.run("""(() => {
        const picture = document.querySelector('.sight > img'), box = picture.getBoundingClientRect();
        return [picture.src, picture.classList.contains('film'), box.x, box.y, box.width, box.height];
    })()""")
    whole = Image.open(io.BytesIO(b64decode(source.split(",")[1]))).convert("RGB")
    n_frames = 6 if film else 1
    frame = whole.crop(((n_frames - 1) * whole.width // n_frames, 0, whole.width, whole.height))  # the last one
    assert np.asarray(frame).std() > 20, "the picture is not of one colour"
    scale = PLACE / max(frame.size)
    sides = tuple(round(side * scale) for side in frame.size)
    left, top = ((PLACE - side) / 2 if not film else 0 for side in sides)
    assert (width, height) == pytest.approx(sides if film else (PLACE, PLACE), abs=1)

    screen = Image.open(browser.screenshot(tmp_path / "screen.png", whole=False)).convert("RGB")
    shown = screen.crop([round(side) for side in (x + left, y + top, x + left + sides[0], y + top + sides[1])])
    wanted = frame.resize(shown.size, Image.Resampling.NEAREST)
    inner = np.s_[3:-3, 3:-3]  # a film has round corners
    difference = np.abs(np.asarray(shown, float)[inner] - np.asarray(wanted, float)[inner])
    assert difference.mean() < 0.3 * np.asarray(wanted, float)[inner].std()
