"""Convert NIR's neurons to discrete-time CUBA neurons, and back: time constants become decays."""

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

NEURON_TYPES = ("CubaLIF", "LIF", "IF")
SILENT_TYPES = ("CubaLI", "LI")
"""Types of leaky integrators without spikes, which serve as readouts."""

FOREVER = 2.0**40
"""Time constant in steps that stands for no decay: a power of two, hence exact in float32."""

Array = npt.NDArray[np.float64]


class TimeConstants(StrEnum):
    """Conversion of a time constant to a decay per step: `euler` is `dt / tau`, `exact` is `1 - exp(-dt / tau)`."""

    EULER = "euler"
    EXACT = "exact"


@dataclass(frozen=True)
class Neurons:
    """Layer of neurons: `u = (1 - du) u + gain z`, `v = (1 - dv) v + u + bias`, a spike where `v > threshold`.

    Tensors are float64: `[1]` if the layer has one value, `[channels]` if each channel has its own. Decays are on the
    grid of 1/4096. `threshold` is None for neurons that never fire. `rounded` describes decays that the grid changed.
    """

    current_decay: Tensor
    voltage_decay: Tensor
    gain: Tensor
    bias: Tensor
    threshold: Tensor | None
    rounded: tuple[str, ...]


def neurons_of(node: Node, shape: Shape, *, dt: float, time_constants: TimeConstants) -> Neurons:
    """Return the neurons of a node.

    `r` and `w_in` become the gain, `v_leak` becomes a bias. `IF` adds its input in each step, `v += r z`, as in
    snnTorch, sinabs and norse; NIR's definition would be `dt r z`.

    Args:
        node: a node of one of `NEURON_TYPES` or `SILENT_TYPES`.
        dt: length of a time step in seconds.

    Raises:
        IntegrityError: a parameter is missing, or its shape does not fit.
        UnsupportedError: features that CUBA neurons do not have.
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
        raise UnsupportedError(f"v_threshold must be above 0, got {threshold.min():.4g}")
    if "v_reset" in node.fields and channel_values(node, "v_reset", shape).any():
        raise UnsupportedError("v_reset must be 0: voltages start at 0 and are reset to 0")
    decays = {"current_decay": current_decay, "voltage_decay": voltage_decay}
    snapped = {"current_decay": np.ones(1), "voltage_decay": np.zeros(1)}
    rounded = []
    for name, decay in decays.items():
        if decay is not None:
            snapped[name] = np.round(decay * DECAY_ONE) / DECAY_ONE
            if np.abs(decay - snapped[name]).max() * DECAY_ONE > 1e-2:
                worst = int(np.abs(decay - snapped[name]).argmax())
                rounded.append(f"{name} {decay[worst]:.6g} is rounded to {snapped[name][worst]:.6g} (grid of 1/4096)")
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
    """Return the node that equals our neurons in Euler steps of `dt`, with every gain 1.

    The type is IF if nothing decays, LIF if currents last one step only, otherwise CubaLIF. `bias` enters the voltage,
    as a leak toward `bias / voltage_decay`. NIR has no reset by subtraction.

    Args:
        current_decay, voltage_decay: `[1]` or `[channels]`, on the grid of 1/4096.
        bias: `[channels]`, or None.
        threshold: threshold of all neurons, in float units.
        shape: shape of the layer and of each parameter.
        dt: length of a time step in seconds.
    """
    tau_syn, tau_mem = (_steps(decay) for decay in (current_decay, voltage_decay))
    leak = torch.zeros(1, dtype=torch.float64) if bias is None else bias.double() * tau_mem
    fields = {"r": tau_mem, "v_leak": leak, "v_threshold": torch.from_numpy(_at_least(threshold))}
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


def _at_least(threshold: float) -> npt.NDArray[np.float32]:
    """Return the smallest float32 from `threshold` on: a lower one would let voltages fire that equal the threshold."""
    near = np.array([threshold], np.float32)
    return near if float(near[0]) >= threshold else np.nextafter(near, np.float32(np.inf))


def _steps(decay: Tensor) -> Tensor:
    """Return the time constant in steps, `1 / decay`."""
    return torch.where(decay > 0, 1 / decay.double().clamp_min(1 / DECAY_ONE), FOREVER)


def _filled(value: Tensor, shape: Shape) -> npt.NDArray[np.float32]:
    """Expand `[1]` or `[channels]` to the layer's shape, in float32."""
    per_channel = value.float().reshape(-1, *[1] * (len(shape) - 1))
    return np.ascontiguousarray(per_channel.expand(shape).numpy())


def channel_values(node: Node, name: str, shape: Shape) -> Array:
    """Return a field of a node whose signal has `shape`: float64, `[1]` if all values are equal, else `[channels]`.

    Raises:
        IntegrityError: the field is missing, or its shape does not fit.
        UnsupportedError: values differ within a channel.
    """
    value: Any = node.fields.get(name)
    if not isinstance(value, np.ndarray):
        raise IntegrityError(f"the field {name} is missing or not numeric")
    value = value.astype(np.float64)
    fits = {shape, (shape[0], *[1] * (len(shape) - 1)), (prod(shape),)}
    if value.size != 1 and value.shape not in fits:
        raise IntegrityError(f"{name} of shape {list(value.shape)} does not fit a signal of shape {list(shape)}")
    if (value == value.flat[0]).all():
        return np.array([value.flat[0]])
    channels: Array = value.reshape(shape[0], -1)
    if (channels != channels[:, :1]).any():
        raise UnsupportedError(f"{name} differs within a channel; only one value per channel is supported")
    return channels[:, 0].copy()


def _decay(read: Callable[[str], Array], name: str, dt: float, time_constants: TimeConstants) -> Array:
    tau = read(name)
    if not (tau > 0).all():
        raise UnsupportedError(f"{name} must be above 0 s, got {tau.min():.4g} s")
    decay = dt / tau if time_constants is TimeConstants.EULER else -np.expm1(-dt / tau)
    if (decay > 1 + 1e-4).any():
        raise UnsupportedError(
            f"{name} of {tau.min():.4g} s is shorter than a time step, {dt:g} s: an Euler step would overshoot; "
            "give a smaller --dt, or --time-constants exact"
        )
    return np.minimum(decay, 1.0)


def _shared(values: Array) -> Tensor:
    """Return `[1]` if all values are equal, else `[channels]`; values that float32 rounded away from 1 become 1."""
    values = np.where(np.abs(values - 1) < 1e-6, 1.0, values)
    return torch.from_numpy(values[:1] if (values == values[0]).all() else values)
