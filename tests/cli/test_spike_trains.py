"""Networks of spike trains: trained, scored and run from files of events."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from spike_trains import STEPS, made_network, made_recordings

from converters.model import Model
from specs import dump_spec


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    given, path = made_recordings(60), tmp_path_factory.mktemp("trains") / "trains.npz"
    np.savez(path, x=given.frames.transpose(0, 1).numpy().astype(np.uint8), y=given.targets.numpy().astype(np.uint8))
    return path


@pytest.fixture
def spec(data, tmp_path) -> Path:
    network = made_network(data=str(data), epochs=2, snn_epochs=2, validation=10)
    (tmp_path / "trains.yaml").write_text(dump_spec(network.spec))
    return tmp_path / "trains.yaml"


def test_a_network_of_spike_trains_from_training_to_prediction(run, spec, data, tmp_path) -> None:
    told = run("train", spec, "-o", tmp_path / "run")
    assert "best SNN distance on the validation recordings so far" in told.stderr
    assert "accuracy" not in told.stdout + told.stderr
    model = tmp_path / "run" / "model.safetensors"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    best = min(json.loads(line)["validation_snn_distance"] for line in lines)
    assert f"{best:.4g}" in told.stdout
    assert "output: 2 spike trains" in run("show", model).stdout
    assert "C source cannot express" in run("data", "export", model, "-o", tmp_path / "a.raw", code=1).stderr
    assert json.loads(run("check", spec, "--json").stdout)["gives"] == "spike trains"
    longer = ("--epochs", 3, "--set", "training.snn_epochs=3")
    assert "epoch 3/3" in run("train", spec, "-o", tmp_path / "run", "--resume", *longer).stderr

    scored = json.loads(run("eval", model, "--data", data, "--engine", "integer", "--json").stdout)
    (score,) = scored["results"]
    assert (score["recordings"], score["time_steps"], score["tau"]) == (60, STEPS, 5.0)
    shown = run("eval", model, "--data", data, "--time-steps", "5,20").stdout
    assert f"{score['distance']:.4g}" in shown
    assert "SNN, T=5, torch" in shown

    recording = np.load(data)["x"][0]
    np.save(tmp_path / "one.npy", recording)
    (row,) = json.loads(run("predict", model, tmp_path / "one.npy", "--json").stdout)["predictions"]
    network = Model(*read(model)).build()
    spikes = network(torch.from_numpy(recording)[:, None])[:, 0].detach()
    assert row["spikes"] == [neuron.nonzero().flatten().tolist() for neuron in spikes.T]
    assert (row["time_steps"], row["recording"]) == (STEPS, 0)
    table = run("predict", model, tmp_path / "one.npy").stdout
    assert "spikes in steps" in table
    assert f"{recording.shape[0]}" in table


def read(path: Path):
    from converters import read_model

    model = read_model(path)
    return model.spec, model.tensors
