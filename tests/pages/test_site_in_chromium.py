"""The site of an index in a browser: its models answer there as the integer engine does, and nothing else runs."""

import base64
import io
import json
import shutil
import time
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
import torch
from event_files import bs2
from live_pages import READY, answers_in_page, answers_of_engine, served
from PIL import Image
from sounds import tone, wav

from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.data.events.recordings import Events
from converters.formats.safetensors_file import write_safetensors
from converters.model import Model
from zoo.card import Card, FileFacts, dump_card, load_card, revision_of
from zoo.cli.program import zoo
from zoo.factory import model_file, packaged_model
from zoo.hub.publish import publish
from zoo.prediction import predict_files
from zoo.runs.card_files import card_file

needs_clang = pytest.mark.skipif(
    not all(map(shutil.which, ("clang", "wasm-ld"))), reason="needs clang and lld for WebAssembly"
)
MODELS = [
    *("mnist-dense-shallow", "cifar-10-jpeg-conv-t4", "nmnist-conv", "spoken-digits", "spoken-digits-recurrent"),
    "yin-yang",
]
PHONE = 360
HOSTILE = "<img src=x onerror=hacked=1></script><script>hacked=1</script>{{ hacked }}\"'&amp;\x85"


def run(*arguments: object) -> None:
    result = click.testing.CliRunner().invoke(zoo, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def hostile_card(folder: Path) -> tuple[Path, Path]:
    """Write a model of four images, in whose card and classes each text is hostile."""
    model = packaged_model("mnist-dense-shallow")
    classes = [f"{i}{HOSTILE[:-1]}" for i in range(10)]
    file = write_safetensors(
        Model(model.spec, model.tensors, card={**model.card, "classes": classes}), folder / "model.safetensors"
    )
    facts, old = FileFacts.of_file(file), load_card(card_file("mnist-dense-shallow"))
    card = Card.model_validate({
        **dict(old),
        "name": "hostile",
        "files": {"safetensors": facts},
        "revision": revision_of(facts.sha256),
        "description": HOSTILE,
        "licence": HOSTILE,
        "data": old.data.model_copy(update={"name": HOSTILE, "credit": HOSTILE}),
        "commands": old.commands.model_copy(update={"train": HOSTILE, "eval": HOSTILE}),
    })  # fmt: skip
    dump_card(card, folder / "card.yaml")
    return file, folder / "card.yaml"


@pytest.fixture(scope="module")
def site(browser, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for name in MODELS:
        publish(model_file(name), card_file(name), str(folder / "index"))
    publish(*hostile_card(folder), str(folder / "index"), own_data=True)
    run("site", folder / "index", "-o", folder / "pages")
    return folder / "pages"


def open_model(browser, site: Path, name: str, **media: Any) -> Path:
    path = site / "models" / f"{name}.html"
    browser.open(path, **media)
    browser.wait(READY)
    return path


def quiet(browser, page: Path | str) -> None:
    assert browser.said == []
    url = page if isinstance(page, str) else page.as_uri()
    assert {url for url in browser.requested if not url.startswith("data:")} == {url}


def random_inputs(model: Model) -> torch.Tensor:
    entering, generator = model.spec.input, torch.Generator().manual_seed(1)
    steps = [model.spec.time_steps] if entering.is_timed else []
    largest = entering.largest if entering.is_timed else 255
    inputs = torch.randint(0, largest + 1, (8, *steps, *entering.shape), dtype=torch.uint8, generator=generator)
    return inputs * (torch.rand(inputs.shape, generator=generator) < 0.2)


@needs_clang
@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_as_the_integer_engine_does(browser, site, name) -> None:
    path = open_model(browser, site, name)
    model = packaged_model(name)
    inputs = random_inputs(model)
    if name.startswith("mnist"):
        inputs = torch.cat([inputs, load_dataset("mnist-sample").test.images[:40].flatten(1)])
    assert answers_in_page(browser, model, inputs) == answers_of_engine(model, inputs)
    quiet(browser, path)


@needs_clang
def test_a_page_of_a_web_server_answers(browser, site) -> None:
    with served(site) as url:
        browser.open(f"{url}/models/mnist-dense-shallow.html", prefers_reduced_motion="reduce")
        browser.wait(READY)
        model, inputs = packaged_model("mnist-dense-shallow"), load_dataset("mnist-sample").test.images[:5].flatten(1)
        assert answers_in_page(browser, model, inputs) == answers_of_engine(model, inputs)
        quiet(browser, f"{url}/models/mnist-dense-shallow.html")


def draw(browser, points: list[tuple[float, float]]) -> None:
    """Draw a line through points of the drawing area, 0..1, with the mouse."""
    x, y, side = browser.run("""(() => {
        const pad = document.getElementById("draw");
        pad.scrollIntoView({block: "center", behavior: "instant"});
        const box = pad.getBoundingClientRect();
        return [box.x, box.y, box.width];
    })()""")
    for i, (across, down) in enumerate(points):
        place = {"x": x + across * side, "y": y + down * side, "button": "left", "buttons": 1}
        browser.send("Input.dispatchMouseEvent", type="mouseMoved" if i else "mousePressed", clickCount=1, **place)
    browser.send("Input.dispatchMouseEvent", type="mouseReleased", **{**place, "buttons": 0}, clickCount=1)


SEVEN = [(0.25, 0.2), (0.5, 0.2), (0.75, 0.2), (0.65, 0.4), (0.55, 0.6), (0.45, 0.85)]
ZERO = [(0.5 + 0.22 * np.sin(a), 0.5 - 0.32 * np.cos(a)) for a in np.linspace(0, 2 * np.pi, 25)]
SAID = "document.getElementById('answer').textContent"


@needs_clang
@pytest.mark.parametrize(("digit", "points"), [("7", SEVEN), ("0", ZERO)])
def test_a_drawn_digit_is_read(browser, site, digit, points) -> None:
    path = open_model(browser, site, "mnist-dense-shallow", prefers_reduced_motion="reduce")
    hint = "getComputedStyle(document.querySelector('.pad'), '::after').content"
    assert browser.run(hint) == '"Draw here"'
    draw(browser, points)
    assert browser.run(hint) == "none"
    browser.wait(f"{SAID}.startsWith('{digit}: ')")
    assert "after 16 steps" in browser.run(SAID)
    quiet(browser, path)


@needs_clang
def test_four_values_are_not_drawn(browser, site) -> None:
    open_model(browser, site, "yin-yang", prefers_reduced_motion="reduce")
    assert not browser.run("document.getElementById('draw')")
    browser.run("document.querySelector('#examples-of-card button').click()")
    browser.wait(f"{SAID}.includes('after 16 steps')")


@needs_clang
def test_spikes_appear_step_by_step_and_the_slider_goes_back(browser, site) -> None:
    open_model(browser, site, "mnist-dense-shallow", prefers_reduced_motion="no-preference")
    step, drawn = (
        "document.getElementById('step').textContent",
        """(() => {
        const canvas = document.querySelector('#rasters canvas');
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((v, i) => i % 4 === 3 && v).length;
    })()""",
    )
    browser.wait(f"{step} === '16 of 16'")
    browser.wait(f"{SAID}.includes('after 16 steps')")
    whole = browser.run(drawn)
    browser.run(
        "(() => { const s = document.getElementById('steps'); s.value = 3; s.dispatchEvent(new Event('input')); })()"
    )
    assert "after 3 steps" in browser.run(SAID)
    assert 0 < browser.run(drawn) < whole
    browser.run("document.getElementById('play').click()")
    seen = set()
    while not seen or browser.run(step) != "16 of 16":
        seen.add(browser.run(step))
    assert len(seen) > 2


@needs_clang
def test_a_digit_is_drawn_by_keyboard_alone(browser, site) -> None:
    open_model(browser, site, "mnist-dense-shallow", prefers_reduced_motion="reduce")
    browser.run("document.getElementById('draw').focus()")
    for key in [*["ArrowUp"] * 6, "Space", *["ArrowDown"] * 12, "Space"]:
        browser.press(key)
    browser.wait(f"{SAID}.startsWith('1: ')")


@needs_clang
def test_an_example_and_a_time_step_are_chosen_by_keyboard_alone(browser, site) -> None:
    open_model(browser, site, "mnist-dense-shallow", prefers_reduced_motion="reduce")
    tab_to(browser, "#examples-of-card button:last-child")
    browser.press("Enter")
    label = browser.run("document.activeElement.textContent")
    browser.wait(f"{SAID}.startsWith('{label}: ')")
    tab_to(browser, "#steps")
    browser.press("ArrowDown")
    assert "after 15 steps" in browser.run(SAID)
    tab_to(browser, "#play")
    browser.press("Enter")
    browser.wait(f"{SAID}.includes('after 16 steps')")


def tab_to(browser, element: str) -> None:
    for _ in range(50):
        if browser.run(f"document.activeElement.matches('{element}')"):
            return
        browser.press("Tab")
    raise AssertionError(f"{element} is not reached")


def read_in_page(browser, name: str, data: bytes) -> Any:
    """Return the input of the network that the page makes of a dropped file, a list for each step."""
    text = base64.b64encode(data).decode()
    return browser.run(f"""snnzoo.read(new File([Uint8Array.from(atob("{text}"), c => c.charCodeAt(0))], "{name}"))
        .then(frames => frames.map(frame => [...frame]), error => error.message)""")


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def digit(size: int, *, paper: bool) -> Image.Image:
    pixels = load_dataset("mnist-sample").test.images[:1][0, 0].numpy()
    large = Image.fromarray(255 - pixels if paper else pixels).resize((size, size))
    wide = Image.new("L", (size + 30, size), 255 if paper else 0)
    wide.paste(large, (20, 0))
    return wide if size != 28 else large


@needs_clang
@pytest.mark.parametrize(("size", "paper"), [(28, False), (28, True), (90, False), (131, True)])
def test_a_dropped_image_becomes_the_pixels_of_zoo_predict(browser, site, tmp_path, size, paper) -> None:
    open_model(browser, site, "mnist-dense-shallow")
    (tmp_path / "digit.png").write_bytes(png(digit(size, paper=paper)))
    model = packaged_model("mnist-dense-shallow")
    (seen,) = predict_files(model.build(), [tmp_path / "digit.png"], data="mnist")
    wanted = (255 * seen.image).round().flatten()
    found = torch.tensor(read_in_page(browser, "digit.png", (tmp_path / "digit.png").read_bytes())[0])
    assert (found - wanted).abs().max() <= (0 if size == 28 else 1)
    assert (found != wanted).sum() <= 3
    assert "not an image" in read_in_page(browser, "digit.png", b"no image")


@needs_clang
@pytest.mark.parametrize("is_transparent", [False, True])
def test_a_dropped_photograph_becomes_the_pixels_of_zoo_predict(browser, site, tmp_path, is_transparent) -> None:
    open_model(browser, site, "cifar-10-jpeg-conv-t4")
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 4), np.uint8)
    pixels[..., 3] = np.where(pixels[..., 3] < 100, 0, 255) if is_transparent else 255
    Image.fromarray(pixels).resize((90, 70), Image.Resampling.NEAREST).save(tmp_path / "photo.png")
    (seen,) = predict_files(packaged_model("cifar-10-jpeg-conv-t4").build(), [tmp_path / "photo.png"])
    found = torch.tensor(read_in_page(browser, "photo.png", (tmp_path / "photo.png").read_bytes())[0])
    difference = (found - (255 * seen.image).round().flatten()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


@needs_clang
def test_a_recording_of_the_microphone_is_answered(browser, site) -> None:
    path = open_model(browser, site, "spoken-digits", prefers_reduced_motion="reduce")
    browser.run("document.getElementById('record').click()")
    browser.wait("document.getElementById('record').textContent === 'Stop'")
    time.sleep(1)  # the microphone beeps once a second
    browser.run("document.getElementById('record').click()")
    browser.wait(f"{SAID}.includes('after 8 steps')")
    assert browser.run("document.getElementById('record').textContent") == "Record"
    quiet(browser, path)


@needs_clang
@pytest.mark.parametrize("name", ["spoken-digits", "spoken-digits-recurrent"])
def test_a_dropped_sound_becomes_the_picture_of_zoo_predict(browser, site, tmp_path, name) -> None:
    open_model(browser, site, name)
    rng = np.random.default_rng(0)
    sweep = np.concatenate([tone(300), tone(900), tone(2000, seconds=0.2)])
    (tmp_path / "sound.wav").write_bytes(wav(sweep + 0.01 * rng.normal(size=len(sweep))))
    (seen,) = predict_files(packaged_model(name).build(), [tmp_path / "sound.wav"])
    found = read_in_page(browser, "sound.wav", (tmp_path / "sound.wav").read_bytes())
    scale = 255 if name == "spoken-digits" else 1
    assert torch.equal(torch.tensor(found).flatten().float(), (scale * seen.image).round().flatten())
    assert "not a sound" in read_in_page(browser, "sound.wav", b"RIFF")


@needs_clang
def test_a_dropped_recording_becomes_the_frames_of_zoo_predict(browser, site, tmp_path) -> None:
    open_model(browser, site, "nmnist-conv")
    rng = np.random.default_rng(0)
    events = Events.of(
        {key: rng.integers(0, n, 3000) for key, n in {"x": 34, "y": 34, "p": 2, "t": 320_000}.items()}, ""
    )
    data = bs2(events)
    half = len(data) // 10 * 5
    (tmp_path / "moves.bs2").write_bytes(data[:half] + bytes([0, 240, 0, 0, 0]) + data[half:])
    (seen,) = predict_files(packaged_model("nmnist-conv").build(), [tmp_path / "moves.bs2"])
    found = read_in_page(browser, "moves.bs2", (tmp_path / "moves.bs2").read_bytes())
    assert torch.equal(torch.tensor(found), seen.image.flatten(1).long())
    assert "row 99" in read_in_page(browser, "moves.bin", bytes([3, 99, 0, 0, 0]))
    assert "7 bytes" in read_in_page(browser, "moves.bin", bytes(7))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, 1200])
