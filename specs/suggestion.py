"""What a mistyped word was meant to be."""

import difflib
from collections.abc import Iterable

__all__ = ["nearest", "suggest"]

LIKENESS = 0.7
"""Of the nearest word, by `difflib`'s ratio, at least."""


def suggest(word: object, known: Iterable[str]) -> str:
    """A hint with the nearest of the words known, if `word` is not one of them, out of place.

    >>> suggest("mnist-dens", ["mnist-conv", "mnist-dense"])
    '; did you mean mnist-dense?'
    """
    found = nearest(word, known)
    return f"; did you mean {found}?" if found and found != word else ""


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The word known that is most like `word`, or None where none is."""
    close = difflib.get_close_matches(word[:64], list(known), n=1, cutoff=LIKENESS) if isinstance(word, str) else []
    return close[0] if close else None
