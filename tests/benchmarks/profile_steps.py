"""Measure where the time of a step goes: SNN training, ANN training, exact inference.

    python tests/benchmarks/profile_steps.py [--threads 1] [--batch 256] [--repeats 20]

Writes `results/profile.json`; `python tests/make_readme_tables.py --print profile` prints it as a table. The weights
are random, scaled so that all layers spike. Training: self time of torch's operators under its profiler, each added to
the snnzoo operator that calls it, or else to the first group in `GROUPS` whose pattern matches its name or the name of
an operator around it. Inference: self time of functions under Python's profiler; time in the native library counts for
the function that calls it. Each column also has the median time of the step without a profiler.
"""

import cProfile
import pstats
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from programs import arguments, base_request, conditions, write_report
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


def by_operator(call: Callable[[], object], repeats: int) -> Counter[str]:
    """Profile with torch's profiler."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        whole = (time.perf_counter() - start) / repeats
    groups: Counter[str] = Counter()
    for event in profiler.events():
        groups[group(event)] += event.self_cpu_time_total / 1e6 / repeats
    groups["Python, between operators"] = max(0.0, whole - sum(groups.values()))
    return groups


def by_function(call: Callable[[], object], repeats: int) -> Counter[str]:
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
    return groups


def place_of(file: str, line: int, name: str) -> str:
    """Return the row name of a function: file and name for snnzoo's functions, the name for others."""
    return f"{Path(file).stem}: {name}" if "bootstrap_core" in file else name.strip("<>")


def measure(network: str, work: str, batch: int, repeats: int) -> dict[str, Any]:
    """Return the median seconds of a step, and the seconds of its parts."""
    request = {**base_request(), "batch": batch, "layers": NETWORKS[network], "work": work, "weights": RANDOM}
    call, _ = prepare(Program(request), request)
    for _ in range(3):
        call()
    seconds = median(time_call(call) for _ in range(repeats))
    parts = (by_function if work == "infer" else by_operator)(call, repeats)
    return {"seconds": seconds, "parts": dict(parts.most_common())}


def time_call(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = arguments(__doc__, output="profile.json", threads=1)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    networks = {
        network: {what: measure(network, work, options.batch, options.repeats) for work, what in WORKS.items()}
        for network in NETWORKS
    }
    report = {**conditions(options.threads), "kernel": describe(), "batch": options.batch, "networks": networks}
    write_report(options.output, report)


if __name__ == "__main__":
    main()
