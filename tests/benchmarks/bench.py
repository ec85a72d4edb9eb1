"""Compare the speed of snnzoo, lava-dl, snntorch, norse, spikingjelly and sinabs on one machine.

    python tests/benchmarks/bench.py [--peer-python PY] [--lava-python PY] [--threads 2] [--repeats 7] [--only WORD]

Writes `results/bench.json`; `python tests/make_readme_tables.py --print bench` prints it as a table. --peer-python is a
Python with the other programs (`pip install '.[bench]'`), by default this one; --lava-python is one with lava-dl, which
is otherwise left out. $PEER_PYTHON and $LAVA_PYTHON set the defaults.

All programs run the same network on the same 256 digits, with weights that snnzoo trained briefly on the embedded
sample; see `peer_worker.py` and `lava_dl_worker.py`. The report counts the digits that each program classifies as
snnzoo does. Each program is a process that warms up and then waits. Programs are measured in turn, A B C A B C, for a
few tenths of a second each, and the table has the median of all calls. All use AdamW, fused.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from programs import (
    PEERS,
    Program,
    WorkerError,
    arguments,
    base_request,
    busy_cores,
    commands,
    header,
    make_weights,
    run_main,
    running,
    write_report,
)
from workload import NETWORKS

SPIKING = ("snnzoo", "lava-dl", *PEERS)
BOOTSTRAP = ("snnzoo", "lava-dl")
PROCESSES = 3
"""Number of fresh processes for memory and first calls: memory differs by a tenth between processes, times by more."""
OTHERS_BATCHES = 5
FIRST_CALLS = {"infer": "exact inference", "ann_step": "ANN training step", "snn_step": "SNN training step"}
FIRST_CALL_S = 0.5
"""Seconds that a first training call may take beyond a later one; for inference, see `FIRST_BATCH`."""
FIRST_BATCH = 2.0
"""Time that the first batch of inference may take, as a multiple of a later one."""
BUSY = 2.0
"""Time that work may take while another process keeps one core busy, as a multiple of the time without it."""
SHAPES = {"dense": "784-512-512-10", "conv": "conv"}


@dataclass(frozen=True)
class Row:
    """Row of the benchmark: a kind of work, the programs that do it, and a reference as (program, work, name).

    `target` contains, for "lava-dl" and "peer" (the fastest other program), the smallest allowed ratio of its time to
    ours; for "reference" the largest allowed ratio of our time to the reference; for "seconds" the longest time.
    """

    what: str
    work: str
    network: str
    programs: tuple[str, ...]
    target: dict[str, float]
    reference: tuple[str, str, str] | None = None
    seconds: float = 0.4
    options: dict[str, Any] = field(default_factory=dict)


def network_rows(network: str, lava: float, infer: float, peer: float, relu: float) -> list[Row]:
    """Return the rows for inference and both training steps, with their targets."""
    name = SHAPES[network]
    products = ("products", "infer", "fp32 products"), ("products", "train_step", "fp32 products")
    is_dense = network == "dense"
    train = {"lava-dl": 12.0 if is_dense else lava, "peer": 4.0}
    inference = {"lava-dl": lava, "peer": infer, **({"reference": 1.0} if is_dense else {})}
    ann, net = {"reference": relu, **({} if is_dense else {"lava-dl": lava})}, ("relu", "ann_step", "ReLU net")
    return [
        Row(f"{name}: exact inference", "infer", network, SPIKING, inference, products[0]),
        Row(f"{name}: SNN training step", "snn_step", network, SPIKING, train, products[1]),
        Row(f"{name}: ANN training step", "ann_step", network, BOOTSTRAP, ann, net),
    ]


SMALL = "784-512-512-10: SNN training step, batch"
STEPS = ("snnzoo", "epoch_steps", "its training steps")
ROWS = [
    *network_rows("dense", 35.0, 8.0, 4.0, 1.2),
    *network_rows("conv", 10.0, 8.0, 4.0, 1.2),
    Row(f"{SMALL} 1", "snn_step", "dense", ("snnzoo",), {"seconds": 0.004}, options={"batch": 1}),
    Row(f"{SMALL} 16", "snn_step", "dense", ("snnzoo",), {"seconds": 0.008}, options={"batch": 16}),
    Row("SAMPLE pass", "sample_forward", "dense", BOOTSTRAP, {"reference": 1.3}, ("snnzoo", "forward", "SNN forward")),
    Row("FIT, a layer", "fit", "dense", BOOTSTRAP, {"seconds": 0.05}),
    Row("one image, from call to class", "one", "dense", SPIKING, {"lava-dl": 10.0}),
    Row("epoch of the tutorial, with augmentation", "epoch", "dense", ("snnzoo",), {"reference": 1.25}, STEPS,
        options={"warm_up": 1}),
]  # fmt: skip
"""Rows of the benchmark, in the order of the table."""


def measure_row(row: Row, programs: dict[str, Program], weights: dict[str, str], rounds: int) -> dict[str, Any]:
    """Measure the programs and the reference in turn; return the median seconds of all calls for each."""
    request = {**base_request(), "layers": NETWORKS[row.network], "weights": weights[row.network], **row.options}
    jobs = {name: (name, row.work) for name in row.programs if name in programs}
    if row.reference is not None:
        jobs["reference"] = row.reference[:2]
    calls: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for column, (name, work) in jobs.items():
            calls[column] += programs[name].ask(**request, work=work, seconds=row.seconds)["wall"]
    wall = {column: median(found) for column, found in calls.items()}
    return result(row.what, "s", row.target, wall, row.reference and row.reference[2])


def result(
    what: str, unit: str, target: dict[str, float], wall: dict[str, float], reference: str | None = None
) -> dict[str, Any]:
    """Return a row of the report."""
    return {"what": what, "unit": unit, "target": target, "reference": reference, "wall": wall}


def measure_memory(
    chosen: dict[str, list[str]], weights: dict[str, str], threads: int, request: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return rows of peak memory, in MiB above a run of one image and one step.

    Figures of snnzoo are medians of `PROCESSES` fresh processes, those of the other programs come from one process.
    """
    base = {**request, "layers": NETWORKS["dense"], "weights": weights["dense"]}

    def peaks(name: str, work: str, batches: list[int], steps: int = 16) -> list[float]:
        found = []
        for _ in range(PROCESSES if name == "snnzoo" else 1):
            with running({name: chosen[name]}, threads) as programs:
                answer = programs[name].ask(**{**base, "time_steps": steps}, work=work, batches=batches)
            found.append(answer["mib"])
        return [median(some) for some in zip(*found, strict=True)]

    def row(what: str, found: dict[str, float], reference: float, name: str) -> dict[str, Any]:
        return result(f"memory, {what}", "MiB", {"reference": 1.1}, {**found, "reference": reference}, name)

    rows = []
    for work, what in (("infer", "exact inference"), ("snn_step", "SNN training")):
        others = {name: peaks(name, work, [OTHERS_BATCHES])[0] for name in SPIKING[1:] if name in chosen}
        (few, many), (long,) = peaks("snnzoo", work, [20, 200]), peaks("snnzoo", work, [20], 64)
        if work == "infer":
            block = 48 * base["batch"] * 784 / 2**20  # spikes of the widest block in 48 more steps, 1 byte each
            limit, name = few + block, "T = 16 and a block's spikes"
        else:
            limit, name = 4 * few, "4 times T = 16"
        rows.append(row(f"{what}, 200 batches", {"snnzoo": many, **others}, few, "20 batches"))
        rows.append(row(f"{what}, T = 64", {"snnzoo": long}, limit, name))
    return rows


