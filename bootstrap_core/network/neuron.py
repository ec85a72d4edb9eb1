"""CUBA neurons as a module: decays, trainable if the spec says so, and constants."""

import torch
from torch import Tensor, nn

from bootstrap_core.fixed_point import MANT
from bootstrap_core.functional.quantize import quantize_decay
from bootstrap_core.ops.neurons import NeuronConstants
from specs.fields import threshold_mant
from specs.layers.neuron import CubaSpec, LearnDecays, Reset

__all__ = ["CubaNeuron"]


class CubaNeuron(nn.Module):
    """CUBA neurons of one layer; see `functional.cuba` for the dynamics.

    `current_decay` and `voltage_decay` are in the state dict, `[1]` or, trained per channel, `[channels]`; they are
    parameters if the spec trains them and buffers if not.

    Args:
        spec: spec of the neurons.
        channels: number of channels of the layer.
        levels: largest value of a graded input; the threshold is in its units.
    """

    current_decay: Tensor
    voltage_decay: Tensor

    def __init__(self, spec: CubaSpec, *, channels: int, levels: int = 1) -> None:
        super().__init__()
        self.spec = spec
        self.threshold_mant = threshold_mant(spec.threshold, levels)
        size = channels if spec.learn_decays is LearnDecays.PER_CHANNEL else 1
        for name in ("current_decay", "voltage_decay"):
            decay = torch.full((size,), getattr(spec, name))
            if spec.learn_decays is LearnDecays.NONE:
                self.register_buffer(name, decay)
            else:
                self.register_parameter(name, nn.Parameter(decay))

    def quantized_decays(self) -> tuple[Tensor, Tensor]:
        """Return current and voltage decay on the grid of 1/4096."""
        return quantize_decay(self.current_decay), quantize_decay(self.voltage_decay)

    def constants(
        self,
        bias: Tensor | None = None,
        *,
        shift: bool = False,
        direct: bool = False,
        recurrent: Tensor | None = None,
    ) -> NeuronConstants:
        """Return the constants as operators take them.

        Args:
            bias: `[C]`, on the grid of 1/64.
            shift: whether spikes leave a step later.
            direct: whether the weighted input bypasses the current and enters the voltage, as the hardware's bias does.
            recurrent: weights from the neurons to themselves, `[C, C]`, on their grid.
        """
        current_decay, voltage_decay = self.quantized_decays()
        return NeuronConstants(
            current_decay=torch.ones_like(current_decay) if direct else current_decay,
            voltage_decay=voltage_decay,
            threshold=self.threshold_mant / MANT,
            tau_grad=self.spec.tau_grad,
            scale_grad=self.spec.scale_grad,
            subtract=self.spec.reset is Reset.SUBTRACT,
            shift=shift,
            bias=bias,
            recurrent=recurrent,
        )
