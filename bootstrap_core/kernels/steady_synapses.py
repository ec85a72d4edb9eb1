"""Synapses behind input neurons, whose current is the same at each step, dense or convolutional; see `steady_inputs`.

Both give the weighted input `[T, R, O]` of `R` rows, which are images, or for a convolution the places of all images.
"""

from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.fixed_point import STATE_PER_MANT, WEIGHT_STEP
from bootstrap_core.functional.quantize import quantize_decay
from bootstrap_core.functional.surrogate import exponential_surrogate
from bootstrap_core.kernels import steady_inputs, steady_places, train_sums
from bootstrap_core.kernels.dense_products import as_integers
from bootstrap_core.kernels.dense_trains import TableTrains, synaptic_work, weigh, weight_grad, words_of
from bootstrap_core.kernels.gradient_products import GradientProduct
from bootstrap_core.kernels.half import multiplies_tiles
from bootstrap_core.kernels.neuron_run import NeuronRun, as_array, as_bytes, from_bytes
from bootstrap_core.kernels.patches import as_matrix, as_weight, seers_of, sources_of
from bootstrap_core.kernels.subset_sums import LANES
from bootstrap_core.kernels.threads import split, split_sum
from bootstrap_core.kernels.transposes import turned

__all__ = ["InputTables", "SteadyConv", "SteadyDense", "SteadySynapse"]

SEEN = 8
"""Images of which the most common current is taken for that of all."""

FEW_STEPS, MORE_STEPS = 2, 12
"""Steps up to which a product with the weights tells what reaches each pixel sooner than mixing gradients for each
current does: where hardly a pixel is apart from the most common value, and how many more where all are."""


class InputTables:
    """What follows from an input neuron's current, for each mantissa, int32, between the lowest and the highest.

    Attributes:
        indices: of the mantissas in the tables.
        fired: spikes, int8 `[currents, T]`; shared by all batches with these currents, as is what `slopes` gives.
    """

    def __init__(self, mantissas: Tensor, steps: int, voltage_decay: Tensor, threshold: float, subtract: bool) -> None:
        lowest, highest = (int(bound) for bound in torch.aminmax(mantissas))
        self.indices = mantissas - lowest
        self.neurons = lowest, highest, steps, as_bytes(voltage_decay), threshold, subtract
        self.fired = _run(*self.neurons)[0]

    def slopes(self, tau_grad: float, scale_grad: float) -> Any:
        """What a gradient of the spike at each step is worth to the current, `[currents, T]`."""
        return _slopes(*self.neurons, tau_grad, scale_grad)


@lru_cache(maxsize=16)
def _run(
    lowest: int, highest: int, steps: int, voltage_decay: bytes, threshold: float, subtract: bool
) -> tuple[Any, Tensor]:
    """Spikes of the neurons of `InputTables`, and their voltage `[T, currents]`: batch after batch has the same."""
    z = torch.arange(lowest, highest + 1).float().expand(steps, 1, -1)
    spikes, entered, voltage = (torch.empty(z.shape, dtype=dtype) for dtype in (torch.int8, z.dtype, z.dtype))
    neuron = torch.ones(1), from_bytes(voltage_decay), None, threshold, subtract
    NeuronRun(z, STATE_PER_MANT, *neuron, reach=max(-lowest, highest)).forward(spikes, entered, voltage)
    return spikes[:, 0].T.contiguous().numpy(), voltage[:, 0]


@lru_cache(maxsize=16)
def _slopes(
    lowest: int,
    highest: int,
    steps: int,
    voltage_decay: bytes,
    threshold: float,
    subtract: bool,
    tau_grad: float,
    scale_grad: float,
) -> Any:
    """See `InputTables.slopes`."""
    _, voltage = _run(lowest, highest, steps, voltage_decay, threshold, subtract)
    surrogate = exponential_surrogate(voltage, threshold=threshold, tau_grad=tau_grad, scale_grad=scale_grad)
    # d voltage[t] / d current = 1 + keep + ... + keep^t: the leak is differentiated, the reset is not
    keep = (1 - quantize_decay(from_bytes(voltage_decay))).expand(steps)
    response = torch.cumsum(torch.cumprod(torch.cat([torch.ones_like(keep[:1]), keep[1:]]), 0), 0)
    return (surrogate * response[:, None].float()).T.contiguous().numpy()


class SteadySynapse(Protocol):
    """What both kinds do, for a weight `[O, I, ...]` and the gradient of the weighted input, `[T, R, O]`."""

    def weigh(self, weight: Tensor) -> Tensor:
        """Weighted input in steps of a weight, float32 `[T, R, O]`."""

    def gradients(self, grad: Tensor, weight: Tensor, images: Tensor, slopes: Any) -> tuple[Tensor, Any]:
        """Gradient of `weight`, float32, and the sums of (gradient of a current) * pixel and of the gradient.

        `slopes` as of `InputTables`; or None, with sums of 0.
        """


