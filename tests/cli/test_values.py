"""Networks of values: a netx file of sigma-delta neurons, from show to predict, and back to netx."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from c_programs import compile_c, needs_compiler
from c_programs import run as run_program
from torch import nn

NET = Path(__file__).parents[1] / "golden" / "sigma_delta" / "network.net"
RECORDED = NET.with_name("lava_simulation.npz")


@pytest.fixture
def frames(tmp_path) -> Path:
    with np.load(RECORDED) as arrays:
        np.save(tmp_path / "frames.npy", arrays["frames"][:, 0])
    return tmp_path / "frames.npy"


def test_predict_prints_values_and_each_step_as_json(run, frames) -> None:
    with np.load(RECORDED) as arrays:
        expected = (arrays["sigma"] / 2**18).tolist()
    (row,) = json.loads(run("predict", NET, frames, "--json").stdout)["predictions"]
    assert row["after_each_step"] == expected
    assert (row["values"], row["time_steps"], row["recording"]) == (expected[-1], 12, 0)
    shown = run("predict", NET, frames, "--time-steps", 5).stdout
    assert "value 0" in shown
    assert f"{expected[4][0]:.6g}" in shown
    assert "class" not in shown


def test_eval_prints_errors_messages_and_synops(run, frames, tmp_path) -> None:
    x = np.load(frames)
    np.savez(tmp_path / "many.npz", x=np.stack([x, x]), y=np.zeros((2, 2)))
    found = json.loads(run("eval", NET, "--data", tmp_path / "many.npz", "--engine", "integer", "--json").stdout)
    (score,) = found["results"]
    assert score["mean_error"] == pytest.approx(np.abs(score["values"]).mean())
    assert score["recordings"] == 2
    assert score["messages_per_neuron_step"][0] > score["messages_per_neuron_step"][-2] > 0
    assert sum(score["synops_per_step"]) > 0
    told = run("eval", NET, "--data", frames, "--time-steps", "4,12")
    assert "has no targets y, so no errors are computed" in told.stderr
    assert "SNN, T=12, torch" in told.stdout
    assert "accuracy" not in told.stdout
    as_ann = json.loads(run("eval", NET, "--data", frames, "--mode", "ann", "--json").stdout)["results"][0]
    assert as_ann["steps_per_second"] is None
    few = run("eval", NET, "--data", tmp_path / "many.npz", "--limit", 1, "--json")
    assert json.loads(few.stdout)["results"][0]["recordings"] == 1
    assert "note: scored on 1 of the 2 recordings, drawn at random" in few.stderr


@needs_compiler
def test_exported_frames_give_the_same_values_in_c(run, frames, tmp_path) -> None:
    raw, source = tmp_path / "frames.raw", tmp_path / "net.c"
    assert f"{raw}: 1 recording of 12 steps" in run("data", "export", NET, "--data", frames, "-o", raw).stdout
    run("convert", NET, "-o", source)
    lines = run_program(compile_c(source, "-DSNN_STDIN"), raw.read_bytes(), "12").stdout.splitlines()
    with np.load(RECORDED) as arrays:
        assert [[int(number) for number in line.split()] for line in lines] == [arrays["sigma"][-1].tolist()]


def test_more_steps_than_recordings_have_are_left_out_and_still_frames_are_held(run, frames, tmp_path) -> None:
    done = run("eval", NET, "--data", frames, "--time-steps", "4,12,16", "--json")
    assert "--time-steps 16: left out, as the recordings have 12 time steps" in done.stderr
    assert [score["time_steps"] for score in json.loads(done.stdout)["results"]] == [4, 12]
    assert (
        "at most 12, the steps of these frames"
        in run("eval", NET, "--data", frames, "--time-steps", "16", code=1).stderr
    )
    np.save(tmp_path / "still.npy", np.load(frames)[0])
    held = json.loads(run("eval", NET, "--data", tmp_path / "still.npy", "--time-steps", "2,16", "--json").stdout)
    assert [score["time_steps"] for score in held["results"]] == [2, 16]


def test_a_folder_stands_for_its_files_and_a_bad_one_stops_no_other(run, frames, tmp_path) -> None:
    folder = tmp_path / "several"
    folder.mkdir()
    (folder / "a.npy").write_bytes(b"no array")
    (folder / "b.npy").write_bytes(frames.read_bytes())
    (folder / "notes.txt").touch()
    done = run("predict", NET, folder, "--json", code=1)
    (row,) = json.loads(done.stdout)["predictions"]
    assert row["file"] == str(folder / "b.npy")
    assert "a.npy is not a plain array" in done.stderr
    assert "1 without .npy, .npz skipped" in done.stderr


def test_show_verify_and_convert_speak_of_values(run, tmp_path) -> None:
    assert "sigma alone: the output is a value" in run("show", NET).stdout
    run("convert", NET, "-o", tmp_path / "a.safetensors", "-o", tmp_path / "a.net")
    assert "output: 2 values, of sigma-delta neurons" in run("show", tmp_path / "a.safetensors").stdout
    checks = run("verify", tmp_path / "a.net").stdout
    assert "0 of " in checks
    assert "FAILED" not in checks
    assert run("show", NET, "--diff", tmp_path / "a.net").stdout == "all layers are the same\n"
    drawn = run("show", NET, "--graph", tmp_path / "a.svg").stdout
    assert "sigma-delta neurons" in Path(drawn.strip()).read_text()


# --- Training

STEER = """name: steer
time_steps: 4
neuron: {kind: sigma_delta, threshold: 0.015625}
input: {shape: [2, 6, 6], encoding: frames}
blocks:
  - {kind: conv, channels: 4, kernel: 3, stride: 2, bias: true}
  - {kind: flatten}
  - {kind: dense, features: 12, bias: true}
  - {kind: affine, features: 2}
