"""Facts of a model's card as rows of text."""

from collections.abc import Mapping, Sized
from typing import Any

LARGE, DIGITS = 1000, 6
"""Magnitude from which numbers that are not whole are rounded to whole ones, and the digits of smaller ones."""
TEXT_LENGTH = 1000
"""Largest number of characters of a fact."""


def card_rows(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return topic, key and value of each fact of a card, as text; epochs count from 1, and empty facts are left out.

    >>> card_rows({"training": {"epoch": 4, "epochs": 9}, "test": {"snn": {"accuracy": 0.5, "synops": 52388.35}}})
    [('training', 'epoch', '5 (of 9)'), ('training', 'epochs', '9'), ('test', 'snn', 'accuracy 0.5, synops 52,388')]
    """
    return [
        (_words(topic), _words(key), _text(key, value, facts))
        for topic, facts in card.items()
        for key, value in (facts.items() if isinstance(facts, Mapping) else [("", facts)])
        if not _is_empty(value)
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, Sized) and not len(value))


def _text(key: str, value: Any, facts: Mapping[str, Any]) -> str:
    if key == "epoch" and isinstance(value, int) and "epochs" in facts:
        return f"{value + 1} (of {facts['epochs']})"
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(name)} {_number(fact)}" for name, fact in value.items() if not _is_empty(fact))
    text = ", ".join(map(_number, value)) if isinstance(value, list) else _number(value)
    return text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]}..."


def _number(value: Any) -> str:
    """Return a value as text; numbers that are not whole are rounded."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= LARGE else f"{value:.{DIGITS}g}"
