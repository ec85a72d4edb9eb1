"""Neurons over time on tensors, by the compiled loops of `neuron_loops`: what all spiking operators share."""

import math
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.fixed_point import DECAY_ONE, STATE, STATE_PER_WEIGHT, WEIGHT_INT_MIN
from bootstrap_core.functional.quantize import quantize_decay
from bootstrap_core.functional.surrogate import surrogate_shape
from bootstrap_core.kernels import neuron_loops
from bootstrap_core.kernels.half import gradient_dtype
from bootstrap_core.kernels.neuron_steps import LANES
from bootstrap_core.kernels.threads import split

__all__ = ["ALIGN", "NeuronRun", "as_array", "as_bytes", "from_bytes", "link", "over_channels"]

ALIGN = 64
"""Neurons of one thread: whole cache lines of int8."""
WORK = 2
"""Of a neuron's step, as `split` counts."""

WHOLE_BELOW = 1 << 31
"""What 32 bits hold."""

_NOTHING = np.empty(0, np.float32)


def link(shape: tuple[int, ...] | torch.Size, weight: Tensor) -> Tensor:
    """A tensor of a shape that holds nothing, to carry the gradient of spikes behind a weight `[O, I, ...]`."""
    dtype = gradient_dtype(prod(shape) * weight[0].numel())
    return torch.zeros(1, device=weight.device, dtype=dtype).expand(shape)


def _flat(x: Tensor) -> tuple[Any, int]:
    """Elements of `[T, ...]` in order, and the distance of steps: 0 where one stands for all."""
    if x.stride(0) == 0 or len(x) == 1:
        return as_array(x[0]), 0
    return as_array(x), x[0].numel()


def as_array(x: Tensor) -> Any:
    """Elements in order, flat; bfloat16 as uint16."""
    x = x.detach().contiguous().reshape(-1)
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


class _Constants(NamedTuple):
    """Of neurons, as the loops take them: in floats, or all whole, with the unit as a shift."""

    unit: Any
    one: float
    keep_current: Any
    keep_voltage: Any
    offset: Any
    limit: Any

    def are_whole(self) -> bool:
        """Whether `as_whole` loses nothing."""
        return math.log2(self.unit) % 1 == 0 and not any(np.any(number % 1) for number in (self.offset, self.limit))

    def as_whole(self) -> "_Constants":
        """The same, for states in int32."""
        return _Constants(
            unit=np.int32(math.log2(self.unit)),
            one=self.one * DECAY_ONE,
            keep_current=(self.keep_current * DECAY_ONE).astype(np.int32),
            keep_voltage=(self.keep_voltage * DECAY_ONE).astype(np.int32),
            offset=self.offset.astype(np.int32),
            limit=np.int32(self.limit),
        )

    def peak(self, reach: float, steps: int) -> float:
        """What no state exceeds, up or down, nor the limit, when `z` is at most `reach`."""
        kept = (float(np.abs(keep).max()) for keep in (self.keep_current, self.keep_voltage))
        of_current, of_voltage = (sum(keep**t for t in range(steps)) for keep in kept)
        offset = float(np.abs(self.offset).max())
        return max((reach * float(self.unit) * of_current + offset) * of_voltage, float(self.limit))


def as_bytes(numbers: Tensor) -> bytes:
    """In float64, to be told apart by."""
    return numbers.detach().double().numpy().tobytes()


def from_bytes(numbers: bytes) -> Tensor:
    """`as_bytes` turned round."""
    return torch.frombuffer(bytearray(numbers), dtype=torch.float64)


@lru_cache
def _constants(
    unit: float, current_decay: bytes, voltage_decay: bytes, bias: bytes, threshold: float, reach: float, steps: int
) -> tuple[_Constants, bool]:
    """Of neurons, and whether they are whole; a network's are the same batch after batch. See `NeuronRun`."""
    decays = (quantize_decay(from_bytes(decay)) for decay in (current_decay, voltage_decay))
    keep_current, keep_voltage = (1 - decay.numpy() for decay in decays)
    offset, limit = np.frombuffer(bias) * STATE, threshold * STATE
    constants = _Constants(unit, 1.0, keep_current, keep_voltage, offset, limit)
    is_whole = constants.peak(reach, steps) < WHOLE_BELOW and constants.are_whole()
    return constants.as_whole() if is_whole else constants, is_whole


