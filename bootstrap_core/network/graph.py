"""Walk over the blocks of a network, each after the blocks that it reads; see `NetworkSpec.sources`."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Output = TypeVar("Output")


def walk(
    sources: Sequence[Sequence[int]], given: Output, run: Callable[[int, list[Output]], Output]
) -> Iterator[Output]:
    """Run blocks in order and yield their outputs; an output is kept only as long as a later block reads it.

    Args:
        sources: indices of the blocks that each block reads; a block that reads none takes `given`.
        given: input of the network.
        run: called with the index of a block and the outputs that it reads.

    >>> list(walk([[], [0], [0, 1]], 1, lambda i, read: sum(read) + i))
    [1, 2, 5]
    """
    last_reader = {source: i for i, read in enumerate(sources) for source in read}
    kept: dict[int, Output] = {}
    for i, read in enumerate(sources):
        x = run(i, [kept[source] for source in read] or [given])
        kept = {source: output for source, output in (kept | {i: x}).items() if last_reader.get(source, i) > i}
        yield x
