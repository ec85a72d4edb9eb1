"""The code of the benchmarks runs, and their tables show the measured figures. No test measures time."""

import importlib.util
import sys
from pathlib import Path

import pytest

from bootstrap_core.data.datasets import find_dataset
from specs.dataset_sources import SAMPLE_NAME

TESTS = Path(__file__).parents[1]


def load(name, folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def workload(monkeypatch):
    return load("workload", TESTS / "benchmarks", monkeypatch)


@pytest.mark.parametrize("network", ["dense", "conv"])
@pytest.mark.parametrize(
    ("worker", "program", "works"),
    [
        (
            "snnzoo_worker",
            "Program",
            ["infer", "one", "step", "snn_step", "ann_step", "forward", "sample_forward", "fit"],
        ),
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


def test_trained_delays_tell_patterns_apart_that_fixed_ones_do_not(monkeypatch) -> None:
    """The benchmark in short: fewer recordings, one seed."""
    bench = load("bench_delays", TESTS / "benchmarks", monkeypatch)
    short = {"seed": 1, "epochs": 8, "n_training": 600}
    fixed, trained = (bench.accuracy(bench.KINDS[kind], 8, **short) for kind in ("fixed", "trained"))
    assert trained > fixed + 0.15
