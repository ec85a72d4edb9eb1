"""Start the programs that the benchmarks compare, each in a process that answers requests (`workload.serve`)."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workload import NETWORKS

from bootstrap_core.data.datasets import find_dataset
from converters.cli.console import ENVIRONMENT
from specs.dataset_sources import SAMPLE_NAME

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PEERS = ("snntorch", "norse", "spikingjelly", "sinabs")
REFERENCES = ("relu", "products")


Parser = argparse.ArgumentParser


class WorkerError(Exception):
    """A worker failed; the message gives the reason."""


class Program:
    """A running worker process."""

    def __init__(self, name: str, command: list[str], threads: int) -> None:
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed by `close`
        try:
            self.process = subprocess.Popen(
                [command[0], "-W", "ignore", str(HERE / command[1]), *command[2:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                env=environment(threads),
            )
        except OSError as error:
            raise WorkerError(f"cannot start {command[0]}: {error.strerror}") from error

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the worker's answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.errors.seek(0)
            raise WorkerError(f"{self.name} failed at {request.get('work')}:\n{last_lines(self.errors.read())}")
        return dict(json.loads(answer))

    def close(self) -> None:
        """End the worker and wait for it."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has failed, and `ask` reported it
            self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def arguments(
    doc: str | None, *, output: str = "", threads: int = 0, peers: bool = False, lava: bool = False
) -> Parser:
    """Return a parser with the options that scripts share; `output` names a file in `results/`."""
    parser = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("peer",) * peers + ("lava",) * lava:
        variable = f"{name.upper()}_PYTHON"
        parser.add_argument(f"--{name}-python", default=os.environ.get(variable), help=f"default: ${variable}")
    if threads:
        parser.add_argument("--threads", type=int, default=threads)
    if output:
        parser.add_argument("--output", type=Path, default=RESULTS / output)
    return parser


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write the results that a table is made of."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def write_row(path: Path, row: dict[str, Any]) -> None:
    """Write a row of a report that is kept row by row, in the place of the one of the same file and T."""
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    rows = [one for one in rows if (one["file"], one["time_steps"]) != (row["file"], row["time_steps"])]
    write_report(path, {"rows": sorted([*rows, row], key=lambda one: (one["file"], -one["time_steps"]))})


def run_main(main: Callable[[], int]) -> None:
    """Run a script; end it with 1 if a worker failed."""
    try:
        sys.exit(main())
    except WorkerError as error:
        sys.exit(f"Error: {error}")


def environment(threads: int) -> dict[str, str]:
    """Return environment variables for a worker with this number of threads, which wait as those of commands do."""
    variables = ("OMP", "MKL", "OPENBLAS")
    return {**ENVIRONMENT, **os.environ, **{f"{variable}_NUM_THREADS": str(threads) for variable in variables}}


def last_lines(text: str, n: int = 8) -> str:
    """Return the last lines of a text, indented."""
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-n:])


def run_once(name: str, command: list[str], request: dict[str, Any], *, threads: int, seconds: float) -> dict[str, Any]:
    """Run a worker that takes one request as its last argument; return the JSON of its last line."""
    worker = [command[0], "-W", "ignore", str(HERE / command[1]), *command[2:], json.dumps(request)]
    return dict(json.loads(output_of(name, worker, seconds, environment(threads)).splitlines()[-1]))


def output_of(name: str, command: list[str], seconds: float, variables: dict[str, str] | None = None) -> str:
    """Run a command and return its output; raise WorkerError if it fails or takes longer than `seconds`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise WorkerError(f"{name}: not done after {seconds:g} s") from error
    except OSError as error:
        raise WorkerError(f"cannot start {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise WorkerError(f"{name} failed:\n{last_lines(done.stderr)}")
    return done.stdout


def commands(peer_python: str | None, lava_python: str | None) -> dict[str, list[str]]:
    """Return the command that starts each available program, by name."""
    found = {"snnzoo": [sys.executable, "snnzoo_worker.py"]}
    if lava_python:
        found["lava-dl"] = [lava_python, "lava_dl_worker.py"]
    for peer in PEERS:
        if has_module(peer_python, peer):
            found[peer] = [peer_python or sys.executable, "peer_worker.py", peer]
    return found | {name: [sys.executable, "peer_worker.py", name] for name in REFERENCES}


def has_module(python: str | None, module: str) -> bool:
    """Return True if a Python (None: this one) can import a module."""
    if not python:
        return find_spec(module) is not None
    code = f"import sys, importlib.util as u; sys.exit(u.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code]).returncode == 0


def busy_cores(seconds: float = 2.0) -> float:
    """Return the number of cores that are busy, measured over `seconds`; without /proc, the load average."""

    def busy() -> float:
        line = Path("/proc/stat").read_text().split("\n")[0]
        user, nice, system, _, _, irq, softirq, stolen, *_ = map(int, line.split()[1:])
        return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")

    try:
        before = busy()
        time.sleep(seconds)
        return (busy() - before) / seconds
    except OSError:
        return os.getloadavg()[0]


@contextmanager
def running(chosen: dict[str, list[str]], threads: int) -> Iterator[dict[str, Program]]:
    """Start programs, and end them with the block."""
    with ExitStack() as stack:
        programs = {}
        for name, command in chosen.items():
            programs[name] = Program(name, command, threads)
            stack.callback(programs[name].close)
        yield programs


def base_request() -> dict[str, Any]:
    """Return the fields that all requests share."""
    return {"time_steps": 16, "batch": 256, "data": str(find_dataset(SAMPLE_NAME))}


def make_weights(program: Program, network: str, path: Path) -> list[float]:
    """Train a network briefly, write its weights for all programs, and return the mean rates of its blocks."""
    request = {**base_request(), "layers": NETWORKS[network], "path": str(path)}
    return list(program.ask(work="make_weights", **request)["rates"])


def header(programs: dict[str, Program], threads: int, busy: float) -> dict[str, Any]:
    """Return the conditions of a measurement: date, commit, machine, threads and versions."""
    told = {name: program.ask(work="describe") for name, program in programs.items()}
    told = {name: answer for name, answer in told.items() if name not in REFERENCES}
    return {
        **conditions(threads, busy),
        "kernel": told["snnzoo"]["kernel"],
        "versions": {name: answer["version"] for name, answer in told.items()},
        "under": {name: f"Python {answer['python']}, torch {answer['torch']}" for name, answer in told.items()},
    }


def conditions(threads: int, busy: float | None = None) -> dict[str, Any]:
    """Return the conditions of a measurement that hold for all programs."""
    return {
        **stamp(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "busy_cores": round(busy_cores() if busy is None else busy, 2),
    }


MEASURED = ":/", f":(top,exclude){RESULTS.relative_to(HERE.parents[1])}"
"""Git path specs of the files that count as changes: all but the results."""


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True).stdout.strip()


def stamp() -> dict[str, str]:
    """Return date and commit of a measurement; the commit ends with `-dirty` if files differ from it."""
    commit = ""
    with suppress(OSError):  # no git
        changed = _git("diff", "HEAD", "--name-only", "--", *MEASURED)
        commit = _git("describe", "--always") + ("-dirty" if changed else "")
    return {"date": date.today().isoformat(), "commit": commit}


def cpu_model() -> str:
    """Return the name of the processor, and its instructions for integer products, if it has any."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    extensions = [name for name in ("avx512_vnni", "avx_vnni", "amx_int8") if name in fields.get("flags", "").split()]
    return " ".join([fields.get("model name", platform.machine()), *(f"({name})" for name in extensions)])
