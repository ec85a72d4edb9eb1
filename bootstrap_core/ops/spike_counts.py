"""Spike counts. Definition: the sum of the spikes over time."""

from typing import Any

import torch
from torch import Tensor

from bootstrap_core.ops.library import call, pointer, runs_native
from bootstrap_core.ops.spikes import Spikes


def count(spikes: Spikes) -> Tensor:
    """Return the number of spikes of each neuron, `[N, C, ...]`, float32; for graded messages their sum, in float64.

    Each step gets the gradient of the count.
    """
    if spikes.values is not None:
        x = spikes.values
        by_number = x[0] * spikes.steps if spikes.is_constant else x.sum(0)
        return by_number.flatten(1) if spikes.is_flat else by_number
    assert spikes.words is not None
    if not runs_native(spikes.words):
        return spikes.tensor().sum(0)
    total: Tensor = _Count.apply(spikes.words, spikes.link, spikes.steps)  # type: ignore[no-untyped-call]
    return total.flatten(1) if spikes.is_flat else total


class _Count(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, words: Tensor, link: Tensor | None, steps: int) -> Tensor:
        ctx.steps, ctx.dtype = steps, torch.float32 if link is None else link.dtype
        total = torch.empty(words.shape[1:], dtype=torch.float32)
        call("snn_count", pointer(words), len(words), total.numel(), total.data_ptr())
        return total if total.dim() == 2 else total.movedim(-1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        return None, grads[0].to(ctx.dtype).expand(ctx.steps, *grads[0].shape), None
