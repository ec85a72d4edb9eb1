"""The CUBA neuron as a module: its decays, perhaps learnable, and its constants."""

import torch
from torch import Tensor, nn

from bootstrap_core.fixed_point import MANT
from bootstrap_core.functional.cuba import CubaOutput, cuba
from bootstrap_core.functional.quantize import quantize_decay
from bootstrap_core.kernels import by_size, is_worthwhile
from bootstrap_core.network.spikes import Spikes, SteadyInput
from specs.fields import threshold_mant
from specs.neuron import CubaSpec, LearnDecays, Reset

__all__ = ["CubaNeuron"]

STEPS_FOR_ONE = 16
"""Steps of neurons that are as much work as one number of a rate."""


class CubaNeuron(nn.Module):
    """CUBA neurons of one layer; see `functional.cuba` for the dynamics.

    `current_decay` and `voltage_decay` are in the state dict, `[1]` or, learnt per channel, `[channels]`; they are
    parameters if the spec learns them and buffers if not.

    Args:
        spec: the neuron.
        channels: of the layer.
        levels: largest value of a graded input; the threshold is in its units.
    """

    current_decay: Tensor
    voltage_decay: Tensor

    def __init__(self, spec: CubaSpec, *, channels: int, levels: int = 1) -> None:
        super().__init__()
        self.spec = spec
        self.compiled = by_size()
        """Whether kernels run; None: where it is worthwhile."""
        self.threshold_mant = threshold_mant(spec.threshold, levels)
        size = channels if spec.learn_decays is LearnDecays.PER_CHANNEL else 1
        for name in ("current_decay", "voltage_decay"):
            decay = torch.full((size,), getattr(spec, name))
            if spec.learn_decays is LearnDecays.NONE:
                self.register_buffer(name, decay)
            else:
                self.register_parameter(name, nn.Parameter(decay))

    def quantized_decays(self) -> tuple[Tensor, Tensor]:
        """Current and voltage decay on the grid of 1/4096."""
        return quantize_decay(self.current_decay), quantize_decay(self.voltage_decay)

    def forward(self, z: Tensor, bias: Tensor | None = None, *, current_decay: Tensor | None = None) -> CubaOutput:
        """Run over time: `z` `[T, N, C, ...]`, `bias` `[C]` on the grid of 1/64; `current_decay` overrules the own."""
        threshold, tau_grad, scale_grad, subtract = self.constants
        if self.runs_compiled(z):
            from bootstrap_core.kernels import spiking_ops

            decays = self.current_decay if current_decay is None else current_decay, self.voltage_decay
            return CubaOutput(*spiking_ops.cuba(z, *decays, bias, threshold, tau_grad, scale_grad, subtract))
        own_current_decay, voltage_decay = self.quantized_decays()
        return cuba(
            z,
            current_decay=own_current_decay if current_decay is None else current_decay,
            voltage_decay=voltage_decay,
            threshold=threshold,
            bias=bias,
            tau_grad=tau_grad,
            scale_grad=scale_grad,
            subtract=subtract,
        )

    def fire(self, z: Tensor, bias: Tensor | None = None, *, current_decay: Tensor | None = None) -> Spikes:
        """The spikes of `forward`, packed; by compiled kernels only."""
        from bootstrap_core.kernels import spiking_ops

        decays = self.current_decay if current_decay is None else current_decay, self.voltage_decay
        return Spikes(*spiking_ops.fire(z, *decays, bias, *self.constants))

    def weigh_and_fire(
        self, x: Spikes, weight: Tensor, bias: Tensor | None, mask: Tensor | None, survivor: float
    ) -> tuple[Spikes, Tensor]:
        """Spikes behind dense synapses, and the weighted input in steps of a weight; see `spiking_dense`."""
        from bootstrap_core.kernels import spiking_ops

        kept = None if mask is None else (mask != 0).to(torch.int8)
        decays = self.current_decay, self.voltage_decay
        *spikes, z = spiking_ops.spiking_dense(*x, weight, *decays, bias, kept, *self.constants, survivor)
        return Spikes(*spikes), z

    def convolve_and_fire(
        self, x: Spikes, weight: Tensor, geometry: list[int], groups: int, bias: Tensor | None
    ) -> tuple[Spikes, Tensor]:
        """Spikes behind a convolution, and the weighted input in steps of a weight; see `conv_op.spiking_conv`."""
        from bootstrap_core.kernels.conv_op import spiking_conv

        decays = self.current_decay, self.voltage_decay
        *spikes, z = spiking_conv(*x, weight, geometry, groups, *decays, bias, *self.constants)
        return Spikes(*spikes), z

    def weigh_steady(
        self, x: SteadyInput, weight: Tensor, geometry: list[int], bias: Tensor | None
    ) -> tuple[Spikes, Tensor]:
        """The same behind dense synapses or a convolution from input neurons; see `steady_op.steady`."""
        from bootstrap_core.kernels.steady_op import steady

        *current, steps, voltage_decay, constants = x
        neurons = self.current_decay, self.voltage_decay, bias, *self.constants
        fired, link, z = steady(*current, weight, geometry, steps, voltage_decay, *constants, *neurons)
        return Spikes(fired, link), z

    @property
    def constants(self) -> tuple[float, float, float, bool]:
        """Threshold, width and height of the surrogate gradient, and whether a spike subtracts the threshold."""
        spec = self.spec
        return self.threshold_mant / MANT, spec.tau_grad, spec.scale_grad, spec.reset is Reset.SUBTRACT

    @property
    def learns(self) -> bool:
        """Whether training moves the decays."""
        return self.spec.learn_decays is not LearnDecays.NONE

    def runs_compiled(self, x: Tensor, *, steps: int = 1) -> bool:
        """Whether compiled kernels run on input like this, or on so many steps of it."""
        fits = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64, torch.int8)
        return fits and is_worthwhile(x.numel() * steps // STEPS_FOR_ONE, self.compiled)
