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

    `current` `[N, I]`, on the grid of 1/64, enters the voltage at each of `steps` steps; `voltage_decay` is `[1]`.
    `constants` are those of `CubaNeuron`.
    """

    current: Tensor
    steps: int
    voltage_decay: Tensor
    constants: tuple[float, float, float, bool]

    def spikes(self) -> Spikes:
        """Run the neurons."""
        from bootstrap_core.kernels.spiking_ops import fire

        z = self.current.expand(self.steps, *self.current.shape)
        return Spikes(*fire(z, self.current.new_ones(1), self.voltage_decay, None, *self.constants))
