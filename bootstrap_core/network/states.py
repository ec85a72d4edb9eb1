"""States of neurons by name, and the check that they have 24 bits."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from bootstrap_core.fixed_point import STATE_MAX
from bootstrap_core.functional.cuba import CubaState, StateLimits
from bootstrap_core.ops.neurons import NeuronConstants
from specs.errors import StateOverflowError

STATES_REMEDY = (
    "lower the weights, the threshold or input.bits, or run fewer steps; with Overflow.CHIP (--overflow chip) the run "
    "goes on as on the chip"
)
MESSAGES_REMEDY = "lower the weights and biases, or the frames"


NamedStates = Iterator[tuple[dict[str, Tensor], Tensor]]
"""States of each step by name, in state units, which the next step may overwrite; and what the neurons send in it."""


def named_states(
    steps: Iterable[Tensor],
    neurons: NeuronConstants,
    n_axes: int,
    limits: StateLimits | None = None,
    start: CubaState | None = None,
) -> NamedStates:
    """Yield the states of CUBA neurons; see `NeuronConstants.states`."""
    for current, voltage, fired in neurons.states(steps, n_axes, limits, start):
        yield {"current": current, "voltage": voltage}, fired


def check_states(block: str, step: int, states: Mapping[str, Tensor], remedy: str) -> None:
    """Raise `StateOverflowError` if a state of a block, given by name in state units, leaves 24 bits."""
    for name, state in states.items():
        if not state.numel():
            continue
        low, high = (int(bound) for bound in torch.aminmax(state))
        if max(-low, high) > STATE_MAX:
            worst = low if -low > high else high
            raise StateOverflowError(
                f"the {name} of {block} reaches {worst} at step {step}; the hardware holds {-STATE_MAX} to "
                f"{STATE_MAX} (24 bits): {remedy}"
            )
