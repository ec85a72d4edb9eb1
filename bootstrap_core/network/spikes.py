"""What goes from block to block: spikes, one byte each, and input neurons that have yet to give spikes or rates."""

from typing import NamedTuple

import torch
from torch import Tensor

from bootstrap_core.fixed_point import MANT
from bootstrap_core.kernels.half import gradient_dtype
from bootstrap_core.kernels.linear_op import linear

__all__ = ["InputRates", "Spikes", "SteadyInput"]


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
        from bootstrap_core.kernels.count_op import count

        totals: Tensor = count(self.values, self.link)
        return totals

    def counts(self) -> Tensor:
        """How many of each neuron, over time and images, `[C, ...]` int64."""
        from bootstrap_core.kernels.count_op import add_up

        return add_up(self.values.flatten(0, 1)).long()

    def multiplied(self, weight: Tensor) -> Tensor:
        """Weighted input `[T, N, O]`, float32, by a weight `[O, I]` on its grid."""
        from bootstrap_core.kernels.synapse_op import multiply_spikes

        z: Tensor = multiply_spikes(self.values, self.link, weight)
        return z

    def convolved(self, weight: Tensor, geometry: list[int], groups: int) -> Tensor:
        """Weighted input `[T, N, O, OH, OW]`, float32; see `convolve_spikes`."""
        from bootstrap_core.kernels.synapse_op import convolve_spikes

        z: Tensor = convolve_spikes(self.values, self.link, weight, geometry, groups)
        return z

    def flatten(self, first: int) -> "Spikes":
        """The axes from `first` on as one."""
        return Spikes(self.values.flatten(first), self.link.flatten(first))


class SteadyInput(NamedTuple):
    """Input neurons that have not run: whoever wants their spikes makes them; dense layers and convolutions do not.

    The current of `images` `[N, ...]` in 0..1, `weight * (images - mean) / std + bias` truncated to 1/64, enters the
    voltage at each of `steps` steps; `voltage_decay` is `[1]`. It and both numbers are put on their grids. `constants`
    are those of `CubaNeuron`. The images get no gradient.
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
        from bootstrap_core.kernels.spiking_ops import fire

        current = self.current()
        z = current.expand(self.steps, *current.shape)
        return Spikes(*fire(z, current.new_ones(1), self.voltage_decay, None, *self.constants))

    def flatten(self, first: int) -> "SteadyInput":
        """The axes from `first` on as one."""
        return self._replace(images=self.images.flatten(first))

    def current(self) -> Tensor:
        """The current of each pixel, `[N, ...]`."""
        from bootstrap_core.kernels.input_op import input_current

        current: Tensor = input_current(self.images, self.weight, self.bias, self.mean, self.std)
        return current

    def pairs_at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Current and rate of the pixels at `places` in `[N, ...]`."""
        mantissas = self._replace(images=self.images.flatten()[places])._mantissas()
        return mantissas / MANT, self._totals(mantissas) / self.steps

    def counts(self) -> Tensor:
        """How many spikes each neuron gives over time and images, `[...]` int64."""
        return self._totals(self._mantissas()).long().sum(0)

    def _mantissas(self) -> Tensor:
        """The current of each pixel in units of 1/64, `[N, ...]` int32, without a gradient."""
        from bootstrap_core.kernels.input_op import input_mantissas

        return input_mantissas(self.images, self.weight, self.bias, self.mean, self.std)

    def _totals(self, mantissas: Tensor) -> Tensor:
        """How many spikes the neurons of these currents `[N, ...]` give, float32.

        Neurons of one current spike alike, so one runs for each of the 1/64 from the lowest current to the highest.
        """
        from bootstrap_core.kernels.steady_synapses import InputTables

        threshold, _, _, subtract = self.constants
        tables = InputTables(mantissas, self.steps, self.voltage_decay, threshold, subtract)
        each = torch.from_numpy(tables.fired).sum(1, dtype=torch.float32)
        return each.index_select(0, tables.indices.flatten()).reshape(mantissas.shape)


class InputRates(NamedTuple):
    """Rates of input neurons that are still to be computed; dense layers multiply them without.

    They are what the activation of `centers` and `slopes` gives for the current of `images`, see `SteadyInput`. The
    images get no gradient.
    """

    images: Tensor
    weight: Tensor
    bias: Tensor
    mean: float
    std: float
    centers: Tensor
    slopes: Tensor

    def tensor(self) -> Tensor:
        """The rates `[N, ...]`, float32."""
        from bootstrap_core.kernels.input_op import input_rates

        return input_rates(*self)

    def flatten(self, first: int) -> "InputRates":
        """The axes from `first` on as one."""
        return self._replace(images=self.images.flatten(first))

    def multiplied(self, weight: Tensor) -> Tensor:
        """Weighted input `[N, O]` of images `[N, I]`, by a weight `[O, I]`."""
        from bootstrap_core.kernels.input_linear_op import few_apart, input_linear

        if gradient_dtype(self.images.numel() * len(weight)) == torch.float32 and few_apart(self.images):
            return input_linear(*self, weight)
        return linear(self.tensor(), weight)
