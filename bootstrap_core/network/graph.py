"""The order in which blocks run, and what each of them reads: the one before it, and the sources of its skips."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from specs.block import skips_of
from specs.network import NetworkSpec

__all__ = ["sources_of", "walk"]

Output = TypeVar("Output")


def sources_of(spec: NetworkSpec) -> list[list[int]]:
    """The sources of each block's skips, input first."""
    return [[skip.source for skip in skips_of(layer)] for layer in spec.layers]


def walk(
    sources: Sequence[Sequence[int]], given: Output, run: Callable[[int, list[Output]], Output]
) -> Iterator[Output]:
    """Run blocks in order and yield what each gives; outputs are kept only as long as a later block reads them.

    Args:
        sources: of each block's skips, see `sources_of`.
        given: what the first block reads.
        run: called with a block's index and what it reads: the output before it, then those of its skips' sources.

    >>> list(walk([[], [], [0]], 1, lambda i, read: sum(read) + i))
    [1, 2, 5]
    """
    last_reader = {source: i for i, read in enumerate(sources) for source in read}
    kept: dict[int, Output] = {}
    x = given
    for i, read in enumerate(sources):
        x = run(i, [x, *(kept[source] for source in read)])
        if i in last_reader:
            kept[i] = x
        kept = {source: output for source, output in kept.items() if last_reader[source] > i}
        yield x
