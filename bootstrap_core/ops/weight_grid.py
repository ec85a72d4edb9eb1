"""Weights on the hardware's grid. Definition: `functional.quantize_weight`."""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_INT_MAX, WEIGHT_INT_MIN, WEIGHT_STEP
from bootstrap_core.functional import quantize
from bootstrap_core.ops.library import call, runs_native


def quantize_weight(weight: Tensor) -> Tensor:
    """Round weights to the grid of 2/64 in [-256, 254]/64, half to even, with a straight-through gradient."""
    if weight.dtype == torch.float32 and runs_native(weight):
        return _QuantizeWeight.apply(weight)  # type: ignore[no-any-return, no-untyped-call]
    return quantize.quantize_weight(weight)


class _QuantizeWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        weight = weight.contiguous()
        out = torch.empty_like(weight)
        grid = WEIGHT_STEP, WEIGHT_INT_MIN, WEIGHT_INT_MAX
        call("snn_quantize_weight", weight.data_ptr(), weight.numel(), *grid, out.data_ptr())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]
