"""The heap of a process that trains, calibrates, or runs batches of images."""

import ctypes
from contextlib import suppress
from functools import cache

__all__ = ["keep_freed_memory"]

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""
NEVER = 2**31 - 1


@cache
def keep_freed_memory() -> None:
    """Let the C library keep large blocks that are freed, for the next step or batch to take.

    glibc returns large blocks to the system and asks for new ones, and each page of those costs a fault: for a tensor
    of [16, 256, 16, 12, 12] more time than the arithmetic on it. With other C libraries this does nothing.
    """
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, NEVER)
