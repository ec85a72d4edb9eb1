"""Definition of the CUBA neuron: exact fixed-point dynamics forward, a surrogate gradient backward.

States are truncated integers and must be exact on every device. float64 holds integers below 2^53 exactly, so plain
torch computes them. A bias enters the voltage, as in the hardware, so the argument of a fitted activation is `z +
current_decay * bias`.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bootstrap_core.fixed_point import STATE, STATE_MAX


def exponential_surrogate(voltage: Tensor, *, threshold: float, tau_grad: float, scale_grad: float) -> Tensor:
    """Return d spike / d voltage, `height exp(-|v - threshold| / tau)`, elementwise; see `surrogate_shape`."""
    tau, height = surrogate_shape(threshold, tau_grad, scale_grad)
    return torch.exp((voltage - threshold).abs_().div_(-tau)).mul_(height)


def surrogate_shape(threshold: float, tau_grad: float, scale_grad: float) -> tuple[float, float]:
    """Return width `tau = 100 threshold tau_grad` and height `0.1 scale_grad / (2 tau)`, as lava-dl's slayer does."""
    tau = 100 * threshold * tau_grad
    return tau, 0.1 * scale_grad / (2 * tau)


class StateLimits:
    """Limits of the chip's states, 24 bits with sign: a current beyond them wraps around, a voltage is clipped.

    Source: Lava's `fixed_pt` simulation, lava/proc/lif/models.py.

    Attributes:
        n: number of states so far that were changed.
    """

    def __init__(self) -> None:
        self.n = 0

    def wrap(self, current: Tensor) -> None:
        """Change currents in place, in units of 1/4096."""
        above, below = current > STATE_MAX + 1, current <= -STATE_MAX - 1
        self.n += int(above.sum() + below.sum())
        current.add_((below.double() - above.double()) * 2 * (STATE_MAX + 1))

    def clip(self, voltage: Tensor) -> None:
        """Change voltages in place, in units of 1/4096."""
        self.n += int((voltage.abs() > STATE_MAX).sum())
        voltage.clamp_(-STATE_MAX, STATE_MAX)


class CubaOutput(NamedTuple):
    """Spikes and states of a run, each `[T, N, C, ...]`, float32.

    Spikes are 0 or 1. Current and voltage are in float units; the voltage is that before the reset.
    """

    spikes: Tensor
    current: Tensor
    voltage: Tensor


class CubaState(NamedTuple):
    """States between two steps, each `[N, C, ...]`, float64: current and voltage after the reset in units of 1/4096.

    `spikes` are 1 for neurons that spiked in the last step.
    """

    current: Tensor
    voltage: Tensor
    spikes: Tensor


class CubaConstants(NamedTuple):
    """Constants of `cuba`, which describes them; decays and bias broadcast against one step `[N, C, ...]`."""

    current_decay: Tensor
    voltage_decay: Tensor
    bias: Tensor | None
    recurrent: Tensor | None
    threshold: float
    tau_grad: float
    scale_grad: float
    subtract: bool
    initial_voltage: float = 0.0