def measure_first_calls(chosen: dict[str, list[str]], weights: dict[str, str], threads: int) -> list[dict[str, Any]]:
    """Return rows of the first call in a fresh process beside later calls, as medians of `PROCESSES` processes."""
    rows: list[dict[str, Any]] = []
    for network, path in weights.items():
        request = {**base_request(), "layers": NETWORKS[network], "weights": path}
        for work, what in FIRST_CALLS.items():
            answers = []
            for _ in range(PROCESSES):
                with running({"snnzoo": chosen["snnzoo"]}, threads) as programs:
                    answers.append(programs["snnzoo"].ask(**request, work=work, seconds=0.5))
            first, later = median(a["first"] for a in answers), median(median(a["wall"]) for a in answers)
            title = f"{SHAPES[network]}, {what}"
            if work == "infer":
                target, wall = {"reference": FIRST_BATCH}, {"snnzoo": first, "reference": later}
                rows.append(result(f"first batch in a process: {title}", "s", target, wall, "a later batch"))
            else:
                target, wall = {"seconds": FIRST_CALL_S}, {"snnzoo": first - later}
                rows.append(result(f"first call in a process, above a later one: {title}", "s", target, wall))
    return rows


def measure_busy(programs: dict[str, Program], weights: dict[str, str], rounds: int) -> list[dict[str, Any]]:
    """Return rows of work while another process keeps one core busy, beside the same work without it."""
    rows = []
    for work, what in FIRST_CALLS.items():
        request = {**base_request(), "layers": NETWORKS["dense"], "weights": weights["dense"], "work": work}
        idle, busy = list[float](), list[float]()
        for _ in range(rounds):
            idle += programs["snnzoo"].ask(**request, seconds=0.5)["wall"]
            with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
                busy += programs["snnzoo"].ask(**request, seconds=1.0)["wall"]
                other.kill()
        title = f"while another process keeps a core busy: {SHAPES['dense']}, {what}"
        wall = {"snnzoo": median(busy), "reference": median(idle)}
        rows.append(result(title, "s", {"reference": BUSY}, wall, "otherwise"))
    return rows


