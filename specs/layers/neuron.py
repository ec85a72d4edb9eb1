"""Specs of neurons: current-based leaky integrate-and-fire (CUBA) neurons of Loihi, and sigma-delta neurons."""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer

from specs.fields import VTH_MANT_MAX, Decay, Number, StrictModel, Threshold, without_defaults


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
    start: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Voltage before the first time step, as a fraction of the threshold; rounded to a multiple of 1/4096 of a unit of
    voltage. With 0.5 and `reset: subtract`, a steady input gives the nearest number of spikes and not the one below. An
    `affine` readout starts at 0. netx cannot express this."""

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(dump(self), self, "start")


class SigmaDeltaSpec(StrictModel):
    """Sigma-delta neuron: it sends the change of its activation `max(0, sigma + bias)` once this reaches the threshold.

    `sigma` is the sum of all messages received so far, times their weights. Neurons of the input send the changes of
    the frames. A network has either sigma-delta neurons only, with `input.encoding: frames`, or none. It approximates
    an ANN with ReLU, with few messages on frames that change little. Its outputs are values, not classes: those of an
    `affine` readout are its sigma plus bias after the last step.
    """

    kind: Literal["sigma_delta"]
    """Must be `sigma_delta`; without it, a neuron is a CUBA neuron."""
    threshold: Annotated[Number, Field(ge=0, le=VTH_MANT_MAX / 64)] = 0.0
    """Smallest change of the activation that is sent, truncated to a multiple of 1/64; smaller ones add up until they
    reach it. With 0, each step sends a message for each activation that changed."""


NEURON_KINDS: Final = ("cuba", "sigma_delta")
"""Kinds of neurons, the default first."""


def _kind_of_neuron(given: Any) -> Any:
    """Return the kind of a neuron, given as a mapping or a spec; old files do not name it."""
    return given.get("kind", NEURON_KINDS[0]) if isinstance(given, dict) else getattr(given, "kind", NEURON_KINDS[0])


NeuronSpec = Annotated[
    Annotated[CubaSpec, Tag(NEURON_KINDS[0])] | Annotated[SigmaDeltaSpec, Tag(NEURON_KINDS[1])],
    Discriminator(_kind_of_neuron),
]
