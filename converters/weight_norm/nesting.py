"""State dicts inside checkpoints: finding them, and putting others in their place."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from specs.files.limits import STATE_DICT_DEPTH

Keys = tuple[str, ...]
"""Path of an entry in nested mappings; empty for the whole."""

NOT_A_MODEL = re.compile(
    r"(?<![a-z])(?:optim|optimi[sz]ers?|sched|(?:lr)?schedulers?|(?:grad)?scalers?|rng)(?!(?-i:[a-z]))|_extra_state",
    re.IGNORECASE,
)
"""Keys of a checkpoint with the tensors of optimizers and the like, which are not the state dict of a model."""


def holds_tensors(value: object) -> bool:
    """Return whether a value is a mapping with a tensor among its entries."""
    return isinstance(value, Mapping) and any(isinstance(entry, Tensor) for entry in value.values())


def find_state_dicts(checkpoint: object) -> list[Keys]:
    """Return the paths of the innermost mappings of tensors, without those of optimizers and the like.

    >>> import torch
    >>> state = {"w": torch.ones(1)}
    >>> find_state_dicts({"epoch": 3, "generator": state, "optimizer": {"state": state}})
    [('generator',)]
    """
    return _find(checkpoint, (), set())


def _find(value: object, keys: Keys, seen: set[int]) -> list[Keys]:
    inside: list[Keys] = []
    if isinstance(value, Mapping) and len(keys) < STATE_DICT_DEPTH and id(value) not in seen:
        seen.add(id(value))  # A mapping may hold itself, or another one many times.
        for name, entry in value.items():
            if isinstance(name, str) and not NOT_A_MODEL.search(name):
                inside += _find(entry, (*keys, name), seen)
    return inside or ([keys] if holds_tensors(value) else [])


def replace_at(checkpoint: Any, keys: Keys, new: Any) -> Any:
    """Return a checkpoint with `new` at a path; mappings on the way are copied, all other entries are the same."""
    if not keys:
        return new
    first, rest = keys[0], keys[1:]
    return {name: replace_at(value, rest, new) if name == first else value for name, value in checkpoint.items()}
