"""Networks of sounds, from a folder of recordings to the name of a class."""

import json

import numpy as np
import pytest
from PIL import Image
from sounds import save_wav, tone

from bootstrap_core import IntegerNetwork
from bootstrap_core.data.sound_files import sound_inputs
from converters.formats.model_files import read_model

TONES = {"high": 2500, "low": 300, "middle": 900}
SPEC = """
name: tones
time_steps: 4
neuron: {threshold: 1.0, voltage_decay: 0.03, tau_grad: 0.1}
input: {shape: [1, 12, 10], encoding: graded, log_mel: {bands: 12, frames: 10, range_db: 30}}
blocks:
  - {kind: conv, channels: 8, kernel: 5, stride: 2, padding: 2, weight_norm: true}
  - {kind: flatten}
  - {kind: affine, features: 3, weight_norm: true}
training: {data: DATA, epochs: 8, batch_size: 8, validation: 12, learning_rate: 0.02, sample_iterations: 3}
"""


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """A folder with a folder of recordings for each class: noisy tones of slightly different pitch."""
    folder, generator = tmp_path_factory.mktemp("sounds") / "tones", np.random.default_rng(0)
    for name, hertz in TONES.items():
        for i in range(30):
            clean = tone(hertz * generator.uniform(0.9, 1.1), seconds=0.2)
            noisy = clean + generator.normal(0, 0.02, clean.shape)
            save_wav(folder / name / f"{i:02}.wav", noisy)
    return folder


@pytest.fixture
def spec(tones, tmp_path):
    (tmp_path / "tones.yaml").write_text(SPEC.replace("DATA", str(tones)))
    return tmp_path / "tones.yaml"


def test_recordings_train_a_network_that_names_others(run, spec, tones, tmp_path) -> None:
    found = json.loads(run("train", spec, "-o", tmp_path / "run", "--json").stdout)
    model = tmp_path / "run" / "model.safetensors"
    assert found["test"]["snn"] > 0.9
    scored = json.loads(run("eval", model, "--data", tones, "--engine", "integer", "--json").stdout)
    assert scored["results"][0]["accuracy"] == found["test"]["snn"]

    new = [save_wav(tmp_path / "new" / f"{i}.wav", tone(hertz)) for i, hertz in enumerate(TONES.values())]
    new.append(save_wav(tmp_path / "new" / "3.wav", tone(900, seconds=1, rate=16_000), rate=16_000))
    told = run("predict", model, *new, "--json")
    rows = json.loads(told.stdout)["predictions"]
    assert [row["name"] for row in rows] == [*TONES, "middle"]
    assert "0.wav: 0.40 s, cut to 0.16 s around its centre of power\n" in told.stderr
    assert "3.wav: 1.00 s, resampled from 16,000 to 8,000 samples per second, cut to" in told.stderr
    assert json.loads(run("predict", model, tmp_path / "new", "--json").stdout)["predictions"] == rows
    run("predict", model, new[0], "--animate", tmp_path / "a.gif")

    card = run("card", model, "--data", tones).stdout
    assert "log_mel: {sample_rate: 8000, window: 256, hop: 128, bands: 12, frames: 10" in card
    run("gallery", model, "--data", tones, "-o", tmp_path / "a.html")
    assert run("predict", model, new[0]).stdout.split()[0] == "sound"


def test_a_spec_without_log_mel_gets_the_defaults(run, spec, tones, tmp_path) -> None:
    text = spec.read_text().replace("shape: [1, 12, 10]", "shape: [1, 40, 48]")
    spec.write_text(text.replace(", log_mel: {bands: 12, frames: 10, range_db: 30}", ""))
    options = ["--set", "training.epochs=1"]
    run("train", spec, "-o", tmp_path / "run", *options)
    entering = read_model(tmp_path / "run" / "model.safetensors").spec.input
    assert entering.log_mel is not None
    assert entering.log_mel.picture == (1, 40, 48)
    run("train", spec, "-o", tmp_path / "run", *options, "--epochs", 2, "--resume")
    spec.write_text(spec.read_text().replace("[1, 40, 48]", "[1, 40, 47]"))
    told = run("train", spec, "-o", tmp_path / "other", *options, code=1).stderr
    assert "tones has WAV files, which become pictures [1, 40, 48]; the network takes images [1, 40, 47]" in (
        " ".join(told.split())
    )