training: {data: frames.npz, epochs: 3, batch_size: 10, validation: 20, learning_rate: 0.01}
"""


@pytest.fixture
def steer(tmp_path, monkeypatch) -> Path:
    """Return the file of a spec; beside it, 100 recordings of frames whose halves have a mean each, the targets."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    means = generator.uniform(-1, 1, (100, 2))
    noise = generator.normal(0, 4, (100, 4, 2, 6, 6))
    np.savez("frames.npz", x=np.rint(60 * means[:, None, :, None, None] + noise).clip(-128, 127).astype(int), y=means)
    Path("steer.yaml").write_text(STEER)
    return Path("steer.yaml")


def test_train_learns_values_and_names_errors(run, steer) -> None:
    done = run("train", steer, "-o", "run", "--json")
    found = json.loads(done.stdout)
    reports = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    errors = [report["validation_snn_error"] for report in reports]
    assert errors[-1] < errors[0]
    assert (found["measure"], found["validation"]["snn"], found["epoch"]) == ("rms error", min(errors), 2)
    assert "best SNN rms error on the validation recordings so far" in done.stderr
    assert f"{errors[-1]:#.4g} *" in done.stderr
    shown = run("show", "run/model.safetensors").stdout
    card = json.loads(run("show", "run/model.safetensors", "--json").stdout)["card"]
    assert card["training"]["validation_snn_error"] == min(errors)
    assert card["test"]["snn"]["rms_error"] == found["test"]["snn"]
    assert card["test"]["ann"]["rms_error"] == found["test"]["ann"]
    for text in (shown, done.stderr, json.dumps(card), Path("run/metrics.jsonl").read_text(), str(found)):
        assert "accuracy" not in text
    told = run("train", steer, "-o", "again")
    assert "rms error" in told.stdout
    assert "20 of the 100 recordings of" in told.stderr
    assert Path("run/curves.png").stat().st_size > 1000
    assert Path("run/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()


def test_a_trained_network_is_the_same_in_netx_and_verifies(run, steer) -> None:
    run("train", steer, "-o", "run", "--epochs", 1)
    run("convert", "run/model.safetensors", "-o", "run/model.net")
    checks = run("verify", "run/model.safetensors").stdout
    assert "the integers of model.net" in checks
    assert "FAILED" not in checks
    scores = [
        json.loads(run("eval", path, "--data", "frames.npz", "--engine", "integer", "--json").stdout)["results"][0]
        for path in ("run/model.safetensors", "run/model.net")
    ]
    assert scores[0]["values"] == scores[1]["values"]


def test_a_stopped_run_resumes_and_a_trained_one_continues_with_another_threshold(run, steer) -> None:
    run("train", steer, "-o", "whole")
    run("train", steer, "-o", "run", "--epochs", 1, "--set", "training.learning_rate_schedule=constant")
    run("train", steer, "-o", "run", "--epochs", 3, "--set", "training.learning_rate_schedule=constant", "--resume")
    run("train", steer, "-o", "straight", "--set", "training.learning_rate_schedule=constant")
    resumed, straight = (
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]
        for path in (Path("run/metrics.jsonl"), Path("straight/metrics.jsonl"))
    )
    assert resumed == straight
    tuned = ("--set", "neuron.threshold=0.1", "--set", "training.snn_epochs=3", "--set", "training.snn_gradient=tandem")
    done = run("train", "whole/model.safetensors", "-o", "tuned", "--data", "frames.npz", *tuned)
    assert "before training: SNN rms error 0." in done.stderr


