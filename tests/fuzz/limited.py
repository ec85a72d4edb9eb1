"""Call readers under limits: each call is a process that may take 2 GiB of additional memory and 5 s.

Run as a program it is a server, so that torch is loaded only once: it reads a line of JSON for each call and prints a
line with its outcome. A call may open only files in its folder and those of the interpreter; it must not start a
program, unpickle with Python's pickle, or open a connection.
"""

import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOADED = (
    *("bootstrap_core.data.image_files", "converters.formats.model_files", "converters.file_migration", "zoo.cli"),
    *("converters.onnx.import_ann", "converters.ann_to_snn.onnx_conversion", "PIL.Image"),
    *("zoo.sources", "zoo.hub.fetch", "zoo.runs.training_run", "zoo.runs.golden", "zoo.card_text"),
    *("zoo.cli.program", "pyfive", "fsspec.core", "h5py"),
)
SECONDS = 5
BYTES = 2 << 30
WALL_SECONDS = 300
"""Limit of wall time, for calls that wait; on a busy machine 5 s of CPU time may take more than a minute."""
ROOT = Path(__file__).parents[2]
OF_THE_SYSTEM = ("/proc/", "/sys/", "/dev/null", "/dev/urandom", "/usr/", "/etc/ld.so", "/etc/localtime", "/etc/mime")
FORBIDDEN = ("os.exec", "os.fork", "os.posix_spawn", "os.system", "pickle.find_class", "socket.", "subprocess.Popen")


@dataclass(frozen=True)
class Outcome:
    """Outcome of a call.

    Attributes:
        kind: `read`, `refused` (by one of our errors, or exit code 1), `crash`, or `limit` (killed for time or memory).
        text: message of the error, or traceback of a crash.
        error: class of the error.
        seconds: CPU time.
        mib: peak memory in MiB above that at the start.
        seen: forbidden files and operations that the call tried.
    """

    kind: str
    text: str
    error: str = ""
    seconds: float = 0.0
    mib: float = 0.0
    seen: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """True if a hostile file may have this outcome."""
        return self.kind in ("read", "refused") and not self.seen


class Server:
    """Runs calls in a process that forks for each call."""

    def __init__(self) -> None:
        nowhere = str(Path(__file__).with_name("none"))  # hides the user's data and models
        places = dict.fromkeys(("ZOO_DATA_DIR", "ZOO_CACHE_DIR"), nowhere)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ZOO_INDEX": "", **places}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def call(self, target: str, path: Path, *, command: str = "") -> Outcome:
        """Read `path` with the reader of `target`, or with a `zoo` command if one is given."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"target": target, "path": str(path), "command": command}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Outcome(**{**answer, "seen": tuple(answer["seen"])})

    def close(self) -> None:
        """End the server process."""
        self._process.communicate()


def limit_memory() -> None:
    """Limit this process to `BYTES` of additional memory."""
    taken = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, taken + BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def peak_kib() -> int:
    """Return the peak memory of this process, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def watched(folder: Path) -> list[str]:
    """Return a list that collects, from now on, forbidden operations and files opened outside `folder`."""
    seen: list[str] = []
    allowed = tuple(map(str, (folder, folder.resolve(), ROOT, sys.prefix, sys.base_prefix, *OF_THE_SYSTEM)))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 - no pathlib inside an audit hook
            if not path.startswith(allowed):
                seen.append(f"open {path}")
        elif event.startswith(FORBIDDEN):
            seen.append(f"{event} {arguments}"[:200])

    sys.addaudithook(hook)
    return seen


def run(target: str, path: Path, command: str) -> Outcome:
    """Run a call in this process."""
    from reader_targets import TARGETS

    from specs.errors import SnnZooError

    start, before = time.process_time(), peak_kib()
    seen = watched(path.parent)
    kind, text, error = "read", "", ""
    try:
        if command:
            kind, text = run_command(command, path)
        else:
            TARGETS[target].read(path)
    except SnnZooError as problem:
        kind, text, error = "refused", str(problem), type(problem).__name__
    except BaseException as problem:
        kind, text, error = "crash", traceback.format_exc()[-3000:], type(problem).__name__
    return Outcome(kind, text, error, time.process_time() - start, (peak_kib() - before) / 1024, tuple(seen))


def run_command(command: str, path: Path) -> tuple[str, str]:
    """Run `zoo` in this process; `refused` means exit code 1 with a message `Error: ...` and no traceback."""
    from zoo.cli import main

    places = {"FILE": path, "FOLDER": path.parent, "OUT": path.parent / "out"}
    for name, place in places.items():
        command = " ".join(
            word.replace(name, str(place), 1) if word.startswith(name) else word for word in command.split()
        )
    sys.argv = ["zoo", *command.split()]
    code: object = 0
    with tempfile.TemporaryFile("w+", dir=path.parent) as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        said.seek(0)
        text = said.read()
    if "Traceback" in text or code not in (0, 1) or (code == 1 and "Error: " not in text):
        return "crash", f"exit code {code}: {text}"
    return ("refused" if code else "read"), text[text.find("Error: ") :] if code else text


def fork(target: str, path: Path, command: str) -> Outcome:
    """Run a call in a child process, which is killed when its time is over."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        outcome = run(target, path, command)
        with os.fdopen(writer, "w") as file:
            file.write(json.dumps(asdict(outcome)))
        os._exit(0)
    os.close(writer)
    answer, end = b"", time.monotonic() + WALL_SECONDS
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(reader, 1 << 16)
        if not piece:
            break
        answer += piece
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if answer:
        return Outcome(**json.loads(answer))
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    name = signal.Signals(number).name if number else f"exit {os.WEXITSTATUS(status)}"
    return Outcome("limit" if name in ("SIGXCPU", "SIGKILL") else "crash", name)


def load_readers() -> None:
    """Import all modules that readers need, so that calls do not import them."""
    for name in LOADED:
        importlib.import_module(name)


def main() -> None:
    """Import the readers, then answer calls."""
    load_readers()
    limit_memory()
    for line in sys.stdin:
        call = json.loads(line)
        outcome = fork(call["target"], Path(call["path"]), call["command"])
        print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    main()
