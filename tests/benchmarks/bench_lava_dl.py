"""snnzoo against lava-dl, on one machine, in turn: an ANN-mode training epoch and SNN-mode test runs.

    python tests/benchmarks/bench_lava_dl.py --lava-python PY [--data-dir D] [--threads 1] [--repeats 3] [--json]

The network is the bootstrap tutorial's, 784-512-512-10 with weight norm, as in specs/networks/mnist-dense.yaml. Both
sides get the same images (no augmentation), batch size, order, loss and optimiser (cross entropy; torch's Adam with its
defaults), from one text, `workload.py`. Each side first trains some batches as SNN to sample, one to fit and five in
ANN mode, untimed. Then it times

- an epoch in ANN mode (`--batches N` times the first N batches and scales the seconds up);
- classifying all test images as SNN with T steps: snnzoo's float and integer engines, and lava-dl.

Each repeat is a fresh process; ours and lava-dl's alternate, and the table has medians, by the wall clock and by the
CPU time of the process: on a busy machine only the second tells the work. PY is a Python with lava-dl
0.6; $LAVA_PYTHON does as well. Data: D, $ZOO_DATA_DIR or the cache; else the embedded sample, scaled up.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bootstrap_core.datasets import SAMPLE_NAME, find_dataset

HERE = Path(__file__).parent
N_TRAIN, N_TEST = 60_000, 10_000
"""Images of the whole MNIST, which all seconds are given for."""

ROWS = {
    "ANN training epoch": ("epoch", "epoch"),
    "SNN test run, float engine": ("float", "float"),
    "SNN test run, integer engine": ("integer", "float"),
}
"""What is compared: our measurement, and lava-dl's."""

CLOCKS = ("seconds", "cpu_seconds")
DISTURBED = 1.1
"""With one thread, wall seconds beyond this many CPU seconds mean that other programs took the processor."""


class WorkerError(Exception):
    """A worker failed; says why."""


def run_worker(python: str, script: str, request: dict[str, Any]) -> dict[str, Any]:
    """One run of a worker: the JSON it prints."""
    threads = str(request["threads"])
    variables = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    command = [python, "-W", "ignore", str(HERE / script), json.dumps(request)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})
    except OSError as error:
        raise WorkerError(f"cannot start {python}: {error.strerror}") from error
    if done.returncode != 0:
        end = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-8:])
        raise WorkerError(f"{script} failed under {python} (exit code {done.returncode}):\n{end}")
    times: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return times


def whole_seconds(times: dict[str, Any], clock: str) -> dict[str, float]:
    """Seconds of each measurement by `clock` ("seconds" or "cpu_seconds"), for the whole of MNIST."""
    seconds = {name: run[clock] * N_TEST / run["images"] for name, run in times["test"].items()}
    return {"epoch": times["epoch"][clock] * N_TRAIN / times["epoch"]["images"], **seconds}


