"""Rounding to the grids of the hardware, with straight-through gradients."""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.fixed_point import (
    BIAS_MANT_MAX,
    BIAS_MANT_MIN,
    DECAY_ONE,
    MANT,
    WEIGHT_INT_MAX,
    WEIGHT_INT_MIN,
    WEIGHT_STEP,
)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """Return `value`, and pass its gradient to `x`, of the same shape, in the backward pass."""
    if not (x.requires_grad and torch.is_grad_enabled()):
        return value.detach()
    return _StraightThrough.apply(x, value.detach())  # type: ignore[no-any-return, no-untyped-call]


def quantize_weight(weight: Tensor) -> Tensor:
    """Round weights to the grid of 2/64 in [-256, 254]/64, half to even.

    >>> quantize_weight(torch.tensor([0.017, 1 / 64, 3 / 64, 9.0]))
    tensor([0.0312, 0.0000, 0.0625, 3.9688])
    """
    steps = (weight.detach() * (1 / WEIGHT_STEP)).round_().clamp_(WEIGHT_INT_MIN, WEIGHT_INT_MAX)
    return straight_through(weight, steps.mul_(WEIGHT_STEP))


def quantize_bias(bias: Tensor) -> Tensor:
    """Round biases to the grid of 1/64, half to even, and clamp them to a 13-bit signed mantissa."""
    mant = torch.round(bias.detach() * MANT).clamp_(BIAS_MANT_MIN, BIAS_MANT_MAX)
    return straight_through(bias, mant / MANT)


def quantize_decay(decay: Tensor) -> Tensor:
    """Round decays to the grid of 1/4096 in [0, 1], half to even."""
    return straight_through(decay, torch.round(decay.detach() * DECAY_ONE).clamp_(0, DECAY_ONE) / DECAY_ONE)


def quantize_delay(delay: Tensor, longest: int) -> Tensor:
    """Round delays to whole time steps in [0, longest], half to even.

    >>> quantize_delay(torch.tensor([-0.7, 0.5, 1.5, 7.6]), 7)
    tensor([0., 0., 2., 7.])
    """
    return straight_through(delay, torch.round(delay.detach()).clamp_(0, longest) + 0.0)  # without -0


def truncate_current(current: Tensor) -> Tensor:
    """Truncate input currents toward zero to 1/64 and clamp them to 13 bits: hardware takes them as bias mantissas."""
    mant = torch.trunc(current.detach() * MANT).clamp_(BIAS_MANT_MIN, BIAS_MANT_MAX)
    return straight_through(current, mant / MANT)
