"""Convert a deep network with the default options of `zoo convert`, and record accuracy, time and memory for each T.

    python tests/benchmarks/bench_deep.py FILE.onnx --data cifar-10-jpeg [--messages] [options of `zoo convert`]

All test images are scored, in the integer engine. `results/deep.json` is written after each T, and keeps the rows
of other files. With `--messages` the network has sigma-delta neurons, and its row is in `results/messages.json`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from programs import RESULTS, arguments, conditions, environment, write_row

TIME_STEPS = [16, 8, 4]
GIB = 1 << 30


def convert(path: Path, data: str, options: list[str], threads: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Run a conversion in a process of its own; return its JSON, and what it used: seconds of CPU, GiB of memory."""
    command = [sys.executable, "-W", "ignore", "-m", "zoo", "convert", str(path), "--data", data]
    command += ["--threads", str(threads), "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(threads))
    assert process.stdout is not None
    answer = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"Error: zoo convert {path} failed")
    memory = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / GIB
    return json.loads(answer), {"cpu_s": used.ru_utime + used.ru_stime, "memory_gib": memory}


def of_spikes(found: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return accuracies from 0 to 1, given the JSON of a conversion."""
    accuracy, t = found["accuracy"], str(steps)
    figures = {"ann": accuracy["ann"], "untuned": accuracy["converted"][t], "tuned": accuracy["tuned"].get(t)}
    return {"time_steps": steps, **figures, "images": found["samples"]}


def of_messages(found: dict[str, Any]) -> dict[str, Any]:
    """Return accuracies from 0 to 1, and operations, given the JSON of a conversion to sigma-delta neurons."""
    operations = {name: found[name] for name in ("messages_per_frame", "synops_per_frame", "ann_multiplications")}
    return {"time_steps": found["time_steps"], **found["accuracy"], **operations}


def main() -> None:
    parser = arguments(__doc__, threads=1)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", default="cifar-10-jpeg")
    parser.add_argument("--time-steps", type=int, nargs="+", default=TIME_STEPS)
    parser.add_argument("--messages", action="store_true", help="convert to sigma-delta neurons, into messages.json")
    parser.add_argument("--output", type=Path, help="default: deep.json or messages.json, in results/")
    given, options = parser.parse_known_args()

    def write(own: list[str], figures: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        row = {"file": given.file.name, "data": given.data, "conditions": conditions(given.threads)}
        found, used = convert(given.file, given.data, [*own, *options], given.threads)
        row |= figures(found) | used
        write_row(given.output or RESULTS / ("messages.json" if given.messages else "deep.json"), row)
        print(json.dumps(row), file=sys.stderr)

    if given.messages:
        write(["--neuron", "sigma-delta"], of_messages)
        return
    for steps in given.time_steps:
        write(["--time-steps", str(steps)], partial(of_spikes, steps=steps))


if __name__ == "__main__":
    main()
