"""Kill `zoo pull` and `zoo publish` at random moments: their targets must hold the old or the whole new.

    python tests/benchmarks/check_kills.py --tries 100

Each try starts the command, kills it after a random time of those that it takes, and looks: at the file that was to be
replaced, or at the index. In the end the same command, left alone, must finish the work.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from zoo.catalog import packaged_models, search
from zoo.publish import publish, read_index

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "zoo"
COMMAND = [sys.executable, "-c", "from zoo.cli import main; main()"]


def main() -> None:
    """Run both campaigns and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        for name, campaign in (("pull", kill_pull), ("publish", kill_publish)):
            found = campaign(Path(folder) / name, options.tries)
            print(f"{name}: {options.tries} tries; " + ", ".join(f"{n} {what}" for what, n in sorted(found.items())))


def kill_pull(folder: Path, tries: int) -> Counter[str]:
    """Pull a model from a slow server over a file of another, again and again."""
    new, old = sorted((f.name for f in search("*", [packaged_models()])), key=lambda n: -weights(n).stat().st_size)[:2]
    publish(weights(new), card(new), str(folder / "index"))
    target = folder / "out" / f"{new}.safetensors"
    target.parent.mkdir()
    states = {weights(old).read_bytes(): "old", weights(new).read_bytes(): "new"}
    os.environ["ZOO_CACHE_DIR"] = str(folder / "cache")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=str(folder / "index")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    command = ["pull", new, "--from", url, "-o", target.parent, "--force"]

    def prepare() -> None:
        target.write_bytes(weights(old).read_bytes())
        for file in (folder / "cache").rglob("*.safetensors"):
            file.unlink()

    found = campaign(command, tries, prepare, lambda: states[target.read_bytes()])
    prepare()
    subprocess.run([*COMMAND, *command], cwd=ROOT, check=True, capture_output=True)
    assert states[target.read_bytes()] == "new"
    server.shutdown()
    return found


def kill_publish(folder: Path, tries: int) -> Counter[str]:
    """Publish a model into an index that holds another, again and again."""
    new, old = [f.name for f in search("*", [packaged_models()])][:2]
    index = folder / "index"
    publish(weights(old), card(old), str(index))
    before = (index / "index.json").read_bytes()
    command = ["publish", weights(new), card(new), "--to", index]

    def prepare() -> None:
        (index / "index.json").write_bytes(before)

    def look() -> str:
        models = read_index(index).models
        for revisions in models.values():
            for file in (*revisions[0].files.values(), revisions[0].card):
                file.check(index / file.path)
        return "new" if new in models else "old"

    found = campaign(command, tries, prepare, look)
    subprocess.run([*COMMAND, *map(str, command)], cwd=ROOT, check=True, capture_output=True)
    assert look() == "new"
    return found


def campaign(command: list[object], tries: int, prepare: Callable[[], None], look: Callable[[], str]) -> Counter[str]:
    """What `look` says after each kill; raises whatever it raises."""
    arguments = [*COMMAND, *map(str, command)]
    prepare()
    start = time.perf_counter()
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    found: Counter[str] = Counter()
    for _ in range(tries):
        prepare()
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, seconds))
        process.kill()
        ended = "killed" if process.wait() < 0 else "ended before"
        found[f"{ended}, {look()}"] += 1
    return found


def weights(name: str) -> Path:
    """Of a packaged model."""
    return PACKAGE / "weights" / f"{name}.safetensors"


def card(name: str) -> Path:
    """Of a packaged model."""
    return PACKAGE / "cards" / f"{name}.yaml"


class Slow(SimpleHTTPRequestHandler):
    """A server that gives files in pieces, with ranges."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with a file from where it is wanted."""
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


if __name__ == "__main__":
    main()
