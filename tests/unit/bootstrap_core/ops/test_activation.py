"""The fitted activation equals the definition, also in type and layout."""

import math

import pytest
import torch
from torch import Tensor

from bootstrap_core.functional.piecewise import piecewise
from bootstrap_core.ops.activation import activate


def curve(n: int, last: float = 1.3) -> tuple[Tensor, Tensor]:
    """Return centres and the slopes between them, in float64 like those of samplers."""
    centers = torch.stack([torch.linspace(-0.2, last, n), torch.linspace(0, 0.9, n) ** 2], 1).double()
    return centers, centers[:, 1].diff() / centers[:, 0].diff()


@pytest.mark.parametrize("last", [1.3, -0.1])
@pytest.mark.parametrize("n", [2, 4, 7])
def test_the_activation_equals_the_definition(n: int, last: float, in_both) -> None:
    centers, slopes = curve(n, last)
    ends = torch.tensor([math.inf, -math.inf])
    z = torch.cat([torch.linspace(-1, 2, 40_001), centers[:, 0].float(), ends])

    def run() -> tuple[Tensor, Tensor]:
        leaf = z.clone().requires_grad_()
        rates = activate(leaf, centers, slopes)
        return rates, *torch.autograd.grad(rates, leaf, torch.linspace(1, 2, len(z)))

    (rates, gradient), (expected, wanted) = in_both(run)
    torch.testing.assert_close(rates, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=0)


def test_no_number_gives_what_the_definition_gives(in_both) -> None:
    found, expected = in_both(lambda: activate(torch.tensor([math.nan, 0.5]), *curve(4)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7, equal_nan=True)


def test_rates_by_hand(in_both) -> None:
    centers = torch.tensor([[0.0, 0.0], [0.5, 0.25], [1.0, 1.0]])
    slopes = torch.tensor([0.5, 1.5])
    z = torch.tensor([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 3.0], requires_grad=True)
    for rates in in_both(lambda: activate(z, centers, slopes)):
        torch.testing.assert_close(rates.tolist(), [0.0, 0.0, 0.125, 0.25, 0.625, 1.0, 1.0])
        (gradient,) = torch.autograd.grad(rates.sum(), z)
        floor = 1e-5  # eps of the gradient; a centre belongs to the segment below
        expected = [floor, floor, 0.5 + floor, 0.5 + floor, 1.5 + floor, 1.5 + floor, floor]
        torch.testing.assert_close(gradient.tolist(), expected)


@pytest.mark.parametrize("native_or_not", [0, 1])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_type_and_layout_are_kept_and_bfloat16_is_rounded_at_the_end(
    dtype, memory_format, native_or_not, in_both
) -> None:
    centers = torch.tensor([[0.1001, 0.0], [0.7003, 0.9]], dtype=torch.float64)  # between numbers of bfloat16
    slopes = centers[:, 1].diff() / centers[:, 0].diff()
    z = torch.linspace(0, 1, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5).to(dtype, memory_format=memory_format)

    def run() -> tuple[Tensor, Tensor]:
        leaf = z.clone().requires_grad_()
        rates = activate(leaf, centers, slopes)
        rates.sum().backward()
        return rates.detach(), leaf.grad

    rates, gradient = in_both(run)[native_or_not]
    exact = z.to(torch.float32 if dtype == torch.bfloat16 else dtype).requires_grad_()
    expected = piecewise(exact, centers, slopes)
    expected.sum().backward()
    assert rates.dtype == gradient.dtype == dtype
    assert rates.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(rates, expected.detach().to(dtype), rtol=0, atol=1e-7)
    torch.testing.assert_close(gradient, exact.grad.to(dtype), rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=0)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 0, 2), (5, 7, 3)])
def test_numbers_of_any_shape_and_stride(shape: tuple[int, ...], in_both) -> None:
    z = torch.rand(*shape, 2)[..., 0]
    found, expected = in_both(lambda: activate(z, *curve(4)))
    assert found.shape == shape
    assert not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_threads_change_no_rate(with_threads) -> None:
    z, found = torch.rand(70_000).requires_grad_(), []
    for n in (1, 2, 3):
        with_threads(n)
        rates = activate(z, *curve(5))
        found.append((rates, *torch.autograd.grad(rates.sum(), z)))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(other, found[0], strict=True))
