"""Walk over the blocks of a network: each reads the block before it and the sources of its skips."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from specs.layers.block import skips_of
from specs.network import NetworkSpec

Output = TypeVar("Output")


def sources_of(spec: NetworkSpec) -> list[list[int]]:
    """Return the indices of the blocks that each block's skips read, input first."""
    return [[skip.source for skip in skips_of(layer)] for layer in spec.layers]


def walk(
    sources: Sequence[Sequence[int]], given: Output, run: Callable[[int, list[Output]], Output]
) -> Iterator[Output]:
    """Run blocks in order and yield their outputs; an output is kept only as long as a later block reads it.

    Args:
        sources: sources of each block's skips, see `sources_of`.
        given: input of the first block.
        run: called with the index of a block and its inputs: the output of the block before it, then the outputs
            that its skips read.

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
