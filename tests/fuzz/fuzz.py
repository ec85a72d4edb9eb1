"""Change valid files at random, read them, and count the outcomes: a success, or an error of our own, in 2 GiB and 5 s.

    python tests/fuzz/fuzz.py [FORMAT...] [--executions N] [--seconds S] [--engine bytes|structure|both] [--more]

Engine `bytes`: libFuzzer changes bytes, guided by the branches of our code that they reach (atheris; extra `fuzz`).
Engine `structure`: hypothesis changes headers, shapes, keys and links (structure.py). N and S are limits for each
engine and format.

A file with any other outcome is kept in FOLDER (--failures), and fuzzing continues. The counts are written to
tests/benchmarks/results/fuzz.json; other formats keep their counts. With --more the new counts are added to the old
ones; choose another --seed for it.
"""

import argparse
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from limited import SECONDS, limit_memory, load_readers
from reader_targets import TARGETS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "fuzz.json"
PACKAGES = ("specs", "bootstrap_core", "converters", "zoo")
ENGINES = ("bytes", "structure")
OUTCOMES = ("read", "refused", "failed")
FORM = f"<{len(OUTCOMES)}Q"
WALL_SECONDS = 600
"""Limit of wall time, for files that make a reader wait, which takes no CPU time."""
ROUND = 50
"""Number of documents that hypothesis makes in one round."""
MOST_FAILURES = 20
"""Number of dead processes after which an engine is stopped for a format."""


