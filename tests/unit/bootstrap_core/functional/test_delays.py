"""Delays: what arrives when, and the gradient of a loss by a delay."""

import pytest
import torch

from bootstrap_core.functional.delays import delayed_input, lags_of, weight_at


def test_each_output_is_late_by_its_own_delay() -> None:
    z = torch.arange(1.0, 5.0)[:, None, None].expand(4, 1, 3)
    expected = [[1, 0, 0], [2, 0, 0], [3, 1, 0], [4, 2, 0]]
    assert delayed_input(z, torch.tensor([0.0, 2.0, 9.0]))[:, 0].tolist() == expected


def test_weights_of_all_lags_are_the_weights() -> None:
    weight, delay = torch.randn(3, 5), torch.randint(0, 7, (3, 5)).float()
    for learned in (delay, delay.clone().requires_grad_()):
        parts = [weight_at(lag, weight, learned) for lag in lags_of(learned)]
        assert torch.equal(sum(parts), weight)
        for lag, part in zip(lags_of(learned), parts, strict=True):
            assert torch.equal(part, torch.where(delay == lag, weight, 0))


@pytest.mark.parametrize("delay", [1.0, 4.0, 8.0])
def test_the_gradient_is_half_of_what_two_steps_of_delay_change(delay: float) -> None:
    """Exactly so for a loss that is linear in the weighted input."""
    z, towards = torch.randn(9, 4, 1, 2, 2), torch.randn(9, 4, 1, 2, 2)
    learned = torch.tensor([delay], requires_grad=True)
    (delayed_input(z, learned) * towards).sum().backward()
    longer, shorter = ((delayed_input(z, torch.tensor([delay + by])) * towards).sum() for by in (1, -1))
    torch.testing.assert_close(learned.grad.squeeze(), (longer - shorter) / 2)
