import math

import pytest
import torch

from bootstrap_core.functional.surrogate import exponential_surrogate


@pytest.mark.parametrize("voltage", [-40.0, 0.0, 1.5, 3.0, 80.0])
def test_the_formula(voltage: float) -> None:
    tau, scale = 100 * 1.5 * 0.2, 0.1 * 3
    found = exponential_surrogate(torch.tensor([voltage]), threshold=1.5, tau_grad=0.2, scale_grad=3.0).item()
    assert found == pytest.approx(scale / (2 * tau) * math.exp(-abs(voltage - 1.5) / tau), rel=1e-6)


def test_it_is_largest_at_the_threshold_and_alike_on_both_sides() -> None:
    voltage = torch.tensor([0.5, 1.0, 1.5])
    below, at, above = exponential_surrogate(voltage, threshold=1.0, tau_grad=0.01, scale_grad=1.0).tolist()
    assert below == above < at


def test_its_integral_is_the_tenth_of_the_scale() -> None:
    voltage = torch.linspace(-30, 32, 62_001, dtype=torch.float64)
    slope = exponential_surrogate(voltage, threshold=1.0, tau_grad=0.01, scale_grad=2.0)
    assert torch.trapezoid(slope, voltage).item() == pytest.approx(0.2, rel=1e-4)


def test_the_voltage_is_left_as_it_was() -> None:
    voltage = torch.tensor([0.0, 3.0])
    exponential_surrogate(voltage, threshold=1.0, tau_grad=1.0, scale_grad=1.0)
    assert voltage.tolist() == [0, 3]
