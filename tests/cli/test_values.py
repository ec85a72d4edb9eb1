"""Networks of values: a netx file of sigma-delta neurons, from show to predict, and back to netx."""

import json
from pathlib import Path

import numpy as np
import pytest

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
    assert score["messages"][0] > score["messages"][-2] > 0
    assert sum(score["synops_per_step"]) > 0
    told = run("eval", NET, "--data", frames, "--time-steps", "4,12")
    assert "lacks values y, with which the outputs would be compared" in told.stderr
    for words in ("SNN, T=4, torch", "SNN, T=12, torch", "messages/neuron/step", "MACs of the ANN"):
        assert words in told.stdout
    assert "accuracy" not in told.stdout
    assert "ANN" in run("eval", NET, "--data", frames, "--mode", "ann").stdout
    few = json.loads(run("eval", NET, "--data", tmp_path / "many.npz", "--limit", 1, "--json").stdout)
    assert few["results"][0]["recordings"] == 1


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


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("eval", NET), 2, "gives values, not classes: name its frames with --data"),
        (("predict", NET, "x.npy", "--classes", "a,b"), 2, "leave out --classes, --animate and --invert"),
        (("train", NET, "-o", "run", "--data", "mnist-sample"), 1, "sigma-delta networks are not trained here"),
        (("convert", NET, "-o", "a.nir"), 1, "NIR cannot express sigma-delta neurons"),
        (("convert", NET, "-o", "a.c"), 1, "C source cannot express input.encoding: frames; sigma-delta neurons"),
    ],
)
def test_what_is_for_classes_is_refused(arguments, code: int, told: str, run) -> None:
    assert told in " ".join(run(*arguments, code=code).output.split())
