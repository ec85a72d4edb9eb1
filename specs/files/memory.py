"""Free memory, and a clear error before an allocation that would not fit."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from specs.errors import SnnZooError

CGROUP = Path("/sys/fs/cgroup")


def refuse_beyond_memory(n_bytes: int, what: str) -> None:
    """Raise `SnnZooError` if `n_bytes` of memory are not free; `what` begins the message.

    Call it before allocating: most systems promise memory that they do not have, then kill the process that uses it.
    """
    free = free_memory()
    if free is not None and n_bytes > free:
        raise SnnZooError(f"{what} takes about {_in_units(n_bytes)} of memory; {_in_units(free)} are free")


def free_memory() -> int | None:
    """Return the bytes that this process may still allocate; None if unknown.

    The smallest of three counts: free in the machine, in its container, and below the limit of the process.
    """
    return min(_free_by_each(), default=None)


def _free_by_each() -> Iterator[int]:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        yield 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError):
        most, taken = (int((CGROUP / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text("ascii").splitlines())
        yield max(0, most - taken + int(counts.get("inactive_file", 0)))
    with suppress(ImportError, OSError, ValueError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
            yield max(0, most - pages * os.sysconf("SC_PAGE_SIZE"))


def _in_units(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB" if n_bytes >= 1 << 30 else f"{n_bytes / 2**20:,.0f} MiB"
