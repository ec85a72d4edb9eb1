"""Definition of sigma-delta neurons, which send changes of their activation. Source: Lava, lava/proc/sdn/models.py.

::

    sigma[t] = sigma[t-1] + z[t]               z: weights times messages received
    a[t]     = max(0, sigma[t] + bias)         input neurons: a[t] is the frame
                                               readout: a[t] = sigma[t] + bias, which is the output
    d[t]     = a[t] - a[t-1] + r[t-1]
    m[t]     = floor(d[t] / 64),  r[t] = 0     where |d[t]| >= threshold
    m[t]     = 0,                 r[t] = d[t]  elsewhere

The sum of the messages is the activation, less the residue r that was not sent yet. Each message loses up to 1/4096 by
its floor, as in Lava.

All of these are integers. Messages are in units of 1/4096, and the states (sigma, a, d, r, bias, threshold) in units of
1/2^18: a weight in units of 1/64 times a message is a state. They are held in float64, which is exact below 2^53.
float32 is not enough: the chip's states have 24 bits, and the sums of products on the way to them may need more.
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from torch import Tensor

from bootstrap_core.fixed_point import SIGMA_PER_MESSAGE


class Activation(Enum):
    """Activation of sigma-delta neurons."""

    FRAME = "frame"
    """The input itself, `a = z`: neurons of the input."""
    RELU = "relu"
    """`max(0, sigma + bias)`: hidden neurons."""
    UNIT = "unit"
    """`sigma + bias`: a readout, whose activation is the output."""


class SigmaDeltaStates(NamedTuple):
    """States and messages of one step, each `[N, C, ...]`, float64 integers; `z_state` is z in state units."""

    z_state: Tensor
    sigma: Tensor
    activation: Tensor
    change: Tensor
    message: Tensor


def sigma_delta(
    z: Iterable[Tensor], kind: Activation = Activation.RELU, *, threshold: int = 0, bias: Tensor | float = 0.0
) -> Iterator[SigmaDeltaStates]:
    """Yield the states and messages of sigma-delta neurons for each step of `z`, from rest; without a gradient.

    Args:
        z: weighted input of each step, `[N, C, ...]`: weights in float units times messages; with `FRAME`, the
            frames in state units; sigma is then the frame.
        threshold: smallest change that is sent, in state units.
        bias: in state units; broadcasts against one step.

    >>> import torch
    >>> z = [torch.tensor([x]) for x in (32.0, 32.0, -96.0)]
    >>> [int(step.message) for step in sigma_delta(z, threshold=4096)]
    [0, 64, -64]
    """
    is_frame = kind is Activation.FRAME
    sigma: Tensor | float = 0.0
    before: Tensor | float = 0.0
    residue: Tensor | float = 0.0
    for step in z:
        z_state = step.detach().double() * (1 if is_frame else SIGMA_PER_MESSAGE)
        sigma = z_state if is_frame else sigma + z_state
        activation = sigma + bias
        if kind is Activation.RELU:
            activation = activation.clamp_min(0)
        change = activation - before + residue
        is_sent = change.abs() >= threshold
        before, residue = activation, change.masked_fill(is_sent, 0.0)
        message = (change / SIGMA_PER_MESSAGE).floor().masked_fill(~is_sent, 0.0)
        yield SigmaDeltaStates(z_state, sigma, activation, change, message)
