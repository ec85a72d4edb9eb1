import math

import pytest
import torch

from bootstrap_core.functional.cuba import exponential_surrogate


@pytest.mark.parametrize("voltage", [-40.0, 0.0, 1.5, 3.0, 80.0])
def test_the_formula(voltage: float) -> None:
    tau, scale = 100 * 1.5 * 0.2, 0.1 * 3
    found = exponential_surrogate(torch.tensor([voltage]), threshold=1.5, tau_grad=0.2, scale_grad=3.0).item()
    assert found == pytest.approx(scale / (2 * tau) * math.exp(-abs(voltage - 1.5) / tau), rel=1e-6)


def test_its_integral_is_the_tenth_of_the_scale() -> None:
    voltage = torch.linspace(-30, 32, 62_001, dtype=torch.float64)
    slope = exponential_surrogate(voltage, threshold=1.0, tau_grad=0.01, scale_grad=2.0)
    assert torch.trapezoid(slope, voltage).item() == pytest.approx(0.2, rel=1e-4)
