"""Ctrl-C in a program: it ends with 130 and no traceback, whatever it interrupts.

An exception in the midst of an import can come out as another one, or as none.
"""

import atexit
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells."""


def end_on_interrupt() -> None:
    """Let Ctrl-C end this process at once, as long as no command runs. Call it before the imports of a program."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # shells let background jobs ignore it
        signal.signal(signal.SIGINT, _end)
        # Python gives up its handlers at its end, and the signal would kill a process whose work is done
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


@contextmanager
def raised_in_command() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt`, so that a command can tidy up; amid its imports, the process still ends."""
    if signal.getsignal(signal.SIGINT) is not _end:
        yield
        return
    signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"Stopped\n")
    os._exit(INTERRUPTED)


def _raise(number: int, frame: FrameType | None) -> None:
    inner = frame
    while inner is not None:
        if inner.f_code.co_filename.startswith("<frozen importlib"):
            _end(number, frame)
        inner = inner.f_back
    raise KeyboardInterrupt
