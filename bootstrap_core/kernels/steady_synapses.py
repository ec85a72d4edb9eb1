"""Synapses behind input neurons, whose current is the same at each step, dense or convolutional; see `steady_inputs`.

Both give the weighted input `[T, R, O]` of `R` rows, which are images, or for a convolution the places of all images.
"""

from itertools import count
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.fixed_point import STATE_PER_MANT, WEIGHT_STEP
from bootstrap_core.functional.surrogate import exponential_surrogate
from bootstrap_core.kernels import steady_inputs
from bootstrap_core.kernels.conv_op import spike_convolution_gradients
from bootstrap_core.kernels.dense_products import as_integers
from bootstrap_core.kernels.dense_trains import TableTrains, synaptic_work, weigh, weight_grad
from bootstrap_core.kernels.exact_products import PackedWeight
from bootstrap_core.kernels.half import multiplies_tiles
from bootstrap_core.kernels.neuron_run import NeuronRun, as_array
from bootstrap_core.kernels.patches import as_matrix, sources_of
from bootstrap_core.kernels.threads import split, split_sum
from bootstrap_core.kernels.transposes import turned

__all__ = ["InputTables", "SteadyConv", "SteadyDense", "SteadySynapse"]

SEEN = 1 << 20
"""Pixels, of all steps, that a thread takes at once: 12 MiB are made of them."""

FEW_STEPS, MORE_STEPS = 2, 12
"""Steps up to which a product with the weights tells what reaches each pixel sooner than mixing gradients for each
current does: where hardly a pixel is apart from the most common value, and how many more where all are."""


class InputTables:
    """What follows from an input neuron's current, for each mantissa, int32, between the lowest and the highest."""

    def __init__(self, mantissas: Tensor, steps: int, voltage_decay: Tensor, threshold: float, subtract: bool) -> None:
        lowest, highest = (int(bound) for bound in torch.aminmax(mantissas))
        self.indices = mantissas - lowest
        z = torch.arange(lowest, highest + 1).float().expand(steps, 1, -1)
        spikes, entered, voltage = (torch.empty(z.shape, dtype=dtype) for dtype in (torch.int8, z.dtype, z.dtype))
        neuron = torch.ones(1), voltage_decay, None, threshold, subtract
        NeuronRun(z, STATE_PER_MANT, *neuron, reach=max(-lowest, highest)).forward(spikes, entered, voltage)
        self.fired = spikes[:, 0].T.contiguous().numpy()  # [currents, T]
        self.voltage = voltage[:, 0]

    def slopes(self, voltage_decay: Tensor, threshold: float, tau_grad: float, scale_grad: float) -> Any:
        """What a gradient of the spike at each step is worth to the current, `[currents, T]`."""
        surrogate = exponential_surrogate(self.voltage, threshold=threshold, tau_grad=tau_grad, scale_grad=scale_grad)
        # d voltage[t] / d current = 1 + keep + ... + keep^t: the leak is differentiated, the reset is not
        keep = (1 - voltage_decay.detach().double()).expand(len(surrogate))
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
        rows, lowest = as_array(grad).reshape(grad.shape), images.min()
        shared: tuple[Any, ...] = self.currents, images.numpy(), np.float32(lowest.item()), slopes
        few = FEW_STEPS + MORE_STEPS * (images != lowest).float().mean().item()
        if len(grad) <= few or (grad.dtype == torch.bfloat16 and multiplies_tiles()):
            reached = grad @ weight.to(grad.dtype)
            shared = *shared, weight.sum(1).numpy(), rows, as_array(reached).reshape(reached.shape)
            add, unit = steady_inputs.pixel_sums, 1.0
        else:
            shared = *shared, as_integers(turned(weight)).numpy(), rows
            add, unit = steady_inputs.input_sums, WEIGHT_STEP
        work = synaptic_work(self.trains, len(weight))
        return unit * split_sum(add, len(images), *shared, shape=(2,), work=work)


class SteadyConv:
    """Convolutions of `[N, C, H, W]`, forward as products of `patches`."""

    def __init__(self, tables: InputTables, geometry: list[int]) -> None:
        currents = tables.indices.permute(0, 2, 3, 1).contiguous()  # [N, H, W, C]
        self.currents = currents.flatten(1).numpy()
        self.geometry, self.sources = geometry, sources_of(tuple(currents.shape[1:]), tuple(geometry))
        self.fired = tables.fired

    def weigh(self, weight: Tensor) -> Tensor:
        """See `SteadySynapse`."""
        z = PackedWeight(as_integers(as_matrix(weight))).weigh(self._spikes()).float()
        return z.view(self.fired.shape[1], -1, len(weight))

    def gradients(self, grad: Tensor, weight: Tensor, images: Tensor, slopes: Any) -> tuple[Tensor, Any]:
        """See `SteadySynapse`; of a gradient in float32.

        The sums are those of the weight and what its gradient would be if slopes, or slopes times pixels, came in
        instead of spikes: one convolution's gradient by its weight gives all three.
        """
        channels, *size = images.shape[1:]
        pixels, fired = images.permute(0, 2, 3, 1).flatten(1).numpy(), self.fired.T.astype(np.float32, order="C")
        slopes = np.zeros_like(fired) if slopes is None else np.ascontiguousarray(slopes.T)
        rows = grad.view(len(grad) * len(images), len(self.sources), len(weight))
        like, n_at_once = weight.detach().repeat(1, 3, 1, 1), max(1, SEEN * torch.get_num_threads() // pixels.shape[1])
        by_kind = torch.zeros(like.shape)
        for first, some in zip(count(0, n_at_once), rows.split(n_at_once), strict=False):
            seen = self._see(pixels, fired, slopes, first, len(some)).view(1, len(some), *size, channels * 3)
            into = some.flatten(0, 1)[None], seen.permute(0, 1, 4, 2, 3)
            by_kind += spike_convolution_gradients(*into, like, self.geometry, 1, arrives=False, learns=True)[1]
        of_spikes, of_slopes, of_products = by_kind.unflatten(1, (channels, 3)).unbind(2)
        sums = [(weight.detach().double() * of).sum().item() for of in (of_products, of_slopes)]
        return of_spikes.contiguous(), np.array(sums)

    def _see(self, pixels: Any, fired: Any, slopes: Any, first: int, n: int) -> Tensor:
        """What `steady_inputs.see` tells of n rows."""
        seen = torch.empty(n, pixels.shape[1] * 3)
        out = seen.numpy()
        split(steady_inputs.see, n, self.currents, pixels, fired, slopes, first, out, work=seen.numel())
        return seen

    def _spikes(self) -> Tensor:
        """Patches of the spikes, `[T * R, K * C]`, int8."""
        bits = np.packbits(self.fired.astype(bool), axis=1, bitorder="little")  # eight steps a byte
        words = np.take(np.ascontiguousarray(bits.T), self.currents, axis=1)  # [T / 8, N, HWC]
        spikes = torch.empty(self.fired.shape[1], len(self.currents), self.sources.size, dtype=torch.int8)
        out = spikes.numpy()
        split(steady_inputs.unpack_patches, len(self.currents), words, self.sources.ravel(), out, work=out.size)
        return spikes.view(-1, self.sources.shape[1])
