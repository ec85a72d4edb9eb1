"""Convert a deep network with the default options of `zoo convert`, and record accuracy, time and memory for each T.

    python tests/benchmarks/bench_deep.py FILE.onnx --data cifar-10-jpeg --data-dir DIR [--raw]

All test images are scored, in the integer engine. `results/deep.json` is written after each T, and keeps the rows
of other files.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from programs import arguments, conditions, environment, write_row

TIME_STEPS = [16, 8, 4]
GIB = 1 << 30


def convert(path: Path, steps: int, data: str, options: list[str], threads: int) -> dict[str, Any]:
    """Run a conversion in a process of its own; return accuracies from 0 to 1, seconds of CPU, and GiB of memory."""
    command = [sys.executable, "-W", "ignore", "-m", "zoo", "convert", str(path), "--data", data]
    command += ["--time-steps", str(steps), "--threads", str(threads), "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(threads))
    assert process.stdout is not None
    answer = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"Error: zoo convert {path} failed")
    found = json.loads(answer)
    accuracy = found["accuracy"]
    return {
        "time_steps": steps,
        "ann": accuracy["ann"],
        "untuned": accuracy["converted"][str(steps)],
        "tuned": accuracy["tuned"].get(str(steps)),
        "images": found["samples"],
        "cpu_s": used.ru_utime + used.ru_stime,
        "memory_gib": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / GIB,
    }


def main() -> None:
    parser = arguments(__doc__, output="deep.json", threads=1)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", default="cifar-10-jpeg")
    parser.add_argument("--data-dir", type=Path, help="folder with the data; default: as `zoo` finds it")
    parser.add_argument("--time-steps", type=int, nargs="+", default=TIME_STEPS)
    parser.add_argument("--raw", action="store_true", help="the network takes pixels from 0 to 255")
    given = parser.parse_args()
    options = (["--raw"] if given.raw else []) + ([] if given.data_dir is None else ["--data-dir", str(given.data_dir)])
    for steps in given.time_steps:
        row = {"file": given.file.name, "data": given.data, "conditions": conditions(given.threads)}
        row |= convert(given.file, steps, given.data, options, given.threads)
        write_row(given.output, row)
        print(json.dumps(row), file=sys.stderr)


if __name__ == "__main__":
    main()
