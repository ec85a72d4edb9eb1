"""Two processes give the results of one; `distributed_worker.py` defines their work."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from bootstrap_core.distributed import ALONE, Group, join_group, local_device
from specs.errors import SnnZooError

WORKER = Path(__file__).with_name("distributed_worker.py")
RECIPES = runpy.run_path(str(WORKER))["RECIPES"]
Found = dict[tuple[int, int], dict[str, Any]]


@pytest.fixture(scope="module")
def found(launch, tmp_path_factory) -> Found:
    """Results of each rank in groups of one and two processes, by (size, rank)."""
    folder = tmp_path_factory.mktemp("found")
    for size in (1, 2):
        launch(WORKER, folder, size=size).wait(*[0] * size)
    return {(size, rank): torch.load(folder / f"{size}-{rank}.pt") for size, rank in ((1, 0), (2, 0), (2, 1))}


SAME = sorted(RECIPES.keys() - {"dropout"})


SLOW = """
import sys, time
from pathlib import Path
from bootstrap_core.distributed import join_group
with join_group(timeout_s=60) as group:
    done = Path(sys.argv[1])
    if group.leads:
        time.sleep(1)
        done.touch()
assert done.exists()
"""

STEP = """
import time
from pathlib import Path
import torch
from bootstrap_core.distributed import join_group

def n_threads():
    return len(list(Path("/proc/self/task").iterdir()))

def step(add_up):
    weight = torch.nn.Parameter(torch.ones(3))
    weight.sum().backward()
    add_up([weight.grad])
    torch.optim.Adam([weight]).step()

step(lambda gradients: None)
before = n_threads()
with join_group(timeout_s=60) as group:
    step(group.add_up)
    assert n_threads() > before
end = time.monotonic() + 5  # Linux lists a thread for a moment after it was joined
while n_threads() > before:
    assert time.monotonic() < end, n_threads()
    time.sleep(0.01)
