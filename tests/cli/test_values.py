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
    assert score["messages_per_neuron_step"][0] > score["messages_per_neuron_step"][-2] > 0
    assert sum(score["synops_per_step"]) > 0
    told = run("eval", NET, "--data", frames, "--time-steps", "4,12")
    assert "has no targets y, so no errors are computed" in told.stderr
    for words in ("SNN, T=4, torch", "SNN, T=12, torch", "messages/neuron/step", "MACs of the ANN"):
        assert words in told.stdout
    assert "accuracy" not in told.stdout
    assert score["steps_per_second"] > 0
    ann = run("eval", NET, "--data", frames, "--mode", "ann").stdout.splitlines()[-1].split()
    assert (ann[0], ann[-1]) == ("ANN", "-")
    as_ann = json.loads(run("eval", NET, "--data", frames, "--mode", "ann", "--json").stdout)["results"][0]
    assert as_ann["steps_per_second"] is None
    few = json.loads(run("eval", NET, "--data", tmp_path / "many.npz", "--limit", 1, "--json").stdout)
    assert few["results"][0]["recordings"] == 1


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


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("eval", NET), 2, "gives values, not classes: name its frames with --data"),
        (("predict", NET, "x.npy", "--classes", "a,b"), 2, "leave out --classes, --animate and --invert"),
        (
            ("eval", NET, "--data", "x.npy", "--overflow", "chip"),
            1,
            "overflow: must be refuse for sigma-delta networks",
        ),
        (("predict", NET, "x.npy", "--overflow", "chip"), 1, "overflow: must be refuse for sigma-delta networks"),
        (("train", NET, "-o", "run", "--data", "mnist-sample"), 1, "sigma-delta networks are not trained here"),
        (("convert", NET, "-o", "a.nir"), 1, "NIR cannot express sigma-delta neurons"),
    ],
)
def test_what_is_for_classes_is_refused(arguments, code: int, told: str, run) -> None:
    assert told in " ".join(run(*arguments, code=code).output.split())
