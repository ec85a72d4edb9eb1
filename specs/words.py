"""Words of messages: plurals, suggestions, problems that Pydantic finds; texts made safe to print."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

LIKENESS = 0.7
"""Smallest similarity of a suggestion, as the ratio of `difflib`."""


def suggest(word: object, known: Iterable[str]) -> str:
    """Return a hint with the most similar known word; empty if `word` is known, or no known word is similar.

    >>> suggest("mnist-dens", ["mnist-conv", "mnist-dense"])
    '; did you mean mnist-dense?'
    """
    found = nearest(word, known)
    return f"; did you mean {found}?" if found and found != word else ""


def nearest(word: object, known: Iterable[str]) -> str | None:
    """Return the known word that is most similar to `word`; None if no word is similar."""
    close = difflib.get_close_matches(word[:64], list(known), n=1, cutoff=LIKENESS) if isinstance(word, str) else []
    return close[0] if close else None


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1.

    >>> counted(1, "class"), counted(1200, "class"), counted(0, "bit")
    ('1 class', '1,200 classes', '0 bits')
    """
    return f"{n:,} {noun if n == 1 else noun + ('es' if noun.endswith('s') else 's')}"


def sample_word(*, is_sound: bool, is_timed: bool) -> str:
    """Return the word for what a network takes at a time: `sound`, `recording` or `image`."""
    return "sound" if is_sound else "recording" if is_timed else "image"


def percent(part: float | None) -> str:
    """Return a fraction as text: 0.9876 as `98.76 %`, None as a dash."""
    return "-" if part is None else f"{100 * part:.2f} %"


def probability(part: float) -> str:
    """Return a probability as text; as none is 0 or 1, the ends read `< 0.01 %` and `> 99.99 %`.

    >>> probability(1.0), probability(0.5), probability(1e-9)
    ('> 99.99 %', '50.00 %', '< 0.01 %')
    """
    return "< 0.01 %" if part < 1e-4 else "> 99.99 %" if part > 1 - 1e-4 else percent(part)


def first_problem(error: "ValidationError") -> str:
    """Return field and message of the first problem, without its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"


def printable(text: str) -> str:
    """Replace characters that could control the terminal; every text from a file or a server passes through here.

    >>> printable("a\x1b[2Jb\u202e")
    'a�[2Jb�'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