def summarize(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians, all values, and the ratio lava-dl / snnzoo, by both clocks, for each of `ROWS`."""
    rows = []
    for what, (our_name, their_name) in ROWS.items():
        row: dict[str, Any] = {"what": what}
        for clock in CLOCKS:
            our_seconds = [whole_seconds(times, clock)[our_name] for times in ours]
            their_seconds = [whole_seconds(times, clock)[their_name] for times in theirs]
            row[clock] = {
                "snnzoo": median(our_seconds),
                "lava_dl": median(their_seconds),
                "ratio": median(their_seconds) / median(our_seconds),
                "snnzoo_all": our_seconds,
                "lava_dl_all": their_seconds,
            }
        rows.append(row)
    return rows


def is_disturbed(rows: list[dict[str, Any]]) -> bool:
    """Whether any run waited for the processor, so that its wall clock says more than its work."""
    return any(
        wall > DISTURBED * cpu
        for row in rows
        for side in ("snnzoo_all", "lava_dl_all")
        for wall, cpu in zip(row["seconds"][side], row["cpu_seconds"][side], strict=True)
    )


def notes(report: dict[str, Any]) -> Iterator[str]:
    """What a reader of the table must know."""
    ours, theirs, request = report["snnzoo"][0], report["lava_dl"][0], report["request"]
    yield (
        f"medians of {len(report['snnzoo'])} processes each, in turn; {request['threads']} threads; torch "
        f"{ours['torch']} (snnzoo), {theirs['torch']} (lava-dl); batches of {request['batch_size']} in training, "
        f"{request['test_batch_size']} in testing; T = {request['time_steps']}"
    )
    if report["sample"]:
        yield "MNIST was not found (--data-dir): measured on the embedded sample"
    if request["threads"] == 1 and is_disturbed(report["rows"]):
        yield "the machine was busy: some runs waited for the processor, so trust the CPU seconds, not the wall clock"
    epoch, test = ours["epoch"]["images"], next(iter(ours["test"].values()))["images"]
    if epoch != N_TRAIN:
        yield f"epoch: measured on {epoch} images, scaled to {N_TRAIN}"
    if test != N_TEST:
        yield f"test run: measured on {test} images, scaled to {N_TEST}"
    accuracies = [f"snnzoo {name} {run['accuracy']:.2%}" for name, run in ours["test"].items()]
    accuracies += [f"lava-dl {run['accuracy']:.2%}" for run in theirs["test"].values()]
    yield f"SNN accuracy after those batches, a check that both learnt: {', '.join(accuracies)}"


def print_table(report: dict[str, Any]) -> None:
    """The table, wall seconds as `median (smallest-largest)`."""

    def cell(seconds: dict[str, Any], side: str) -> str:
        every = seconds[f"{side}_all"]
        return f"{seconds[side]:.2f} ({min(every):.2f}-{max(every):.2f})"

    print("| seconds for the whole of MNIST | snnzoo | lava-dl | ratio | CPU: snnzoo | lava-dl | ratio |")
    print("|---|---|---|---|---|---|---|")
    for row in report["rows"]:
        cells = [row["what"]]
        for clock in CLOCKS:
            seconds = row[clock]
            cells += [cell(seconds, "snnzoo"), cell(seconds, "lava_dl"), f"{seconds['ratio']:.2f}"]
        print(f"| {' | '.join(cells)} |")
    print()
    for note in report["notes"]:
        print(f"- {note}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lava-python", default=os.environ.get("LAVA_PYTHON"), help="default: $LAVA_PYTHON")
    parser.add_argument("--data-dir", type=Path, help="has MNIST's idx files; default: $ZOO_DATA_DIR, the cache")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, help="time only the first N batches of the epoch")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--test-batch-size", type=int, default=250)
    parser.add_argument("--sample-batches", type=int, default=10)
    parser.add_argument("--time-steps", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print everything that was measured")
    options = parser.parse_args()
    if not options.lava_python:
        parser.error("name a Python that has lava-dl with --lava-python or $LAVA_PYTHON")
    counts = ("threads", "repeats", "batch_size", "test_batch_size", "sample_batches", "time_steps")
    for name in counts if options.batches is None else (*counts, "batches"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return options


def main() -> int:
    options = parse_arguments()
    data = find_dataset("mnist", data_dir=options.data_dir)
    names = ("threads", "batches", "batch_size", "test_batch_size", "sample_batches", "time_steps", "seed")
    request = {name: getattr(options, name) for name in names}
    request["data"] = str(Path(data or str(find_dataset(SAMPLE_NAME))).absolute())

    sides: dict[str, list[dict[str, Any]]] = {"snnzoo": [], "lava_dl": []}
    workers = {"snnzoo": (sys.executable, "snnzoo_worker.py"), "lava_dl": (options.lava_python, "lava_dl_worker.py")}
    try:
        for repeat in range(options.repeats):
            for side, (python, script) in workers.items():
                print(f"repeat {repeat + 1} of {options.repeats}: {side}", file=sys.stderr)
                sides[side].append(run_worker(python, script, request))
    except WorkerError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1

    request["data"] = Path(request["data"]).name
    report = {"request": request, "sample": data is None, "rows": summarize(sides["snnzoo"], sides["lava_dl"]), **sides}
    report["notes"] = list(notes(report))
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        print_table(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
