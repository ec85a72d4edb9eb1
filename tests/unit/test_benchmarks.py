"""The code of the benchmarks runs, and their tables show the measured figures. No test measures time."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
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


# --- conversions beside SpikingJelly


@pytest.fixture
def programs(workload, monkeypatch):
    return load("programs", TESTS / "benchmarks", monkeypatch)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import sys, json; print('noise'); print(json.dumps({'got': json.loads(sys.argv[1])}))", None),
        ("import time; time.sleep(60)", "not done after 2 s"),
        ("raise ValueError('why not')", "peer failed:.*why not"),
    ],
)
def test_a_worker_answers_in_time_or_says_why_not(programs, tmp_path, text, told) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(text)
    command = [sys.executable, str(worker)]
    if told is None:
        assert programs.run_once("peer", command, {"n": 1}, threads=1, seconds=60) == {"got": {"n": 1}}
    else:
        with pytest.raises(programs.WorkerError, match=f"(?s){told}"):
            programs.run_once("peer", command, {"n": 1}, threads=1, seconds=2)


def test_a_file_is_converted_scored_and_run_again_from_its_export(workload, monkeypatch, tmp_path) -> None:
    worker = load("convert_worker", TESTS / "benchmarks", monkeypatch)
    path = tmp_path / "tiny.onnx"
    text = "(float[N,784] x) => (float[N,10] y) { h = MatMul(x, v) r = ACTIVATION(h) y = MatMul(r, w) }"
    generator = np.random.default_rng(0)
    request = {"path": str(path), "dataset": SAMPLE_NAME, "data": None, "mean": 0.0, "std": 1.0}
    answers = {}
    for activation in ("Relu", "Tanh"):
        graph = onnx.parser.parse_graph(f"tiny {text.replace('ACTIVATION', activation)}")
        for name, shape in (("v", (784, 12)), ("w", (12, 10))):
            weight = generator.normal(0, 0.1, shape).astype(np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)]), path)
        answers[activation] = worker.convert({**request, "time_steps": 4, "epochs": 0})
    found = answers["Relu"]
    assert sorted(found["untuned"]) == [1, 2, 4]
    assert found["tuned"] == {}
    assert found["netx"] == {"different": 0, "accuracy": found["untuned"][4], "images": 1000}
    assert answers["Tanh"]["error"].startswith("UnsupportedError: tiny.onnx: 1 of its nodes")
    assert "Tanh" in answers["Tanh"]["error"]


def test_trained_delays_tell_patterns_apart_that_fixed_ones_do_not(monkeypatch) -> None:
    """The benchmark in short: fewer recordings, one seed."""
    bench = load("bench_delays", TESTS / "benchmarks", monkeypatch)
    short = {"seed": 1, "epochs": 8, "n_training": 600}
    fixed, trained = (bench.accuracy(bench.KINDS[kind], 8, **short) for kind in ("fixed", "trained"))
    assert trained > fixed + 0.15
