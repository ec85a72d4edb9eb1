"""Fixtures for all packages: a web server on loopback with scripted faults, model files with cards, and processes."""

import hashlib
import multiprocessing
import re
import runpy
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.process import BaseProcess
from pathlib import Path

import hypothesis
import pytest
import torch

from specs.files import download

collect_ignore = ["rank.py"]
torch.set_num_threads(1)
"""With small tensors on busy machines, threads cost more than they gain."""
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("tests")

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def give(
    handler: BaseHTTPRequestHandler,
    data: bytes,
    *,
    ranges: bool = True,
    sent: int | None = None,
    length: int | None = None,
    kind: str = "application/octet-stream",
) -> None:
    """Send `data` from the requested offset, but only `sent` bytes, with a Content-Length of `length` (-1: none)."""
    start = 0
    if ranges and (found := re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")):
        start = int(found[1])
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    else:
        handler.send_response(200)
    handler.send_header("Content-Type", kind)
    if length != -1:
        handler.send_header("Content-Length", str(len(data) - start if length is None else length))
    handler.end_headers()
    handler.wfile.write(data[start:][:sent])


def half(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    give(handler, data, sent=len(data) // 2)


def reset(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    """Send half of the data, then reset the connection."""
    half(handler, data)
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def stall(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    """Send half of the data, then nothing for 3 seconds."""
    half(handler, data)
    handler.wfile.flush()
    time.sleep(3)


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer


class WebServer:
    """Serves a folder, with ranges.

    Attributes:
        requests: path and Range header (or None) of each request; `headers` has all headers, named in lower case.
        script: faulty answers by path, one for each request in turn; later requests are answered correctly.
    """

    give, half, reset, stall, status = map(staticmethod, (give, half, reset, stall, status))

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, str | None]] = []
        self.headers: list[dict[str, str]] = []
        self.script: dict[str, list[Answer]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                """Keep the test's output clean."""

            def do_GET(self) -> None:
                server.requests.append((self.path, self.headers["Range"]))
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                file = server.folder / self.path.lstrip("/")
                data = file.read_bytes() if file.is_file() else b""
                if script := server.script.get(self.path):
                    script.pop(0)(self, data)
                elif file.is_file():
                    give(self, data)
                else:
                    status(404)(self, b"")

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Print nothing: tests drop connections on purpose."""

        self.httpd = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01})

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def __enter__(self) -> "WebServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.httpd.shutdown()
        self.thread.join()
        self.httpd.server_close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry transfers at once; use neither a proxy nor the user's index."""
    monkeypatch.setattr(download, "BACKOFF_S", 0.001)
    monkeypatch.setattr(download, "TIMEOUT_S", 5.0)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("ZOO_INDEX", raising=False)


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the user's datasets and cache."""
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Seed torch, so that random numbers do not depend on earlier tests."""
    torch.manual_seed(0)


@dataclass(frozen=True)
class Carded:
    """A tiny model file and a card with its digest and size."""

    file: Path
    card_file: Path
    reference: str
    sha256: str


@pytest.fixture
def carded(tmp_path: Path) -> Callable[..., Carded]:
    """Return a function that makes a model file and its card."""
    from bootstrap_core import build_network
    from converters import Model, write_model
    from specs import parse_spec
    from zoo.card import FileFacts, dump_card, load_card, revision_of
    from zoo.model_format import ModelFormat

    spec = parse_spec(TINY)
    template = load_card(next(Path(__file__).parents[1].glob("zoo/cards/*.yaml")))

    def make(name: str = "tiny", *, seed: int = 0, **facts: object) -> Carded:
        folder = tmp_path / f"made-{name}-{seed}"
        file = write_model(Model.of(build_network(spec, seed=seed)), folder / "model.safetensors", overwrite=True)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        known = {
            "name": name,
            "revision": revision_of(sha256),
            "layers": template.layers[: len(spec.layers)],
            "files": {ModelFormat.SAFETENSORS: FileFacts(sha256=sha256, bytes=file.stat().st_size)},
            **facts,
        }
        dump_card(template.model_copy(update=known), folder / "card.yaml")
        return Carded(file, folder / "card.yaml", f"{name}@{revision_of(sha256)}", sha256)

    return make


TINY = """
name: tiny
time_steps: 16
neuron: {threshold: 0.5}
input: {shape: [4]}
blocks:
  - {kind: dense, features: 3}
  - {kind: affine, features: 2}
"""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    """Serve the folder `tmp_path / "web"`."""
    (tmp_path / "web").mkdir()
    with WebServer(tmp_path / "web") as server:
        yield server


def free_port() -> int:
    """Return a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def port() -> int:
    """See `free_port`."""
    return free_port()


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch.distributed", "zoo.runs.training_run", "zoo.cli"])
PATIENCE_S = 300


class Ranks:
    """Processes started as by `torchrun`, and the files with their output."""

    def __init__(self, arguments: list[str], *, size: int, folder: Path) -> None:
        port = free_port()
        folder.mkdir(parents=True)
        self.outputs = [folder / f"{rank}.txt" for rank in range(size)]
        self.processes: list[BaseProcess] = []
        for rank, output in enumerate(self.outputs):
            environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": size}
            given = {
                "ENVIRONMENT": {name: str(value) for name, value in environment.items()},
                "OUTPUT": str(output),
                "ARGUMENTS": arguments,
            }
            process = FORKS.Process(target=runpy.run_path, args=(str(Path(__file__).with_name("rank.py")), given))
            process.start()
            self.processes.append(process)

    def wait(self, *codes: int) -> list[str]:
        """Wait for all processes, check that their exit codes are `codes`, and return their outputs."""
        for process in self.processes:
            process.join(PATIENCE_S)
        printed = [output.read_text() for output in self.outputs]
        assert [process.exitcode for process in self.processes] == list(codes), "\n".join(printed)
        return printed

    def kill(self) -> None:
        """Kill all processes."""
        for process in self.processes:
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ranks]]:
    """Return a function that starts processes that train together: `launch("zoo", "train", ..., size=2)`."""
    started: list[Ranks] = []

    def start(*arguments: object, size: int = 2) -> Ranks:
        folder = tmp_path_factory.mktemp("ranks") / "out"
        started.append(Ranks([str(argument) for argument in arguments], size=size, folder=folder))
        return started[-1]

    yield start
    for ranks in started:
        ranks.kill()
