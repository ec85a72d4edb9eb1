"""Weights as signed 8-bit integers, each times a step that belongs to its channel."""

from typing import NamedTuple

import torch
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.network.base_block import SynapticBlock
from bootstrap_core.network.network import Network


class EightBits(NamedTuple):
    """Weight as `integers * step`.

    `integers` are int8, of the shape of the weight. `step` is float32, `[1]`, or `[channels]` where a batch norm scales
    each channel before weights are rounded.
    """

    integers: Tensor
    step: Tensor

    def weight(self) -> Tensor:
        """Return the weight, float32."""
        return self.integers * self.step.reshape(-1, *[1] * (self.integers.dim() - 1))


@torch.no_grad()
def eight_bit_weights(network: Network) -> dict[str, EightBits]:
    """Return the weights that the hardware holds, by their names in the state dict.

    A network with these weights gives the same spikes, and the same rates as ANN. Weights with weight norm, which the
    state dict holds as two tensors, and the fixed weights of pools are left out.
    """
    names = {module: f"{name}.weight" for name, module in network.named_modules()}
    found, state = dict[str, EightBits](), network.state_dict()
    for block in (block for block in network.blocks if isinstance(block, SynapticBlock)):
        for synapse, weight in block.synapses():
            if (name := names[synapse]) in state:
                step = torch.as_tensor(WEIGHT_STEP / block.weight_scale(synapse)).flatten()
                found[name] = EightBits((weight / WEIGHT_STEP).round().to(torch.int8), step)
    return found