def cuba(
    z: Tensor,
    *,
    current_decay: Tensor,
    voltage_decay: Tensor,
    threshold: float,
    bias: Tensor | None = None,
    tau_grad: float = 1.0,
    scale_grad: float = 1.0,
    subtract: bool = False,
    recurrent: Tensor | None = None,
    initial_voltage: float = 0.0,
) -> CubaOutput:
    """Run CUBA neurons over time.

    ::

        u[t] = (1 - current_decay) u[t-1] + z[t] + recurrent s[t-1]
        v[t] = (1 - voltage_decay) v[t-1] + u[t] + bias
        s[t] = v[t] > threshold;  v[t] = 0 where s[t]   (`subtract`: v[t] - threshold)

    Before the first step the current is 0 and the voltage is `initial_voltage`; no neuron has spiked.

    States are integers in units of 1/4096 and every product is truncated toward zero, as on the chip. In the backward
    pass a spike has the gradient of `exponential_surrogate`; the leaks are differentiated, the reset is not.

    Args:
        z: weighted input `[T, N, C, ...]` in float units; truncated to 1/4096.
        current_decay, voltage_decay: decays, 0 to 1, `[1]` or `[C]`, on the grid of 1/4096.
        threshold: voltage above which a neuron spikes, on the grid of 1/64.
        bias: added to the voltage at each step, `[C]`, on the grid of 1/64.
        tau_grad, scale_grad: width and height of the surrogate gradient.
        subtract: whether a spike subtracts the threshold instead of setting the voltage to zero.
        recurrent: weights from the neurons to themselves, `[C, C]`, on the grid of 2/64; z is then `[T, N, C]`.
        initial_voltage: voltage before the first step, on the grid of 1/4096.

    >>> one = torch.ones(1)
    >>> out = cuba(torch.full((4, 1, 1), 0.75), current_decay=one, voltage_decay=0 * one, threshold=1.0)
    >>> out.spikes.flatten().tolist(), out.voltage.flatten().tolist()
    ([0.0, 1.0, 0.0, 1.0], [0.75, 1.5, 0.75, 1.5])
    """
    decays = per_channel(current_decay, z.dim() - 1), per_channel(voltage_decay, z.dim() - 1)
    offset = None if bias is None else per_channel(bias, z.dim() - 1)
    constants = threshold, tau_grad, scale_grad, subtract, initial_voltage
    return CubaOutput(*_Cuba.apply(z, *decays, offset, recurrent, *constants))  # type: ignore[no-untyped-call]


def cuba_forward(
    z: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    subtract: bool,
    recurrent: Tensor | None = None,
    initial_voltage: float = 0.0,
) -> CubaOutput:
    """Run the forward pass of `cuba`, without gradients; arguments as of `cuba_states`."""
    spikes, current, voltage = (torch.empty(z.shape, dtype=torch.float32, device=z.device) for _ in range(3))
    constants = current_decay, voltage_decay, bias, threshold, subtract, recurrent
    states = cuba_states(z, *constants, initial_voltage=initial_voltage)
    for t, (u, v, fired) in enumerate(states):
        spikes[t] = fired
        torch.div(u, STATE, out=current[t])
        torch.div(v, STATE, out=voltage[t])
    return CubaOutput(spikes, current, voltage)


