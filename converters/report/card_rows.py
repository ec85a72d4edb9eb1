"""Facts of a model's card as rows of text."""

from collections.abc import Mapping
from typing import Any

__all__ = ["card_rows"]


TEXT_LENGTH = 1000
"""Largest number of characters of a fact."""


def card_rows(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return topic, key and value of each fact of a card, as text; epochs count from 1.

    >>> card_rows({"training": {"epoch": 4, "epochs": 9}, "test": {"snn": {"accuracy": 0.5, "synops": None}}})
    [('training', 'epoch', '5 (of 9)'), ('training', 'epochs', '9'), ('test', 'snn', 'accuracy 0.5')]
    """
    return [
        (topic, key, _text(key, value, facts))
        for topic, facts in card.items()
        for key, value in (facts.items() if isinstance(facts, Mapping) else [("", facts)])
    ]


def _text(key: str, value: Any, facts: Mapping[str, Any]) -> str:
    if key == "epoch" and isinstance(value, int) and "epochs" in facts:
        return f"{value + 1} (of {facts['epochs']})"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {fact}" for name, fact in value.items() if fact is not None)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]}..."
