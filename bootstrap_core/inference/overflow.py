"""Which state leaves the hardware's 24 bits, and when."""

import torch
from torch import Tensor

from bootstrap_core.fixed_point import STATE_MAX, STATE_MIN
from bootstrap_core.functional.cuba import cuba_states, per_channel
from bootstrap_core.network.base_block import Signals
from bootstrap_core.network.network import Network
from bootstrap_core.ops.neurons import NeuronConstants
from specs.errors import StateOverflowError

__all__ = ["explain_overflow"]


def explain_overflow(network: Network, index: int, read: list[Signals], steps: int) -> None:
    """Raise `StateOverflowError` for the first state of a block that leaves 24 bits.

    Args:
        network: that ran as SNN.
        index: of the block.
        read: what the block read, from the block before it and through its skips.
        steps: T.
    """
    z, constants = network.block(index).driven_by(*read)
    _tell(index, z.expand(steps, *z.shape[1:]), constants)


def _tell(index: int, z: Tensor, neurons: NeuronConstants) -> None:
    """Raise an error for the first state that leaves 24 bits."""
    decays = per_channel(neurons.current_decay, z), per_channel(neurons.voltage_decay, z)
    bias = None if neurons.bias is None else per_channel(neurons.bias, z)
    states = cuba_states(z, decays[0], decays[1], bias, neurons.threshold, neurons.subtract)
    for step, (current, voltage, _) in enumerate(states):
        for name, state in (("current", current), ("voltage", voltage)):
            low, high = (int(bound) for bound in torch.aminmax(state))
            if low < STATE_MIN or high > STATE_MAX:
                worst = low if -low > high else high
                raise StateOverflowError(
                    f"the {name} of block {index} reaches {worst} at step {step}; the hardware holds "
                    f"{STATE_MIN} to {STATE_MAX} (24 bits): lower the weights, the threshold or input.bits, or run "
                    "fewer steps"
                )
