"""What a neuron is: the current-based leaky integrate-and-fire (CUBA) neuron of Loihi."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from specs.fields import Decay, Number, StrictModel, Threshold

__all__ = ["CubaSpec", "LearnDecays", "Reset"]


class Reset(StrEnum):
    """What a spike does to the voltage: set it to zero (the chip), or subtract the threshold from it."""

    ZERO = "zero"
    SUBTRACT = "subtract"


class LearnDecays(StrEnum):
    """Whether training may move the decays: not at all, one pair for the layer, or one pair for each channel."""

    NONE = "none"
    SHARED = "shared"
    PER_CHANNEL = "per_channel"


class CubaSpec(StrictModel):
    """`u = (1 - current_decay) u + z`, `v = (1 - voltage_decay) v + u + bias`, a spike where `v > threshold`.

    `tau_grad` and `scale_grad` shape the surrogate gradient of the spike: its width and its height.
    """

    kind: Literal["cuba"] = "cuba"
    threshold: Threshold = 1.0
    current_decay: Decay = 1.0
    voltage_decay: Decay = 0.0
    tau_grad: Annotated[Number, Field(gt=0)] = 1.0
    scale_grad: Annotated[Number, Field(gt=0)] = 1.0
    reset: Reset = Reset.ZERO
    learn_decays: LearnDecays = LearnDecays.NONE
