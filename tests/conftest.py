import multiprocessing
import runpy
import socket
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
"""Small tensors and busy machines: threads that wait for each other cost more than they give."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch.distributed", "zoo.training_run", "zoo.cli", "numba"])
PATIENCE_S = 300


class Ranks:
    """Processes started as by `torchrun`, with what each has printed."""

    def __init__(self, arguments: list[str], *, size: int, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
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
        """What each printed, once all have ended, with `codes`."""
        for process in self.processes:
            process.join(PATIENCE_S)
        printed = [output.read_text() for output in self.outputs]
        assert [process.exitcode for process in self.processes] == list(codes), "\n".join(printed)
        return printed

    def kill(self) -> None:
        """End those that run."""
        for process in self.processes:
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ranks]]:
    """Start processes that train together: `launch("zoo", "train", ..., size=2)`."""
    started: list[Ranks] = []

    def start(*arguments: object, size: int = 2) -> Ranks:
        folder = tmp_path_factory.mktemp("ranks") / "out"
        started.append(Ranks([str(argument) for argument in arguments], size=size, folder=folder))
        return started[-1]

    yield start
    for ranks in started:
        ranks.kill()
