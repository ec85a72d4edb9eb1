"""The gradient that stands in for a spike's."""

import torch
from torch import Tensor

__all__ = ["exponential_surrogate"]


def exponential_surrogate(voltage: Tensor, *, threshold: float, tau_grad: float, scale_grad: float) -> Tensor:
    """d spike / d voltage, `scale / (2 tau) exp(-|v - threshold| / tau)`, elementwise.

    `tau = 100 threshold tau_grad` and `scale = 0.1 scale_grad`, as in lava-dl's slayer neurons.
    """
    tau, scale = 100 * threshold * tau_grad, 0.1 * scale_grad
    return torch.exp((voltage - threshold).abs_().div_(-tau)).mul_(scale / (2 * tau))
