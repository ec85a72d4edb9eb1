"""Kill `zoo train`, `zoo pull`, `zoo publish` and `convert` with SIGKILL at random moments; check that no file is lost.

    python tests/benchmarks/check_kills.py [--tries 100] [--seed 0] [--only train|convert|pull|publish]

- `train`: a run is killed, resumed (or started again if it has no checkpoint yet), killed once more, and resumed to its
  end. After each kill all files must be readable. At the end the model and the metrics must equal those of an
  undisturbed run byte for byte, except for the seconds.
- `convert`: files replace other files; after a kill each must be the old one or the new one, byte for byte.
- `pull`: the same for a file fetched from a slow server.
- `publish`: the same for the index; all files that it names must match their digests.

Temporary files of a killed process must be gone after the next process has written the same file. Writes
`results/kills.json`, and stops at the first loss.
"""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from programs import arguments, write_report

from converters import read_model
from specs import load_spec
from zoo.factory import model_file
from zoo.hub.publish import publish, read_index
from zoo.runs.card_files import card_file

SMALL, LARGE = "mnist-dense-shallow", "mnist-dense"
"""Packaged models: the first is in place before a command, which replaces it with the second."""
SAID = Path(tempfile.gettempdir(), f"check_kills_{os.getpid()}.txt")
"""Output of the last command."""
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["zoo.runs.training_run", "zoo.cli"])
SPEC = """
name: small
time_steps: 4
neuron: {threshold: 1.0, voltage_decay: 0.03, tau_grad: 0.1}
input: {shape: [784], mean: 0.5, std: 0.5}
blocks:
  - {kind: dense, features: 256, weight_norm: true, dropout: 0.1}
  - {kind: affine, features: 10, weight_norm: true}
training: {data: mnist-sample, epochs: 4, batch_size: 200, images_per_epoch: 400, validation: 200, augment: default}
"""


def command(arguments: list[str], output: Path) -> None:
    """Run a `zoo` command in a child process, which writes `output`."""
    from zoo.cli.program import zoo

    torch.set_num_threads(1)
    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    zoo(arguments)


def run(arguments: list[str], seconds: float | None = None) -> tuple[bool, float]:
    """Run a command and kill it after `seconds`; return True if it had not ended by then, and the seconds it ran."""
    process = FORKS.Process(target=command, args=(arguments, SAID))
    start = time.perf_counter()
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    if process.exitcode not in (0, -9):
        raise SystemExit(f"failed with exit code {process.exitcode}: zoo {' '.join(arguments)}\n{SAID.read_text()}")
    return process.exitcode != 0, time.perf_counter() - start


def usual_seconds(arguments: list[str], prepare: Callable[[], object] = lambda: None) -> float:
    """Return the seconds of a second run of a command, when the files that it reads are cached."""
    for _ in range(2):
        prepare()
        _, seconds = run(arguments)
    return seconds


def check_whole(folder: Path) -> None:
    """Read every file of a run except temporary ones; a broken file raises."""
    readers = {
        "model.safetensors": lambda path: read_model(path).build(),
        "checkpoint.pt": lambda path: torch.load(path, weights_only=True),
        "metrics.jsonl": metrics,
        "spec.yaml": load_spec,
    }
    for path in folder.iterdir():
        if path.name in readers:
            readers[path.name](path)


def metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file with the seconds, which differ from run to run, set to 0."""
    return [{**json.loads(line), "seconds": 0} for line in path.read_text("utf-8").splitlines()]


def temporaries(folder: Path) -> set[Path]:
    """Return the temporary files of killed processes; the next write of the same file removes them."""
    return {path for path in folder.rglob(".*") if path.suffix != ".lock"}


def train(tries: int, draw: random.Random, folder: Path) -> Iterator[dict[str, int]]:
    """Kill training runs; yield the counts of each try."""
    (folder / "spec.yaml").write_text(SPEC)
    arguments = ["train", str(folder / "spec.yaml"), "-q", "--force", "-o"]
    whole, target = folder / "whole", folder / "run"
    seconds = usual_seconds([*arguments, str(whole)])
    for _ in range(tries):
        counts, left = {"killed": 0, "resumed": 0, "temporaries": 0}, set[Path]()
        for delay in (draw.uniform(0, seconds), draw.uniform(0, seconds), None):
            resume = (target / "checkpoint.pt").exists()
            killed, _ = run([*arguments, str(target), *["--resume"] * resume], delay)
            counts["killed"] += killed
            counts["resumed"] += resume
            if target.exists():
                check_whole(target)
            counts["temporaries"] += len(temporaries(target) - left)
            left = temporaries(target)
        if left:
            raise SystemExit(f"temporary files are left: {left}")
        ours, theirs = (path / "model.safetensors" for path in (target, whole))
        same = ours.read_bytes() == theirs.read_bytes()
        if not same or metrics(target / "metrics.jsonl") != metrics(whole / "metrics.jsonl"):
            raise SystemExit(f"lost: {target} differs from {whole}")
        shutil.rmtree(target)
        yield counts


def convert(tries: int, draw: random.Random, folder: Path) -> Iterator[dict[str, int]]:
    """Kill conversions; yield the counts of each try."""
    names = ["m.safetensors", "m.net"]
    targets, old, new = [folder / name for name in names], folder / "old", folder / "new"
    for path, model in ((old, SMALL), (new, LARGE)):
        path.mkdir()
        run(["convert", model, *(part for name in names for part in ("-o", str(path / name)))])
    arguments = ["convert", LARGE, "--force", *(part for path in targets for part in ("-o", str(path)))]

    def prepare() -> None:
        for name, target in zip(names, targets, strict=True):
            shutil.copy(old / name, target)

    def written() -> int:
        pairs = [[(path / name).read_bytes() for path in (old, new)] for name in names]
        return sum(pair.index(target.read_bytes()) for pair, target in zip(pairs, targets, strict=True))

    yield from _kill(arguments, tries, draw, prepare, written, folder, n_files=2)


def pull(tries: int, draw: random.Random, folder: Path) -> Iterator[dict[str, int]]:
    """Kill downloads; yield the counts of each try."""
    publish(model_file(LARGE), card_file(LARGE), str(folder / "index"))
    target, cache = folder / "out" / f"{LARGE}.safetensors", folder / "cache"
    target.parent.mkdir()
    old, new = (model_file(name).read_bytes() for name in (SMALL, LARGE))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=str(folder / "index")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    arguments = ["pull", LARGE, "--from", url, "--cache-dir", str(cache), "-o", str(target.parent), "--force"]

    def prepare() -> None:
        target.write_bytes(old)
        for file in cache.rglob("*.safetensors"):
            file.unlink()

    def written() -> int:
        return [old, new].index(target.read_bytes())

    yield from _kill(arguments, tries, draw, prepare, written, target.parent)
    server.shutdown()


def publishing(tries: int, draw: random.Random, folder: Path) -> Iterator[dict[str, int]]:
    """Kill publications; yield the counts of each try."""
    index = folder / "index"
    publish(model_file(SMALL), card_file(SMALL), str(index))
    before = (index / "index.json").read_bytes()
    arguments = ["publish", str(model_file(LARGE)), str(card_file(LARGE)), "--to", str(index)]

    def written() -> int:
        models = read_index(index).models
        for revisions in models.values():
            for file in (*revisions[0].files.values(), revisions[0].card):
                file.check(index / file.path)
        return LARGE in models

    yield from _kill(arguments, tries, draw, lambda: (index / "index.json").write_bytes(before), written, index)


def _kill(
    arguments: list[str],
    tries: int,
    draw: random.Random,
    prepare: Callable[[], object],
    written: Callable[[], int],
    folder: Path,
    *,
    n_files: int = 1,
) -> Iterator[dict[str, int]]:
    """Kill a command at random moments; yield the counts of each try. At last run it to its end.

    `written` returns the number of new files; it raises if a file is neither the old nor the new one.
    """
    seconds, left = usual_seconds(arguments, prepare), set[Path]()
    for delay in [*(draw.uniform(0, seconds) for _ in range(tries)), None]:
        prepare()
        killed, _ = run(arguments, delay)
        found = written()
        if found < n_files and not killed:
            raise SystemExit(f"lost: the command ended without writing its files: zoo {' '.join(arguments)}")
        before, left = left, temporaries(folder)
        if delay is not None:
            yield {"killed": int(killed), "written": found, "temporaries": len(left - before)}
    if left:
        raise SystemExit(f"temporary files are left: {left}")


class Slow(SimpleHTTPRequestHandler):
    """A server that sends files slowly, in pieces, and supports ranges."""

    def log_message(self, format: str, *args: object) -> None:
        """Print no log."""

    def do_GET(self) -> None:
        """Send a file from the requested offset."""
        data = (Path(self.directory) / self.path.lstrip("/")).read_bytes()
        first = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        for start in range(first, len(data), 1 << 17):
            try:
                self.wfile.write(data[start : start + (1 << 17)])
            except OSError:
                return
            time.sleep(0.02)


CAMPAIGNS = {"train": train, "convert": convert, "pull": pull, "publish": publishing}


def main() -> None:
    parser = arguments(__doc__, output="kills.json")
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(CAMPAIGNS))
    options = parser.parse_args()
    report, today = {}, date.today().isoformat()
    with contextlib.suppress(FileNotFoundError):
        report = json.loads(options.output.read_text("utf-8"))
    for name in [options.only] if options.only else sorted(CAMPAIGNS):
        found: list[dict[str, int]] = []
        with tempfile.TemporaryDirectory() as folder:
            for counts in CAMPAIGNS[name](options.tries, random.Random(options.seed), Path(folder)):
                found.append(counts)
                sums = {key: sum(counts[key] for counts in found) for key in counts}
                report[name] = {"tries": len(found), **sums, "lost": 0, "date": today}  # a loss would have stopped it
                write_report(options.output, report)
        print(name, report[name])
    SAID.unlink()


if __name__ == "__main__":
    main()
