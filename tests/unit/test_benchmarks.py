"""The benchmarks' code runs, and their table says what was measured. Nothing here is timed."""

import importlib.util
import sys
from pathlib import Path

import pytest

from bootstrap_core.datasets import SAMPLE_NAME, find_dataset

TESTS = Path(__file__).parents[1]


def load(name, folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tables(monkeypatch):
    return load("make_readme_tables", TESTS, monkeypatch)


@pytest.fixture
def workload(monkeypatch):
    return load("workload", TESTS / "benchmarks", monkeypatch)


def row(values, target, **changes):
    cpu = {name: 2 * seconds for name, seconds in values.items()}
    return {"what": "work", "unit": "s", "target": target, "reference": None, "wall": values, "cpu": cpu, **changes}


def report(*rows, busy=0.0):
    return {
        "date": "2026-01-01",
        "cpu": "a processor",
        "cores": 2,
        "threads": 2,
        "kernel": "torch",
        "versions": {"snnzoo": "1", "norse": "2"},
        "under": {"snnzoo": "Python 3", "norse": "Python 3"},
        "busy_cores": busy,
        "rows": list(rows),
    }


def test_a_row_has_medians_ratios_and_whether_the_target_is_met(tables) -> None:
    values = {"snnzoo": 0.002, "lava-dl": 0.05, "norse": 0.02, "sinabs": 0.01, "reference": 0.001}
    target = {"lava-dl": 20.0, "peer": 4.0, "reference": 2.5}
    text = tables.render_benchmark([report(row(values, target, reference="ReLU net"))])
    assert "a processor, 2 cores, 2 threads; snnzoo's kernels: torch; 2026-01-01. snnzoo 1, norse 2" in text
    assert (
        "| work, ms | 2 | 50 | - | 20 | - | 10 | ReLU net 1: 2.00x | 25.0x | 5.0x "
        "| 20x lava-dl, 4x best peer, at most 2.5x ReLU net | yes |"
    ) in text
    assert "busy" not in text


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ({"peer": 5.0}, "yes"),
        ({"peer": 5.1}, "no"),
        ({"lava-dl": 5.0}, "?"),  # it did not take part
        ({"lava-dl": 5.0, "peer": 5.1}, "no"),
        ({"reference": 1.0}, "yes"),
        ({"reference": 0.9}, "no"),
        ({"seconds": 0.9}, "no"),
    ],
)
def test_targets(tables, target, answer) -> None:
    assert tables.met(row({"snnzoo": 1.0, "norse": 5.0, "sinabs": 9.0, "reference": 1.0}, target)) == answer


def test_a_busy_machine_is_told(tables) -> None:
    text = tables.render_benchmark([report(row({"snnzoo": 1.0, "norse": 3.0}, {"peer": 2.0}), busy=1.5)])
    assert "other work kept 1.5 of 2 cores busy" in text
    assert "ratios by CPU time: work 3x best peer" in text


@pytest.mark.parametrize("network", ["dense", "conv"])
@pytest.mark.parametrize(
    ("worker", "program", "works"),
    [
        ("snnzoo_worker", "Program", ["infer", "one", "snn_step", "ann_step", "forward", "sample_forward", "fit"]),
        ("peer_worker", "ReluNetwork", ["ann_step"]),
        ("peer_worker", "Products", ["infer", "train_step"]),
    ],
)
def test_programs_do_their_work(workload, monkeypatch, network, worker, program, works) -> None:
    make = getattr(load(worker, TESTS / "benchmarks", monkeypatch), program)
    request = {"layers": workload.NETWORKS[network], "time_steps": 2, "batch": 3}
    for work in works:
        job = {**request, "work": work, "data": str(find_dataset(SAMPLE_NAME))}
        call, units = workload.prepare(make(job), job)
        call()
        assert units >= 1


def test_programs_load_the_same_weights(workload, monkeypatch, tmp_path) -> None:
    import torch

    ours = load("snnzoo_worker", TESTS / "benchmarks", monkeypatch)
    request = {"layers": workload.NETWORKS["conv"], "time_steps": 2, "batch": 3}
    first = ours.Program(request).network
    path = tmp_path / "weights.npz"
    ours.save_weights(first, path)
    second = ours.Program({**request, "weights": str(path)}).network
    for one, other in zip(ours.synaptic(first), ours.synaptic(second), strict=True):
        assert torch.equal(one.quantized_weight(), other.quantized_weight())