class Counts:
    """Number of readings for each outcome, kept in a file so that the counts outlive the process."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(struct.calcsize(FORM)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def add(self, outcome: str) -> None:
        counts = [n + (name == outcome) for name, n in self.as_dict().items()]
        self._map[:] = struct.pack(FORM, *counts)

    def as_dict(self) -> dict[str, int]:
        return dict(zip(OUTCOMES, struct.unpack(FORM, self._map[:]), strict=True))


class Execution:
    """Reads contents as files of a format, counts the outcomes and keeps the failures."""

    def __init__(self, name: str, folder: Path, failures: Path) -> None:
        self.target, self.name, self.failures = TARGETS[name], name, failures
        self.path = current_file(name, folder)
        self.path.parent.mkdir(exist_ok=True)
        self.counts = Counts(folder / "counts")

    def __call__(self, content: bytes) -> None:
        from specs.errors import SnnZooError

        self.path.write_bytes(content)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # CPU time; the signal ends the process anywhere
        try:
            self.target.read(self.path)
            outcome, why = "read", ""
        except SnnZooError:
            outcome, why = "refused", ""
        except Exception:
            outcome, why = "failed", traceback.format_exc()
        signal.setitimer(signal.ITIMER_PROF, 0)
        self.counts.add(outcome)
        if outcome == "failed":
            keep(content, why, self.failures, self.name)


def current_file(name: str, folder: Path) -> Path:
    """Return the path of the file that is being read."""
    return folder / f"current{TARGETS[name].suffix}"


def keep(content: bytes, why: str, failures: Path, name: str) -> None:
    """Keep a file that failed, and its traceback; one file for each failing line of code."""
    failures.mkdir(parents=True, exist_ok=True)
    lines = why.strip().splitlines()
    last = [line for line in lines if line.startswith("  File")][-1:] or lines[-1:]
    label = f"{name}-{abs(hash(last[0] if last else why)) % 10**8:08d}"
    if not (failures / f"{label}.txt").exists():
        (failures / label).write_bytes(content)
        (failures / f"{label}.txt").write_text(why, "utf-8")


def run_bytes(execution: Execution, seeds: list[bytes], *, runs: int, seconds: int, folder: Path, seed: int) -> None:
    """Fuzz with libFuzzer; does not return."""
    import atheris

    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for i, content in enumerate(seeds):
        (corpus / f"seed{i}").write_bytes(content)
    options = {
        "runs": runs - sum(execution.counts.as_dict().values()),
        "max_total_time": seconds,
        "timeout": WALL_SECONDS,
        "rss_limit_mb": 0,
        "max_len": max(1 << 14, 2 * max(map(len, seeds))),
        "seed": seed,
        "artifact_prefix": f"{folder}/",
        "verbosity": 0,
    }
    atheris.Setup(["fuzz", *(f"-{name}={value}" for name, value in options.items()), str(corpus)], execution)
    limit_memory()
    atheris.Fuzz()


def run_structure(execution: Execution, seeds: list[bytes], *, runs: int, seconds: int, seed: int) -> None:
    """Fuzz with hypothesis, in rounds, until the limit of readings or seconds."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st
    from structure import CHANGES

    change, end, rounds = CHANGES[execution.name], time.monotonic() + seconds, random.Random(seed)

    def read(data: st.DataObject) -> None:
        content = data.draw(st.sampled_from(seeds))
        try:
            content = change(data.draw, content)
        except (ValueError, TypeError, KeyError, OSError, RuntimeError, OverflowError):
            return  # the format's library cannot write this change
        execution(content)

    limit_memory()
    while (left := runs - sum(execution.counts.as_dict().values())) > 0 and time.monotonic() < end:
        options = settings(
            max_examples=min(left, ROUND),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seeded(rounds.getrandbits(32))(options(given(st.data())(read)))()


def child(arguments: argparse.Namespace) -> None:
    """Run one engine on one format; the main function of a child process."""
    folder = Path(arguments.child)
    if arguments.engine == "bytes":
        import atheris

        with atheris.instrument_imports(include=list(PACKAGES)):
            load_readers()
    else:
        load_readers()
    import warnings

    from valid_files import valid_files

    warnings.simplefilter("ignore")
    (folder / "made").mkdir(exist_ok=True)
    name = arguments.formats[0]
    seeds = valid_files(folder / "made")[name]
    execution = Execution(name, folder, arguments.failures)
    bounds = {"runs": arguments.executions, "seconds": arguments.seconds, "seed": arguments.seed}
    if arguments.engine == "bytes":
        run_bytes(execution, seeds, **bounds, folder=folder)
    run_structure(execution, seeds, **bounds)


def fuzz(name: str, engine: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run an engine on a format, start it again after each death, and return the counts of outcomes."""
    places = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": places, "PYTHONHASHSEED": "0"}
    start, deaths = time.monotonic(), 0
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        folder, counts = Path(made), Counts(Path(made) / "counts")
        while deaths < MOST_FAILURES:
            left = arguments.executions - sum(counts.as_dict().values())
            seconds = int(arguments.seconds - (time.monotonic() - start))
            if left <= 0 or seconds <= 0:
                break
            options = {"child": made, "engine": engine, "seed": arguments.seed + deaths, "seconds": seconds}
            options |= {"executions": arguments.executions, "failures": arguments.failures}
            command = [sys.executable, __file__, name, *(f"--{key}={value}" for key, value in options.items())]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, errors="replace", check=False
            )
            if done.returncode == 0:
                break
            deaths += 1
            counts.add("failed")
            current = current_file(name, folder)
            content = current.read_bytes() if current.exists() else b""
            keep(content, f"{done.returncode}\n{done.stderr[-4000:]}", arguments.failures, name)
        found = counts.as_dict()
    return {**found, "executions": sum(found.values()), "seconds": round(time.monotonic() - start)}


def n_cases() -> dict[str, int]:
    """Count the cases in tests/hostile by format; a case that is read by function and by command counts once."""
    alone = {"test_onnx.py": "onnx", "test_specs.py": "spec"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "tests/hostile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    cases: dict[str, set[str]] = {name: set() for name in TARGETS}
    for line in lines:
        module, _, test = line.removeprefix("tests/hostile/").partition("::")
        if "_refused[" in test and "reader" in test:
            case = test.partition("[")[2].removesuffix("]").removeprefix("reader-").removesuffix("-reader")
            cases[case.partition(", ")[0]].add(case)
        elif module in alone and "command-" not in test:
            cases[alone[module]].add(test)
    return {name: len(found) for name, found in cases.items()}


def main() -> None:
    """Fuzz, and write the counts after each format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", default=list(TARGETS), metavar="FORMAT", help=", ".join(TARGETS))
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--more", action="store_true", help="add to the existing counts")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.formats) - TARGETS.keys():
        parser.error(f"unknown format {', '.join(sorted(unknown))}; choose from {', '.join(TARGETS)}")
    if arguments.child:
        child(arguments)
        return
    engines = ENGINES if arguments.engine == "both" else (arguments.engine,)
    if "bytes" in engines and find_spec("atheris") is None:
        parser.error("--engine bytes needs atheris: pip install '.[fuzz]', or use --engine structure")
    failed, cases = 0, n_cases()
    for name in arguments.formats:
        for engine in engines:
            found = fuzz(name, engine, arguments) | {"date": datetime.now(UTC).date().isoformat()}
            failed += found["failed"]
            print(f"{name}, {engine}: {found}", flush=True)
            report = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"formats": {}}
            engines_of = report["formats"].setdefault(name, {})
            before = engines_of.get(engine, {}) if arguments.more else {}
            for key in (*OUTCOMES, "executions", "seconds"):
                found[key] += before.get(key, 0)
            engines_of[engine] = found
            RESULTS.write_text(json.dumps(report | {"cases": cases}, indent=1) + "\n", "utf-8")
    sys.exit(f"{failed} readings failed: see {arguments.failures}" if failed else 0)


if __name__ == "__main__":
    main()
