"""Piecewise-linear activation of ANN mode."""

from typing import Any

import torch
from torch import Tensor

GRADIENT_FLOOR = 1e-5
"""Gradient outside the range of the activation, so that every neuron keeps learning."""


def piecewise(z: Tensor, centers: Tensor, slopes: Tensor, steepness: float | None = None) -> Tensor:
    """Return the rate for a weighted input: 0 up to the first centre, then linear, constant from the last centre on.

    The gradient is `steepness * slope + 1e-5` inside and 1e-5 outside.

    Args:
        z: weighted input, any shape.
        centers: `[K, 2]`, points (z, rate) of the curve; z must not descend. Behind points of equal z, the last counts.
        slopes: `[K - 1]`, slope of each segment between two points.
        steepness: factor on the gradient; by default lava-dl's, |z_max / a_max| of the last centre.
    """
    return _Piecewise.apply(z, centers.to(z.dtype), slopes.to(z.dtype), steepness)  # type: ignore[no-any-return, no-untyped-call]


class _Piecewise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, centers: Tensor, slopes: Tensor, steepness: float | None) -> Tensor:
        z_centers, a_centers = centers.T.contiguous()
        segment = torch.bucketize(z.contiguous(), z_centers, right=False) - 1  # -1 below all centres, K - 1 above
        inside = (segment >= 0) & (segment < len(slopes))
        segment = segment.clamp_(0, len(slopes) - 1)
        slope = torch.where(inside, slopes[segment], 0.0)
        rate = a_centers[segment] + slope * (z - z_centers[segment])
        rate = torch.where(z > z_centers[-1], a_centers[-1], torch.where(inside, rate, 0.0))
        factor = (z_centers[-1] / a_centers[-1]).abs() if steepness is None else steepness
        ctx.save_for_backward(slope * factor + GRADIENT_FLOOR)
        return rate

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grads[0] * gradient, None, None, None