class NeuronRun:
    """Neurons and their weighted input, ready to run forward, and back, from rest.

    Args:
        z: weighted input `[T, N, C, ...]`; with a stride of 0, one step stands for all.
        unit: what 1 of `z` is in units of the state.
        current_decay, voltage_decay: `[1]` or `[C]`; put on their grid, which their gradients go straight through.
        bias: `[C]`, or None.
        threshold, subtract: see `functional.cuba`.
        reach: what `z`, if it is whole, is at most, up and down: so that states can be whole too, which is faster.
    """

    def __init__(
        self,
        z: Tensor,
        unit: float,
        current_decay: Tensor,
        voltage_decay: Tensor,
        bias: Tensor | None,
        threshold: float,
        subtract: bool,
        reach: float = math.inf,
    ) -> None:
        self.steps, self.size, self.threshold = len(z), z.shape[1:].numel(), threshold
        decays = as_bytes(current_decay), as_bytes(voltage_decay)
        offset = np.zeros(1).tobytes() if bias is None else as_bytes(bias)
        constants, self.is_whole = _constants(float(unit), *decays, offset, threshold, reach, self.steps)
        self.width = max(self.size, LANES)
        flat, step = _flat(self._widened(z))
        self.common = flat, step, self.steps, self.width, z.shape[3:].numel(), *constants, subtract

    def _widened(self, x: Tensor) -> Tensor:
        """`x` `[T, ...]`; of neurons that do not fill a register, with others beside them."""
        return F.pad(x.reshape(self.steps, self.size), (0, LANES - self.size)) if self.size < LANES else x

    @classmethod
    def behind(cls, weight: Tensor, z: Tensor, *neuron: Any, survivor: float = 1.0) -> "NeuronRun":
        """Those behind a weight `[O, I, ...]`, for `z` in steps of a weight; `survivor`: see `spiking_dense`."""
        current_decay, voltage_decay, bias, threshold, subtract = neuron
        unit, reach = STATE_PER_WEIGHT * survivor, -WEIGHT_INT_MIN * weight[0].numel()
        return cls(z, unit, current_decay, voltage_decay, bias, threshold, subtract, reach)

    def forward(self, spikes: Tensor, current: Tensor | None = None, voltage: Tensor | None = None) -> None:
        """Writes spikes, and perhaps current and voltage before the reset, in float units; all contiguous, like `z`."""
        if not self.size:
            return
        states = current is not None
        outs = [spikes, *(state for state in (current, voltage) if state is not None)]
        wide = [self._widened(out) for out in outs]
        s, *state_arrays = (out.view(-1).numpy() for out in wide)
        u, v = state_arrays or (_NOTHING, _NOTHING)
        work = WORK * self.steps * self.width
        split(neuron_loops.forward, self.width, *self.common, s, states, u, v, work=work, align=ALIGN)
        self._take(wide, outs)

    def backward(
        self, grad: Tensor, tau_grad: float, scale_grad: float, out: Tensor, *, decays: bool, bias: bool
    ) -> Tensor:
        """Writes to `out` the gradient of the weighted input; returns those of decays and bias, `[3, size]`."""
        sums = torch.zeros(3, self.width if decays or bias else 0)
        if self.size:
            shape = surrogate_shape(self.threshold, tau_grad, scale_grad)
            g, g_step = _flat(self._widened(grad))
            wide, total = self._widened(out), sums.numpy()
            gradients = g, g_step, self.threshold, *shape, as_array(wide), total, decays, bias
            work = WORK * self.steps * self.width
            split(neuron_loops.backward, self.width, *self.common, *gradients, work=work, align=ALIGN)
            self._take([wide], [out])
        return sums[:, : self.size]

    def _take(self, wide: list[Tensor], outs: list[Tensor]) -> None:
        """Of what `_widened` gave, what belongs to the neurons."""
        for written, out in zip(wide, outs, strict=True):
            if written is not out:
                out.copy_(written[:, : self.size].reshape(out.shape))


def over_channels(x: Tensor, like: Tensor) -> Tensor:
    """`[N, C, ...]` summed to one value a channel, or to one in all, in the shape of `like`."""
    if not x.numel():
        return torch.zeros(like.shape)
    if like.numel() == 1 and (x.dim() < 2 or x.shape[1] != 1):
        return x.sum().reshape(like.shape)
    return x.sum([axis for axis in range(x.dim()) if axis != 1]).reshape(like.shape)
