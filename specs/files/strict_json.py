"""Strict reading of JSON from strangers."""

from typing import Any


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict; refuse a key given twice, since JSON readers differ on its value. Use it as `object_pairs_hook`.

    Raises:
        ValueError: a key is given twice.

    >>> import json
    >>> json.loads('{"a": 1, "a": 2}', object_pairs_hook=unique_keys)
    Traceback (most recent call last):
    ValueError: 'a' is given twice
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r:.80} is given twice")
    return found
