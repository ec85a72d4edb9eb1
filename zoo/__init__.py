"""What exists and how to get it.

Names load when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.factory import create_model, model_names

__all__ = ["create_model", "model_names"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("zoo.factory"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