class SteadyDense:
    """Dense synapses from `[N, I]`."""

    def __init__(self, tables: InputTables) -> None:
        self.currents = tables.indices.numpy()
        self.trains = TableTrains(self.currents, tables.fired)

    def weigh(self, weight: Tensor) -> Tensor:
        """See `SteadySynapse`."""
        return weigh(self.trains, as_integers(turned(weight)))

    def gradients(self, grad: Tensor, weight: Tensor, images: Tensor, slopes: Any) -> tuple[Tensor, Any]:
        """See `SteadySynapse`."""
        sums = np.zeros(2) if slopes is None else self._input_sums(grad, weight.detach(), images, slopes)
        return weight_grad(self.trains, grad), sums

    def _input_sums(self, grad: Tensor, weight: Tensor, images: Tensor, slopes: Any) -> Any:
        rows, pixels = as_array(grad).reshape(grad.shape), images.numpy()
        lowest = pixels.min()
        shared: tuple[Any, ...] = self.currents, pixels, lowest, slopes
        few = FEW_STEPS + MORE_STEPS * np.count_nonzero(pixels != lowest) / pixels.size
        if len(grad) <= few or (grad.dtype == torch.bfloat16 and multiplies_tiles()):
            reached = GradientProduct(weight, len(rows) * rows.shape[1], grad.dtype)(grad.flatten(0, 1))
            shared = *shared, weight.sum(1).numpy(), rows, as_array(reached).reshape(*rows.shape[:2], -1)
            add, unit = steady_inputs.pixel_sums, 1.0
        else:
            shared = *shared, as_integers(turned(weight)).numpy(), rows
            add, unit = steady_inputs.input_sums, WEIGHT_STEP
        work = synaptic_work(self.trains, len(weight))
        return unit * split_sum(add, len(images), *shared, shape=(2,), work=work)


class SteadyConv:
    """Convolutions of `[N, C, H, W]`, pixel by pixel; see `steady_places`."""

    def __init__(self, tables: InputTables, geometry: list[int]) -> None:
        currents = tables.indices.permute(0, 2, 3, 1).contiguous()  # [N, H, W, C]
        self.currents = currents.flatten(1).numpy()
        size = tuple(currents.shape[1:]), tuple(geometry)
        self.sources, (self.seers, self.ends) = sources_of(*size), seers_of(*size)
        self.fired = tables.fired
        first_ones = self.currents[:SEEN].ravel()
        self.common = int(np.bincount(first_ones).argmax())
        self.place_of_common = (first_ones == self.common).argmax()

    def weigh(self, weight: Tensor) -> Tensor:
        """See `SteadySynapse`."""
        rows, steps = _tap_rows(as_integers(as_matrix(weight))), self.fired.shape[1]
        z = torch.empty(steps, len(self.currents), len(self.sources), len(weight))
        seen, of_weight = (self.currents, self.common, self.ends, self.seers), (rows, self._whole(rows))
        out, at_once, work = z.numpy(), train_sums.WORD_STEPS, self._work(len(weight))
        for first in range(0, steps, at_once):
            fired = self.fired[:, first : first + at_once]
            some = words_of(fired, range(at_once)), fired.shape[1]
            split(steady_places.weigh, len(self.currents), *seen, *some, *of_weight, first, out, work=work)
        return z.flatten(1, 2)

    def gradients(self, grad: Tensor, weight: Tensor, images: Tensor, slopes: Any) -> tuple[Tensor, Any]:
        """See `SteadySynapse`; of a gradient in float32."""
        pixels, outputs = images.permute(0, 2, 3, 1).flatten(1).contiguous().numpy(), len(weight)
        fired = self.fired.astype(np.float32)
        factors = np.stack([fired, np.zeros_like(fired) if slopes is None else slopes], 2).ravel()
        rows = _tap_rows(as_matrix(weight).float())
        by_place = as_array(grad).reshape(len(grad), len(self.currents), len(self.sources), outputs)
        common = pixels.ravel()[self.place_of_common], self.common
        seen = self.currents, pixels, common, self.ends, self.seers, self.fired[self.common].any(), factors
        of_weight = rows, self._whole(rows), by_place
        shape, work = (rows.size + 2,), self._work(outputs)
        total = split_sum(steady_places.gradients, len(pixels), *seen, *of_weight, shape=shape, work=work)
        of_taps = torch.from_numpy(total[:-2].reshape(rows.shape)[:, :outputs]).float()
        return as_weight(of_taps.T, weight), total[-2:]

    def _whole(self, rows: Any) -> Any:
        """The sum of the rows of each place's taps."""
        return (self.sources >= 0).astype(np.float32) @ rows

    def _work(self, outputs: int) -> int:
        """As `split` counts."""
        places = len(self.currents) * len(self.sources)
        return int(places * outputs * (self.fired.shape[1] + self.sources.shape[1]))


def _tap_rows(matrix: Tensor) -> Any:
    """`[O, K]` as `[K, W]`, float32, with zeros behind the outputs: see `steady_places.weigh`."""
    return F.pad(matrix.float(), (0, 0, 0, -len(matrix) % LANES)).T.contiguous().numpy()
