"""Short descriptions of objects, for `repr`."""

from collections.abc import Sequence

from specs.network import NetworkSpec
from specs.summary import summarize

MOST_LINES = 10
"""Largest number of lines of a description."""
LAST = 3
"""Number of lines that are shown after those left out."""


def few_lines(first: str, lines: Sequence[str]) -> str:
    """Return `first` and indented `lines` below it; of too many, some in the middle are left out.

    >>> print(few_lines("Letters", "abcdefghijklmno"))
    Letters
      a
      b
      c
      d
      e
      ... 7 more
      m
      n
      o
    """
    room = MOST_LINES - 1  # below the first line
    if len(lines) > room:
        n_first = room - 1 - LAST
        lines = [*lines[:n_first], f"... {len(lines) - n_first - LAST} more", *lines[-LAST:]]
    return "\n  ".join([first, *lines])


def outline(what: str, spec: NetworkSpec) -> str:
    """Return a description of a network: a line for each layer below its name, T and number of parameters."""
    rows = summarize(spec)
    n_parameters = sum(row.parameters for row in rows)
    return few_lines(
        f"{what} {spec.name!r}, T = {spec.time_steps}, {n_parameters:,} parameters",
        [f"{i} {row.kind} {list(row.shape)}" for i, row in enumerate(rows)],
    )
