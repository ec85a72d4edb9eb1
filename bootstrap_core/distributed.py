"""Training of one network by several processes.

Each process, a *rank*, holds the whole network and computes a share of each batch. Values that depend on the whole
batch are summed over the group: gradients, losses, counts, and the statistics of norms and samplers. So all ranks keep
the same weights, equal to those of a single process except for the order of additions. `ALONE` is the group of a single
process.
"""

import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib import import_module
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor

from specs.errors import LostProcessError, SnnZooError

BUCKET = 1 << 23
"""Largest number of values that one message sums; a larger tensor gets a message of its own."""


@dataclass(frozen=True)
class Share:
    """Rows of a batch that one process computes.

    Attributes:
        rows: the rows of this process.
        n_rows: number of rows of the whole batch.
        repeats: number of processes that compute each row: 1, or the size of the group if the batch has fewer rows than
            the group has processes; then all of them compute the whole batch.
    """

    rows: slice
    n_rows: int
    repeats: int = 1

    @property
    def weight(self) -> float:
        """Weight of the mean over this share in the mean over the whole batch."""
        n_own: int = self.rows.stop - self.rows.start
        return n_own / (self.n_rows * self.repeats)


@dataclass(frozen=True)
class Group:
    """Group of `size` processes; this process is number `rank`, counted from 0.

    All methods but `share` and `part` must be called by all ranks, in the same order. They raise `LostProcessError`
    when another process has ended or does not answer in time.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """True for rank 0, the process that writes files and prints."""
        return self.rank == 0

    def part(self, n_rows: int) -> slice:
        """Return the slice of `n_rows` rows that belongs to this rank: equal parts, one row more for the first ranks.

        >>> [Group(rank, 3).part(8) for rank in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        whole, left = divmod(n_rows, self.size)
        start = self.rank * whole + min(self.rank, left)
        return slice(start, start + whole + (self.rank < left))

    def share(self, n_rows: int) -> Share:
        """Return this rank's share of a batch of `n_rows`: the whole batch if there are fewer rows than ranks."""
        if n_rows < self.size:
            return Share(slice(0, n_rows), n_rows, self.size)
        return Share(self.part(n_rows), n_rows)

    def counts(self, n: int) -> list[int]:
        """Return the counts of all ranks, in their order; `n` is the count of this one."""
        return [int(count) for count in self.add([n if rank == self.rank else 0 for rank in range(self.size)])]

    def add(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each number over the group, computed in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        self._exchange(partial(dist.all_reduce, total))
        return total.tolist()

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors, all on one device, by their sums over the group."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.detach().flatten() for tensor in bucket])
            self._exchange(partial(dist.all_reduce, flat))
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def mean(self, means: Tensor, n: int) -> Tensor:
        """Return the mean over the samples of all ranks; `means` `[...]` is that over the `n` samples of this rank."""
        if self.size == 1:
            return means
        sums = torch.cat([means.double().flatten() * n, torch.full((1,), n, device=means.device)])
        self.add_up([sums])
        return (sums[:-1] / sums[-1]).view_as(means).to(means)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first rank."""
        if self.size == 1:
            return
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            self._exchange(partial(dist.broadcast, whole, 0))
            tensor.detach().copy_(whole)

    def broadcast_bytes(self, data: bytes) -> bytes:
        """Return the `data` of the first rank on all ranks; the `data` of the others is ignored."""
        if self.size == 1:
            return data
        (length,) = self.add([len(data) if self.leads else 0])
        found = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.leads else torch.empty(int(length)).byte()
        self.broadcast([found])
        return found.numpy().tobytes()

    def _exchange(self, work: Callable[[], object]) -> None:
        """Run an operation in which all ranks take part; raise `LostProcessError` if one does not answer."""
        try:
            work()
        except RuntimeError as error:
            raise LostProcessError(
                f"process {self.rank} of {self.size}: another process has ended or does not answer "
                f"({_reason(error)}): {GO_ON}"
            ) from None


ALONE = Group()
GO_ON = "start all processes again, with --resume to continue after the last saved epoch"


def _reason(error: Exception) -> str:
    """Return the first sentence of an error of torch, without its place in the C++ source."""
    return re.sub(r"^\[.*?\] ", "", str(error).splitlines()[0]).partition(". ")[0]


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(map(torch.numel, bucket)) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextmanager
def join_group(*, timeout_s: float) -> Iterator[Group]:
    """Join the group of processes that `torchrun` or `accelerate launch` started; without them, yield `ALONE`.

    The environment (WORLD_SIZE, RANK, ...) names the group. Inside the `with` block, a SIGTERM from the launcher raises
    `LostProcessError`. The block ends when all processes have reached its end. Then gloo's threads end too: a thread
    that still freed a tensor while Python shuts down would abort the process.

    Args:
        timeout_s: time in seconds after which a silent process counts as lost.

    Raises `SnnZooError` if the environment is incomplete, or this process cannot reach the others.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield ALONE
        return
    # Imported before the group exists: an optimiser imports it later, and its default arguments would keep the group.
    import_module("torch.distributed.nn")
    try:
        dist.init_process_group(timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        raise SnnZooError(
            f"WORLD_SIZE announces {size} processes, but this one cannot reach the others: "
            f"{_reason(error)}; start all processes with torchrun or accelerate launch"
        ) from None
    before = signal.signal(signal.SIGTERM, _end)
    group = Group(dist.get_rank(), size)
    try:
        yield group
        group._exchange(dist.barrier)
    finally:
        signal.signal(signal.SIGTERM, before)
    dist.destroy_process_group()  # not after an error: it could wait for a lost process


def _end(number: int, frame: FrameType | None) -> None:
    raise LostProcessError(f"the launcher has ended this process, as it does when another process fails: {GO_ON}")


def local_device(device: str) -> str:
    """Return the device of this process: for "cuda" under a launcher, the GPU of its LOCAL_RANK; else `device`."""
    index = os.environ.get("LOCAL_RANK")
    if device != "cuda" or index is None:
        return device
    torch.cuda.set_device(int(index))
    return f"cuda:{index}"
