"""States that leave the hardware's 24 bits: an error that names state and step, or what the chip does with them."""

from enum import Enum

import torch
from torch import Tensor

from bootstrap_core.fixed_point import STATE_MAX
from bootstrap_core.functional.cuba import StateLimits
from bootstrap_core.functional.sigma_delta import SigmaDeltaStates
from bootstrap_core.network.base_block import Signals
from bootstrap_core.network.network import Network
from bootstrap_core.network.sigma_delta import MessageBlock
from bootstrap_core.ops.neurons import NeuronConstants
from bootstrap_core.ops.spikes import Spikes
from specs.errors import StateOverflowError

__all__ = ["Overflow", "check_messages", "check_states", "raise_first_overflow", "run_on_chip"]

STATES_REMEDY = (
    "lower the weights, the threshold or input.bits, or run fewer steps; with Overflow.CHIP (--overflow chip) the run "
    "goes on as on the chip"
)


class Overflow(Enum):
    """Treatment of states that leave the hardware's 24 bits."""

    REFUSE = "refuse"
    """Raise `StateOverflowError`."""

    CHIP = "chip"
    """Continue as the chip does: currents wrap around, voltages are clipped; both are counted."""


def run_on_chip(z: Tensor, neurons: NeuronConstants, limits: StateLimits) -> tuple[Spikes, Tensor]:
    """Run neurons whose states keep to the chip's limits; return spikes and voltage.

    Args:
        z: weighted input, `[T, N, C, ...]` in float units.
        neurons: constants of the neurons.
        limits: limits of the states, which count how often they were reached.

    Returns:
        The spikes, and the voltage before the reset, `[T, N, C, ...]` float64 in units of 1/4096.
    """
    pairs = [(fired.float(), voltage.clone()) for _, voltage, fired in neurons.states(z, z.dim() - 1, limits)]
    spikes, voltages = (torch.stack(each) for each in zip(*pairs, strict=True))
    out = Spikes.of(spikes)
    return (out.delayed() if neurons.shift else out), voltages


def raise_first_overflow(network: Network, index: int, read: list[Signals], steps: int) -> None:
    """Raise `StateOverflowError` for the first state of a block that leaves 24 bits.

    Args:
        network: the network that ran, in SNN mode.
        index: index of the block.
        read: inputs of this block: the output of the block before it, then the outputs that its skips read.
        steps: T.
    """
    block = network.block(index)
    if isinstance(block, MessageBlock):
        for step, state in enumerate(block.states(block.drive(read[0])[:steps])):
            check_messages(index, step, state)
        return
    z, neurons = block.driven_by(*read)
    for step, (current, voltage, _) in enumerate(neurons.states(z.expand(steps, *z.shape[1:]), z.dim() - 1)):
        check_states(index, step, current, voltage)


def check_states(index: int, step: int, current: Tensor, voltage: Tensor) -> None:
    """Raise `StateOverflowError` if a state of block `index` leaves 24 bits at this step; in units of 1/4096."""
    for name, state in (("current", current), ("voltage", voltage)):
        _check(index, step, name, state, STATES_REMEDY)


def check_messages(index: int, step: int, state: SigmaDeltaStates) -> None:
    """Raise `StateOverflowError` if a state of sigma-delta neurons leaves 24 bits at this step; in units of 1/2^18."""
    for name, x in zip(("weighted input", "sigma", "activation", "change"), state[:4], strict=True):
        _check(index, step, name, x, "lower the weights and biases, or the frames")


def _check(index: int, step: int, name: str, state: Tensor, remedy: str) -> None:
    if not state.numel():
        return
    low, high = (int(bound) for bound in torch.aminmax(state))
    if max(-low, high) > STATE_MAX:
        worst = low if -low > high else high
        raise StateOverflowError(
            f"the {name} of block {index} reaches {worst} at step {step}; the hardware holds {-STATE_MAX} to "
            f"{STATE_MAX} (24 bits): {remedy}"
        )
