"""The piecewise-linear activation that ANN mode runs on."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["GRADIENT_FLOOR", "piecewise"]

GRADIENT_FLOOR = 1e-5
"""Gradient outside the activation's range, so that no neuron dies."""


def piecewise(z: Tensor, centers: Tensor, slopes: Tensor) -> Tensor:
    """Rate for a weighted input: 0 up to the first centre, straight between centres, constant from the last on.

    The gradient is `slope |z_max / a_max| + 1e-5` inside, where (z_max, a_max) is the last centre, and 1e-5 outside.

    Args:
        z: any shape.
        centers: `[K, 2]`, rows (z, a) with z rising.
        slopes: `[K - 1]`, of the segments between them.
    """
    return _Piecewise.apply(z, centers.to(z.dtype), slopes.to(z.dtype))  # type: ignore[no-any-return, no-untyped-call]


class _Piecewise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, centers: Tensor, slopes: Tensor) -> Tensor:
        z_centers, a_centers = centers.T.contiguous()
        segment = torch.bucketize(z.contiguous(), z_centers, right=False) - 1  # -1 below all, K - 1 above all
        inside = (segment >= 0) & (segment < len(slopes))
        segment = segment.clamp_(0, len(slopes) - 1)
        slope = torch.where(inside, slopes[segment], 0.0)
        rate = a_centers[segment] + slope * (z - z_centers[segment])
        rate = torch.where(z > z_centers[-1], a_centers[-1], torch.where(inside, rate, 0.0))
        ctx.save_for_backward(slope * (z_centers[-1] / a_centers[-1]).abs() + GRADIENT_FLOOR)
        return rate

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grads[0] * gradient, None, None
