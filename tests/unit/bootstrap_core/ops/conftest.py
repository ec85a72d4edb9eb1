"""Fixtures for operators: random spikes and weights, runs with and without the native library, comparisons."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.ops.library import is_installed, without_native
from bootstrap_core.ops.precision import products_in
from specs.training import Precision


@pytest.fixture(autouse=True)
def _in_float32() -> Iterator[None]:
    """Compute products of training in float32 on every CPU."""
    with products_in(Precision.FLOAT32):
        yield


@pytest.fixture
def native() -> None:
    """Skip a test if the native library is not built."""
    if not is_installed():
        pytest.skip("the native library is not installed")


@pytest.fixture
def drawn_spikes() -> Callable[..., Tensor]:
    """Return a function that draws float32 spikes of a shape."""

    def draw(*shape: int, rate: float = 0.4, seed: int = 0) -> Tensor:
        return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()

    return draw


@pytest.fixture
def drawn_weight() -> Callable[..., Tensor]:
    """Return a function that draws weights from the whole grid; those of the first two outputs are all at its ends."""

    def draw(*shape: int, seed: int = 1) -> Tensor:
        whole = torch.randint(-128, 128, shape, generator=torch.Generator().manual_seed(seed))
        whole[:1], whole[1:2] = -128, 127
        return whole * WEIGHT_STEP

    return draw


@pytest.fixture
def in_both() -> Callable[[Callable[[], Any]], tuple[Any, Any]]:
    """Return a function that runs another with and without the native library, and returns both results."""

    def run(function: Callable[[], Any]) -> tuple[Any, Any]:
        found = function()
        with without_native():
            return found, function()

    return run


@pytest.fixture
def hold_close() -> Callable[..., None]:
    """Return a function that compares tensors, with a tolerance relative to the largest expected number."""

    def hold(found: Sequence[Tensor | None], expected: Sequence[Tensor | None], tolerance: float = 1e-5) -> None:
        assert len(found) == len(expected)
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            if one is None or other is None:
                assert one is other, i
                continue
            assert one.shape == other.shape, i
            assert one.dtype == other.dtype, i
            if other.numel():
                largest = float(other.abs().max())
                assert float((one - other).abs().max()) <= tolerance * max(largest, 1e-30), i

    return hold


@pytest.fixture
def with_threads() -> Iterator[Callable[[int], None]]:
    """Return a function that sets the number of torch's threads for the rest of a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
