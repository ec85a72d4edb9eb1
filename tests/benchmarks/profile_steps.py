"""Print where the time of a step goes, as Markdown tables: SNN training, ANN training, exact inference.

    python tests/benchmarks/profile_steps.py [--network dense|conv] [--threads 1] [--batch 256] [--repeats 20] [--ops]

Writes `results/profile.json`; `python tests/make_readme_tables.py --print profile` prints it as a table. The weights
are random, scaled so that all layers spike. Training: self time of torch's operators under its profiler, each added to
the snnzoo operator that calls it, or else to the first group in `GROUPS` whose pattern matches its name or the name of
an operator around it. Inference: self time of functions under Python's profiler; time in the native library counts for
the function that calls it. Each table also has the median time of the step without a profiler. `--ops` lists operators.
"""

import argparse
import cProfile
import json
import pstats
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from programs import RESULTS, base_request, cpu_model, stamp
from snnzoo_worker import Program
from torch.profiler import ProfilerActivity, profile
from workload import NETWORKS, RANDOM, prepare

from bootstrap_core.ops.library import describe

GROUPS = {
    "optimiser": r"Optimizer|adam",
    "matrix products, convolutions": r"aten::(mm|addmm|bmm|linear|matmul|_int_mm|.*convolution.*|conv2d|mkldnn.*)$|"
    r"product|int_linear|int_conv|im2col",
    "neurons over time": r"[Cc]uba|neuron|train",
    "input": r"input",
    "activation": r"[Pp]iecewise",
    "weights: norm and grid": r"weight_norm|WeightNorm|quantize|Quantize|StraightThrough|aten::norm|round",
    "loss": r"cross_entropy|nll_loss|log_softmax|NllLoss|LogSoftmax",
    "memory: copies, fills": r"aten::(copy_|_to_copy|to|clone|contiguous|zeros.*|zero_|fill_|empty.*|cat|stack)$",
}
OURS = re.compile(r"(?:^|: )_([A-Z]\w+?)(Backward)?$")
"""Name of an snnzoo operator or its backward pass; each forms a group by itself."""

WORKS = {"snn_step": "SNN training step", "ann_step": "ANN training step", "infer": "exact inference"}


def group(event: Any) -> str:
    """Return the group of an operator, by its own name first, then by the names of the operators around it."""
    node = event
    while node is not None:
        if ours := OURS.search(node.name):
            return f"operator {ours[1]}{', backward' if ours[2] else ''}"
        for name, pattern in GROUPS.items():
            if re.search(pattern, node.name):
                return name
        node = node.cpu_parent
    return "other operators"


Found = tuple[Counter[str], dict[str, Counter[str]]]
"""Seconds of each group, and seconds of the operators in each group."""


def time_calls(call: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def by_operator(call: Callable[[], object], repeats: int) -> Found:
    """Profile with torch's profiler."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        whole = (time.perf_counter() - start) / repeats
    groups: Counter[str] = Counter()
    operators: dict[str, Counter[str]] = defaultdict(Counter)
    for event in profiler.events():
        part = event.self_cpu_time_total / 1e6 / repeats
        groups[group(event)] += part
        operators[group(event)][event.name] += part
    groups["Python, between operators"] = max(0.0, whole - sum(groups.values()))
    return groups, operators


def by_function(call: Callable[[], object], repeats: int) -> Found:
    """Profile with Python's profiler."""
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(repeats):
        call()
    profiler.disable()
    groups: Counter[str] = Counter()
    for function, (_, _, own, _, callers) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        if place_of(*function) == "library: call":
            for caller, (_, _, part, _) in callers.items():
                groups[place_of(*caller)] += part / repeats
        else:
            groups[place_of(*function)] += own / repeats
    return groups, {}


def place_of(file: str, line: int, name: str) -> str:
    """Return the row name of a function: file and name for snnzoo's functions, the name for others."""
    return f"{Path(file).stem}: {name}" if "bootstrap_core" in file else name.strip("<>")


def table(what: str, seconds: float, found: Found, *, ops: bool) -> Iterator[str]:
    """Yield the lines of a Markdown table, largest part first."""
    groups, operators = found
    whole = sum(groups.values())
    yield f"| {what}: {1e3 * seconds:.2f} ms ({1e3 * whole:.2f} under the profiler) | ms | part |"
    yield "|---|---|---|"
    for name, part in groups.most_common():
        if part >= 0.01 * whole:
            yield f"| {name} | {1e3 * part:.2f} | {part / whole:.0%} |"
            for operator, own in operators.get(name, Counter()).most_common(6) if ops else ():
                yield f"| - `{operator}` | {1e3 * own:.2f} | {own / whole:.0%} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(NETWORKS), help="default: each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--ops", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {
        **stamp(),
        "cpu": cpu_model(),
        "kernel": describe(),
        "threads": options.threads,
        "batch": options.batch,
        "networks": {},
    }
    for network in [options.network] if options.network else NETWORKS:
        print(f"{network}, batch {options.batch}, T = 16, {options.threads} threads, {describe()}\n")
        works = report["networks"][network] = {}
        for work, what in WORKS.items():
            seconds, found = measure(network, work, options.batch, options.repeats)
            print("\n".join(table(what, seconds, found, ops=options.ops)))
            works[what] = {"seconds": seconds, "parts": dict(found[0].most_common())}
    if not (options.network or options.ops):
        (RESULTS / "profile.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def measure(network: str, work: str, batch: int, repeats: int) -> tuple[float, Found]:
    """Return the median seconds of a step, and the seconds of its parts."""
    request = {**base_request(), "batch": batch, "layers": NETWORKS[network], "work": work, "weights": RANDOM}
    call, _ = prepare(Program(request), request)
    for _ in range(3):
        call()
    seconds = time_calls(call, repeats)
    return seconds, (by_function if work == "infer" else by_operator)(call, repeats)


if __name__ == "__main__":
    main()
