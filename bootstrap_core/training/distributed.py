"""Several processes that train one network: what they share, and how they add up.

Each process, a *rank*, holds the whole network and computes a share of each batch. What depends on the whole batch is
added up over the group: gradients, losses, counts, what norms and samplers measure. So all ranks keep the same weights,
and those that one process alone would have, but for the order in which numbers are added. `ALONE` is the group of one
process; nothing is added up in it.
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

__all__ = ["ALONE", "Group", "Share", "join_group", "local_device"]

BUCKET = 1 << 23
"""Numbers that are added up in one message, but for a larger tensor."""


@dataclass(frozen=True)
class Share:
    """The rows of a batch that one process computes, of `n_rows` in all.

    `repeats` is in how many shares each row is: 1, or the size of the group where there are fewer rows than processes
    and each computes them all.
    """

    rows: slice
    n_rows: int
    repeats: int = 1

    @property
    def weight(self) -> float:
        """What a mean over the share counts for in the mean over the batch."""
        n_own: int = self.rows.stop - self.rows.start
        return n_own / (self.n_rows * self.repeats)


@dataclass(frozen=True)
class Group:
    """`size` processes, of which this one is `rank`.

    All methods but `share` and `part` must be called by all ranks, in the same order. They raise `LostProcessError`
    when another one has ended or does not answer in time.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def part(self, n_rows: int) -> slice:
        """Rows of this rank, of `n_rows` that follow each other: equal parts, larger by one for the first ranks.

        >>> [Group(rank, 3).part(8) for rank in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        whole, left = divmod(n_rows, self.size)
        start = self.rank * whole + min(self.rank, left)
        return slice(start, start + whole + (self.rank < left))

    def share(self, n_rows: int) -> Share:
        """The part of a batch that this rank computes; all of it if there are fewer rows than ranks."""
        if n_rows < self.size:
            return Share(slice(0, n_rows), n_rows, self.size)
        return Share(self.part(n_rows), n_rows)

    def counts(self, n: int) -> list[int]:
        """How many each rank has, where this one has `n`."""
        return [int(count) for count in self.add([n if rank == self.rank else 0 for rank in range(self.size)])]

    def add(self, values: Sequence[float]) -> list[float]:
        """The sums of numbers over the group, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        self._meet(partial(dist.all_reduce, total))
        return total.tolist()

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors, all on one device, by their sums over the group."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.detach().flatten() for tensor in bucket])
            self._meet(partial(dist.all_reduce, flat))
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def mean(self, means: Tensor, n: int) -> Tensor:
        """The mean of what all ranks measured, from the means `[...]` of each over its `n` samples."""
        if self.size == 1:
            return means
        sums = torch.cat([means.double().flatten() * n, torch.full((1,), n, device=means.device)])
        self.add_up([sums])
        return (sums[:-1] / sums[-1]).view_as(means).to(means)

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first rank."""
        if self.size == 1:
            return
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            self._meet(partial(dist.broadcast, whole, 0))
            tensor.detach().copy_(whole)

    def spread_bytes(self, data: bytes) -> bytes:
        """The bytes that the first rank gives; what the others give does not matter."""
        if self.size == 1:
            return data
        (length,) = self.add([len(data) if self.leads else 0])
        found = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.leads else torch.empty(int(length)).byte()
        self.spread([found])
        return found.numpy().tobytes()

    def _meet(self, work: Callable[[], object]) -> None:
        try:
            work()
        except RuntimeError as error:
            raise LostProcessError(
                f"process {self.rank} of {self.size} lost another one, which ended or does not answer "
                f"({_reason(error)}): {GO_ON}"
            ) from None


ALONE = Group()
GO_ON = "start them all again, with --resume to go on after the last epoch that was saved"


def _reason(error: Exception) -> str:
    """The first sentence, without the line of C++ that it comes from."""
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
    """The group that `torchrun` or `accelerate launch` made this process a part of, by the environment; or `ALONE`.

    In the body of the `with`, a launcher that ends this process (SIGTERM) raises `LostProcessError` in it. The `with`
    ends when all processes have done its body, and gloo's threads with it: one that frees a tensor while Python ends
    aborts the process.

    Args:
        timeout_s: how long another process may be silent before it counts as lost.

    Raises:
        SnnZooError: the environment is incomplete, or the processes do not meet.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield ALONE
        return
    import_module("torch.distributed.nn")  # or an optimiser does later, and its defaults hold the group for ever
    try:
        dist.init_process_group(timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        raise SnnZooError(
            f"{size} processes are announced (WORLD_SIZE), and this one cannot meet the others: "
            f"{_reason(error)}; start them with torchrun or accelerate launch"
        ) from None
    before = signal.signal(signal.SIGTERM, _end)
    group = Group(dist.get_rank(), size)
    try:
        yield group
        group._meet(dist.barrier)
    finally:
        signal.signal(signal.SIGTERM, before)
    dist.destroy_process_group()  # not after an error: it might wait for the lost


def _end(number: int, frame: FrameType | None) -> None:
    raise LostProcessError(f"ended by the launcher, as it does when another process fails: {GO_ON}")


def local_device(device: str) -> str:
    """The device of this process, where a launcher started several on a host: each has a GPU of its own."""
    index = os.environ.get("LOCAL_RANK")
    if device != "cuda" or index is None:
        return device
    torch.cuda.set_device(int(index))
    return f"cuda:{index}"
