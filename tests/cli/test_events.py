"""Networks of events, from a folder of recordings to the name of a class."""

import json
from pathlib import Path

import numpy as np
import pytest
from c_programs import compile_c, needs_compiler
from c_programs import run as run_program
from event_files import bs2

from bootstrap_core.data.events.binning import EventBins
from bootstrap_core.data.events.recordings import Events
from bootstrap_core.data.image_files import load_images

SIDE, LAST_US = 8, 60_000
DIRECTIONS = {"down": (0, 1), "left": (-1, 0), "right": (1, 0)}
SPEC = """
name: moves
time_steps: 5
neuron: {threshold: 1.0, voltage_decay: 0.03, tau_grad: 0.1}
input: {shape: [2, 8, 8], encoding: events, bin_us: 10000}
blocks:
  - {kind: conv, channels: 16, kernel: 3, padding: 1, weight_norm: true}
  - {kind: flatten}
  - {kind: affine, features: 3, weight_norm: true}
training:
  {data: DATA, epochs: 6, snn_epochs: 6, batch_size: 8, validation: 12, snn_learning_rate: 0.02, initialize: true,
  augment: {shift: 1, drop: 0.1}}
"""


def moving(direction: tuple[int, int], rng: np.random.Generator) -> Events:
    """Return the events of a bar that crosses the sensor: ON where it comes, OFF where it was."""
    along, across = rng.integers(0, SIDE, (2, 150))
    t = ((along + rng.uniform(0, 1, 150)) * LAST_US / SIDE).astype(int)
    p = rng.integers(0, 2, 150)
    place = (along - (p == 0)) % SIDE
    x, y = (place, across) if direction[0] else (across, place)
    if direction[0] < 0:
        x = SIDE - 1 - x
    return Events.of({"x": x, "y": y, "p": p, "t": t}, "")


