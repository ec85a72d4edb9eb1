"""The fitted activation. Definition: `functional.piecewise`."""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.functional.piecewise import GRADIENT_FLOOR, piecewise
from bootstrap_core.ops.library import Curve, call, pointer, runs_native


def activate(z: Tensor, centers: Tensor, slopes: Tensor, steepness: float | None = None) -> Tensor:
    """Return the rates for a weighted input; see `functional.piecewise`. bfloat16 is computed in float32.

    Args:
        centers: `[K, 2]`, points (z, rate) of the curve; z must not descend.
        slopes: `[K - 1]`, slope of each segment between two points.
        steepness: factor on the gradient; by default lava-dl's, |z_max / a_max| of the last centre.
    """
    if z.dtype == torch.bfloat16:  # bfloat16 would move the centres
        return activate(z.float(), centers, slopes, steepness).to(z.dtype)
    if z.dtype == torch.float32 and runs_native(z):
        return _Activate.apply(z, centers, slopes, steepness)  # type: ignore[no-any-return, no-untyped-call]
    return piecewise(z, centers, slopes, steepness)


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, centers: Tensor, slopes: Tensor, steepness: float | None) -> Tensor:
        z = z if z.is_contiguous() or z.is_contiguous(memory_format=torch.channels_last) else z.contiguous()
        rates, gradients = torch.empty_like(z), torch.empty_like(z) if ctx.needs_input_grad[0] else None
        z_centers, a_centers, tangents = (x.float().contiguous() for x in (*centers.T, slopes))
        if steepness is None:
            steepness = float((z_centers[-1] / a_centers[-1]).abs())
        curve = Curve(*map(pointer, (z_centers, a_centers, tangents)), len(centers), steepness, GRADIENT_FLOOR)
        given, *found = (x if x is None else x.data_ptr() for x in (z, rates, gradients))  # in any memory order
        call("snn_piecewise", given, z.numel(), curve, *found)
        ctx.save_for_backward(gradients)
        return rates

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return grads[0] * gradients, None, None, None
