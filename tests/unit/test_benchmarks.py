"""The code of the benchmarks runs, and their tables show the measured figures. No test measures time."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from readme_tables.conversions import conversion_details, render_conversions, render_deep, targets_met
from readme_tables.exactness import render_c, render_c_events, render_engines
from readme_tables.hardening import render_kills
from readme_tables.programs import met, render_benchmark
from readme_tables.training import render_cluster, render_delays, render_profile, render_values

from bootstrap_core.data.datasets import SAMPLE_NAME, find_dataset

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


def test_a_row_has_medians_ratios_and_whether_the_target_is_met() -> None:
    values = {"snnzoo": 0.002, "lava-dl": 0.05, "norse": 0.02, "sinabs": 0.01, "reference": 0.001}
    target = {"lava-dl": 20.0, "peer": 4.0, "reference": 2.5}
    text = render_benchmark(report(row(values, target, reference="ReLU net")))
    assert "a processor, 2 cores, 2 threads; snnzoo on torch; 2026-01-01. snnzoo 1, norse 2" in text
    assert (
        "| work, ms | 2 | 50 | - | 20 | - | 10 | ReLU net 1: 2.00x | 25.0x | 5.00x "
        "| 20x lava-dl, 4x best peer, at most 2.5x ReLU net | yes |"
    ) in text
    assert "busy" not in text


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ({"peer": 5.0}, "yes"),
        ({"peer": 5.1}, "no"),
        ({"lava-dl": 5.0}, "?"),  # lava-dl was not measured
        ({"lava-dl": 5.0, "peer": 5.1}, "no"),
        ({"reference": 1.0}, "yes"),
        ({"reference": 0.9}, "no"),
        ({"seconds": 0.9}, "no"),
    ],
)
def test_targets(target, answer) -> None:
    assert met(row({"snnzoo": 1.0, "norse": 5.0, "sinabs": 9.0, "reference": 1.0}, target)) == answer


def test_a_busy_machine_is_told() -> None:
    text = render_benchmark(report(row({"snnzoo": 1.0, "norse": 3.0}, {"peer": 2.0}), busy=1.5))
    assert "other work kept 1.5 of 2 cores busy" in text
    assert "ratios of CPU times: work 3x best peer" in text


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


TARGETS = {"untuned": {"16": 1.0}, "tuned": {"16": 0.2, "8": 0.5, "4": 1.0}}
OURS = {
    "ann": 0.99,
    "untuned": {"16": 0.98, "8": 0.9},
    "tuned": {"16": 0.988, "8": 0.985, "4": 0.98},
    "netx": {"different": 0},
    "seconds": 12.3,
}
PEER = {
    "max": {"ann": 0.99, "accuracy": {"16": 0.95, "8": 0.9, "4": 0.5}},
    "local": {"ann": 0.99, "accuracy": {"16": 0.94, "8": 0.91, "4": 0.6}},
}


def conversions(*rows):
    return {"targets": TARGETS, "versions": {"onnx2torch": "2"}, "rows": rows}


def conversion(ours=OURS, theirs=PEER, file="a.onnx", **conditions):
    where = {name: report()[name] for name in ("cpu", "cores", "threads", "date", "busy_cores")}
    return {"file": file, "epochs": 2, "conditions": {**where, **conditions}, "snnzoo": ours, "spikingjelly": theirs}


def told(*rows):
    """Return the table and its notes."""
    report = conversions(*rows)
    return "\n".join([render_conversions(report), *(f"- {note}" for note in conversion_details(report))])


def test_a_conversion_has_the_best_of_each_recipe() -> None:
    text = told(conversion())
    assert "onnx2torch 2." in text
    assert "- a processor, 2 cores, 2 threads; 2026-01-01: `a.onnx`" in text
    cells = "| `a.onnx` | 99.00 | 98.00 | 98.80 / 98.50 / 98.00 | yes | 95.00 / 91.00 / 60.00 | same | 12 |"
    assert cells in text
    assert "Untuned: 1 at T = 16; tuned: 0.2 at T = 16, 0.5 at T = 8, 1 at T = 4." in text
    assert "(max, local)" in text


def test_what_could_not_be_converted_is_told_below() -> None:
    refused = conversion({"error": "UnsupportedError: an LSTM"})
    failed = conversion({**OURS, "netx": {"error": "skips"}}, {"max": {"error": "onnx2torch: why"}}, "b.onnx")
    text = told(refused, failed, conversion(theirs={}, file="c.onnx"))
    assert "| `a.onnx` | 99.00 | not converted | - | - | 95.00 / 91.00 / 60.00 | - | - |" in text
    assert "- `a.onnx`, snnzoo: UnsupportedError: an LSTM" in text
    assert "| yes | not converted | - | 12 |" in text
    assert "- `b.onnx`, `.net`: skips\n- `b.onnx`, onnx2torch: why" in text
    assert "| yes | - | same | 12 |" in text


def test_it_is_told_where_and_beside_what_files_were_converted() -> None:
    rows = [conversion(file="a"), conversion(file="b", cpu="X", busy_cores=1.5), conversion(file="c", threads=1)]
    text = told(*rows, conversion(file="d"))
    assert "- a processor, 2 cores, 2 threads; 2026-01-01: `a`, `d`" in text
    assert "- X, 2 cores, 2 threads; 2026-01-01; other work kept 1.5 cores busy, so it took longer: `b`" in text
    assert "- a processor, 2 cores, 1 threads; 2026-01-01: `c`" in text


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, "yes"),
        ({"ann": 0.9901}, "no"),
        ({"untuned": {"16": 0.9799}}, "no"),
        ({"tuned": {"16": 0.988, "8": 0.985, "4": 0.9799}}, "no"),
        ({"tuned": {"16": 0.988, "8": 0.985, "4": None}}, "?"),
        ({"tuned": {}}, "?"),
    ],
)
def test_points_that_a_conversion_may_lose(changes, answer) -> None:
    assert targets_met({**OURS, **changes}, TARGETS) == answer


@pytest.fixture
def programs(workload, monkeypatch):
    return load("programs", TESTS / "benchmarks", monkeypatch)


@pytest.fixture
def bench_convert(programs, monkeypatch):
    load("check_onnx", TESTS / "benchmarks", monkeypatch)
    module = load("bench_convert", TESTS / "benchmarks", monkeypatch)
    monkeypatch.setattr(module, "DATASET", SAMPLE_NAME)
    monkeypatch.setattr(module, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(module, "has_module", lambda python, name: True)
    return module


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


def test_rows_are_written_as_they_come_and_redone_by_name(bench_convert, monkeypatch, tmp_path) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).touch()
    (tmp_path / "README.md").write_text(
        "| file | preprocessing |\n|---|---|\n| b.onnx | (x/255-.1307)/.3081 |\n", "utf-8"
    )
    output, asked = tmp_path / "convert.json", []

    def answer(name, command, request, *, threads, seconds):
        asked.append((name, Path(request["path"]).name, request.get("recipe"), request["mean"]))
        if (name, asked[-1][1]) == ("snnzoo", "b.onnx") and len(asked) < 10:
            raise KeyboardInterrupt
        if request.get("recipe") == "max":
            raise bench_convert.WorkerError("not done")
        steps = request["time_steps"]
        stages = {} if name != "snnzoo" else {"untuned": {str(steps): steps / 20, "1": 0.0}, "tuned": {}}
        return {"call": len(asked), "versions": {name: "1"}, **stages}

    def rows():
        return {row["file"]: row for row in json.loads(output.read_text("utf-8"))["rows"]}

    monkeypatch.setattr(bench_convert, "run_once", answer)
    arguments = ["bench_convert.py", "--folder", str(tmp_path), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(KeyboardInterrupt):
        bench_convert.main()
    first = rows()
    assert list(first) == ["a.onnx"]
    assert first["a.onnx"]["spikingjelly"]["max"] == {"error": "not done"}
    assert first["a.onnx"]["snnzoo"]["untuned"] == {"16": 0.8, "8": 0.4, "4": 0.2}  # each from its own conversion
    asked += [("",) * 4] * 10
    monkeypatch.setattr(sys, "argv", [*arguments, "--only", "b."])
    assert bench_convert.main() == 0
    assert asked[-6:] == [("snnzoo", "b.onnx", None, 0.1307)] * 3 + [
        ("spikingjelly", "b.onnx", recipe, 0.1307) for recipe in bench_convert.RECIPES
    ]
    assert rows()["a.onnx"] == first["a.onnx"]
    assert json.loads(output.read_text("utf-8"))["versions"] == {"snnzoo": "1", "spikingjelly": "1"}
    assert list(rows()) == ["a.onnx", "b.onnx"]
    peers, n_asked = rows()["b.onnx"]["spikingjelly"], len(asked)
    monkeypatch.setattr(sys, "argv", [*arguments, "--only", "b.", "--ours"])
    assert bench_convert.main() == 0
    assert len(asked) == n_asked + 3
    assert rows()["b.onnx"]["spikingjelly"] == peers


def test_spikingjelly_calibrates_on_images_of_the_training_set(bench_convert, tmp_path) -> None:
    from bootstrap_core.data.datasets import load_dataset
    from converters.ann_to_snn.best_candidate import MOST_IMAGES

    dataset = load_dataset(SAMPLE_NAME)
    bench_convert.save_images(dataset, tmp_path / "images.npz")
    with np.load(tmp_path / "images.npz") as arrays:
        seen, test = arrays["calibration"], arrays["test"]
    assert len(seen) == min(MOST_IMAGES, len(dataset.train))
    assert {image.tobytes() for image in seen} <= {image.tobytes() for image in dataset.train.images.numpy()}
    assert (test == dataset.test.images.numpy()).all()


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


# --- several processes


CLUSTER = {
    **{name: report()[name] for name in ("cpu", "cores", "threads", "date")},
    "busy_cores": 0.0,
    "network": "a-network",
    "dataset": "digits",
    "epochs": 3,
    "images": 400,
    "batches": 12,
    "losses": {"1": [0.75, 0.5], "2": [0.75, 0.501]},
    "largest_difference": {"1": 0.0, "10": 1.25e-7, "12": 2e-3},
    "seconds": {"1": {"ann": 4.0, "snn": 9.0}, "2": {"ann": 2.5, "snn": 4.5}},
}


def test_trained_delays_tell_patterns_apart_that_fixed_ones_do_not(monkeypatch) -> None:
    """The benchmark in short: fewer recordings, one seed."""
    bench = load("bench_delays", TESTS / "benchmarks", monkeypatch)
    short = {"seed": 1, "epochs": 8, "n_training": 600}
    fixed, trained = (bench.accuracy(bench.KINDS[kind], 8, **short) for kind in ("fixed", "trained"))
    assert trained > fixed + 0.15


def test_the_table_of_delays_has_the_mean_and_the_range_of_the_seeds() -> None:
    found = {"8": {"none": [0.2, 0.3], "trained": [0.9, 0.8]}}
    report = {"date": "2026-12-01", "commit": "abc", "classes": 6, "channels": 16, "longest": 8, "accuracies": found}
    text = render_delays(report)
    assert "mean of 2 seeds" in text
    assert "| 8 | 25.0% (20.0% to 30.0%) | 85.0% (80.0% to 90.0%) |" in text


def test_the_table_of_values_has_a_row_for_each_threshold() -> None:
    first = {"threshold": 0.0, "untuned": 0.04, "tuned": None, "messages": [0.25, 0.5], "synops": 15000.4}
    second = {"threshold": 0.0625, "untuned": 0.16, "tuned": 0.06, "messages": [0.1, 0.2], "synops": 3000.0}
    report = {"date": "2026-12-01", "commit": "abc", "ann": 0.03, "deviation": 0.6, "macs": 37144, "seconds": 12.3}
    text = render_values(report | {"rows": [first, second]})
    assert "an error of 0.0300 and 37,144 MACs" in text
    assert "| 0 | 0.0400 | - | 0.25, 0.50 | 15,000 |" in text
    assert "| 1/16 | 0.1600 | 0.0600 | 0.10, 0.20 | 3,000 |" in text


def test_a_cluster_s_table_has_differences_seconds_and_ratios() -> None:
    text = render_cluster(CLUSTER)
    assert "of the last batch (12) is 0.5000" in text
    assert "loss difference, 1 batch | loss difference, 10 batches | loss difference, 12 batches |" in text
    assert "| 1 | 4.00 (1.00x) | 9.00 (1.00x) | - | - | - |" in text
    assert "| 2 | 2.50 (1.60x) | 4.50 (2.00x) | 0.0e+00 | 1.2e-07 | 2.0e-03 |" in text
    assert "busy" not in text
    assert "other work kept 1.5 of 2 cores busy" in render_cluster({**CLUSTER, "busy_cores": 1.5})


@pytest.fixture
def estimates(monkeypatch):
    return load("estimate_cluster", TESTS / "benchmarks", monkeypatch)


def test_the_estimate_is_of_resnet_50(estimates) -> None:
    found = estimates.report()
    assert found["parameters"] == pytest.approx(25.5e6, rel=0.01)  # He et al. count 3.8e9 products without projections
    assert found["products"] == pytest.approx(3.9e9, rel=0.05)
    assert json.loads(estimates.RESULT.read_text("utf-8")) == found


def test_an_estimate_grows_with_time_steps_and_shares_by_gpus(estimates) -> None:
    assumed = estimates.Assumed(network_bytes_per_second=1e30)
    one, eight, longer = (estimates.estimate(t, gpus, assumed) for t, gpus in ((4, 1), (4, 8), (16, 1)))
    assert eight["hours"] == pytest.approx(one["hours"] / 8, rel=0.01)
    assert longer["hours"] == pytest.approx(4 * one["hours"], rel=0.01)
    assert (one["meeting_part"], estimates.estimate(4, 1, estimates.Assumed())["meeting_part"]) == (0, 0)
    assert estimates.estimate(4, 8, estimates.Assumed())["meeting_part"] > 0.01


def test_engines_are_compared_by_model() -> None:
    row = {"data": "mnist", "images": 10000, "time_steps": 8, "spikes": 1234, "places": 98765, "different": 0}
    report = {"date": "2026-01-02", "commit": "abc", "kernels": "native library", "models": {"tiny": row}}
    assert render_engines(report).splitlines()[-1] == "| `tiny` | 10,000 of mnist | 8 | 1,234 | 98,765 | 0 |"


def test_c_source_is_compared_by_model_and_build() -> None:
    builds = {"gcc -O2": {"images": 10000, "different": 0}, "gcc -O0": {"images": 300, "different": 1}}
    row = {"builds": builds, "native_ms": 0.5, "c_ms": {"gcc -O2": 0.25}, "ram_bytes": 7220}
    board = {"self_test": "ok", "flash_bytes": 408792, "instructions_show": 340000, "instructions_step": 35775}
    report = {"date": "2026-01-02", "commit": "abc", "cpu": "a CPU", "models": {"tiny": row}}
    assert render_c(report).splitlines()[-1] == "| `tiny` | 0 of 10,000 | 1 of 300 | 0.50 | 0.25 |"
    report["models"]["tiny"]["cortex_m4"] = board
    assert render_c(report).splitlines()[-1] == "| `tiny` | ok | - | 408,792 | 7,220 | 340,000 | 35,775 |"


def test_a_deep_network_has_a_row_for_each_number_of_steps() -> None:
    measured = {"ann": 0.75, "untuned": None, "tuned": 0.7712, "images": 10_000, "cpu_s": 396.6, "memory_gib": 1.84}
    made = {"cpu": "A CPU", "threads": 1, "date": "2026-12-01", "commit": "abc"}
    row = {"file": "net.onnx", "data": "cifar-10-jpeg", "time_steps": 16, "conditions": made, **measured}
    lines = render_deep({"rows": [row, {**row, "time_steps": 8}]}).splitlines()
    titled = "| `net.onnx` | CIFAR-10 (JPEG copies) | 10,000 | 16 | 75.00 | - | 77.12 | 397 | 1.8 |"
    assert lines[2:] == [titled, titled.replace("| 16 |", "| 8 |"), "", "- A CPU, 1 thread; 2026-12-01, commit abc"]


def test_c_source_of_events_is_compared_by_network() -> None:
    row = {
        "recordings": 20, "steps": 100, "answers": 22000, "builds": {"gcc -O2": 0, "gcc -O0": 3}, "ram_bytes": 1980,
        "native_us": 18.12, "c_us": {"gcc -O2": 10.28},
    }  # fmt: skip
    report = {"date": "2026-01-02", "commit": "abc", "cpu": "a CPU", "networks": {"loop": row}}
    assert render_c_events(report).splitlines()[-1] == ("| loop | 44,000 | 3 | 18.1 | 10.3 | - | - | - | 1,980 | - |")
    row |= {"cortex_m4": {"self_test": "ok", "flash_bytes": 26792, "instructions_step": 62808}, "riscv64": "ok"}
    assert render_c_events(report).splitlines()[-1].endswith("| ok | ok | 26,792 | 1,980 | 62,808 |")


def test_kills_are_counted_by_command() -> None:
    counts = {"tries": 9, "killed": 7, "temporaries": 1, "lost": 0}
    assert "| convert | 9 | 7 | - | 1 | 0 | - |" in render_kills({"convert": counts})


def test_a_profile_shows_the_parts_of_each_step_and_adds_up() -> None:
    steps = {
        "step": {"seconds": 0.02, "parts": {"products": 0.015, "copies": 0.0047, "small": 0.0003}},
        "inference": {"seconds": 0.004, "parts": {"trains": 0.003, "copies": 0.001}},
    }
    report = {
        "cpu": "a CPU",
        "threads": 1,
        "kernel": "native library",
        "batch": 256,
        "date": "today",
        "networks": {"dense": steps},
    }
    lines = render_profile(report).splitlines()
    assert lines[2:] == [
        "| dense | step, 20.0 ms | inference, 4.0 ms |",
        "|---|---|---|",
        "| products | 75% | - |",
        "| copies | 24% | 25% |",
        "| trains | - | 75% |",
        "| all else | 2% | 0% |",
    ]
