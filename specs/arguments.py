"""Checks of the arguments that callers pass to public functions."""

import os
from pathlib import Path

from specs.errors import SnnZooError, SpecError
from specs.network import NetworkSpec


def check_type(
    value: object,
    kinds: type | tuple[type, ...],
    wanted: str,
    *,
    advice: str = "",
    error: type[SnnZooError] = SnnZooError,
) -> None:
    """Raise `error` unless `value` is of one of the types `kinds`.

    Args:
        wanted: what the function takes, which begins the message.
        advice: what to do, which ends the message.

    >>> check_type(3, str, "create_model takes the name of a model", advice="model_names lists them")
    Traceback (most recent call last):
        ...
    specs.errors.SnnZooError: create_model takes the name of a model, not an int: model_names lists them
    """
    if not isinstance(value, kinds):
        raise error(f"{wanted}, not {_kind_of(value)}{advice and f': {advice}'}")


def _kind_of(value: object) -> str:
    """Return the type of a value with its article."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def check_path(value: object, wanted: str, *, advice: str = "", error: type[SnnZooError] = SnnZooError) -> Path:
    """Return an argument as a path; raise `error` if it is not one. Otherwise like `check_type`."""
    check_type(value, (str, os.PathLike), wanted, advice=advice, error=error)
    assert isinstance(value, str | os.PathLike)
    return Path(value)


def check_spec(value: object, function: str) -> None:
    """Raise `SpecError` unless the argument of a function is a `NetworkSpec`."""
    check_type(value, NetworkSpec, f"{function} takes a NetworkSpec", advice="load_spec reads one", error=SpecError)