def cuba_states(
    z: Iterable[Tensor],
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor | None,
    threshold: float,
    subtract: bool,
    recurrent: Tensor | None = None,
    limits: StateLimits | None = None,
    start: CubaState | None = None,
    initial_voltage: float = 0.0,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield for each step of `z` the current, the voltage before the reset, and a mask of the neurons that spike.

    States are in units of 1/4096. Decays and bias broadcast against one step `[N, C, ...]`. Everything is float64, in
    which integers below 2**53 and their truncated products are exact. The next step overwrites the yielded tensors.
    States have no limits unless `limits` are given. Neurons begin with `initial_voltage`, or with the states at the
    `start`.
    """
    keep_u, keep_v = (1 - decay.double() for decay in (current_decay, voltage_decay))
    offset = 0.0 if bias is None else bias.double() * STATE
    limit = threshold * STATE
    own = None if recurrent is None else recurrent.double().t() * STATE
    state = None if start is None else [x.clone() for x in start]
    for step in z:
        drive = step.mul(STATE).double().trunc_()
        u, v, fired = state or [torch.full_like(drive, x) for x in (0.0, initial_voltage * STATE, 0.0)]
        if own is not None:
            drive.add_(fired.double() @ own)
        u = _leak(u, keep_u).add_(drive)
        if limits is not None:
            limits.wrap(u)
        v = _leak(v, keep_v).add_(u).add_(offset)
        if limits is not None:
            limits.clip(v)
        fired = v > limit
        yield u, v, fired
        state = [u, v.sub_(fired * limit) if subtract else v.masked_fill_(fired, 0.0), fired]


def _leak(x: Tensor, keep: Tensor) -> Tensor:
    """Multiply an integer state in place by `keep`, a multiple of 1/4096, and round toward zero."""
    return x.mul_(keep).trunc_()


def per_channel(x: Tensor, n_axes: int) -> Tensor:
    """Reshape `[1]` or `[C]` so that it broadcasts against one step `[N, C, ...]` of `n_axes` axes."""
    return x.reshape(-1, *[1] * (n_axes - 2))


def _filter_back(grad: Tensor, keep: Tensor) -> Tensor:
    """Return `g[t] = grad[t] + keep g[t+1]`, the gradient through a leaky state, `[T, N, C, ...]`."""
    out = grad.clone()
    for t in range(len(out) - 2, -1, -1):
        out[t].addcmul_(out[t + 1], keep.expand_as(out[t]))
    return out


def _recur_back(
    grad: Tensor, surrogate: Tensor, keep_v: Tensor, keep_u: Tensor, recurrent: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of voltage and current, `[T, N, C]`, where spikes of a step also drive the next one."""
    grad_v, grad_u = torch.zeros_like(surrogate), torch.zeros_like(surrogate)
    of_v, of_u = grad_v[0], grad_u[0]
    for t in range(len(grad) - 1, -1, -1):
        of_spikes = grad[t] + of_u @ recurrent
        of_v = surrogate[t] * of_spikes + keep_v * of_v
        of_u = of_v + keep_u * of_u
        grad_v[t], grad_u[t] = of_v, of_u
    return grad_v, grad_u


def _sum_to(grad: Tensor, like: Tensor) -> Tensor:
    return grad.sum_to_size(like.shape) if grad.shape != like.shape else grad


def cuba_backward(
    grad: Tensor, constants: CubaConstants, voltage: Tensor, current: Tensor | None, spikes: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of the weighted input, both decays, the bias and the recurrent weights of `cuba`.

    Args:
        grad: gradient of the spikes, `[T, N, C, ...]`.
        voltage, current, spikes: output of `cuba`. Without `current` there are no gradients of the decays; only these
            and recurrent weights need `spikes`.
    """
    current_decay, voltage_decay, bias, recurrent, threshold, tau_grad, scale_grad, subtract, initial = constants
    surrogate = exponential_surrogate(voltage, threshold=threshold, tau_grad=tau_grad, scale_grad=scale_grad)
    of_current_decay = of_voltage_decay = of_recurrent = None
    if recurrent is None:
        grad_v = _filter_back(surrogate.mul_(grad), 1 - voltage_decay)
        grad_u = _filter_back(grad_v, 1 - current_decay)
    else:
        assert spikes is not None
        grad_v, grad_u = _recur_back(grad, surrogate, 1 - voltage_decay, 1 - current_decay, recurrent)
        of_recurrent = grad_u[1:].flatten(0, 1).t() @ spikes[:-1].flatten(0, 1)
    if current is not None:
        assert spikes is not None
        kept = voltage - threshold * spikes if subtract else voltage * (1 - spikes)
        of_current_decay = _sum_to((-grad_u[1:] * current[:-1]).sum(0), current_decay)
        of_voltage_decay = _sum_to((-grad_v[1:] * kept[:-1]).sum(0) - grad_v[0] * initial, voltage_decay)
    of_bias = None if bias is None else _sum_to(grad_v.sum(0), bias)
    return grad_u, of_current_decay, of_voltage_decay, of_bias, of_recurrent


class _Cuba(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        current_decay: Tensor,
        voltage_decay: Tensor,
        bias: Tensor | None,
        recurrent: Tensor | None,
        threshold: float,
        tau_grad: float,
        scale_grad: float,
        subtract: bool,
        initial_voltage: float,
    ) -> CubaOutput:
        out = cuba_forward(z, current_decay, voltage_decay, bias, threshold, subtract, recurrent, initial_voltage)
        ctx.mark_non_differentiable(out.current, out.voltage)
        learns = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        state = out.current if learns else None, out.spikes if learns or recurrent is not None else None
        ctx.save_for_backward(current_decay, voltage_decay, bias, recurrent, out.voltage, *state)
        ctx.constants = threshold, tau_grad, scale_grad, subtract, initial_voltage
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        current_decay, voltage_decay, bias, recurrent, voltage, current, spikes = ctx.saved_tensors
        constants = CubaConstants(current_decay, voltage_decay, bias, recurrent, *ctx.constants)
        found = cuba_backward(grads[0], constants, voltage, current, spikes)
        return *found, None, None, None, None, None
