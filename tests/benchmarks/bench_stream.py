"""Time one step of a stream beside norse and snnTorch: batch 1, one thread, states kept between the steps.

    python tests/benchmarks/bench_stream.py [--peer-python PY] [--repeats 15] [--output FILE]

Writes `results/stream.json`; `python tests/make_readme_tables.py --print stream` prints it as a table. Programs and
weights are those of `bench.py`. Each runs one step at a time: the other programs on the current of an image, which is
computed once, snnzoo on an image (spikes or graded input) or on the events of each step.
"""

import tempfile
from pathlib import Path

from bench import Row, measure_row
from programs import arguments, busy_cores, commands, header, make_weights, run_main, running, write_report

TARGET = {"seconds": 50e-6}
OTHERS = ("norse", "snntorch")
INPUTS = {
    "an image": {},
    "an image, graded input of 4 bits": {"encoding": "graded", "bits": 4},
    "events": {"encoding": "events", "bits": 1},
}
ROWS = [
    Row(
        f"784-512-512-10: one step of a stream, {what}",
        "step",
        "dense",
        ("snnzoo", *(() if options else OTHERS)),
        {**TARGET, **({} if options else {"peer": 8.0})},
        options={"batch": 1, "warm_up": 200, **options},
    )
    for what, options in INPUTS.items()
]


def main() -> int:
    parser = arguments(__doc__, output="stream.json", peers=True)
    parser.add_argument("--repeats", type=int, default=15, help="rounds, each of which measures all programs in turn")
    options = parser.parse_args()
    chosen = {name: it for name, it in commands(options.peer_python, None).items() if name in ("snnzoo", *OTHERS)}
    busy = busy_cores()
    with tempfile.TemporaryDirectory() as folder, running(chosen, 1) as programs:
        report = header(programs, 1, busy)
        weights = {"dense": str(Path(folder) / "dense.npz")}
        report["rates"] = {"dense": make_weights(programs["snnzoo"], "dense", Path(weights["dense"]))}
        rows = [measure_row(row, programs, weights, options.repeats) for row in ROWS]
    report["busy_cores"] = round(max(busy, busy_cores()), 2)  # before and after
    write_report(options.output, {**report, "rows": rows})
    return 0


if __name__ == "__main__":
    run_main(main)
