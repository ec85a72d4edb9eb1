"""Synapses in integers alone: from spikes or graded pixels to weighted input."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.kernels.exact_products import PackedConvolution, PackedWeight
from bootstrap_core.network.blocks import AffineBlock, SpikingBlock
from bootstrap_core.network.synapse import DenseSynapse, IdentitySynapse, SkipSynapse, Synapse

__all__ = ["Weigh", "integer_synapses"]

Weigh = Callable[[Tensor], Tensor]
"""Spikes `[N, ...]`, int8 (or graded, int32), to weighted input in steps of `WEIGHT_STEP`.

int64; or int32, of sums that stay within 32 bits in state units, too.
"""


def integer_synapses(block: SpikingBlock | AffineBlock) -> list[Weigh]:
    """The block's own synapses, then those of its skips; a snapshot of their weights."""
    return [_integer_synapse(synapse, weight) for synapse, weight in block.synapses()]


def _integer_synapse(synapse: Synapse | SkipSynapse, weight: Tensor) -> Weigh:
    integers = (weight / WEIGHT_STEP).round().to(torch.int8)
    if isinstance(synapse, IdentitySynapse):
        return partial(torch.mul, integers.long().reshape(synapse.broadcast))
    if isinstance(synapse, DenseSynapse):
        return partial(_weigh_flat, PackedWeight(integers))
    spec = synapse.spec
    return partial(_weigh_maps, PackedConvolution(integers, spec.stride, spec.padding, spec.dilation, spec.groups))


def _weigh_flat(weight: PackedWeight, x: Tensor) -> Tensor:
    return _whole(weight.weigh(x.flatten(1)))


def _weigh_maps(weight: PackedConvolution, x: Tensor) -> Tensor:
    return _whole(weight.weigh(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def _whole(product: Tensor) -> Tensor:
    """Integers that fit what floats, which hold them exactly, can be."""
    return product.to(torch.int32 if product.dtype == torch.float32 else torch.int64)
