"""NIR's neurons in discrete time: time constants to decays of the CUBA neuron, and back."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bootstrap_core.fixed_point import DECAY_ONE
from converters.formats.nir.nir_file import Node
from specs.errors import IntegrityError, UnsupportedError
from specs.fields import Shape

__all__ = ["NEURON_TYPES", "SILENT_TYPES", "Neurons", "TimeConstants", "channel_values", "neuron_node", "neurons_of"]

NEURON_TYPES = ("CubaLIF", "LIF", "IF")
SILENT_TYPES = ("CubaLI", "LI")
"""Leaky integrators without spikes: readouts."""

FOREVER = 2.0**40
"""A time constant in steps that stands for no decay: a power of two, hence exact in float32."""

Array = npt.NDArray[np.float64]


class TimeConstants(StrEnum):
    """How a time constant becomes a decay in a step of dt: `dt / tau`, or `1 - exp(-dt / tau)`."""

    EULER = "euler"
    EXACT = "exact"


@dataclass(frozen=True)
class Neurons:
    """A layer of neurons as `u = (1 - du) u + gain z`, `v = (1 - dv) v + u + bias`, a spike where `v > threshold`.

    All are float64, `[1]` where the layer has one value and `[channels]` where each channel has its own; decays are on
    the grid of 1/4096. `threshold` is None for neurons that never fire. `rounded` names decays that the grid moved.
    """

    current_decay: Tensor
    voltage_decay: Tensor
    gain: Tensor
    bias: Tensor
    threshold: Tensor | None
    rounded: tuple[str, ...]


def neurons_of(node: Node, shape: Shape, *, dt: float, time_constants: TimeConstants) -> Neurons:
    """What a neuron node of `shape` does in steps of `dt` seconds.

    `r` and `w_in` become the gain, `v_leak` a bias. `IF` takes its input as it is, `v += r z`, in each step: so do
    snnTorch, sinabs and norse, though by the letter of NIR it would be `dt r z`.

    Raises:
        IntegrityError: a parameter is missing, or of a shape that does not fit.
        UnsupportedError: what our neurons cannot do.
    """

    def read(name: str) -> Array:
        return channel_values(node, name, shape)

    current_decay = voltage_decay = None
    if node.type in {"CubaLIF", "CubaLI"}:
        current_decay = _decay(read, "tau_syn", dt, time_constants)
        voltage_decay = _decay(read, "tau_mem", dt, time_constants)
    elif node.type in {"LIF", "LI"}:
        voltage_decay = _decay(read, "tau", dt, time_constants)
    gain, bias = read("r"), np.zeros(1)
    if voltage_decay is not None:
        gain, bias = gain * voltage_decay, voltage_decay * read("v_leak")
    if current_decay is not None:
        gain = gain * current_decay * (read("w_in") if "w_in" in node.fields else 1.0)
    threshold = read("v_threshold") if node.type in NEURON_TYPES else None
    if threshold is not None and not (threshold > 0).all():
        raise UnsupportedError(f"v_threshold of {threshold.min():.4g}: thresholds here are above 0")
    if "v_reset" in node.fields and channel_values(node, "v_reset", shape).any():
        raise UnsupportedError("a v_reset other than 0: voltages here start at 0 and return to it")
    decays = {"current_decay": current_decay, "voltage_decay": voltage_decay}
    snapped = {"current_decay": np.ones(1), "voltage_decay": np.zeros(1)}
    rounded = []
    for name, decay in decays.items():
        if decay is not None:
            snapped[name] = np.round(decay * DECAY_ONE) / DECAY_ONE
            if np.abs(decay - snapped[name]).max() * DECAY_ONE > 1e-2:
                worst = int(np.abs(decay - snapped[name]).argmax())
                rounded.append(f"{name} {decay[worst]:.6g} is {snapped[name][worst]:.6g} on the grid of 1/4096")
    return Neurons(
        **{name: torch.from_numpy(decay) for name, decay in snapped.items()},
        gain=_shared(gain),
        bias=_shared(bias),
        threshold=None if threshold is None else torch.from_numpy(threshold),
        rounded=tuple(rounded),
    )


def neuron_node(
    current_decay: Tensor, voltage_decay: Tensor, bias: Tensor | None, threshold: float, shape: Shape, *, dt: float
) -> Node:
    """The node that is our neurons in Euler steps of `dt`, with every gain 1.

    IF if nothing decays, LIF if currents are gone at once, else CubaLIF; `bias` enters the voltage, as a leak toward
    `bias / voltage_decay`. NIR has no reset by subtraction.

    Args:
        current_decay, voltage_decay: `[1]` or `[channels]`, on the grid of 1/4096.
        bias: `[channels]`, or None.
        threshold: for all.
        shape: of the layer; each parameter has it.
        dt: seconds.
    """
    tau_syn, tau_mem = (_steps(decay) for decay in (current_decay, voltage_decay))
    leak = torch.zeros(1, dtype=torch.float64) if bias is None else bias.double() * tau_mem
    fields = {"r": tau_mem, "v_leak": leak, "v_threshold": torch.full((1,), threshold, dtype=torch.float64)}
    if bool((current_decay < 1).any()):
        fields |= {"tau_syn": tau_syn * dt, "tau_mem": tau_mem * dt, "w_in": tau_syn}
        kind = "CubaLIF"
    elif bias is not None or bool((voltage_decay > 0).any()):
        fields |= {"tau": tau_mem * dt}
        kind = "LIF"
    else:
        fields = {"r": torch.ones(1), "v_threshold": fields["v_threshold"]}
        kind = "IF"
    return Node(kind, {name: _filled(value, shape) for name, value in fields.items()})


def _steps(decay: Tensor) -> Tensor:
    """Time constant in steps, `1 / decay`."""
    return torch.where(decay > 0, 1 / decay.double().clamp_min(1 / DECAY_ONE), FOREVER)


def _filled(value: Tensor, shape: Shape) -> npt.NDArray[np.float32]:
    """`[1]` or `[channels]` as float32 of the layer's shape."""
    per_channel = value.float().reshape(-1, *[1] * (len(shape) - 1))
    return np.ascontiguousarray(per_channel.expand(shape).numpy())


