"""Products of spikes with weights and gradients: of all neurons, or, where few spike, by following them."""

import numpy as np
import torch
from torch import Tensor

from bootstrap_core.kernels import dense_trains, event_products, grid_loop, subset_sums
from bootstrap_core.kernels.exact_products import PackedWeight, has_int8_instruction, is_narrow
from bootstrap_core.kernels.half import multiplies_tiles
from bootstrap_core.kernels.neuron_run import as_array
from bootstrap_core.kernels.patches import EACH_ALONE
from bootstrap_core.kernels.threads import split
from bootstrap_core.kernels.transposes import turned

__all__ = ["as_integers", "contiguous_rows", "correlate", "least_rate", "weigh"]

DENSE_FROM = 0.1
"""Rate of spikes from which a matrix product is faster than following them, for many outputs."""

MANY = 512
"""Outputs that pay for finding the spikes, which is work by itself; the rate is less for fewer."""

SLOWNESS = {torch.int8: 0.25 if has_int8_instruction() else 5.0, torch.bfloat16: 1.0, torch.float32: 2.0}
"""How long products of each type take, in the unit of `DENSE_FROM`."""

SLOWNESS_OF_TABLES = 1.25
"""How long `subset_sums` takes."""

LEAST_STEPS, MOST_INPUTS = 9, 2048
"""Of fewer steps, and of more inputs, whose trains' sums leave the cache, tables are better made of several images."""

SLOWNESS_IN_TILES = {**SLOWNESS, torch.bfloat16: 0.5}
"""The same, where the CPU multiplies whole tiles."""


def least_rate(outputs: int) -> float:
    """Rate of spikes from which a matrix product is faster than following them."""
    return DENSE_FROM * min(1.0, outputs / MANY)


def _are_dense(spikes: Tensor, outputs: int, slowness: float) -> bool:
    """Whether spikes `[R, I]`, whose rate some hundred rows tell, are better all taken, in a product so slow."""
    some = spikes[:: max(1, len(spikes) // 256)].numpy()  # whose count wakes no thread
    return bool(np.count_nonzero(some) >= least_rate(outputs) * slowness * some.size)


def weigh(spikes: Tensor, weight: Tensor) -> Tensor:
    """`spikes @ weight.T` in steps of a weight, float32, of `[T, N, I]`, int8, and `[O, I]` on its grid."""
    rows = spikes.flatten(0, 1)
    if _are_dense(rows, len(weight), SLOWNESS[torch.int8]) or not is_narrow(weight):
        return PackedWeight(as_integers(weight)).weigh(rows).float().view(*spikes.shape[:2], len(weight))
    return dense_trains.weigh(dense_trains.SpikeTrains(spikes), as_integers(turned(weight)))


def correlate(spikes: Tensor, grad: Tensor) -> Tensor:
    """The gradient `[O, I]`, float32, of a weight, for spikes `[T, N, I]`, int8, and the gradient `[T, N, O]`."""
    rows, of_rows = contiguous_rows(spikes.flatten(0, 1)), grad.flatten(0, 1)
    (n_rows, inputs), outputs = rows.shape, grad.shape[2]
    looks_up = grad.dtype == torch.float32 and subset_sums.is_faster(n_rows, 1, inputs)
    of_products = (SLOWNESS_IN_TILES if multiplies_tiles() else SLOWNESS)[grad.dtype]
    if _are_dense(rows, outputs, SLOWNESS_OF_TABLES if looks_up else of_products):
        if looks_up and len(grad) >= LEAST_STEPS and inputs <= MOST_INPUTS:
            return dense_trains.weight_grad(dense_trains.SpikeTrains(spikes), grad)
        if looks_up:
            return subset_sums.weight_grad(rows, of_rows[:, None], (1, 1, inputs), EACH_ALONE)
        return (of_rows.t() @ rows.to(grad.dtype)).float()
    out = torch.empty(inputs, outputs)
    x, g, total = rows.numpy(), as_array(of_rows).reshape(of_rows.shape), out.numpy()
    split(event_products.add_columns, inputs, x, g, total, work=grad.numel(), align=16)
    return out.t().contiguous()


def contiguous_rows(x: Tensor) -> Tensor:
    """`x` with strides `(columns, 1)`, which loops are compiled for: a single row or column may have others."""
    return x if x.stride() == (x.shape[1], 1) else x.clone(memory_format=torch.contiguous_format)


def as_integers(weight: Tensor) -> Tensor:
    """Weights in steps of `WEIGHT_STEP`, int8."""
    steps = torch.empty(weight.shape, dtype=torch.int8)
    given, found = as_array(weight), steps.view(-1).numpy()
    split(grid_loop.count_steps, given.size, given, found, work=given.size)
    return steps