def agreement(programs: dict[str, Program], weights: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return for each network and program the number of digits that it classifies as snnzoo does."""
    found: dict[str, dict[str, str]] = {}
    for network, path in weights.items():
        request = {**base_request(), "work": "classes", "layers": NETWORKS[network], "weights": path}
        classes = {name: programs[name].ask(**request)["classes"] for name in SPIKING if name in programs}
        ours = classes.pop("snnzoo")
        found[network] = {
            name: f"{sum(a == b for a, b in zip(ours, theirs, strict=True))}/{len(ours)}"
            for name, theirs in classes.items()
        }
    return found


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__, output="bench.json", threads=2, peers=True, lava=True)
    parser.add_argument("--repeats", type=int, default=7, help="rounds, each of which measures all programs in turn")
    parser.add_argument("--only", default="", help="measure only rows that contain this word; keep the others")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    chosen, busy = commands(options.peer_python, options.lava_python), busy_cores()
    with tempfile.TemporaryDirectory() as folder, running(chosen, options.threads) as programs:
        report = header(programs, options.threads, busy)
        before = json.loads(options.output.read_text("utf-8")) if options.only and options.output.exists() else None
        same = ("cpu", "threads", "kernel", "versions")
        if before is not None and (other := [key for key in same if before[key] != report[key]]):
            raise WorkerError(f"{options.output} was measured with another {' and '.join(other)}: leave out --only")
        weights = {network: str(Path(folder) / f"{network}.npz") for network in NETWORKS}
        report["rates"] = {
            network: make_weights(programs["snnzoo"], network, Path(path)) for network, path in weights.items()
        }
        report["agreement"] = agreement(programs, weights)
        rows = []
        for row in ROWS:
            if options.only in row.what:
                print(row.what, file=sys.stderr)
                rows.append(measure_row(row, programs, weights, options.repeats))
        if options.only in "while another process keeps a core busy":
            rows += measure_busy(programs, weights, options.repeats)
        if options.only in "first call":
            rows += measure_first_calls(chosen, weights, options.threads)
        if options.only in "memory":
            rows += measure_memory(chosen, weights, options.threads, base_request())
    report["notes"] = [f"memory of the other programs: of one process, after {OTHERS_BATCHES} batches"]
    report["busy_cores"] = round(max(busy, busy_cores()), 2)  # before and after
    rows = [row | {"date": report["date"], "commit": report["commit"]} for row in rows]
    if before is not None:
        measured, when = {row["what"]: row for row in rows}, {"date": before["date"], "commit": before.get("commit")}
        rows = [measured.pop(row["what"], when | row) for row in before["rows"]] + list(measured.values())
    write_report(options.output, {**report, "rows": rows})
    return 0


if __name__ == "__main__":
    run_main(main)
