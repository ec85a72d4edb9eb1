"""Weights on their grid equal those of the definition."""

import math

import pytest
import torch

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.functional import quantize
from bootstrap_core.ops.weight_grid import quantize_weight


def test_weights_of_every_kind_are_the_definition_s() -> None:
    sixteenths = torch.arange(-16 * 140, 16 * 140) / 16 * WEIGHT_STEP  # with ties, and beyond both ends
    special = torch.tensor([0.0, -0.0, math.nan, math.inf, -math.inf, 1e30, -1e-30])
    weight = torch.cat([sixteenths, torch.nextafter(sixteenths, torch.tensor(math.inf)), torch.randn(1000), special])
    found, expected = quantize_weight(weight), quantize.quantize_weight(weight)
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num().view(torch.int32), expected.nan_to_num().view(torch.int32))


def test_weights_by_hand(in_both) -> None:
    """Weights are rounded to steps of 2/64, half to even, and clamped to -128..127 steps."""
    weight = torch.tensor([0.5, 1.5, 2.4, -0.5, -1.5, 126.6, 127.6, 500.0, -128.4, -500.0]) * WEIGHT_STEP
    for found in in_both(lambda: quantize_weight(weight) / WEIGHT_STEP):
        assert found.tolist() == [0, 2, 2, 0, -2, 127, 127, 127, -128, -128]


@pytest.mark.parametrize("shape", [(0, 3), (7, 5), (4, 3, 3, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_shape_and_gradient_are_kept(dtype, shape, in_both) -> None:
    weight, grad = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)

    def run():
        leaf = weight.clone().requires_grad_()
        found = quantize_weight(leaf)
        return found.detach(), *torch.autograd.grad(found, leaf, grad)

    (found, of_weight), (expected, wanted) = in_both(run)
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    assert torch.equal(of_weight, grad)
    assert torch.equal(wanted, grad)


def test_weights_may_lie_in_any_order_and_are_not_changed(in_both) -> None:
    weight = torch.randn(4, 3, 3, 2)
    for lying in (weight.contiguous(memory_format=torch.channels_last), weight.movedim(0, -1)):
        before = lying.clone()
        found, expected = in_both(lambda lying=lying: quantize_weight(lying))
        assert torch.equal(found, expected)
        assert torch.equal(lying, before)
        assert not found.requires_grad


def test_without_a_gradient_wanted_none_is_kept() -> None:
    weight = torch.randn(3, requires_grad=True)
    assert quantize_weight(weight).requires_grad
    with torch.no_grad():
        assert not quantize_weight(weight).requires_grad


def test_threads_change_no_weight(with_threads) -> None:
    weight = torch.randn(70_000)
    expected = quantize.quantize_weight(weight)
    for n in (1, 2, 3):
        with_threads(n)
        assert torch.equal(quantize_weight(weight), expected)