def test_data_of_the_other_kind_are_refused(run, spec, tones, tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("L", (10, 12)).save(tmp_path / "pictures" / name / "1.png")
    told = run("train", spec, "-o", tmp_path / "run", "--data", tmp_path / "pictures", code=1).stderr
    assert "pictures has images; the network takes WAV files" in " ".join(told.split())
    told = run("eval", "mnist-dense-shallow", "--data", tones, code=1).stderr
    assert "become pictures [1, 40, 48]; the network takes images [1, 28, 28]" in " ".join(told.split())


STEPS = """
name: sweeps
time_steps: 16
neuron: {threshold: 1.0, voltage_decay: 0.06, tau_grad: 0.005}
input: {shape: [12], encoding: events, bits: 2, log_mel: {bands: 12, frames: 16, range_db: 30}}
blocks:
  - {kind: dense, features: 48, neuron: {threshold: 4.0, voltage_decay: 0.1, tau_grad: 0.005}}
  - {kind: dense, features: 32, recurrent: true}
  - {kind: affine, features: 3}
training:
  {data: DATA, epochs: 12, snn_epochs: 12, batch_size: 8, validation: 12, snn_learning_rate: 0.01, initialize: true,
  augment: {degrees: 0, translate: 0.05, shear: 0}}
"""
SWEEPS = {"falling": (2500, 400), "flat": (1000, 1000), "rising": (400, 2500)}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """A folder with a folder of recordings for each class: pairs of tones, whose order in time is the class."""
    folder, generator = tmp_path_factory.mktemp("sounds") / "sweeps", np.random.default_rng(0)
    for name, pair in SWEEPS.items():
        for i in range(24):
            save_wav(folder / name / f"{i:02}.wav", sweep(pair, generator))
    return folder


def sweep(pair, generator):
    clean = np.concatenate([tone(hertz * generator.uniform(0.9, 1.1), seconds=0.12) for hertz in pair])
    return clean + generator.normal(0, 0.02, clean.shape)


def test_a_recurrent_network_hears_recordings_step_by_step(run, sweeps, tmp_path) -> None:
    spec, model = tmp_path / "sweeps.yaml", tmp_path / "run" / "model.safetensors"
    spec.write_text(STEPS.replace("DATA", str(sweeps)))
    found = json.loads(run("train", spec, "-o", tmp_path / "run", "--json").stdout)
    assert found["test"]["snn"] > 0.9
    scored = json.loads(run("eval", model, "--data", sweeps, "--engine", "integer", "--json").stdout)
    assert scored["results"][0]["accuracy"] == found["test"]["snn"]

    generator = np.random.default_rng(1)
    new = [save_wav(tmp_path / "new" / f"{i}.wav", sweep(pair, generator)) for i, pair in enumerate(SWEEPS.values())]
    told = run("predict", model, *new, "--json", "--animate", tmp_path / "a.gif")
    rows = json.loads(told.stdout)["predictions"]
    assert [row["name"] for row in rows] == [*SWEEPS]
    network = read_model(model).build()
    stream, columns = IntegerNetwork(network).stream(), sound_inputs(new, network.spec.input.log_mel, bits=2)
    for step in columns.transpose(0, 1):
        logits = stream.step(step)
    assert logits.softmax(1).flatten().tolist() == pytest.approx([p for row in rows for p in row["scores"]])

    card = tmp_path / "run" / "model.yaml"
    run("card", tmp_path / "run", "--data", sweeps, "-o", card)
    assert "log_mel: {sample_rate: 8000, window: 256, hop: 128, bands: 12, frames: 16" in card.read_text()
    told = " ".join(run("show", model).stdout.split())
    assert "columns of log-mel pictures of recordings at 8,000 samples per second, integers of 2 bits in each" in told
    assert "FAILED" not in run("verify", model).stdout
    run("gallery", model, "--data", sweeps, "-o", tmp_path / "a.html")
    assert "animation of the spectrogram of a test sound of class rising, in 16 steps" in (
        (tmp_path / "a.html").read_text()
    )
    told = run("eval", model, "--data", "nmnist-simulated-sample", code=1).stderr
    assert "nmnist-simulated-sample has recordings of events; the network takes sounds" in " ".join(told.split())
