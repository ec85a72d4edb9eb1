"""Delays of synapses in whole time steps, and their gradient.

The weighted input of output o, from inputs i with delays d, is::

    z_o[t] = sum_i w_oi s_i[t - d_oi]

The loss L depends on a delay through the gradients that a weight would have at each delay k::

    C_oi[k] = sum_t (dL / dz_o[t]) s_i[t - k]
    dL / dd_oi = w_oi (C_oi[d + 1] - C_oi[d - 1]) / 2

This is the derivative in time of the delayed input, as a centred difference. It is half of what L changes, in first
order, from a delay one step shorter to a delay one step longer: the two values that can be reached next. A backward
difference would compare with the spike at d itself, whose gradient is that of the weight. With d = 0, which cannot be
shorter, it is C[1] - C[0].

Sources: Shrestha and Orchard 2018, SLAYER: Spike Layer Error Reassignment in Time, for the derivative; Hammouamri,
Khalfaoui-Hassani and Masquelier 2023, Learning Delays in Spiking Neural Networks using Dilated Convolutions with
Learnable Spacings, for delays of single synapses.
"""

import torch
from torch import Tensor


def lags_of(delay: Tensor) -> list[int]:
    """Return the delays to weigh synapses at: those that occur and, if they need a gradient, those a step away.

    >>> lags_of(torch.tensor([[0.0, 4.0]])), lags_of(torch.tensor([[0.0, 4.0]], requires_grad=True))
    ([0, 4], [0, 1, 3, 4, 5])
    """
    seen = [delay.detach(), *(_neighbours(delay) if delay.requires_grad else ())]
    return [int(steps) for steps in torch.cat(seen).unique()]


def weight_at(lag: int, weight: Tensor, delay: Tensor) -> Tensor:
    """Return the weights, `[O, I]`, of the synapses whose delay is `lag`; those of the others are 0.

    The sum of the weighted inputs over `lags_of(delay)` has the gradient of the delays.

    Args:
        lag: delay in steps.
        weight: `[O, I]`.
        delay: whole steps, `[O, I]`.
    """
    here = (delay.detach() == lag).to(weight.dtype)
    if delay.requires_grad:
        longer, shorter = _neighbours(delay)
        slope = (longer == lag).to(weight.dtype) - (shorter == lag).to(weight.dtype)
        here = here + _change(delay) * slope / (longer - shorter)
    return weight * here


def delayed_input(z: Tensor, delay: Tensor) -> Tensor:
    """Return a weighted input `[T, N, O, ...]` delayed by a number of steps for each output; the first steps are 0.

    Args:
        delay: whole steps, `[O]`, which get a gradient if they require one.
    """
    arriving = _shifted(z, delay.detach())
    if not delay.requires_grad:
        return arriving
    longer, shorter = _neighbours(delay)
    with torch.no_grad():
        slope = (_shifted(z, longer) - _shifted(z, shorter)) / _by_output(longer - shorter, z)
    return arriving + _by_output(_change(delay), z) * slope


def _neighbours(delay: Tensor) -> tuple[Tensor, Tensor]:
    """Return the delays one step longer and one step shorter, the latter at least 0."""
    return delay.detach() + 1, (delay.detach() - 1).clamp_min(0)


def _change(delay: Tensor) -> Tensor:
    """Return zeros whose gradient is that of the delay."""
    return delay - delay.detach()


def _by_output(x: Tensor, z: Tensor) -> Tensor:
    return x.view(-1, *[1] * (z.dim() - 3))


def _shifted(z: Tensor, delay: Tensor) -> Tensor:
    steps = torch.arange(len(z), device=z.device)[:, None] - delay.long().to(z.device)
    at = steps.clamp_min(0).view(len(z), 1, -1, *[1] * (z.dim() - 3))
    return z.gather(0, at.expand(z.shape)) * (steps >= 0).view(at.shape)
