import pytest
import torch

from bootstrap_core.functional.piecewise import piecewise

CENTERS = torch.tensor([[0.5, 0.0], [1.0, 0.25], [3.0, 0.75]])
SLOPES = torch.tensor([0.5, 0.25])
PEAK = 3.0 / 0.75
"""Factor of gradients: z of the last centre over its rate."""


@pytest.mark.parametrize(
    ("z", "rate"),
    [(-9.0, 0), (0.5, 0), (0.75, 0.125), (1.0, 0.25), (2.0, 0.5), (3.0, 0.75), (9.0, 0.75)],
)
def test_zero_then_straight_between_centers_then_constant(z: float, rate: float) -> None:
    assert piecewise(torch.tensor([z]), CENTERS, SLOPES).item() == rate


@pytest.mark.parametrize(
    ("z", "gradient"),
    [(-9.0, 0), (0.5, 0), (0.75, 0.5), (1.0, 0.5), (2.0, 0.25), (3.0, 0.25), (9.0, 0)],
)
def test_gradient_is_the_scaled_slope_of_the_segment_plus_a_floor(z: float, gradient: float) -> None:
    x = torch.tensor([z], requires_grad=True)
    (2 * piecewise(x, CENTERS, SLOPES)).backward()
    assert x.grad.item() == pytest.approx(2 * (gradient * PEAK + 1e-5), rel=1e-6)


def test_a_rising_curve_that_ends_below_0_has_a_positive_gradient() -> None:
    x = torch.tensor([-2.5], requires_grad=True)
    piecewise(x, CENTERS - torch.tensor([4.0, 0.0]), SLOPES).backward()
    assert x.grad.item() == pytest.approx(0.25 * 1.0 / 0.75 + 1e-5, rel=1e-6)
