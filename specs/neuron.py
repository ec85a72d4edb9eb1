"""What a neuron is: the current-based leaky integrate-and-fire (CUBA) neuron of Loihi."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from specs.fields import Decay, Number, StrictModel, Threshold

__all__ = ["CubaSpec", "LearnDecays", "Reset"]


class Reset(StrEnum):
    """What a spike does to the voltage."""

    ZERO = "zero"
    SUBTRACT = "subtract"


class LearnDecays(StrEnum):
    """Whether training may move the decays."""

    NONE = "none"
    SHARED = "shared"
    PER_CHANNEL = "per_channel"


class CubaSpec(StrictModel):
    """`u = (1 - current_decay) u + z`, `v = (1 - voltage_decay) v + u + bias`, a spike where `v > threshold`."""

    kind: Literal["cuba"] = "cuba"
    threshold: Threshold = 1.0
    """The voltage above which a neuron fires; truncated to 1/64."""
    current_decay: Decay = 1.0
    """The part of the current that is lost each step."""
    voltage_decay: Decay = 0.0
    """The part of the voltage that is lost each step."""
    tau_grad: Annotated[Number, Field(gt=0)] = 1.0
    """Width of the spike's surrogate gradient, which is `scale_grad / (2000 * threshold * tau_grad)` at the threshold,
    and falls by e with every `100 * threshold * tau_grad` of voltage. By the default, lava-dl's, next to nothing of it
    is left behind some layers: our networks learn as spikes with 0.1 and less, convolutions with 0.005."""
    scale_grad: Annotated[Number, Field(gt=0)] = 1.0
    """Height of the spike's surrogate gradient, see `tau_grad`."""
    reset: Reset = Reset.ZERO
    """What a spike does to the voltage: set it to zero, as the chip does, or subtract the threshold (not for netx)."""
    learn_decays: LearnDecays = LearnDecays.NONE
    """Whether training may move the decays: not at all, one pair for the layer, or one pair for each channel."""