def test_training_and_test_recordings_of_a_file_are_used_as_such(run, steer) -> None:
    with np.load("frames.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    np.savez("frames.npz", x_train=x[:70], y_train=y[:70], x_test=x[70:], y_test=y[70:])
    done = run("train", steer, "-o", "run", "--epochs", 1)
    assert "drawn at random" not in done.stderr
    (score,) = json.loads(run("eval", "run/model.safetensors", "--data", "frames.npz", "--json").stdout)["results"]
    assert score["recordings"] == 30
    told = json.loads(run("show", "run/model.safetensors", "--json").stdout)["card"]["test"]["snn"]
    assert (told["recordings"], told["rms_error"]) == (30, pytest.approx(score["rms_error"]))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--data", "mnist-sample"), "steer gives values and learns from an .npz of frames x and targets y"),
        (("--set", "training.label_smoothing=0.1"), "training.label_smoothing: does not apply to a network that gives"),
        (("--set", "training.snn_epochs=1"), "training.snn_gradient: must be tandem"),
        (("--classes", "left,right"), "--classes: steer gives values, not classes: leave it out"),
        (("--data", "unlabelled.npz"), "unlabelled.npz must have the targets of x as an array y"),
        (("--data", "single.npz"), "single.npz: needs at least 2 inputs"),
    ],
)  # fmt: skip
def test_what_does_not_teach_values_is_refused(arguments, told, run, steer) -> None:
    with np.load("frames.npz") as arrays:
        np.savez("unlabelled.npz", x=arrays["x"])
        np.savez("single.npz", x=arrays["x"][:1], y=arrays["y"][:1])
    assert told in run("train", steer, "-o", "run", *arguments, code=1).stderr


# --- ANNs


def test_a_graph_of_messages_is_refused_for_netx_before_the_work(run, tmp_path) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x).relu()
            return (x + self.second(x)).relu().mean((2, 3))

    onnx = tmp_path / "residual.onnx"
    with warnings.catch_warnings(action="ignore"):  # torch advises its other exporter
        torch.onnx.export(Residual().eval(), (torch.zeros(1, 1, 4, 4),), str(onnx), dynamo=False, verbose=False)
    told = run("convert", onnx, "--neuron", "sigma-delta", "-o", tmp_path / "a.net", code=1).stderr
    assert "netx cannot express block 2: skips" in told
    assert "choosing" not in told
    run("convert", onnx, "--neuron", "sigma-delta", "-o", tmp_path / "a.safetensors")
    assert "sigma-delta neurons" in run("show", tmp_path / "a.safetensors").stdout


def test_an_ann_of_one_output_becomes_a_network_of_messages(run, tmp_path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))
    onnx, images = tmp_path / "steer.onnx", tmp_path / "images.npz"
    with warnings.catch_warnings(action="ignore"):  # torch advises its other exporter
        torch.onnx.export(network.eval(), (torch.zeros(1, 1, 4, 4),), str(onnx), dynamo=False, verbose=False)
    x = np.random.default_rng(0).integers(0, 256, (100, 1, 4, 4), dtype=np.uint8)
    np.savez(images, x=x)
    outputs = [tmp_path / name for name in ("a.safetensors", "a.net", "a.c")]
    written = [word for output in outputs for word in ("-o", output)]
    found = json.loads(run("convert", onnx, "--neuron", "sigma-delta", "--data", images, *written, "--json").stdout)
    assert found["ann_multiplications"] == 16 * 8 + 8
    assert found["error"] < 0.05
    assert 0 < found["messages_per_frame"] < found["synops_per_frame"]
    np.savez(tmp_path / "frames.npz", x=np.rint(x / 255 * found["levels"]).astype(int))
    rows = [
        json.loads(run("predict", output, tmp_path / "frames.npz", "--time-steps", 3, "--json").stdout)["predictions"]
        for output in outputs[:2]
    ]
    values = [row["values"][0] / found["output_scale"] for row in rows[0]]
    assert [row["after_each_step"] for row in rows[0]] == [row["after_each_step"] for row in rows[1]]
    with torch.no_grad():
        wanted = network(torch.from_numpy(x) / 255).flatten().numpy()
    assert np.sqrt(np.square(values - wanted).mean()) < 0.05 * wanted.std()
    checks = run("verify", outputs[0]).stdout
    assert "the integers of a.net" in checks
    assert "FAILED" not in checks
    assert "leave out --neuron sigma-delta, or --epochs" in run(
        "convert", onnx, "--neuron", "sigma-delta", "--data", images, "--epochs", 1, code=2
    ).stderr.replace("\n", " ")
