"""Functions on datasets of a `registry` in the place of the package's `datasets.yaml`."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from bootstrap_core.data import datasets


def _with_registry(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: object, registry: object = None, **options: object) -> Any:
        if registry is None:
            return function(*arguments, **options)
        with patch.object(datasets, "sources", lambda: registry):
            return function(*arguments, **options)

    return call


load_dataset, find_dataset, pull_dataset = map(
    _with_registry, (datasets.load_dataset, datasets.find_dataset, datasets.pull_dataset)
)
