"""Spec of a neuron: the current-based leaky integrate-and-fire (CUBA) neuron of Loihi."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from specs.fields import Decay, Number, StrictModel, Threshold

__all__ = ["CubaSpec", "LearnDecays", "Reset"]


class Reset(StrEnum):
    """Reset of the voltage after a spike."""

    ZERO = "zero"
    SUBTRACT = "subtract"


class LearnDecays(StrEnum):
    """Sharing of trainable decays."""

    NONE = "none"
    SHARED = "shared"
    PER_CHANNEL = "per_channel"


class CubaSpec(StrictModel):
    """CUBA neuron: `u = (1 - current_decay) u + z`, `v = (1 - voltage_decay) v + u + bias`, spike if `v > threshold`.

    `z` is the weighted input, `u` the current and `v` the voltage.
    """

    kind: Literal["cuba"] = "cuba"
    threshold: Threshold = 1.0
    """Voltage above which the neuron spikes; truncated to a multiple of 1/64."""
    current_decay: Decay = 1.0
    """Fraction of the current that decays in each time step; rounded to a multiple of 1/4096."""
    voltage_decay: Decay = 0.0
    """Fraction of the voltage that decays in each time step; rounded to a multiple of 1/4096."""
    tau_grad: Annotated[Number, Field(gt=0)] = 1.0
    """Width of the surrogate gradient of a spike. For SNN epochs use 0.1 or less in dense networks and about 0.005 in
    convolutional networks; with the default, that of lava-dl, gradients vanish after a few layers. The gradient is
    `scale_grad / (2000 * threshold * tau_grad)` at the threshold and decreases by a factor of e for each
    `100 * threshold * tau_grad` of voltage away from it."""
    scale_grad: Annotated[Number, Field(gt=0)] = 1.0
    """Factor on the surrogate gradient of a spike; see `tau_grad`."""
    reset: Reset = Reset.ZERO
    """Reset of the voltage after a spike: `zero` sets it to 0, as Loihi does; `subtract` subtracts the threshold (netx
    cannot express this)."""
    learn_decays: LearnDecays = LearnDecays.NONE
    """Training of the decays, from the values above: `none` keeps them fixed, `shared` trains one pair for the layer,
    `per_channel` one pair for each channel (in a dense block, each neuron)."""
