"""`zoo train` in several processes, as launchers start them."""

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from converters import read_model

WORKER = Path(__file__).with_name("killed_worker.py")


@pytest.fixture(scope="module")
def spec(trained) -> Path:
    return trained / "spec.yaml"


@pytest.fixture(scope="module")
def whole(launch, spec, tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder of a run in two processes, and the output of each process."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, launch("zoo", "train", spec, "-o", folder, "--json").wait(0, 0)


@pytest.fixture(scope="module")
def lost(launch, spec, tmp_path_factory) -> tuple[Path, list[str]]:
    """The same for a run whose second process is killed in the second epoch."""
    folder = tmp_path_factory.mktemp("lost") / "run"
    return folder, launch(WORKER, "train", spec, "-o", folder).wait(1, -signal.SIGKILL)


def reports(folder: Path) -> list[dict[str, float]]:
    return [{**json.loads(line), "seconds": 0} for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_only_the_first_process_prints_and_writes(whole, trained) -> None:
    folder, (first, second) = whole
    assert second == ""
    assert json.loads(first.splitlines()[-1])["data"] == "mnist-sample"
    assert {path.name for path in folder.iterdir()} == {path.name for path in trained.iterdir()}


def test_it_learns_what_one_process_does(whole, trained) -> None:
    folder, _ = whole
    for ours, theirs in zip(reports(folder), reports(trained), strict=True):
        assert ours["training_loss"] == pytest.approx(theirs["training_loss"], rel=1e-3)
        assert ours["validation_snn_accuracy"] == pytest.approx(theirs["validation_snn_accuracy"], abs=0.01)
    ours, theirs = (read_model(path / "model.safetensors").card["test"] for path in (folder, trained))
    for mode in ("snn", "ann"):
        assert ours[mode]["images"] == theirs[mode]["images"] == 1000
        assert ours[mode]["accuracy"] == pytest.approx(theirs[mode]["accuracy"], abs=0.01)


def test_a_lost_process_ends_the_others_with_one_line(lost) -> None:
    _, (first, second) = lost
    *_, told, error = first.splitlines()
    assert told.startswith("epoch 1/2")
    assert first.count("epoch 1/2") == 1
    assert error.startswith("Error: process 0 of 2: another process has ended")
    assert "--resume" in error
    assert second == ""


def test_a_run_that_lost_a_process_resumes_to_the_same_bytes(lost, whole, launch, spec, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(lost[0], folder)
    launch("zoo", "train", spec, "-o", folder, "--resume", "-q").wait(0, 0)
    assert reports(folder) == reports(whole[0])
    assert (folder / "model.safetensors").read_bytes() == (whole[0] / "model.safetensors").read_bytes()


def test_what_the_first_process_refuses_ends_all(launch, spec, trained) -> None:
    first, second = launch("zoo", "train", spec, "-o", trained).wait(1, 1)
    assert "--force" in first
    assert second.splitlines()[-1].startswith("Error: ")  # it lost the first process, or never reached it
    assert "Traceback" not in first + second


TORCHRUN = ["torch.distributed.run", "--nproc_per_node=2", "--master_port"]
ACCELERATE = ["accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes=2", "--main_process_port"]


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_launchers_start_it(launcher, port, spec, tmp_path) -> None:
    if not importlib.util.find_spec(launcher[0].split(".")[0]):
        pytest.skip("accelerate is not installed")
    command = [sys.executable, "-m", *launcher, str(port), "-m", "zoo", "train", spec, "-o", tmp_path, "--epochs", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            printed, told = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.terminate()  # not kill: the launcher must end its own processes
            printed, told = process.communicate()
    assert process.returncode == 0, told
    assert "test, SNN" in printed
    assert told.count("epoch 1/1") == 1
