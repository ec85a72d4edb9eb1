"""Surrogate gradient of a spike."""

import torch
from torch import Tensor


def exponential_surrogate(voltage: Tensor, *, threshold: float, tau_grad: float, scale_grad: float) -> Tensor:
    """Return d spike / d voltage, `height exp(-|v - threshold| / tau)`, elementwise; see `surrogate_shape`."""
    tau, height = surrogate_shape(threshold, tau_grad, scale_grad)
    return torch.exp((voltage - threshold).abs_().div_(-tau)).mul_(height)


def surrogate_shape(threshold: float, tau_grad: float, scale_grad: float) -> tuple[float, float]:
    """Return width `tau = 100 threshold tau_grad` and height `0.1 scale_grad / (2 tau)`, as lava-dl's slayer does."""
    tau = 100 * threshold * tau_grad
    return tau, 0.1 * scale_grad / (2 * tau)
