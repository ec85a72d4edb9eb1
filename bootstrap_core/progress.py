"""Progress of long work: the functions that are told how far it is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Progress = Callable[[int, int], object]
"""Function that is called with the numbers of things done, such as images, files or batches, and of all."""

File = TypeVar("File")


def no_progress(done: int, total: int) -> None:
    """Do nothing."""


_progress = ContextVar[Progress]("progress", default=no_progress)


@contextmanager
def file_progress(progress: Progress) -> Iterator[None]:
    """Call `progress` after each image file or sound that is read in the `with` block.

    Recordings of events are read when they are first used: those of datasets made in the block report then.
    """
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


def current_progress() -> Progress:
    """Return the function that `file_progress` was given; one that does nothing outside its `with` block."""
    return _progress.get()


def each_file(files: Sequence[File]) -> Iterator[File]:
    """Yield the files, and report to `file_progress` when the loop comes back from each."""
    progress = current_progress()
    for done, file in enumerate(files, 1):
        yield file
        progress(done, len(files))
