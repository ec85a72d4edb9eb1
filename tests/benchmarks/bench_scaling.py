"""Measure how time grows with T, width and batch: snnzoo, the fastest other program, and the matrix products in fp32.

    python tests/benchmarks/bench_scaling.py [--peer-python PY] [--peer NAME] [--threads 2] [--rounds 3] [--plot-only]

Measures exact inference and SNN training steps of 784-W-W-10 with W = 512, T = 16 and batches of 256, and varies one of
the three at a time. The weights are random, scaled so that all layers spike. By default the other program is the
fastest one in `results/bench.json`. Programs are measured in turn; figures are medians of calls. Writes
`results/scaling.json`, and plots `results/scaling_inference.png` and `results/scaling_training.png`. Takes less than
ten minutes.
"""

import json
import math
import sys
from pathlib import Path
from statistics import median
from typing import Any

from programs import (
    PEERS,
    RESULTS,
    Program,
    arguments,
    base_request,
    busy_cores,
    commands,
    header,
    run_main,
    running,
    write_report,
)
from workload import RANDOM, dense

AXES = {
    "time_steps": [1, 2, 4, 8, 16, 32, 64],
    "width": [256, 512, 1024, 2048, 4096],
    "batch": [1, 4, 16, 64, 256, 1024, 4096],
}
LABELS = {"time_steps": "time steps T", "width": "neurons of a hidden layer", "batch": "batch"}
WORKS = {"infer": ("exact inference", "inference"), "snn_step": ("SNN training step", "training")}
COLOURS = {"snnzoo": "#0b5394", "products": "#888888"}
SECONDS = 0.15
"""Duration of the measurement of a program in one round, in seconds; at least one call is measured."""


def fastest_peer(work: str, path: Path, found: list[str]) -> str | None:
    """Return the program of `found` that is fastest at this work in the benchmark results at `path`."""
    if not found:
        return None
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    what = WORKS[work][0]
    for row in rows:
        if row["what"].startswith("784") and what in row["what"]:
            return min((name for name in found if name in row["wall"]), key=row["wall"].__getitem__, default=found[0])
    return found[0]


def measure(programs: dict[str, Program], work: str, names: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Return median seconds along each axis: `{axis: {name: [...], "sizes": [...]}}`."""
    found: dict[str, dict[str, Any]] = {}
    for axis, sizes in AXES.items():
        found[axis] = {"sizes": sizes, **{name: [] for name in names}}
        for size in sizes:
            print(f"{WORKS[work][0]}, {axis} {size}", file=sys.stderr)
            request = {**base_request(), "layers": dense(size if axis == "width" else 512)}
            request |= {"weights": RANDOM, "warm_up": 1}
            if axis != "width":
                request[axis] = size
            calls: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in names:
                    job = "train_step" if name == "products" and work == "snn_step" else work
                    calls[name] += programs[name].ask(**request, work=job, seconds=SECONDS)["wall"]
            for name in names:
                programs[name].ask(work="forget")
                found[axis][name].append(median(calls[name]))
    return found


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Return the slope of log time against log size between the third last size and the last."""
    return math.log(seconds[-1] / seconds[-3]) / math.log(sizes[-1] / sizes[-3])


def plot(report: dict[str, Any], folder: Path) -> None:
    """Plot a figure for each kind of work, with a panel for each axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for work, (title, name) in WORKS.items():
        figure, panels = pyplot.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
        for panel, (axis, found) in zip(panels, report["found"][work].items(), strict=True):
            for program in (key for key in found if key != "sizes"):
                panel.plot(
                    found["sizes"],
                    [1e3 * seconds for seconds in found[program]],
                    color=COLOURS.get(program, "#e06c00"),
                    linestyle="--" if program == "products" else "-",
                    marker=None if program == "products" else "o",
                    markersize=4,
                    linewidth=2 if program == "snnzoo" else 1.5,
                    label={"products": "matrix products, fp32"}.get(program, program),
                )
            ours, limit = (slope(found["sizes"], found[key]) for key in ("snnzoo", "products"))
            panel.set_title(f"last slope: snnzoo {ours:.2f}, products {limit:.2f}", fontsize=9)
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.set_xticks(found["sizes"], [f"{size}" for size in found["sizes"]])
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.set_xlabel(LABELS[axis])
            panel.grid(alpha=0.3)
        panels[0].set_ylabel("milliseconds")
        panels[0].legend(frameon=False)
        figure.suptitle(
            f"{title}: 784-512-512-10, T = 16, batch 256, but for what varies; {report['cpu']}", fontsize=11
        )
        figure.savefig(folder / f"scaling_{name}.png", dpi=110, facecolor="white")
        pyplot.close(figure)


def main() -> int:
    parser = arguments(__doc__, threads=2, peers=True)
    parser.add_argument("--peer", choices=PEERS, help="default: the fastest program for each kind of work")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=RESULTS)
    parser.add_argument("--plot-only", action="store_true", help="plot earlier results, do not measure")
    options = parser.parse_args()
    path = options.folder / "scaling.json"
    if not options.plot_only:
        chosen = commands(options.peer_python, None)
        peers, busy = [name for name in PEERS if name in chosen], busy_cores()
        with running({n: c for n, c in chosen.items() if n != "relu"}, options.threads) as programs:
            report = header(programs, options.threads, busy) | {"found": {}}
            for work in WORKS:
                peer = options.peer or fastest_peer(work, RESULTS / "bench.json", peers)
                names = ["snnzoo", *([peer] if peer else []), "products"]
                report["found"][work] = measure(programs, work, names, options.rounds)
        write_report(path, report)
    plot(json.loads(path.read_text("utf-8")), options.folder)
    return 0


if __name__ == "__main__":
    run_main(main)
