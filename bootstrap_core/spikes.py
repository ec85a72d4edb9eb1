"""Spikes on their way from block to block, one byte each."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Spikes", "SteadyInput"]


class Spikes(NamedTuple):
    """Spikes `[T, N, C, ...]`: `values` int8, 0 or 1, and `link`, which holds nothing and carries their gradient.

    See `kernels.spiking_ops`.
    """

    values: Tensor
    link: Tensor

    def tensor(self) -> Tensor:
        """The same as a float32 tensor."""
        from bootstrap_core.kernels.spiking_ops import unpack

        floats: Tensor = unpack(self.values, self.link)
        return floats

    def totals(self) -> Tensor:
        """How many over time, `[N, C, ...]` float32."""
        from bootstrap_core.kernels.spiking_ops import count

        totals: Tensor = count(self.values, self.link)
        return totals

    def flatten(self, first: int) -> "Spikes":
        """The axes from `first` on as one."""
        return Spikes(self.values.flatten(first), self.link.flatten(first))


class SteadyInput(NamedTuple):
    """Input neurons that have not run: whoever wants their spikes makes them, and a dense layer needs none.

    The current of `images` `[N, I]` in 0..1, `weight * (images - mean) / std + bias` truncated to 1/64, enters the
    voltage at each of `steps` steps; `voltage_decay` is `[1]`. `constants` are those of `CubaNeuron`. The images get
    no gradient.
    """

    images: Tensor
    weight: Tensor
    bias: Tensor
    mean: float
    std: float
    steps: int
    voltage_decay: Tensor
    constants: tuple[float, float, float, bool]

    def spikes(self) -> Spikes:
        """Run the neurons."""
        from bootstrap_core.kernels.input_op import input_current
        from bootstrap_core.kernels.spiking_ops import fire

        current = input_current(self.images, self.weight, self.bias, self.mean, self.std)
        z = current.expand(self.steps, *current.shape)
        return Spikes(*fire(z, current.new_ones(1), self.voltage_decay, None, *self.constants))