def channel_values(node: Node, name: str, shape: Shape) -> Array:
    """A field of a node whose signal has `shape`: float64, `[1]` if all are one, else `[channels]`.

    Raises:
        IntegrityError: it is missing, or of a shape that does not fit.
        UnsupportedError: it differs within a channel.
    """
    value: Any = node.fields.get(name)
    if not isinstance(value, np.ndarray):
        raise IntegrityError(f"it has no {name}")
    value = value.astype(np.float64)
    fits = {shape, (shape[0], *[1] * (len(shape) - 1)), (prod(shape),)}
    if value.size != 1 and value.shape not in fits:
        raise IntegrityError(f"{name} is {list(value.shape)}, for a signal of {list(shape)}")
    if (value == value.flat[0]).all():
        return np.array([value.flat[0]])
    channels: Array = value.reshape(shape[0], -1)
    if (channels != channels[:, :1]).any():
        raise UnsupportedError(f"{name} differs within a channel, where layers here have one value for all of it")
    return channels[:, 0].copy()


def _decay(read: Callable[[str], Array], name: str, dt: float, time_constants: TimeConstants) -> Array:
    tau = read(name)
    if not (tau > 0).all():
        raise UnsupportedError(f"{name} of {tau.min():.4g} s: time constants are above 0")
    decay = dt / tau if time_constants is TimeConstants.EULER else -np.expm1(-dt / tau)
    if (decay > 1 + 1e-4).any():
        raise UnsupportedError(
            f"{name} of {tau.min():.4g} s is shorter than a time step, {dt:g} s: an Euler step would overshoot; "
            "give a smaller --dt, or --time-constants exact"
        )
    return np.minimum(decay, 1.0)


def _shared(values: Array) -> Tensor:
    """`[1]` if all are one value, else `[channels]`; what float32 kept from being 1 is 1."""
    values = np.where(np.abs(values - 1) < 1e-6, 1.0, values)
    return torch.from_numpy(values[:1] if (values == values[0]).all() else values)
