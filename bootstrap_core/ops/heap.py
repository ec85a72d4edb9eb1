"""Heap settings for processes that train, calibrate, or run batches of images.

Each step allocates tensors of the same sizes, and page faults in new memory take longer than the arithmetic. So these
processes tell glibc not to return memory to the system.
"""

import ctypes
from contextlib import suppress
from functools import cache

TRIM_THRESHOLD, MMAP_MAX = -1, -4
NEVER = 2**31 - 1


@cache
def keep_freed_memory() -> None:
    """Let the C library keep large freed blocks for the next step or batch.

    glibc returns large blocks to the system and requests new ones, and every page of a new block costs a page fault.
    For a tensor of [16, 256, 16, 12, 12] this takes longer than the arithmetic on it. With other C libraries this
    function does nothing.
    """
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, NEVER)