"""


def test_nobody_leaves_before_all_are_done(launch, tmp_path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    launch(tmp_path / "slow.py", tmp_path / "done", size=2).wait(0, 0)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc for the names of threads")
def test_the_threads_of_a_group_end_with_it(launch, tmp_path) -> None:
    (tmp_path / "step.py").write_text(STEP)
    launch(tmp_path / "step.py", size=2).wait(0, 0)


@pytest.mark.parametrize("name", SAME)
def test_processes_match_one_loss_by_loss(found: Found, name: str) -> None:
    ours, theirs = found[2, 0][name]["batches"], found[1, 0][name]["batches"]
    assert [loss for loss, _, _ in ours] == pytest.approx([loss for loss, _, _ in theirs], rel=1e-4)
    assert ours[0][0] == pytest.approx(theirs[0][0], rel=1e-6)
    assert [n for _, _, n in ours] == [n for _, _, n in theirs]
    assert abs(sum(correct for _, correct, _ in ours) - sum(correct for _, correct, _ in theirs)) <= 1
    assert ours[0][1] == theirs[0][1]


@pytest.mark.parametrize("name", SAME)
def test_processes_end_with_the_weights_and_the_scores_of_one(found: Found, name: str) -> None:
    ours, theirs = found[2, 0][name], found[1, 0][name]
    for key, tensor in theirs["state"].items():
        torch.testing.assert_close(ours["state"][key], tensor, rtol=1e-4, atol=1e-4, msg=key)
    for mine, other in zip(ours["reports"], theirs["reports"], strict=True):
        assert mine["validation_snn_loss"] == pytest.approx(other["validation_snn_loss"], rel=1e-4)
        assert mine["validation_ann_loss"] == pytest.approx(other["validation_ann_loss"], rel=1e-4)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_all_processes_have_the_same_bits(found: Found, name: str) -> None:
    ours, first = found[2, 1][name], found[2, 0][name]
    assert ours["batches"] == first["batches"]
    assert ours["reports"] == first["reports"]
    assert all(torch.equal(ours["state"][key], tensor) for key, tensor in first["state"].items())


def test_processes_learn_values_as_one(found: Found) -> None:
    ours, other, alone = (found[key]["values"] for key in ((2, 0), (2, 1), (1, 0)))
    assert ours["reports"] == other["reports"]
    assert ours["score"] == other["score"] == alone["score"]
    for key, tensor in alone["state"].items():
        assert torch.equal(ours["state"][key], other["state"][key]), key
        torch.testing.assert_close(ours["state"][key], tensor, rtol=1e-4, atol=1e-4, msg=key)
    for mine, theirs in zip(ours["reports"], alone["reports"], strict=True):
        for part in ("training", "validation_ann", "validation_snn"):
            assert mine[f"{part}_score"] == pytest.approx(theirs[f"{part}_score"], rel=1e-3)


def test_each_process_drops_inputs_of_its_own_images(found: Found) -> None:
    first, second = (found[2, rank]["dropout"]["mask"] for rank in range(2))
    assert not torch.equal(first[: len(second)], second)


def test_samplers_keep_the_sample_of_one(found: Found) -> None:
    for rank in range(2):
        ours, theirs = found[2, rank]["sampler"], found[1, 0]["sampler"]
        assert all(map(torch.equal, ours["pairs"], theirs["pairs"]))
        assert ours["n_seen"] == theirs["n_seen"] == 25 * 15
        assert torch.equal(ours["centers"], theirs["centers"])


def test_norms_measure_the_whole_batch(found: Found) -> None:
    for rank in range(2):
        for name, tensor in found[1, 0]["norms"].items():
            torch.testing.assert_close(found[2, rank]["norms"][name], tensor, msg=name)


def test_scores_are_of_all_images_once(found: Found) -> None:
    for rank in range(2):
        for ours, theirs in zip(found[2, rank]["scores"], found[1, 0]["scores"], strict=True):
            assert (ours["n_images"], ours["n_correct"]) == (theirs["n_images"], theirs["n_correct"])
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
            assert ours["synops"] == pytest.approx(theirs["synops"], rel=1e-4)
            assert ours["rates"][1] == pytest.approx(theirs["rates"][1], rel=1e-4)


def test_sums_and_what_the_first_broadcasts(found: Found) -> None:
    for rank in range(2):
        ours = found[2, rank]["collectives"]
        assert all(bool((tensor == 3).all()) for tensor in ours["sums"])
        assert ours["sent"].tolist() == [[1, 1], [1, 1]]
        assert ours["bytes"] == b"of the first"
        assert ours["added"] == [3, 1]
        assert ours["counts"] == list(range(2))


def test_tensors_are_added_up_in_buckets(monkeypatch) -> None:
    monkeypatch.setattr("bootstrap_core.distributed.BUCKET", 10)
    sent: list[int] = []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda flat: sent.append(flat.numel()) or flat.mul_(3))
    tensors = [torch.ones(n) for n in (4, 6, 1, 25, 2)]
    Group(0, 3).add_up(tensors)
    assert sent == [10, 1, 25, 2]
    assert all(bool((tensor == 3).all()) for tensor in tensors)


# --- Shares


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8, 100])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_are_all_rows_once_and_of_one_size_but_for_one(n: int, size: int) -> None:
    parts = [range(n)[Group(rank, size).part(n)] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# --- Joining


def test_a_process_that_no_launcher_started_is_alone(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_group(timeout_s=1) as group:
        assert group is ALONE
    assert (ALONE.rank, ALONE.size, ALONE.leads) == (0, 1, True)
    assert not Group(1, 2).leads


def test_an_incomplete_environment_is_told(monkeypatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SnnZooError, match=r"announces 2 processes.* RANK .*torchrun"), join_group(timeout_s=1):
        pass


def test_each_process_of_a_host_has_a_gpu_of_its_own(monkeypatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert (local_device("cpu"), local_device("cuda"), chosen) == ("cpu", "cuda:3", [3])
    monkeypatch.delenv("LOCAL_RANK")
    assert local_device("cuda") == "cuda"