@pytest.fixture(scope="module")
def moves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder of recordings for each direction of movement."""
    folder, rng = tmp_path_factory.mktemp("events") / "moves", np.random.default_rng(0)
    for part, n in (("Train", 24), ("Test", 8)):
        for name, direction in DIRECTIONS.items():
            (folder / part / name).mkdir(parents=True)
            for i in range(n):
                (folder / part / name / f"{i:02}.bin").write_bytes(bs2(moving(direction, rng)))
    return folder


@pytest.fixture
def spec(moves: Path, tmp_path: Path) -> Path:
    (tmp_path / "moves.yaml").write_text(SPEC.replace("DATA", str(moves)))
    return tmp_path / "moves.yaml"


def test_recordings_train_a_network_that_names_others(run, spec, moves, tmp_path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    told = run("predict", spec, picture, code=1).stderr
    assert "a.png: moves takes recordings of events, not images" in " ".join(told.split())
    told = run("train", spec, "-o", tmp_path / "run", "--json")
    found = json.loads(told.stdout)
    model = tmp_path / "run" / "model.safetensors"
    assert found["test"]["snn"] > 0.9
    assert "24 of 24 recordings go on after 50 ms, the last time step: their last" in " ".join(told.stderr.split())
    scored = json.loads(run("eval", model, "--data", moves, "--engine", "integer", "--json").stdout)
    assert scored["results"][0]["accuracy"] == found["test"]["snn"]
    few = json.loads(run("eval", model, "--data", moves, "--time-steps", "1,5", "--json").stdout)["results"]
    assert few[0]["accuracy"] < few[1]["accuracy"] == found["test"]["snn"]
    longer = run("eval", model, "--data", moves, "--time-steps", "1,9,5,6", "--json")
    assert [row["accuracy"] for row in json.loads(longer.stdout)["results"]] == [row["accuracy"] for row in few]
    assert "--time-steps 9, 6: left out, as the recordings have 5 time steps" in " ".join(longer.stderr.split())
    told = run("eval", model, "--data", moves, "--time-steps", 6, code=1).stderr
    assert "time_steps must be at most 5" in " ".join(told.split())

    rng, new = np.random.default_rng(9), tmp_path / "new"
    new.mkdir()
    for i, direction in enumerate(DIRECTIONS.values()):
        events = moving(direction, rng)
        (new / f"{i}.bs2").write_bytes(bs2(events))
        np.savez(new / f"{i + 3}.npz", **events._asdict())
    told = run("predict", model, new, "--json")
    rows = json.loads(told.stdout)["predictions"]
    assert [row["name"] for row in rows] == [*DIRECTIONS] * 2
    assert rows[0]["scores"] == rows[3]["scores"]
    assert "0.bs2: 150 events in 5" in told.stderr
    assert "after 50 ms, the last time step, left out\n" in told.stderr
    told = run("predict", model, new / "0.bs2", "--time-steps", 9)
    assert "ms, no events in the last 3 of 9 time steps" in told.stderr
    assert told.stdout.split()[0] == "recording"
    run("predict", model, new / "0.bs2", "--animate", tmp_path / "a.gif")

    assert "0 of " in run("verify", model).stdout

    card = run("card", model, "--data", moves).stdout
    assert "encoding: events" in card
    page = tmp_path / "a.html"
    run("gallery", model, "--data", moves, "-o", page)
    assert "animation of the events of a test recording of class down, ON amber and OFF blue" in page.read_text()


def test_arrays_of_events_are_the_recordings_that_they_were_made_of(run, spec, moves, tmp_path) -> None:
    dataset = load_images(moves, events=EventBins((2, SIDE, SIDE), time_steps=5))
    arrays = {"x_train": dataset.train, "x_test": dataset.test}
    labels = {"y_train": dataset.train.labels, "y_test": dataset.test.labels, "classes": np.array(dataset.classes)}
    np.savez(tmp_path / "moves.npz", **{name: split.images[:] for name, split in arrays.items()}, **labels)
    scores = []
    for data in (moves, tmp_path / "moves.npz"):
        found = run("train", spec, "-o", tmp_path / f"run-{data.suffix}", "--data", data, "--epochs", "2", "--json")
        scores.append({**json.loads(found.stdout), "model": "", "data": ""})
    assert scores[0] == scores[1]


@needs_compiler
def test_recordings_are_scored_in_c(run, spec, moves, tmp_path) -> None:
    model, source, raw = (tmp_path / name for name in ("moves.safetensors", "moves.c", "moves.raw"))
    run("build", spec, "-o", model)
    run("convert", model, "-o", source)
    data = "--data", moves, "--classes", "down,left,right"
    assert f"{raw}: 24 recordings of 5 steps, 640 bytes each" in run("data", "export", model, *data, "-o", raw).stdout
    lines = run_program(compile_c(source, "-DSNN_STDIN"), raw.read_bytes()).stdout.splitlines()
    labels = raw.with_suffix(".labels").read_text().split()
    right = sum(line.split()[0].decode() == label for line, label in zip(lines, labels, strict=True))
    scored = json.loads(run("eval", model, *data, "--engine", "integer", "--json").stdout)["results"][0]
    assert right / 24 == scored["accuracy"]
    assert "recording" in run("show", model).stdout.split("As C source")[1]


def test_a_network_without_weights_goes_through_every_command_but_training(run, spec, moves, tmp_path) -> None:
    spec.write_text(
        f"{{name: counts, time_steps: 5, input: {{shape: [3], encoding: events, bits: 4}}, "
        f"training: {{data: {moves}, validation: 3}}, blocks: [{{kind: average, features: 3}}]}}"
    )
    counts = np.random.default_rng(0).integers(0, 16, (12, 5, 3)).astype(np.uint8)
    np.savez(tmp_path / "counts.npz", x=counts, y=counts.sum(1).argmax(1), classes=np.array(list("012")))
    model, data = tmp_path / "counts.safetensors", ("--data", tmp_path / "counts.npz")
    run("build", spec, "-o", model)
    run("show", model)
    for engine in ("torch", "integer"):
        scored = json.loads(run("eval", model, *data, "--engine", engine, "--json").stdout)["results"]
        assert scored[0]["accuracy"] == 1
    assert "0 of " in run("verify", model).stdout
    run("card", model, *data)
    run("gallery", model, *data, "-o", tmp_path / "a.html")
    run("migrate", model, "-o", tmp_path / "plain.safetensors", "--to", "plain")
    for suffix in (".net", ".c"):
        run("convert", model, "-o", tmp_path / f"counts{suffix}")
    run("verify", tmp_path / "counts.net")
    told = run("train", spec, "-o", tmp_path / "run", *data, code=1).stderr
    assert "counts has no weights to train" in " ".join(told.split())


def test_what_is_no_recording_is_told(run, spec, tmp_path) -> None:
    (tmp_path / "a.bin").write_bytes(b"hello there")
    (tmp_path / "b.bin").write_bytes(bs2(Events.of({"x": np.array([9]), "t": np.array([5])}, "")))
    (tmp_path / "c.bin").write_bytes(bs2(Events.of({"x": np.array([1]), "t": np.array([50_000])}, "")))
    (tmp_path / "empty").mkdir()
    told = run("predict", spec, *(tmp_path / name for name in ("a.bin", "b.bin", "c.bin", "empty")), code=1)
    assert "c.bin" in told.stdout
    stderr = " ".join(told.stderr.split())
    assert "c.bin is blank for the network" in stderr
    assert "a.bin: 11 bytes are not a whole number of events of 5 bytes" in stderr
    assert "x of event 0 is 9, outside the sensor of 8 rows and 8 columns: input.shape must be that" in stderr
    assert "empty is a folder without .bin, .bs1, .bs2, .npy, .npz files" in stderr


def test_networks_and_data_of_other_kinds_are_refused(run, spec, moves, tmp_path) -> None:
    (tmp_path / "still.yaml").write_text(spec.read_text().replace(", encoding: events, bin_us: 10000", ""))
    names = ["--classes", "down,left,right"]
    told = run("eval", tmp_path / "still.yaml", "--data", moves, *names, code=1).stderr
    assert "moves has recordings of events; the network takes images" in " ".join(told.split())
    told = run("eval", tmp_path / "still.yaml", "--data", "nmnist-simulated-sample", code=1).stderr
    assert "nmnist-simulated-sample has recordings of events; the network takes images" in " ".join(told.split())
    told = run("eval", spec, "--data", "mnist-sample", code=1).stderr
    assert "mnist-sample has images; the network takes recordings of events" in " ".join(told.split())
    np.savez(tmp_path / "still.npz", x=np.zeros((10, 2, 8, 8), np.uint8), y=np.arange(10) % 3)
    told = run("eval", spec, "--data", tmp_path / "still.npz", code=1).stderr
    assert "still.npz: x must have the shape [N, T, 2, 8, 8] of events" in " ".join(told.split())
    told = run("train", spec, "-o", tmp_path / "run", "--set", "training.augment.degrees=5", code=1).stderr
    assert "training.augment.degrees: applies to images, not to events: remove it" in " ".join(told.split())