@pytest.mark.parametrize("page", ["index", "models/mnist-dense-shallow", "models/nmnist-conv", "models/hostile"])
def test_a_page_opens_without_a_word_and_fits_its_window(browser, site, page, width, scheme) -> None:
    path = site / f"{page}.html"
    browser.open(path, width=width, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    time.sleep(0.5)  # the model runs its first example
    assert browser.run("document.documentElement.scrollWidth") <= width
    colour = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(f"[{colour[4:-1]}]")) > 382) == (scheme == "light")
    quiet(browser, path)


@pytest.mark.parametrize("page", ["index", "models/hostile"])
def test_a_hostile_index_runs_nothing_and_shows_its_texts(browser, site, page) -> None:
    browser.open(site / f"{page}.html", prefers_reduced_motion="reduce")
    time.sleep(0.5)
    assert browser.run("typeof hacked") == "undefined"
    assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
    shown = browser.run("document.body.textContent + [...document.querySelectorAll('tr')].map(r => r.title).join()")
    assert "<img src=x onerror=hacked=1></script><script>hacked=1</script>{{ hacked }}" in shown
    assert "\x85" not in browser.run("document.documentElement.outerHTML")
    quiet(browser, site / f"{page}.html")


def test_no_other_script_may_run_in_a_page(browser, site) -> None:
    path = site / "models" / "mnist-dense-shallow.html"
    browser.open(path)
    browser.run("""(() => {
        const script = document.createElement("script");
        script.textContent = "hacked = 1";
        document.body.append(script);
    })()""")
    assert browser.run("typeof hacked") == "undefined"
    assert any("Content Security Policy" in said for said in browser.said)


NAMES = "[...document.querySelectorAll('tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].innerText)"


def test_the_table_of_models_is_sorted_and_filtered(browser, site) -> None:
    path = site / "index.html"
    browser.open(path)
    assert sorted(browser.run(NAMES)) == sorted([*MODELS, "hostile"])
    for names in (sorted, lambda found: sorted(found, reverse=True)):
        browser.run("document.querySelectorAll('thead button')[5].click()")
        sizes = browser.run("[...document.querySelectorAll('tbody tr')].map(r => Number(r.cells[5].dataset.value))")
        assert sizes == names(sizes)
    browser.run("document.getElementById('filter').focus()")
    browser.send("Input.insertText", text="spoken recurr")
    assert browser.run(NAMES) == ["spoken-digits-recurrent"]
    assert browser.run("document.getElementById('count').textContent") == f"1 of {len(MODELS) + 1} models"
    quiet(browser, path)
