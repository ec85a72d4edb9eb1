"""CUBA neurons as a module: decays, trainable if the spec says so, and constants."""

from functools import lru_cache

import torch
from torch import Tensor, nn

from bootstrap_core.fixed_point import MANT, STATE
from bootstrap_core.functional.quantize import quantize_decay
from bootstrap_core.ops.neurons import NeuronConstants
from specs.fields import initial_voltage, threshold_mant
from specs.layers.neuron import CubaSpec, LearnDecays, Reset


class CubaNeuron(nn.Module):
    """CUBA neurons of one layer; see `functional.cuba` for the dynamics.

    `current_decay` and `voltage_decay` are in the state dict, `[1]` or, trained per channel, `[channels]`; they are
    parameters if the spec trains them and buffers if not.

    Args:
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
        given = self.current_decay, self.voltage_decay
        if bias is None and recurrent is None and _are_plain(*given):
            current, voltage = given
            return _kept(self.spec, self.threshold_mant, current.item(), voltage.item(), current.dtype, shift, direct)
        decays = quantize_decay(given[0]), quantize_decay(given[1])
        return _constants(self.spec, self.threshold_mant, *decays, shift, direct, bias, recurrent)


def _are_plain(current: Tensor, voltage: Tensor) -> bool:
    """Return whether these decays are not trained, one for all channels, on the CPU, and torch does not compile."""
    trained = current.requires_grad or voltage.requires_grad
    return len(current) == 1 and current.is_cpu and not trained and not torch.compiler.is_compiling()


def _constants(
    spec: CubaSpec,
    threshold_mant: int,
    current_decay: Tensor,
    voltage_decay: Tensor,
    shift: bool,
    direct: bool,
    bias: Tensor | None = None,
    recurrent: Tensor | None = None,
) -> NeuronConstants:
    """Return the constants of neurons whose decays are on their grid; see `CubaNeuron.constants`."""
    return NeuronConstants(
        current_decay=torch.ones_like(current_decay) if direct else current_decay,
        voltage_decay=voltage_decay,
        threshold=threshold_mant / MANT,
        tau_grad=spec.tau_grad,
        scale_grad=spec.scale_grad,
        subtract=spec.reset is Reset.SUBTRACT,
        shift=shift,
        bias=bias,
        recurrent=recurrent,
        initial_voltage=initial_voltage(spec.start, threshold_mant) / STATE,
    )


@lru_cache(maxsize=64)
def _kept(
    spec: CubaSpec, threshold_mant: int, current: float, voltage: float, dtype: torch.dtype, shift: bool, direct: bool
) -> NeuronConstants:
    """Return constants that are the same at each step of training, so that their records are prepared once."""
    with torch.inference_mode(False):  # other calls may need them for gradients
        decays = quantize_decay(torch.tensor([[current], [voltage]], dtype=dtype, device="cpu"))
        return _constants(spec, threshold_mant, decays[0], decays[1], shift, direct)
